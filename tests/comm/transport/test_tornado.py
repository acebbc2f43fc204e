"""`FrameServer` and `FrameClient` as who knows Tornado would use them."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import logging
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import psutil
import pytest
from tornado.netutil import bind_sockets
from tornado.tcpclient import TCPClient
from tornado.tcpserver import TCPServer
from tornado.util import TimeoutError as TornadoTimeoutError

from sealwire.comm import CommClosedError, EncryptionRequired, HandshakeError, Limits, codec
from sealwire.comm.transport.client import FrameClient
from sealwire.comm.transport.server import FrameServer
from sealwire.comm.transport.stream import FrameStream
from support.aio import aio, until
from support.links import SCHEMES, connect_args, listen_args

each_scheme = pytest.mark.parametrize("scheme", SCHEMES)


class Echo(FrameServer):
    """Sends back every message; what it was given is kept."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.met: list[tuple[FrameStream, tuple[Any, ...]]] = []

    async def handle_stream(  # type: ignore[override]
        self, stream: FrameStream, address: tuple[Any, ...]
    ) -> None:
        self.met.append((stream, address))
        while True:
            stream.write(await stream.read_frames())


def context(scheme: str, args: dict[str, Any]) -> ssl.SSLContext | None:
    return args.get("ssl_context") if scheme == "tls" else None


@asynccontextmanager
async def serving(scheme: str, kind: type[FrameServer] = Echo) -> AsyncIterator[Any]:
    server = kind(**(listen_args(scheme)))
    server.listen(0, "127.0.0.1")
    try:
        yield server
    finally:
        server.stop()
        server.drop_pending()


async def dialled(scheme: str, server: FrameServer, **more: Any) -> FrameStream:
    host, port = server.address
    return await FrameClient().connect(
        host, port, ssl_options=context(scheme, connect_args(scheme)), **more
    )


def test_they_are_what_they_are_called() -> None:
    assert issubclass(FrameServer, TCPServer)
    assert issubclass(FrameClient, TCPClient)


@each_scheme
@aio
async def test_messages_go_through(scheme: str) -> None:
    async with serving(scheme) as server:
        stream = await dialled(scheme, server)
        message = {"op": "put", "data": b"x" * 100_000, "n": [1, 2.5, None]}
        agreed = stream.agreement
        assert agreed.buffers
        size, _ = stream.write(codec.encode(message, agreed.buffers, agreed.arrays))
        assert size > 100_000
        back = codec.decode(await stream.read_frames())
        assert (bytes(back.pop("data")), back) == (message.pop("data"), message)
        ((met, address),) = server.met
        assert address == stream.socket.getsockname()
        assert met.peer == f"{scheme}://127.0.0.1:{address[1]}"
        assert bool(met.tls_facts) == (scheme == "tls")
        assert server.stats.greeted == 1
        stream.close()
        await until(met.closed)


@each_scheme
@aio
async def test_it_accepts_on_sockets_that_it_is_given_and_stops(scheme: str) -> None:
    server = Echo(**listen_args(scheme))
    sockets = bind_sockets(0, "127.0.0.1") + bind_sockets(0, "127.0.0.1")
    server.add_sockets(sockets[:1])
    server.add_sockets(sockets[1:])
    args = context(scheme, connect_args(scheme))
    streams = []
    for sock in sockets:
        host, port = sock.getsockname()
        streams.append(await FrameClient().connect(host, port, ssl_options=args))
    server.stop()
    assert [sock.fileno() for sock in sockets] == [-1, -1]
    for stream in streams:  # those that are open go on
        stream.write([b"still"])
        assert bytes((await stream.read_frames())[0]) == b"still"
        stream.close()
    with pytest.raises(CommClosedError, match="connection refused"):
        await FrameClient().connect(host, port, ssl_options=args)


@pytest.mark.parametrize("timeout", [None, 5.0, 0.0])  # blocking, as most sockets of users are
@aio
async def test_a_socket_that_blocks_does_not_block_the_loop(timeout: float | None) -> None:
    given = socket.create_server(("127.0.0.1", 0))
    given.settimeout(timeout)
    server = Echo()
    server.add_socket(given)
    assert not given.getblocking()  # before a connection: the loop would wait for the next for ever
    stream = await FrameClient().connect(*given.getsockname())
    stream.write([b"a"])
    assert bytes((await stream.read_frames())[0]) == b"a"
    stream.close()
    server.stop()


@pytest.mark.parametrize("kind", ["bound only", "connected", "UDP", "closed"])
@aio
async def test_a_socket_that_does_not_listen_is_not_taken(kind: str) -> None:
    """It would always be readable, with nothing to accept."""
    with contextlib.ExitStack() as opened:
        listening = opened.enter_context(socket.create_server(("127.0.0.1", 0)))
        given = opened.enter_context(
            socket.socket(type=socket.SOCK_DGRAM if kind == "UDP" else socket.SOCK_STREAM)
        )
        if kind == "connected":
            given.connect(listening.getsockname())
        else:
            given.bind(("127.0.0.1", 0))
        if kind == "closed":
            given.close()
        server = Echo()
        with pytest.raises((ValueError, OSError), match=r"does not listen|Bad file desc"):
            server.add_sockets([listening, given])
        assert (listening.fileno() >= 0, given.fileno() >= 0) == (True, kind != "closed")
        server.add_sockets([listening])  # nothing of what was refused is left
        assert server.address == listening.getsockname()
        server.stop()


