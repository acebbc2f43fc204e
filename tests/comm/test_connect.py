"""`connect` and `listen`: retries, deadlines, refusals before any I/O, and what is left behind."""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from sealwire.comm import (
    Address,
    AddressError,
    Backend,
    Comm,
    CommClosedError,
    ConnectError,
    ConnectTimeout,
    EncryptionRequired,
    HelloError,
    Limits,
    Listener,
    connect,
    listen,
    register_backend,
)
from sealwire.comm.transport.client import FrameClient
from sealwire.comm.wire import hello
from support.aio import aio
from support.kernel import descriptors, free_port
from support.links import SCHEMES, RawPeer, connect_args, echo, listen_args, message, security


@asynccontextmanager
async def raw_server(answer: bytes | None, *, close: bool = False) -> AsyncIterator[list[Any]]:
    """A server that answers every connection with `answer`; gives its port and its connections."""
    seen: list[Any] = []

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(writer)
        if answer is not None:
            writer.write(answer)
        if close:
            writer.close()

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    seen.append(server.sockets[0].getsockname()[1])
    try:
        yield seen
    finally:
        server.close()
        for writer in seen[1:]:
            writer.close()


@pytest.mark.parametrize("scheme", SCHEMES)
@aio
async def test_no_listener(scheme: str) -> None:
    before = descriptors()
    address = f"{scheme}://127.0.0.1:{free_port()}"
    with pytest.raises(ConnectError) as caught:
        await connect(address, timeout=0.3, **connect_args(scheme))
    error = caught.value
    assert not isinstance(error, ConnectTimeout)
    assert str(error).startswith(f"cannot connect to {address}: connection refused (")
    assert str(error).endswith("; check that a listener runs on that port")
    assert error.attempts > 1
    assert f"{error.attempts} attempts" in str(error)
    assert error.elapsed >= 0.29
    assert error.peer == address
    assert isinstance(error.__cause__, CommClosedError)
    assert descriptors() == before


class SilentServer:
    """Accepts one connection, answers nothing; sees it come and go."""

    def __init__(self) -> None:
        self.come = asyncio.Event()
        self.gone = asyncio.Event()

    async def __aenter__(self) -> SilentServer:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._server.close()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.come.set()
        while await reader.read(1000):
            pass
        writer.close()
        self.gone.set()


@pytest.mark.parametrize("scheme", SCHEMES)
@aio
async def test_a_silent_server(scheme: str) -> None:
    async with SilentServer() as server:
        with pytest.raises(ConnectTimeout, match=r"no answer \(1 attempt in 0\.") as caught:
            await connect(
                f"{scheme}://127.0.0.1:{server.port}", timeout=0.3, **connect_args(scheme)
            )
        assert isinstance(caught.value, TimeoutError)
        await server.gone.wait()


@pytest.mark.parametrize("scheme", SCHEMES)
@aio
async def test_a_cancelled_connect_leaves_nothing_open(scheme: str) -> None:
    async with SilentServer() as server:

        async def dial() -> Comm:
            return await connect(f"{scheme}://127.0.0.1:{server.port}", **connect_args(scheme))

        task = asyncio.ensure_future(dial())
        await server.come.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await server.gone.wait()


@pytest.mark.parametrize("scheme", SCHEMES)
@aio
async def test_a_listener_that_comes_later_is_found(scheme: str) -> None:
    port = free_port()
    address = f"{scheme}://127.0.0.1:{port}"

    async def dial() -> Comm:
        return await connect(address, timeout=30, **connect_args(scheme))

    task = asyncio.ensure_future(dial())
    loop = asyncio.get_running_loop()
    refused = loop.create_future()
    loop.call_later(0.1, refused.set_result, None)  # a few attempts are refused meanwhile
    await refused
    assert not task.done()
    async with listen(address, echo, **listen_args(scheme)):
        comm = await task
        await comm.write(1)
        assert await comm.read() == 1
        await comm.close()


