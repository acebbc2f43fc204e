"""Arguments that would open less protection than was meant are errors, before any I/O."""

from __future__ import annotations

import socket
import ssl
import warnings
from collections.abc import Callable
from typing import Any

import pytest

from sealwire.comm import Backend, CommError, EncryptionRequired, arguments, connect, listen
from sealwire.comm.registry import _backends, register
from sealwire.security import Security
from support import certs
from support.aio import aio
from support.handshakes import client_context, foreign_context, security, server_context
from support.links import echo

CA = certs.root()
NODE = certs.leaf(CA)
OURS = security(NODE, [CA])


@pytest.fixture(autouse=True)
def no_io(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Whoever makes a socket has gone too far."""
    if "io" in request.fixturenames:
        return

    def made(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("a socket was made")

    monkeypatch.setattr(socket.socket, "bind", made)
    monkeypatch.setattr(socket.socket, "connect", made)
    monkeypatch.setattr(socket.socket, "connect_ex", made)


@pytest.fixture
def io() -> None:
    """For a test that is to connect."""


async def dial(address: str, **args: Any) -> None:
    await connect(f"{address}:1", timeout=1, **args)


async def bind(address: str, **args: Any) -> None:
    await listen(f"{address}:0", echo, **args)


CALLS = pytest.mark.parametrize("call", [dial, bind])
ADDRESSES = ["tcp://127.0.0.1", "tls://127.0.0.1", "127.0.0.1"]


@CALLS
@pytest.mark.parametrize("address", ADDRESSES)
@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("ssl_contxt", "ssl_context"),
        ("sslcontext", "ssl_context"),
        ("SSL_context", "ssl_context"),
        ("ssl_context_", "ssl_context"),
        ("require_encrytion", "require_encryption"),
        ("required_encryption", "require_encryption"),
        ("Limits", "limits"),
        ("anything", None),
        ("ssl", None),
        ("", None),
    ],
)
@aio
async def test_a_misspelt_argument(
    call: Callable[..., Any], address: str, name: str, near: str | None
) -> None:
    context = server_context(OURS) if call is bind else client_context(OURS)
    with pytest.raises(TypeError, match="unexpected argument") as caught:
        await call(address, **{name: context})
    if near:
        assert f"did you mean {near}?" in str(caught.value)


@aio
async def test_each_call_has_its_own() -> None:
    for args in ({"server_hostname": "x"}, {"extra_conn_args": {}}, {"timeout": 3}):
        with pytest.raises(TypeError):
            await bind("tls://127.0.0.1", ssl_context=server_context(OURS), **args)
    with pytest.raises(TypeError):
        await dial("tcp://127.0.0.1", server_hostname="x")


@pytest.mark.parametrize("scheme", ["tcp", "tls"])
@pytest.mark.parametrize("extra", [{"server_hostnam": "x"}, {"headers": {}}, {5: 6}, {"": ""}])
@aio
async def test_so_are_the_extra_ones(scheme: str, extra: dict[Any, Any]) -> None:
    context = client_context(OURS) if scheme == "tls" else None
    with pytest.raises(TypeError, match="extra_conn_args got an unexpected"):
        await dial(f"{scheme}://127.0.0.1", ssl_context=context, extra_conn_args=extra)


@CALLS
@pytest.mark.parametrize("mapping", [0, False, "", b"", "x", [], ["server_hostname"], (), range(0)])
@aio
async def test_what_is_no_mapping(call: Callable[..., Any], mapping: Any) -> None:
    """Falsy ones too, which are not the arguments that somebody has meant."""
    names = ["connection_args", "extra_conn_args"] if call is dial else ["connection_args"]
    for name in names:
        for more in ({}, {"anything": 1}):
            with pytest.raises(TypeError, match=f"got {name}=.* need a mapping"):
                await call("tls://127.0.0.1", **{name: mapping}, **more)


NAMES = [5, True, b"cluster", ["cluster"], object()]
NO_NAMES = ["", ".", "a..b", ".a", "a\0b", "a\nb", "x" * 64, "\ud800", "a b"]


@pytest.mark.parametrize("where", ["server_hostname", "extra_conn_args"])
@pytest.mark.parametrize(
    ("name", "error"),
    [*((name, TypeError) for name in NAMES), *((name, ValueError) for name in NO_NAMES)],
)
@aio
async def test_what_is_no_server_name(where: str, name: Any, error: type[Exception]) -> None:
    """It was told after the connection, in OpenSSL's words, or again and again for 30 s."""
    args = {where: name if where == "server_hostname" else {"server_hostname": name}}
    with pytest.raises(error, match=r"server_hostname .*; "):
        await dial("tls://127.0.0.1", ssl_context=client_context(OURS), **args)


@CALLS
@pytest.mark.parametrize("address", ADDRESSES)
@pytest.mark.parametrize("context", [False, 0, "", {}, [], "x", {"certfile": "x"}, object(), True])
@aio
async def test_what_is_no_context(call: Callable[..., Any], address: str, context: Any) -> None:
    """Falsy ones too, which would make a bare address a plain one."""
    with pytest.raises(TypeError, match=r"need an ssl\.SSLContext"):
        await call(address, ssl_context=context)


@CALLS
@aio
async def test_a_context_for_plain_tcp(call: Callable[..., Any]) -> None:
    context = server_context(OURS) if call is bind else client_context(OURS)
    with pytest.raises(TypeError, match="would not use it; use tls://127"):
        await call("tcp://127.0.0.1", ssl_context=context)
    with pytest.raises(TypeError, match="would not use it"):
        await call("tcp://127.0.0.1", ssl_context=context, require_encryption=False)
    with pytest.raises(EncryptionRequired):
        await call("tcp://127.0.0.1", ssl_context=context, require_encryption=True)


def changed(side: str, **changes: Any) -> ssl.SSLContext:
    context = foreign_context(side, NODE, [CA])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        for name, value in changes.items():
            setattr(context, name, value)
    return context


def made(protocol: int) -> ssl.SSLContext:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context = ssl.SSLContext(protocol)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    return context


OPTIONAL = "verify_mode is CERT_OPTIONAL"
OLD = "speaks TLS before 1.2"
UNFIT: dict[str, tuple[Callable[[str], ssl.SSLContext], str]] = {
    "nobody": (lambda side: changed(side, verify_mode=ssl.CERT_NONE), "verify_mode is CERT_NONE"),
    "whoever wants": (lambda side: changed(side, verify_mode=ssl.CERT_OPTIONAL), OPTIONAL),
    "default for clients": (
        lambda side: ssl.create_default_context(ssl.Purpose.CLIENT_AUTH),
        "does not demand a certificate",
    ),
    "unverified": (lambda side: ssl._create_unverified_context(), "does not demand a certificate"),
    "of no protocol": (
        lambda side: changed(side, minimum_version=ssl.TLSVersion.MINIMUM_SUPPORTED),
        OLD,
    ),
    "SSL 3": (lambda side: changed(side, minimum_version=ssl.TLSVersion.SSLv3), OLD),
    "TLS 1.0": (lambda side: changed(side, minimum_version=ssl.TLSVersion.TLSv1), OLD),
    "TLS 1.1": (lambda side: changed(side, minimum_version=ssl.TLSVersion.TLSv1_1), OLD),
    "TLS 1.0 left out": (
        lambda side: changed(
            side,
            minimum_version=ssl.TLSVersion.TLSv1,
            options=ssl.OP_NO_TLSv1 | ssl.OP_NO_SSLv3,
        ),
        OLD,
    ),
    "only TLS 1.1": (lambda side: made(ssl.PROTOCOL_TLSv1_1), "make one with ssl.PROTOCOL_TLS_"),
    "the other side's": (
        lambda side: foreign_context({"server": "client", "client": "server"}[side], NODE, [CA]),
        "make one with ssl.PROTOCOL_TLS_",
    ),
    "the other side's, sealed": (
        lambda side: client_context(OURS) if side == "server" else server_context(OURS),
        "make one with ssl.PROTOCOL_TLS_",
    ),
}
if arguments._unset() == ssl.TLSVersion.MINIMUM_SUPPORTED:  # nobody has chosen it: it is raised
    del UNFIT["of no protocol"]


@pytest.mark.parametrize("side", ["server", "client"])
def test_a_version_that_nobody_has_chosen_is_raised(
    side: arguments.Side, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with builds of Python that leave it to OpenSSL's configuration."""
    monkeypatch.setattr(arguments, "_unset", lambda: ssl.TLSVersion.MINIMUM_SUPPORTED)
    context = changed(side, minimum_version=ssl.TLSVersion.MINIMUM_SUPPORTED)
    assert arguments.expect_secure("tls://127.0.0.1", context, side, "") is context
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2


@CALLS
@pytest.mark.parametrize("name", UNFIT)
@pytest.mark.parametrize("address", ["tls://127.0.0.1", "127.0.0.1"])
@aio
async def test_a_context_that_does_not_keep_what_tls_promises(
    call: Callable[..., Any], name: str, address: str
) -> None:
    make, why = UNFIT[name]
    context = make("server" if call is bind else "client")
    with pytest.raises(ValueError, match=why) as caught:
        await call(address, ssl_context=context)
    assert str(caught.value).startswith("cannot use tls://127.0.0.1:")
    assert "; set context." in str(caught.value) or "; make one with" in str(caught.value)
    assert "a Security with a CA, certificate and key" in str(caught.value)


FIT: dict[str, Callable[[str], ssl.SSLContext]] = {
    "plain": lambda side: foreign_context(side, NODE, [CA]),
    "by options": lambda side: changed(
        side,
        minimum_version=ssl.TLSVersion.TLSv1,
        options=ssl.OP_NO_TLSv1 | ssl.OP_NO_TLSv1_1 | ssl.OP_NO_SSLv3,
    ),
    "1.2": lambda side: foreign_context(side, NODE, [CA], version=ssl.TLSVersion.TLSv1_2),
    "1.3": lambda side: foreign_context(side, NODE, [CA], version=ssl.TLSVersion.TLSv1_3),
    "sealed": lambda side: server_context(OURS) if side == "server" else client_context(OURS),
}


@pytest.mark.usefixtures("io")
@pytest.mark.parametrize("name", FIT)
@aio
async def test_a_context_that_keeps_it(name: str) -> None:
    async with (
        listen("tls://127.0.0.1:0", echo, ssl_context=FIT[name]("server")) as listener,
        connect(listener.contact_address, ssl_context=FIT[name]("client")) as comm,
    ):
        await comm.write("let in")
        assert await comm.read() == "let in"


@pytest.mark.usefixtures("io")
@pytest.mark.parametrize("side", ["server", "client"])
@aio
async def test_a_context_that_stops_to_verify_later(side: str) -> None:
    """Each handshake looks again: the listener was started while all was well."""
    server, client = foreign_context("server", NODE, [CA]), foreign_context("client", NODE, [CA])
    anyone = foreign_context("client", None, [CA])
    async with listen("tls://127.0.0.1:0", echo, ssl_context=server) as listener:
        async with connect(listener.contact_address, ssl_context=client) as comm:
            await comm.write("let in")
            assert await comm.read() == "let in"
        if side == "server":
            server.verify_mode = ssl.CERT_NONE
            with pytest.raises(CommError):  # it is told nothing and tries again
                await connect(listener.contact_address, timeout=0.5, ssl_context=anyone)
            assert listener.stats.greeted == 1
            assert set(listener.stats.refused) == {"tls"}
        else:
            client.verify_mode = ssl.CERT_NONE
            with pytest.raises(ValueError, match="CERT_NONE"):
                await connect(listener.contact_address, ssl_context=client)


@pytest.mark.usefixtures("io")
@aio
async def test_what_a_security_gives_is_always_taken() -> None:
    """By plain addresses too, where there is no context in it; ours, Dask's, and distributed's."""
    import distributed

    import sealwire.dask_backend

    temporary = Security.temporary()
    pem = {n: v for n, v in temporary.fields().items() if isinstance(v, str)}
    for kind in (Security, sealwire.dask_backend.Security, distributed.Security):
        for scheme, one in (
            ("tls", kind(require_encryption=True, **pem)),
            ("tls", kind(require_encryption=False, **pem)),
            ("tcp", kind(require_encryption=False)),
        ):
            async with (
                listen(
                    f"{scheme}://127.0.0.1:0", echo, **one.get_listen_args("worker")
                ) as listener,
                connect(listener.contact_address, **one.get_connection_args("client")) as comm,
            ):
                await comm.write("let in")
                assert await comm.read() == "let in"


@aio
async def test_a_third_party_backend_says_what_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    got: list[dict[str, Any]] = []

    class Picky(Backend):
        connect_arguments = ("compression",)
        listen_arguments = ("queue",)

        def connector(self) -> Any:
            class Connecting:
                async def connect(self, address: Any, limits: Any, **args: Any) -> Any:
                    got.append(args)

            return Connecting()

        def listener(self, address: Any, handler: Any, limits: Any, **args: Any) -> Any:
            got.append(args)

    monkeypatch.setitem(_backends, "picky", Picky())
    register("picky", _backends["picky"])
    await connect("picky://x:1", compression="zstd")
    assert got.pop()["compression"] == "zstd"
    listen("picky://x:1", echo, queue=5)
    assert got.pop()["queue"] == 5
    for wrong in ({"queue": 5}, {"compresion": "x"}):
        with pytest.raises(TypeError, match="unexpected argument"):
            connect("picky://x:1", **wrong)
    with pytest.raises(TypeError, match="did you mean queue"):
        listen("picky://x:1", echo, queu=5)
    assert not got
