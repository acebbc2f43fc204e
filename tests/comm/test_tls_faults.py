"""Whose fault a refusal is: a certificate above the leaf, our CA file, one version too few."""

from __future__ import annotations

import asyncio
import functools
import logging
import re
import ssl
from collections.abc import Callable
from typing import Any

import pytest
from cryptography import x509

from sealwire.comm import Comm, CommClosedError, HandshakeError, connect, listen
from sealwire.comm.transport.client import FrameClient
from sealwire.security import Security
from support import certs
from support.aio import aio, until
from support.certs import CLIENT, DAY, SECOND, SERVER, Node
from support.handshakes import VERSIONS, foreign_context, security

ROOT = certs.root("root")
GOOD = certs.leaf(ROOT, "good")
OLD: dict[str, Any] = {"start": -9 * DAY, "end": -SECOND}

versions = pytest.mark.parametrize("version", VERSIONS, ids=["TLS1.2", "TLS1.3"])
sides = pytest.mark.parametrize("bad_side", ["client", "server"])


async def never(comm: Comm) -> None:
    raise AssertionError(comm)


async def refused(
    server: Security | ssl.SSLContext, client: Security | ssl.SSLContext, caplog: Any
) -> tuple[str, str]:
    """What the server's log and the client's error say."""
    caplog.set_level(logging.INFO, "sealwire.comm")
    caplog.clear()
    handled: list[Comm] = []
    if isinstance(server, Security):
        server = server.get_listen_args("scheduler")["ssl_context"]
    if isinstance(client, Security):
        client = client.get_connection_args("worker")["ssl_context"]
    async with listen("tls://127.0.0.1:0", handled.append, ssl_context=server) as listener:
        with pytest.raises(HandshakeError) as caught:
            await connect(listener.contact_address, timeout=30, ssl_context=client)
        for _ in range(30_000):
            lines = [line for line in caplog.messages if line.startswith("listener on")]
            if lines:
                break
            await asyncio.sleep(0.001)
    assert not handled
    (line,) = lines
    return line, str(caught.value)


def below(**changes: Any) -> Node:
    above = certs.intermediate(ROOT, "the one above", **changes)
    return certs.leaf(above, "worker", via=[above])


FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "expired": (OLD, "CN=the one above expired 20"),
    "not yet valid": ({"start": DAY}, "CN=the one above not valid before 20"),
    "no CA": (
        {"constraints": x509.BasicConstraints(False, None)},
        "CN=the one above is no CA",
    ),
    "for servers": ({"purposes": [SERVER]}, "CN=the one above is for serverAuth alone"),
    "for clients": ({"purposes": [CLIENT]}, "CN=the one above is for clientAuth alone"),
}


@versions
@sides
@pytest.mark.parametrize("fault", FAULTS)
@aio
async def test_the_certificate_above_is_named(
    fault: str, bad_side: str, version: ssl.TLSVersion, caplog: pytest.LogCaptureFixture
) -> None:
    changes, words = FAULTS[fault]
    if changes.get("purposes") == [SERVER if bad_side == "server" else CLIENT]:
        changes, words = FAULTS["for clients" if bad_side == "server" else "for servers"]
    both = {"tls_min_version": version, "tls_max_version": version}
    bad, good = security(below(**changes), [ROOT], **both), security(GOOD, [ROOT], **both)
    server, client = (good, bad) if bad_side == "client" else (bad, good)
    log, error = await refused(server, client, caplog)
    own = log if bad_side == "server" else error  # of the side whose certificate it is
    assert f"and above it {words}" in own
    if bad_side == "server":  # a client knows what it has refused
        assert f"(it is worker, whose CA {words}" in error


@versions
@aio
async def test_the_leaf_itself_is_not_blamed_on_others(
    version: ssl.TLSVersion, caplog: pytest.LogCaptureFixture
) -> None:
    for changes in (OLD, {"purposes": [CLIENT]}):
        between = certs.intermediate(ROOT, "sound")
        node = certs.leaf(between, "worker", via=[between], **changes)
        both = {"tls_min_version": version, "tls_max_version": version}
        args = security(node, [ROOT], **both), security(GOOD, [ROOT], **both)
        log, error = await refused(*args, caplog)
        assert "(it is worker, " in error
        assert "whose CA" not in log + error
        assert "above it CN" not in log + error


OURS: dict[str, tuple[list[Node], Node, str]] = {
    "our CA has expired": (
        [certs.root("gone", **OLD)],
        GOOD,
        "CN=gone expired 20",
    ),
    "a leaf in place of the CA": ([GOOD], GOOD, "CN=good in it is not used, since it is no CA"),
    "our issuing CA has expired": (
        [issuing := certs.intermediate(ROOT, "issuing", **OLD)],
        certs.leaf(issuing, "worker"),
        "CN=issuing expired 20",
    ),
    "our issuing CA is not marked as one": (
        [unmarked := certs.intermediate(ROOT, "issuing", constraints=None)],
        certs.leaf(unmarked, "worker"),
        "CN=issuing in it is not used, since it may sign, but basicConstraints",
    ),
    "our issuing CA is for clients": (
        [narrow := certs.intermediate(ROOT, "issuing", purposes=[CLIENT])],
        certs.leaf(narrow, "worker"),
        "CN=issuing is for clientAuth alone",
    ),
}


@versions
@pytest.mark.parametrize("name", OURS)
@aio
async def test_the_fault_is_in_our_own_file(
    name: str, version: ssl.TLSVersion, caplog: pytest.LogCaptureFixture
) -> None:
    trust, peer, words = OURS[name]
    ours = security(GOOD, trust)
    server = foreign_context("server", peer, [ROOT], version=version)
    _, error = await refused(server, ours, caplog)
    assert f"the fault may be in our tls_ca_file (PEM text in memory): {words}" in error
    assert error.endswith("or mend our CA file")
    if "for clients" not in name:
        client = foreign_context("client", peer, [ROOT], version=version)
        log, _ = await refused(ours, client, caplog)
        assert f"the fault may be in our tls_ca_file (PEM text in memory): {words}" in log


