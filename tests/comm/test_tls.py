"""TLS at the level of a comm: which peers are refused, and what both sides are told."""

from __future__ import annotations

import asyncio
import datetime
import logging
import re
import socket
import ssl
import warnings
from typing import Any, NamedTuple

import pytest

from sealwire.comm import (
    Comm,
    FramingError,
    HandshakeError,
    connect,
    listen,
)
from sealwire.comm.wire import hello
from sealwire.security import Security
from support import certs
from support.aio import aio, until
from support.handshakes import VERSIONS, foreign_context, security
from support.links import RawPeer, blocking, connect_args, echo, listen_args, message

CA = certs.root()
OTHER_CA = certs.root("another root")
GOOD = certs.leaf(CA, "good")

versions = pytest.mark.parametrize("version", VERSIONS, ids=lambda version: version.name)


class Bad(NamedTuple):
    """A peer's certificate; what we say of it, and what the peer is told by our alert."""

    node: certs.Node
    verdict: str
    told: str


BAD = {
    "another CA": Bad(
        certs.leaf(OTHER_CA), "not signed by our CA|ends in a CA that is not ours", "its CA"
    ),
    "a CA of the same name": Bad(certs.leaf(certs.root()), "our CA|signature|not ours", "refused"),
    "expired": Bad(certs.leaf(CA, end=-certs.SECOND), "has expired", "expired"),
    "not yet valid": Bad(certs.leaf(CA, start=certs.HOUR / 2), "not valid yet", "refused our"),
    "self-signed": Bad(certs.make("self", names=["self"]), "self-signed", "its CA"),
}


def of(node: certs.Node, version: ssl.TLSVersion) -> Security:
    """A `Security` that shows `node` and accepts everybody in the tables, at one version."""
    trust = [CA, OTHER_CA] if node is not GOOD else [CA]
    return security(node, trust, tls_min_version=version, tls_max_version=version)


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.name == "sealwire.comm"]


@pytest.mark.parametrize("name", BAD)
@versions
@aio
async def test_a_bad_client_is_refused(
    name: str, version: ssl.TLSVersion, caplog: pytest.LogCaptureFixture
) -> None:
    """The client learns it from `connect` itself, also in TLS 1.3, and does not try again."""
    caplog.set_level(logging.INFO, "sealwire")
    bad = BAD[name]
    handled: list[Comm] = []
    args = of(GOOD, version).get_listen_args("scheduler")
    async with listen("tls://127.0.0.1:0", handled.append, **args) as listener:
        with pytest.raises(HandshakeError, match=bad.told) as caught:
            await connect(
                listener.contact_address,
                timeout=20,
                **of(bad.node, version).get_connection_args("worker"),
            )
    assert not caught.value.retryable
    assert caught.value.reason
    assert str(caught.value).startswith(f"TLS handshake with {caught.value.peer} failed: it ")
    assert "; " in str(caught.value)
    assert handled == []
    (line,) = told(caplog)
    assert "we refused its certificate" in line
    assert any(words in line for words in bad.verdict.split("|")), line


@pytest.mark.parametrize("name", BAD)
@versions
@aio
async def test_a_bad_server_is_refused(
    name: str, version: ssl.TLSVersion, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "sealwire")
    bad = BAD[name]
    handled: list[Comm] = []
    args = of(bad.node, version).get_listen_args("scheduler")
    async with listen("tls://127.0.0.1:0", handled.append, **args) as listener:
        with pytest.raises(HandshakeError, match=bad.verdict) as caught:
            await connect(
                listener.contact_address,
                timeout=20,
                **of(GOOD, version).get_connection_args("worker"),
            )
        # The next comm shows that the listener is past the refused one.
        async with (
            connect(listener.contact_address, **of(bad.node, version).get_connection_args("worker"))
            if bad.node.certificate.issuer == OTHER_CA.certificate.subject
            else _nothing()
        ):
            pass
    assert "we refused its certificate" in str(caught.value)
    dates = {"expired": "expired", "not yet valid": "not valid before"}.get(name, "valid until")
    assert re.search(
        rf" \(it is [^()]+, {dates} \d{{4}}-\d\d-\d\d( [\d:]+ UTC)?\)", str(caught.value)
    )
    assert len(told(caplog)) <= 1
    assert all("it refused our certificate" in line for line in told(caplog))


NEAR = datetime.timedelta(seconds=40)


@pytest.mark.parametrize(
    ("dates", "words"),
    [
        ({"start": NEAR}, "not valid before"),
        ({"start": -NEAR * 9, "end": -NEAR}, "expired"),
    ],
)
@aio
async def test_clocks_that_differ_by_seconds(dates: dict[str, Any], words: str) -> None:
    """The day alone would be today's."""
    version = ssl.TLSVersion.TLSv1_3
    args = of(certs.leaf(CA, "worker", **dates), version).get_listen_args("scheduler")
    async with listen("tls://127.0.0.1:0", echo, **args) as listener:
        with pytest.raises(HandshakeError) as caught:
            await connect(
                listener.contact_address, **of(GOOD, version).get_connection_args("worker")
            )
    assert re.search(rf" {words} \d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d UTC\)", str(caught.value))


