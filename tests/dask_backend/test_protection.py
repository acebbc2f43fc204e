"""What is configured holds for every context, or is refused, or is said not to hold."""

from __future__ import annotations

import logging
import multiprocessing
import ssl
from collections.abc import Callable, Iterator
from typing import Any

import dask
import distributed
import pytest
from cryptography import x509
from distributed.comm import connect, listen
from distributed.security import Security as Stock

import sealwire.dask_backend
from sealwire.dask_backend import install, protection, uninstall
from sealwire.dask_backend.adoption import adopt
from sealwire.dask_backend.links import links
from sealwire.security import ConfigError
from sealwire.security.contexts.policy import SealedContext
from support import certs
from support.handshakes import client_context, foreign_context, security, server_context
from support.parties import ROLES, asynchronous, echo

CA = certs.root()
NODES = {role: certs.leaf(CA, role) for role in ROLES}
REVOKED = certs.leaf(CA, "worker")
CRL = "sealwire.tls.crl-file"
LIST = "sealwire.tls.allowed-peers"
PEM = {
    "tls_ca_file": CA.pem,
    **{f"tls_{role}_cert": node.pem + node.key_pem for role, node in NODES.items()},
}
CONFIGURED: dict[str, dict[str, Any]] = {
    "CRL": {CRL: certs.crl(CA, REVOKED)},
    "list": {LIST: {"scheduler": ["worker*"], "client": ["scheduler*"]}},
    "both": {CRL: certs.crl(CA, REVOKED), LIST: ["worker*", "scheduler*"]},
}


@pytest.fixture(params=CONFIGURED)
def configured(request: pytest.FixtureRequest) -> Iterator[dict[str, Any]]:
    with dask.config.set(CONFIGURED[request.param]):
        yield CONFIGURED[request.param]


# Subclasses


class Nothing(Stock):
    """A site's own, which adds nothing."""


class Below(Nothing):
    __slots__ = Stock.__slots__


class Calls(Stock):
    """Adds something to what it is given."""

    def get_listen_args(self, role: str) -> dict[str, Any]:
        return {**super().get_listen_args(role), "handshake_overrides": {}}


class Beside:
    def get_listen_args(self, role: str) -> dict[str, Any]:
        args: dict[str, Any] = super().get_listen_args(role)  # type: ignore[misc]
        return args


class Mixed(Beside, Stock):
    pass


class Values(Stock):
    """Finds its certificates elsewhere."""

    def __init__(self) -> None:
        super().__init__(tls_ca_file="/nowhere", tls_scheduler_cert="/nowhere")

    def get_tls_config_for_role(self, role: str) -> dict[str, Any]:
        return {"ca_file": CA.pem, "cert": PEM[f"tls_{role}_cert"], "key": None, "ciphers": None}


def of(kind: type[Stock]) -> Stock:
    return kind() if kind is Values else kind(**PEM)


GIVEN_OURS = [Stock, Nothing, Below, Calls, Mixed, Values]


@pytest.mark.parametrize("kind", GIVEN_OURS)
@asynchronous
async def test_a_subclass_has_what_is_configured(
    kind: type[Stock], configured: dict[str, Any]
) -> None:
    args = of(kind).get_listen_args("scheduler")
    assert isinstance(args["ssl_context"], SealedContext)
    good = foreign_context("client", NODES["worker"], [CA])
    async with listen("tls://127.0.0.1:0", echo, **args) as listener:
        comm = await connect(listener.contact_address, ssl_context=good)
        await comm.write("let in")
        assert await comm.read() == "let in"
        comm.abort()
        for name, node, set_ in (
            ("revoked", REVOKED, CRL),
            ("not on the list", NODES["client"], LIST),
        ):
            if set_ in configured:
                bad = foreign_context("client", node, [CA])
                with pytest.raises(OSError, match="it refused our certificate"):
                    await connect(listener.contact_address, timeout=5, ssl_context=bad)
                assert listener.stats.greeted == 1, name


