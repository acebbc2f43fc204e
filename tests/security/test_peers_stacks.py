"""The allow-list holds whatever drives the handshake: nothing passes before the check."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from tornado.iostream import SSLIOStream, StreamClosedError
from tornado.tcpserver import TCPServer

from sealwire.security import PeerNotAllowed, Security
from support import certs
from support.aio import aio
from support.handshakes import VERSIONS, client_context, security, server_context

CA = certs.root()
OURS = certs.leaf(CA, "ours", names=["ours"])
NODE = certs.leaf(CA, "node")

versions = pytest.mark.parametrize("version", VERSIONS, ids=["TLS1.2", "TLS1.3"])


def list_of(*patterns: str, **fields: Any) -> Security:
    return security(OURS, [CA], tls_allowed_peers=list(patterns), **fields)


@contextmanager
def sockets() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two connected TCP sockets."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(server.getsockname(), timeout=30)
        accepted, _ = server.accept()
    accepted.settimeout(30)
    with client, accepted:
        yield client, accepted


def other_side(context: ssl.SSLContext, sock: socket.socket, got: list[bytes]) -> threading.Thread:
    """A peer that shakes hands, writes at once, and notes what it is sent."""

    def run() -> None:
        try:
            is_server = context.protocol is ssl.PROTOCOL_TLS_SERVER
            with context.wrap_socket(sock, server_side=is_server) as tls:
                tls.sendall(b"from the peer")
                while data := tls.recv(100):
                    got.append(data)
        except OSError:
            pass

    thread = threading.Thread(target=run)
    thread.start()
    return thread


BLOCKING: dict[str, Callable[[Any], object]] = {
    "read": lambda tls: tls.read(10),
    "recv": lambda tls: tls.recv(10),
    "recv_into": lambda tls: tls.recv_into(bytearray(10)),
    "write": lambda tls: tls.write(b"secret"),
    "send": lambda tls: tls.send(b"secret"),
    "sendall": lambda tls: tls.sendall(b"secret"),
    "do_handshake": lambda tls: tls.do_handshake(),
    "twice": lambda tls: (swallow(tls.do_handshake), tls.recv(10)),
}


def swallow(call: Callable[[], object]) -> None:
    with pytest.raises(PeerNotAllowed):
        call()


@pytest.mark.parametrize("side", ["server", "client"])
@pytest.mark.parametrize("call", BLOCKING)
@versions
def test_nothing_passes_before_the_check_of_a_socket(
    version: ssl.TLSVersion, call: str, side: str
) -> None:
    """Also where OpenSSL would shake hands by itself at the first read or write."""
    ours = list_of("nobody", tls_max_version=version)
    context = (server_context if side == "server" else client_context)(ours)
    theirs = (client_context if side == "server" else server_context)(security(NODE, [CA]))
    got: list[bytes] = []
    with sockets() as (near, far):
        thread = other_side(theirs, far, got)
        tls = context.wrap_socket(near, server_side=side == "server", do_handshake_on_connect=False)
        with pytest.raises(PeerNotAllowed):
            BLOCKING[call](tls)
        tls.close()
        thread.join(30)
    assert not thread.is_alive()
    assert got == []


@pytest.mark.parametrize("side", ["server", "client"])
def test_a_handshake_at_once(side: str) -> None:
    ours = list_of("nobody")
    context = (server_context if side == "server" else client_context)(ours)
    theirs = (client_context if side == "server" else server_context)(security(NODE, [CA]))
    with sockets() as (near, far):
        thread = other_side(theirs, far, [])
        with pytest.raises(PeerNotAllowed):
            context.wrap_socket(near, server_side=side == "server")
        near.close()
        thread.join(30)
    assert not thread.is_alive()


@pytest.mark.parametrize("call", ["read", "write"])
@pytest.mark.parametrize("side", ["server", "client"])
def test_nothing_passes_before_the_check_of_an_object(call: str, side: str) -> None:
    """Memory BIOs, driven by reads and writes alone."""
    ours, theirs = list_of("nobody"), security(NODE, [CA])
    first, second = ssl.MemoryBIO(), ssl.MemoryBIO()
    if side == "server":
        mine = server_context(ours).wrap_bio(first, second, server_side=True)
        other = client_context(theirs).wrap_bio(second, first)
    else:
        mine = client_context(ours).wrap_bio(first, second)
        other = server_context(theirs).wrap_bio(second, first, server_side=True)
    error = None
    sent = False
    for _ in range(12):
        try:
            other.do_handshake()
            if not sent:
                other.write(b"from the peer")
                sent = True
        except ssl.SSLWantReadError:
            pass
        try:
            mine.read(10) if call == "read" else mine.write(b"secret")
        except ssl.SSLWantReadError:
            continue
        except PeerNotAllowed as refused:
            error = refused
            break
        pytest.fail("it passed")
    assert error is not None
    with pytest.raises(PeerNotAllowed):  # and again
        mine.read(10)
    other.do_handshake()
    with pytest.raises(ssl.SSLWantReadError):
        other.read(10)


@pytest.mark.parametrize("side", ["server", "client"])
@aio
async def test_tornados_own_streams(side: str) -> None:
    ours, theirs = list_of("nobody"), security(NODE, [CA])
    met: asyncio.Future[object] = asyncio.get_running_loop().create_future()

    class Server(TCPServer):
        async def handle_stream(self, stream: Any, address: Any) -> None:
            try:
                await stream.write(b"hello")
                data = await stream.read_bytes(5)
            except StreamClosedError:
                met.set_result(stream.error)
            else:
                met.set_result(data)

    listening, dialling = (ours, theirs) if side == "server" else (theirs, ours)
    server = Server(ssl_options=server_context(listening))
    server.listen(0, "127.0.0.1")
    port = next(iter(server._sockets.values())).getsockname()[1]
    sock = socket.create_connection(("127.0.0.1", port))
    sock.setblocking(False)
    stream = SSLIOStream(client_context(dialling).wrap_socket(sock, do_handshake_on_connect=False))
    received = b""
    try:
        await stream.write(b"hello")
        received = await stream.read_bytes(5)
    except StreamClosedError:
        pass
    assert received == b""
    server.stop()
    there = await met
    error = there if side == "server" else stream.error
    assert isinstance(error, PeerNotAllowed)
    assert there != b"hello" or side == "server"


@pytest.mark.parametrize("side", ["server", "client"])
@aio
async def test_asyncios_own_streams(side: str) -> None:
    ours, theirs = list_of("nobody"), security(NODE, [CA])
    listening, dialling = (ours, theirs) if side == "server" else (theirs, ours)
    met: list[bytes] = []

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            met.append(await reader.read(10))
        except OSError:
            met.append(b"")
        writer.close()

    server = await asyncio.start_server(greet, "127.0.0.1", 0, ssl=server_context(listening))
    port = server.sockets[0].getsockname()[1]
    try:
        if side == "client":
            with pytest.raises(PeerNotAllowed):
                await asyncio.open_connection("127.0.0.1", port, ssl=client_context(dialling))
        else:
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", port, ssl=client_context(dialling)
            )
            writer.write(b"secret")
            with pytest.raises((OSError, asyncio.IncompleteReadError)):
                await reader.readexactly(1)
            writer.transport.abort()
    finally:
        server.close()
    assert b"secret" not in met