@pytest.mark.parametrize("scheme", SCHEMES)
@aio
async def test_both_ends_send_at_once_and_watch_their_peer(scheme: str) -> None:
    limits = Limits(keepalive_timeout=40)
    accepted: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    async def keep(comm: Comm) -> None:
        accepted.set_result(comm)
        await comm.read()

    address = f"{scheme}://127.0.0.1:0"
    async with listen(address, keep, limits=limits, **listen_args(scheme)) as listener:
        near: Any = await connect(listener.contact_address, limits=limits, **connect_args(scheme))
        for comm in (near, await accepted):
            sock = comm._stream.socket
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            if sys.platform == "linux":
                options = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
                idle, interval, probes = (sock.getsockopt(socket.IPPROTO_TCP, o) for o in options)
                assert 30 <= idle + interval * probes <= 38  # the kernel's timers may be late
                assert idle <= 3  # since when the peer is silent is known that well
        await near.close()


@aio
async def test_a_stalled_attempt_does_not_outlive_the_limits() -> None:
    """The deadline for the hello holds inside one attempt too, and is tried again."""
    async with raw_server(None) as seen:
        with pytest.raises(ConnectError, match=r"no hello within 0\.05 s") as caught:
            await connect(
                f"tcp://127.0.0.1:{seen[0]}", timeout=0.3, limits=Limits(handshake_timeout=0.05)
            )
        assert caught.value.attempts > 1


NOT_OURS = {
    "http": (b"HTTP/1.1 400 Bad Request\r\n\r\n", CommClosedError, "is HTTP"),
    "ssh": (b"SSH-2.0-OpenSSH_9.2\r\n", CommClosedError, "is SSH"),
    "nonsense": (b"\x00" * 100, CommClosedError, "bad frame"),
    "a hello that is no msgpack": (message(b"\xc1"), HelloError, "is not msgpack"),
    "a hello that is a list": (message(b"\x90"), HelloError, "need a map"),
    "a hello of two frames": (message(b"\x80", b""), HelloError, "got 2 frames"),
    "a hello with a bad extension": (
        message(hello.encode({**hello.offer(), "sealwire": 5})),
        HelloError,
        "need a map with a version",
    ),
    "a hello over the limit": (message(bytes(100_000)), CommClosedError, "max_hello_size"),
}


@pytest.mark.parametrize("name", NOT_OURS)
@aio
async def test_a_server_that_is_not_ours_is_named_and_not_tried_again(name: str) -> None:
    answer, kind, words = NOT_OURS[name]
    async with raw_server(answer) as seen:
        with pytest.raises(kind, match=words) as caught:
            await connect(f"tcp://127.0.0.1:{seen[0]}", timeout=20)
        assert not caught.value.retryable
        assert str(seen[0]) in str(caught.value)
        assert len(seen) == 2, "one attempt"


@pytest.mark.parametrize("name", NOT_OURS)
@aio
async def test_a_client_that_is_not_ours_is_one_line_in_the_log(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "sealwire")
    answer, _, words = NOT_OURS[name]
    async with listen("tcp://127.0.0.1:0", echo) as listener:
        peer = await RawPeer.dial(listener.listen_address)
        peer.writer.write(answer)
        await peer.ended()
        peer.close()
        async with connect(listener.contact_address) as comm:
            await comm.write("others go on")
            assert await comm.read() == "others go on"
    (record,) = [r for r in caplog.records if "listener on" in r.getMessage()]
    assert record.exc_info is None
    assert record.levelno == logging.INFO
    assert words in record.getMessage()


@pytest.mark.parametrize("scheme", SCHEMES)
@aio
async def test_silent_clients_are_dropped(scheme: str) -> None:
    limits = Limits(handshake_timeout=0.1)
    address = f"{scheme}://127.0.0.1:0"
    async with listen(address, echo, limits=limits, **listen_args(scheme)) as listener:
        silent = [await RawPeer.dial(listener.listen_address) for _ in range(5)]
        for peer in silent:
            await peer.ended()
            peer.close()
        async with connect(listener.contact_address, **connect_args(scheme)) as comm:
            await comm.write(1)
            assert await comm.read() == 1