class Makes(Stock):
    def get_listen_args(self, role: str) -> dict[str, Any]:
        return {"ssl_context": foreign_context("server", NODES[role], [CA])}


class MakesBelow(Makes):
    """Has it from another."""


class Maker(Stock):
    def _get_tls_context(self, tls: Any, purpose: Any) -> ssl.SSLContext:
        return foreign_context("server", NODES["scheduler"], [CA])


class Aside:
    def get_listen_args(self, role: str) -> dict[str, Any]:
        return {"ssl_context": foreign_context("server", NODES[role], [CA])}


class MixedMaker(Aside, Stock):
    pass


class OfOurs(Stock):
    """Sealed, and made without what is configured."""

    def get_listen_args(self, role: str) -> dict[str, Any]:
        bare = security(NODES[role], [CA], tls_crl_file=None, tls_allowed_peers=None)
        return {"ssl_context": server_context(bare)}


def later() -> type[Stock]:
    """Made after the backends were installed."""

    class Later(Stock):
        def get_listen_args(self, role: str) -> dict[str, Any]:
            return {"ssl_context": foreign_context("server", NODES[role], [CA])}

    return Later


MAKE_THEIR_OWN = [Makes, MakesBelow, Maker, MixedMaker, OfOurs, later]


@pytest.mark.parametrize("kind", MAKE_THEIR_OWN, ids=lambda kind: kind.__name__)
def test_a_subclass_that_lacks_it_is_refused(
    kind: Callable[[], Any], configured: dict[str, Any]
) -> None:
    made = kind() if kind is later else kind
    with pytest.raises(ConfigError) as caught:
        of(made).get_listen_args("scheduler")
    assert any(name in str(caught.value) for name in configured)
    assert ".get_listen_args" in str(caught.value) or "._get_tls_context" in str(caught.value)
    assert "for role scheduler" in str(caught.value)


@pytest.mark.parametrize("kind", MAKE_THEIR_OWN, ids=lambda kind: kind.__name__)
def test_without_anything_configured_it_is_told_of_once(
    kind: Callable[[], Any], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sealwire.dask_backend import adoption

    monkeypatch.setattr(adoption, "_reported", set())
    made = kind() if kind is later else kind
    for _ in range(3):
        assert of(made).get_listen_args("scheduler")["ssl_context"] is not None
    told = [r for r in caplog.records if r.name == "sealwire.dask_backend"]
    assert len(told) == (0 if kind is OfOurs else 1)
    assert all("makes a TLS context that is not ours" in r.getMessage() for r in told)


def test_a_role_that_is_on_no_list_talks_to_everyone() -> None:
    with dask.config.set({LIST: {"worker": ["scheduler"]}}):
        assert Makes(**PEM).get_listen_args("scheduler")["ssl_context"] is not None
        with pytest.raises(ConfigError, match="allowed-peers"):
            Makes(**PEM).get_listen_args("worker")


def test_uninstalling_gives_every_method_back() -> None:
    before = {kind: dict(vars(kind)) for kind in (Stock, Makes, MixedMaker, Calls, Maker)}
    uninstall()
    without = {kind: dict(vars(kind)) for kind in before}
    assert "get_listen_args" not in vars(MixedMaker)
    assert "__init_subclass__" not in vars(Stock)
    install()
    install()
    assert {kind: set(vars(kind)) for kind in before} == {k: set(v) for k, v in before.items()}
    uninstall()
    assert {kind: dict(vars(kind)) for kind in before} == without


class Server:
    """As a worker whose context was made before our backends came."""

    def __init__(self, one: Stock) -> None:
        self.security = one
        self.connection_args: dict[str, Any] = {
            "ssl_context": foreign_context("client", NODES["worker"], [CA])
        }


@pytest.mark.parametrize("kind", [Nothing, Below, Values, Calls])
def test_a_server_with_a_subclass_is_adopted(kind: type[Stock]) -> None:
    server = Server(of(kind))
    adopt(server)
    assert isinstance(server.connection_args["ssl_context"], SealedContext)


@pytest.mark.parametrize("kind", [Stock, Nothing, Below])
def test_a_subclass_installs_our_backends_in_a_child(kind: type[Stock]) -> None:
    one = Stock.__reduce_ex__(of(kind), 4)
    assert not isinstance(one, str)
    context = multiprocessing.get_context("spawn")
    popen = multiprocessing.context.get_spawning_popen
    multiprocessing.context.set_spawning_popen(context)
    try:
        make, *_ = of(kind).__reduce_ex__(4)
    finally:
        multiprocessing.context.set_spawning_popen(None)
    assert popen() is None
    assert make.__module__ == "sealwire.dask_backend.patches"


# Self-check


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelno == logging.ERROR]


