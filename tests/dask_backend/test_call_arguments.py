"""What `connect` and `listen` are called with, over our backends: names and contexts."""

from __future__ import annotations

import ssl
from typing import Any

import pytest
from distributed.comm import connect, listen
from distributed.security import Security as Stock

from sealwire.dask_backend import connectors
from support import certs
from support.handshakes import foreign_context, security, server_context
from support.parties import ROLES, asynchronous, echo

CA = certs.root()
NODES = {role: certs.leaf(CA, role) for role in ROLES}
PEM = {
    "tls_ca_file": CA.pem,
    **{f"tls_{role}_cert": node.pem + node.key_pem for role, node in NODES.items()},
}


@pytest.mark.parametrize("scheme", ["tcp", "tls"])
@pytest.mark.parametrize("name", ["ssl_contxt", "require_encrytion"])
@asynchronous
async def test_a_misspelt_argument_is_an_error(scheme: str, name: str) -> None:
    given = {name: server_context(security(NODES["worker"], [CA]))}
    with pytest.raises(TypeError, match="unexpected argument"):
        await listen(f"{scheme}://127.0.0.1:0", echo, **given)
    with pytest.raises(TypeError, match="unexpected argument"):
        await connect(f"{scheme}://127.0.0.1:1", timeout=5, **given)


@asynchronous
async def test_an_argument_of_another_library_is_reported(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Once; distributed's own classes take it too."""
    monkeypatch.setattr(connectors, "_ignored", set())
    for _ in range(2):
        async with listen("tcp://127.0.0.1:0", echo, xxx="bar") as listener:
            comm = await connect(listener.contact_address, timeout=5, xxx="bar")
            await comm.close()
    assert [record.message.count("'xxx'") for record in caplog.records] == [1]


def weak(side: str, **changes: Any) -> ssl.SSLContext:
    context = foreign_context(side, NODES["worker"], [CA])
    for name, value in changes.items():
        setattr(context, name, value)
    return context


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    "changes",
    [
        {"verify_mode": ssl.CERT_NONE},
        {"verify_mode": ssl.CERT_OPTIONAL},
        {"minimum_version": ssl.TLSVersion.TLSv1},
        # Where Python leaves it at that, nobody has chosen it, and it is raised.
        *[
            {"minimum_version": ssl.TLSVersion.MINIMUM_SUPPORTED}
            for unset in (ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).minimum_version,)
            if unset != ssl.TLSVersion.MINIMUM_SUPPORTED
        ],
    ],
)
@asynchronous
async def test_a_context_that_does_not_keep_what_tls_promises(changes: dict[str, Any]) -> None:
    """At once: distributed's `connect` does not try again."""
    with pytest.raises(ValueError, match=r"its ssl_context .*; set context\."):
        await listen("tls://127.0.0.1:0", echo, ssl_context=weak("server", **changes))
    with pytest.raises(ValueError, match=r"its ssl_context .*; set context\."):
        await connect("tls://127.0.0.1:1", ssl_context=weak("client", **changes))
    with pytest.raises(ValueError, match=r"make one with ssl\.PROTOCOL_TLS_SERVER"):
        await listen("tls://127.0.0.1:0", echo, ssl_context=weak("client"))
    with pytest.raises(ValueError, match=r"make one with ssl\.PROTOCOL_TLS_CLIENT"):
        await connect("tls://127.0.0.1:1", ssl_context=weak("server"))


@asynchronous
async def test_a_context_beside_a_plain_address_is_taken() -> None:
    """As in stock: the arguments of a scheduler serve for all of its addresses."""
    one = Stock(require_encryption=False, **PEM)
    async with listen("tcp://127.0.0.1:0", echo, **one.get_listen_args("scheduler")) as listener:
        args = one.get_connection_args("client")
        comm = await connect(listener.contact_address, **args, server_hostname="x")
        await comm.write("let in")
        assert await comm.read() == "let in"
        await comm.close()