class _nothing:
    async def __aenter__(self) -> None: ...
    async def __aexit__(self, *args: object) -> None: ...


@versions
@aio
async def test_no_certificate(version: ssl.TLSVersion, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "sealwire")
    anonymous = foreign_context("client", None, [CA], version=version)
    args = of(GOOD, version).get_listen_args("scheduler")
    async with listen("tls://127.0.0.1:0", echo, **args) as listener:
        with pytest.raises(HandshakeError, match="certificate") as caught:
            await connect(listener.contact_address, timeout=20, ssl_context=anonymous)
    assert "configure a certificate" in str(caught.value)
    (line,) = told(caplog)
    assert "it sent no certificate" in line


def old_context(side: str) -> ssl.SSLContext:
    context = foreign_context(side, GOOD, [CA])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # that is what is tested
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    return context


@aio
async def test_no_shared_version() -> None:
    newer, older = of(GOOD, VERSIONS[1]), of(GOOD, VERSIONS[0])
    for server, client in ((newer, older), (older, newer)):
        args = server.get_listen_args("scheduler")
        async with listen("tls://127.0.0.1:0", echo, **args) as listener:
            with pytest.raises(HandshakeError, match="TLS version"):
                await connect(listener.contact_address, **client.get_connection_args("worker"))


@aio
async def test_no_shared_cipher(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "sealwire")

    def only(cipher: str) -> Security:
        return security(GOOD, [CA], tls_max_version="1.2", tls_ciphers=cipher)

    args = only("ECDHE-ECDSA-AES128-GCM-SHA256").get_listen_args("scheduler")
    async with listen("tls://127.0.0.1:0", echo, **args) as listener:
        client = only("ECDHE-ECDSA-AES256-GCM-SHA384")
        with pytest.raises(HandshakeError, match="shares no cipher"):
            await connect(listener.contact_address, **client.get_connection_args("worker"))
    assert "it shares no cipher with us" in told(caplog)[0]


@aio
async def test_plain_client_on_a_tls_port(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "sealwire")
    async with listen("tls://127.0.0.1:0", echo, **listen_args("tls")) as listener:
        plain = listener.contact_address.replace("tls", "tcp")
        with pytest.raises(FramingError, match="is a TLS alert; use tls:// on both sides"):
            await connect(plain, timeout=20)
        http = await RawPeer.dial(listener.contact_address)
        http.writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"HTTP" not in await http.ended()
        http.close()
    assert any("it does not speak TLS but plain tcp://; use tls://" in w for w in told(caplog))
    assert any("it speaks plain HTTP" in line for line in told(caplog))


@aio
async def test_tls_client_on_a_plain_port(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "sealwire")
    async with listen("tcp://127.0.0.1:0", echo) as listener:
        with pytest.raises(HandshakeError, match="it does not speak TLS"):
            await connect(
                listener.contact_address.replace("tcp", "tls"), timeout=20, **connect_args("tls")
            )
        # The server spoke first, so the client may have left before the server looked.
        await until(lambda: bool(told(caplog)))
    assert "is a TLS ClientHello; use tls:// on both sides" in told(caplog)[0]


@aio
async def test_bytes_before_the_handshake_are_never_read_as_messages() -> None:
    """A server that speaks first, plainly, and in our own words."""

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(message(hello.encode(hello.offer())) + message(b"\x01"))
        await reader.read(1)
        writer.close()

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    with pytest.raises(HandshakeError, match="does not speak TLS"):
        await connect(f"tls://127.0.0.1:{port}", timeout=20, **connect_args("tls"))
    server.close()


@aio
async def test_tls_1_1_is_refused_by_the_listener(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "sealwire")

    def talk(sock: socket.socket) -> None:
        with old_context("client").wrap_socket(sock):
            pass

    args = security(GOOD, [CA]).get_listen_args("scheduler")
    async with listen("tls://127.0.0.1:0", echo, **args) as listener:
        with pytest.raises(ssl.SSLError, match=r"(?i)protocol.version"):
            await blocking(listener.contact_address, talk)
    (line,) = told(caplog)
    assert "it offers no TLS version that we allow; allow TLS 1.2 or 1.3" in line


@aio
async def test_tls_1_1_is_refused_by_the_connector() -> None:
    def serve(server: socket.socket) -> None:
        with pytest.raises(ssl.SSLError):
            old_context("server").wrap_socket(server.accept()[0], server_side=True)

    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(20)
        serving = asyncio.get_running_loop().run_in_executor(None, serve, server)
        args = security(GOOD, [CA]).get_connection_args("worker")
        with pytest.raises(HandshakeError, match="TLS version"):
            await connect(f"tls://127.0.0.1:{server.getsockname()[1]}", **args)
        await serving