@aio
async def test_a_trickling_client_is_dropped_all_the_same() -> None:
    async with listen("tcp://127.0.0.1:0", echo, limits=Limits(handshake_timeout=0.2)) as listener:
        peer = await RawPeer.dial(listener.listen_address)
        whole = message(bytes(60_000))

        async def trickle() -> None:
            for byte in whole:
                peer.writer.write(bytes([byte]))
                await asyncio.sleep(0)

        trickling = asyncio.ensure_future(trickle())
        await peer.ended()
        trickling.cancel()
        peer.close()


@pytest.mark.parametrize("scheme", SCHEMES)
@aio
async def test_stop_drops_pending_handshakes(scheme: str) -> None:
    listener = await listen(f"{scheme}://127.0.0.1:0", echo, **listen_args(scheme))
    peer = await RawPeer.dial(listener.listen_address)
    async with connect(listener.contact_address, **connect_args(scheme)):
        listener.stop()
        await asyncio.wait_for(peer.ended(), 10)
    peer.close()


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:1", "127.0.0.1:1"])
@aio
async def test_plain_is_refused_where_encryption_is_required(address: str) -> None:
    before = descriptors()
    with pytest.raises(EncryptionRequired, match="required and tcp is plain; use tls"):
        await connect(address, require_encryption=True)
    with pytest.raises(EncryptionRequired, match="refusing tcp://"):
        await listen(address, echo, require_encryption=True)
    assert descriptors() == before


@aio
async def test_tls_needs_a_context() -> None:
    with pytest.raises(TypeError, match=r"get_connection_args"):
        await connect("tls://127.0.0.1:1")
    with pytest.raises(TypeError, match=r"get_listen_args"):
        await listen("tls://127.0.0.1:0", echo)


@aio
async def test_bad_addresses_are_refused_before_any_io() -> None:
    with pytest.raises(AddressError, match="no port"):
        await connect("tcp://127.0.0.1")
    with pytest.raises(AddressError, match="no backend"):
        await connect("carrier-pigeon://127.0.0.1:1")
    with pytest.raises(AddressError, match="several colons"):
        await listen("tcp://::1:0", echo)


@aio
@pytest.mark.parametrize("host", ["no-such-host.invalid", "a..lab", ".", "x" * 64, "é" * 60])
async def test_a_name_that_does_not_resolve(host: str) -> None:
    """Also what the codec for host names cannot encode."""
    with pytest.raises(ConnectError, match=r"does not resolve .*check the host name"):
        await connect(f"tcp://{host}:1", timeout=0.2)


@pytest.mark.parametrize(
    ("host", "family"), [("::1", socket.AF_INET), ("127.0.0.1", socket.AF_INET6)]
)
def test_a_numeric_host_of_another_family(host: str, family: socket.AddressFamily) -> None:
    """Is refused at the first step, before there is anything to wait for."""
    connecting = FrameClient().connect(host, 1234, family)
    with pytest.raises(socket.gaierror, match=f"{family.name} was asked for") as caught:
        connecting.send(None)
    assert caught.value.errno == getattr(socket, "EAI_ADDRFAMILY", socket.EAI_NONAME)


@aio
async def test_security_arguments_fit_as_they_are() -> None:
    """What `Security` gives can be passed with ``**``, whatever is in it."""
    async with (
        listen("tls://127.0.0.1:0", echo, **security().get_listen_args("worker")) as listener,
        connect(
            listener.contact_address,
            **{
                **security().get_connection_args("client"),
                "extra_conn_args": {"server_hostname": "scheduler"},
            },
        ) as comm,
    ):
        await comm.write(1)
        assert await comm.read() == 1


@aio
async def test_a_third_party_backend() -> None:
    class Loopback(Backend):
        """Our tcp under another name."""

        def connector(self) -> Any:
            from sealwire.comm.tcp import TCPConnector

            return TCPConnector()

        def listener(
            self, address: Address, handler: Any, limits: Limits, **connection_args: Any
        ) -> Listener:
            from sealwire.comm.tcp import TCPListener

            return TCPListener(address, handler, limits, **connection_args)

    register_backend("loopback", Loopback())
    async with (
        listen("loopback://127.0.0.1:0", echo) as listener,
        connect(listener.contact_address) as comm,
    ):
        assert comm.peer_address.startswith("loopback://")
        await comm.write(1)
        assert await comm.read() == 1