@versions
@aio
async def test_a_stranger_is_not_our_fault(
    version: ssl.TLSVersion, caplog: pytest.LogCaptureFixture
) -> None:
    stranger = certs.leaf(certs.root("another"), "stranger")
    issuing = certs.intermediate(ROOT, "issuing")
    for trust in ([ROOT], [issuing], [issuing, ROOT]):
        server = foreign_context("server", stranger, [ROOT], version=version)
        _, error = await refused(server, security(GOOD, trust), caplog)
        assert "the fault may be in our" not in error
        assert "(our CA: tls_ca_file (PEM text in memory), valid until" in error


@sides
@aio
async def test_a_revoked_ca_above_is_told_to_both(
    bad_side: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Where only we look it up, after the handshake."""
    issuing = certs.intermediate(ROOT, "issuing")
    above = certs.intermediate(issuing, "the one above")
    lists = certs.crl(issuing, above) + certs.crl(above)
    bad = security(certs.leaf(above, "worker", via=[above]), [ROOT])
    good = security(GOOD, [issuing], tls_crl_file=lists)
    server, client = (good, bad) if bad_side == "client" else (bad, good)
    log, error = await refused(server, client, caplog)
    refuser, told = (log, error) if bad_side == "client" else (error, log)
    assert "we refused its certificate: its CA CN=the one above has been revoked" in refuser
    assert "it refused our certificate: its CA CN=the one above has been revoked" in told


VERSIONS_OF_BOTH = [
    # server, client: least and most; what the server and what the client says
    (("1.3", None), (None, "1.2"), "it speaks TLS version 1.2 at most, and we want 1.3",
     "we speak TLS version 1.2 at most, and it does not take that"),
    ((None, "1.2"), ("1.3", None), "we speak TLS version 1.2 at most, and it does not take that",
     "it speaks TLS version 1.2 at most, and we want 1.3"),
    (("1.3", "1.3"), ("1.2", "1.2"), "it speaks TLS version 1.2 at most, and we want 1.3",
     "we speak TLS version 1.2 at most, and it does not take that"),
]  # fmt: skip


@pytest.mark.parametrize(("server", "client", "by_server", "by_client"), VERSIONS_OF_BOTH)
@aio
async def test_one_version_too_few(
    server: Any, client: Any, by_server: str, by_client: str, caplog: pytest.LogCaptureFixture
) -> None:
    made = [
        security(GOOD, [ROOT], tls_min_version=least, tls_max_version=most)
        for least, most in (server, client)
    ]
    log, error = await refused(*made, caplog)
    assert by_server in log
    assert by_client in error


@pytest.mark.parametrize("text", ["it is not one of ours", ""])
@pytest.mark.parametrize(
    "made",
    [
        ssl.SSLError,
        functools.partial(ssl.SSLError, 1),
        ssl.CertificateError,
        functools.partial(ssl.SSLCertVerificationError, 1),
    ],
    ids=["text", "number and text", "certificate", "number and certificate"],
)
@sides
@aio
async def test_a_socket_class_of_the_users_may_refuse_in_its_own_words(
    bad_side: str, made: Callable[[str], ssl.SSLError], text: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Such an error has none of the attributes that OpenSSL's have."""

    class Choosy(ssl.SSLSocket):
        def do_handshake(self, block: bool = False) -> None:
            super().do_handshake(block)
            raise made(text)

    caplog.set_level(logging.INFO, "sealwire.comm")
    contexts = {side: foreign_context(side, GOOD, [ROOT]) for side in ("server", "client")}
    contexts[bad_side].sslsocket_class = Choosy
    async with listen("tls://127.0.0.1:0", never, ssl_context=contexts["server"]) as listener:
        host, port = listener.contact_address.removeprefix("tls://").split(":")
        with pytest.raises(CommClosedError) as caught:
            await FrameClient().connect(host, int(port), ssl_options=contexts["client"])
        await until(lambda: bool(caplog.records))
    words = {"server": caplog.messages[0], "client": str(caught.value)}[bad_side]
    said = text or type(made("")).__name__
    assert re.search(rf"TLS handshake with tls://[\d.:]+ failed: (.*: )?{said}[ ;]", words)
    assert not [record for record in caplog.records if record.exc_info]


@sides
@aio
async def test_a_fault_of_such_a_class_is_the_programs(
    bad_side: str, caplog: pytest.LogCaptureFixture
) -> None:
    class Faulty(ssl.SSLSocket):
        def do_handshake(self, block: bool = False) -> None:
            super().do_handshake(block)
            raise LookupError("a fault")

    contexts = {side: foreign_context(side, GOOD, [ROOT]) for side in ("server", "client")}
    contexts[bad_side].sslsocket_class = Faulty
    async with listen("tls://127.0.0.1:0", never, ssl_context=contexts["server"]) as listener:
        host, port = listener.contact_address.removeprefix("tls://").split(":")
        expected = LookupError if bad_side == "client" else CommClosedError
        with pytest.raises(expected):
            await FrameClient().connect(host, int(port), ssl_options=contexts["client"])
        await until(lambda: sum(listener.stats.refused.values()) > 0)
    faults = [record for record in caplog.records if record.exc_info]
    assert [fault.getMessage().partition(": cannot greet tls://")[1] for fault in faults] == (
        [": cannot greet tls://"] if bad_side == "server" else []
    )