CONTEXTS: dict[str, Callable[[], ssl.SSLContext]] = {
    "foreign": lambda: foreign_context("server", NODES["scheduler"], [CA]),
    "sealed": lambda: server_context(
        security(NODES["scheduler"], [CA], tls_crl_file=None, tls_allowed_peers=None)
    ),
}


@pytest.mark.parametrize("name", CONTEXTS)
@asynchronous
async def test_a_listener_says_what_does_not_hold(
    name: str, configured: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """Once for a context, and `links` says it for each comm."""
    context = CONTEXTS[name]()
    good = Stock(**PEM).get_connection_args("worker")["ssl_context"]
    for _ in range(2):
        async with listen("tls://127.0.0.1:0", echo, ssl_context=context) as listener:
            comm = await connect(listener.contact_address, ssl_context=good)
            mine = {link["local"]: link for link in links()}
            (accepted,) = [
                link for link in mine.values() if link["local"] == listener.contact_address
            ]
            assert len(accepted["unprotected"]) == len(configured)
            comm.abort()
    told = errors(caplog)
    assert len(told) == len(configured)
    for setting in configured:
        assert any(f"does not do what is configured: {setting} is set" in line for line in told)


@asynchronous
async def test_nothing_is_said_where_all_is_well(
    configured: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    one = Stock(**PEM)
    args = one.get_connection_args("worker")
    async with listen("tls://127.0.0.1:0", echo, **one.get_listen_args("scheduler")) as listener:
        comm = await connect(listener.contact_address, **args)
        assert [link["unprotected"] for link in links()] == [[], []]
        comm.abort()
    assert not errors(caplog)


@asynchronous
async def test_a_plain_link_is_told_of_where_encryption_is_required() -> None:
    meant = sealwire.dask_backend.Security(require_encryption=False)
    async with listen("tcp://127.0.0.1:0", echo, **meant.get_listen_args("worker")) as listener:
        comm = await connect(listener.contact_address, **meant.get_connection_args("worker"))
        assert [link["unprotected"] for link in links()] == [[], []]
        with dask.config.set({"distributed.comm.require-encryption": True}):
            assert {link["unprotected"][0].partition(",")[0] for link in links()} == {
                "encryption is required"
            }
        comm.abort()


def test_the_pieces_are_what_the_tests_think() -> None:
    parsed = x509.load_pem_x509_crl(CONFIGURED["CRL"][CRL].encode())
    assert parsed.get_revoked_certificate_by_serial_number(REVOKED.certificate.serial_number)
    assert distributed.Security is Stock
    assert client_context(security(NODES["worker"], [CA])).verify_mode is ssl.CERT_REQUIRED


def test_an_empty_text_configures_no_list() -> None:
    """As an empty variable does, of which no listener complains."""
    for empty in ("", None):
        with dask.config.set({"sealwire.tls.crl-file": empty}):
            assert protection.configured("worker") == {}
    with dask.config.set({"sealwire.tls.crl-file": "/etc/crl.pem"}):
        assert protection.configured("worker") == {"crl": "sealwire.tls.crl-file"}