@aio
async def test_a_handler_may_be_a_plain_method() -> None:
    class Once(FrameServer):
        def handle_stream(  # type: ignore[override]
            self, stream: FrameStream, address: tuple[Any, ...]
        ) -> None:
            stream.write_frame(b"welcome")

    async with serving("tcp", Once) as server:
        stream = await dialled("tcp", server)
        assert bytes((await stream.read_frames())[0]) == b"welcome"
        assert not stream.closed()
        stream.close()


@aio
async def test_a_handler_that_fails_closes_its_stream_and_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Failing(FrameServer):
        async def handle_stream(  # type: ignore[override]
            self, stream: FrameStream, address: tuple[Any, ...]
        ) -> None:
            raise LookupError("a fault of the handler's")

    caplog.set_level(logging.INFO, "sealwire")
    async with serving("tcp", Failing) as server:
        stream = await dialled("tcp", server)
        with pytest.raises(CommClosedError, match="closed by the peer"):
            await stream.read_frames()
        (record,) = [each for each in caplog.records if each.exc_info]
        assert "cannot serve tcp://127.0.0.1:" in record.getMessage()
        assert server.stats.refused == {}
        stream.close()


@pytest.mark.parametrize("side", ["server", "client"])
@aio
async def test_a_context_that_verifies_no_peer_is_not_taken(side: str) -> None:
    if side == "server":
        loose = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        with pytest.raises(ValueError, match="does not demand a certificate of the peer"):
            FrameServer(loose)
        with pytest.raises(TypeError, match=r"need an ssl\.SSLContext"):
            FrameServer({"certfile": "a.pem"})  # type: ignore[arg-type]
        with pytest.raises(EncryptionRequired, match="without an ssl_context"):
            FrameServer(require_encryption=True)
    else:
        loose = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        loose.check_hostname = False
        loose.verify_mode = ssl.CERT_NONE
        with pytest.raises(ValueError, match="does not demand a certificate of the peer"):
            await FrameClient().connect("127.0.0.1", 1, ssl_options=loose)


@aio
async def test_a_peer_of_another_protocol_does_not_arrive() -> None:
    async with serving("tls") as server:
        with pytest.raises(CommClosedError):
            await FrameClient().connect(*server.address)
        assert server.met == []
        await until(lambda: sum(server.stats.refused.values()) == 1)
    async with serving("tcp") as server:
        with pytest.raises(HandshakeError):
            await FrameClient().connect(
                *server.address, ssl_options=context("tls", connect_args("tls"))
            )
        assert server.met == []


@pytest.mark.parametrize("timeout", [0.05, datetime.timedelta(seconds=0.05)])
@each_scheme
@aio
async def test_a_timeout_leaves_nothing_open(
    scheme: str, timeout: float | datetime.timedelta
) -> None:
    silent = socket.create_server(("127.0.0.1", 0))
    before = psutil.Process().num_fds()
    args = context(scheme, connect_args(scheme))
    with pytest.raises(TornadoTimeoutError, match=r"nothing came of it within 0\.05 s; check"):
        await FrameClient().connect(*silent.getsockname(), ssl_options=args, timeout=timeout)
    assert psutil.Process().num_fds() == before
    silent.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
@aio
async def test_a_cancelled_call_leaves_nothing_open(host: str) -> None:
    silent = socket.create_server(("127.0.0.1", 0))
    port = silent.getsockname()[1]
    await asyncio.get_running_loop().getaddrinfo(host, port)  # its thread keeps descriptors
    before = psutil.Process().num_fds()
    connecting = asyncio.ensure_future(FrameClient().connect(host, port))
    accepted, _ = await asyncio.get_running_loop().run_in_executor(None, silent.accept)
    connecting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await connecting
    accepted.close()
    assert psutil.Process().num_fds() == before
    silent.close()


@each_scheme
@aio
async def test_a_name_is_dialled_by_tornado_and_taken_over(scheme: str) -> None:
    async with serving(scheme) as server:
        args = context(scheme, connect_args(scheme))
        stream = await FrameClient().connect(
            "localhost", server.address[1], ssl_options=args, source_ip="127.0.0.1"
        )
        for number in range(3):
            stream.write([b"%d" % number])
            assert bytes((await stream.read_frames())[0]) == b"%d" % number
        stream.close()


@aio
async def test_the_limits_are_those_of_the_client() -> None:
    async with serving("tcp") as server:
        client = FrameClient(Limits(max_message_size=1000))
        stream = await client.connect(*server.address)
        server.met[0][0].write([bytes(2000)])
        with pytest.raises(CommClosedError, match="2000 bytes in 1 frames, the limit is 1000"):
            await stream.read_frames()


@aio
async def test_nothing_of_an_iostream_is_there_to_be_misused() -> None:
    async with serving("tcp") as server:
        stream = await dialled("tcp", server)
        for name in ("read_bytes", "read_until", "read_into", "set_nodelay", "start_tls"):
            assert not hasattr(stream, name)
        stream.close()
