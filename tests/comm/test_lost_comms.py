"""Ends that nobody announced, and what must not be lost by those that somebody did."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable

import pytest
import uvloop

from sealwire.comm import (
    CloseCode,
    Comm,
    CommClosedError,
    Limits,
    connect,
    listen,
)
from sealwire.comm.transport.sockets import reset
from sealwire.comm.wire import closing
from support.aio import aio, until
from support.endings import documented, error_of, row
from support.links import (
    SCHEMES,
    RawPeer,
    connect_args,
    listen_args,
    message,
    pair,
)

LoopFactory = Callable[[], asyncio.AbstractEventLoop]

schemes = pytest.mark.parametrize("scheme", SCHEMES)
loops = pytest.mark.parametrize(
    "loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"]
)


@schemes
@loops
@aio
async def test_the_last_message_arrives_though_the_peer_talks(
    scheme: str, loop_factory: LoopFactory
) -> None:
    """A kernel that gets bytes for a closed socket drops what it has yet to send."""

    async def say_and_close(comm: Comm) -> None:
        sock = comm._stream.socket  # type: ignore[attr-defined]
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        await comm.read()
        for number in range(12):
            await comm.write([number, bytes(100_000)])

    async with listen(f"{scheme}://127.0.0.1:0", say_and_close, **listen_args(scheme)) as listener:
        comm = await connect(
            listener.contact_address,
            limits=Limits(read_ahead=150_000),
            **connect_args(scheme),
        )

        async def talk() -> None:
            while True:
                await comm.write(bytes(1000))

        await comm.write("go")
        talking = asyncio.ensure_future(talk())
        numbers = []
        async for number, _ in comm:
            numbers.append(number)
            await asyncio.sleep(0.01)  # a slow reader: most of it is still on its way
        assert numbers == list(range(12))
        assert (await error_of(talking)).closed_by in ("peer", "lost")
        assert comm.closed_by == "peer"


@schemes
@aio
async def test_who_gives_up_resets(scheme: str) -> None:
    """A peer that took nothing for `close_timeout` does not see an orderly end."""
    async with pair(scheme, Limits(close_timeout=0.05, read_ahead=1000)) as (a, b):
        await a.write("first")
        assert await b.read() == "first"
        await a.write(bytes(2000))  # fills what is read ahead
        writing = asyncio.ensure_future(a.write(bytes(50_000_000)))
        await asyncio.sleep(0)
        await a.close()
        with pytest.raises(CommClosedError):
            await writing
        assert len(await b.read()) == 2000
        error = await error_of(b.read())
        assert (error.code, error.closed_by, error.clean) == (CloseCode.ABNORMAL, "lost", False)
        assert row(error) in documented()


@schemes
@aio
async def test_a_stock_peer_is_told_nothing_and_its_end_says_nothing(scheme: str) -> None:
    """It gets no closing message, and its orderly end may as well be that of a killed process."""
    stock = message(b"\x83\xabcompression\xc0\xa6python\x93\x03\x0b\x00\xafpickle-protocol\x05")
    ends: list[CommClosedError] = []

    async def handler(comm: Comm) -> None:
        if await comm.read() == "close":
            await comm.close(3000, "unheard")
        else:
            ends.append(await error_of(comm.read()))

    args = connect_args(scheme).get("ssl_context")
    async with listen(f"{scheme}://127.0.0.1:0", handler, **listen_args(scheme)) as listener:
        peer = await RawPeer.dial(listener.contact_address, args)
        peer.writer.write(stock + message(b"\xa5close"))
        await peer.receive()
        assert await peer.ended() == b""
        peer.close()
        peer = await RawPeer.dial(listener.contact_address, args)
        peer.writer.write(stock + message(b"\xa2go"))
        await peer.receive()
        sock = peer.writer.get_extra_info("socket")
        sock.shutdown(socket.SHUT_WR)  # without close_notify
        await until(lambda: bool(ends))
        peer.close()
        assert listener.stats.broken == {}
    (error,) = ends
    assert (error.code, error.kind, error.clean) == (CloseCode.NO_STATUS, "unannounced", False)
    assert row(error) in documented()


@schemes
@loops
@aio
async def test_an_abort_is_no_orderly_end(scheme: str, loop_factory: LoopFactory) -> None:
    async def handler(comm: Comm) -> None:
        await comm.read()
        comm.abort()

    async with listen(f"{scheme}://127.0.0.1:0", handler, **listen_args(scheme)) as listener:
        comm = await connect(listener.contact_address, **connect_args(scheme))
        await comm.write("go")
        error = await error_of(comm.read())
        assert (error.code, error.closed_by) == (CloseCode.ABNORMAL, "lost")
        assert row(error) in documented()


@schemes
@aio
async def test_a_reset_that_a_send_meets_is_no_orderly_end(scheme: str) -> None:
    """The system reports it once; to who then reads, the stream has merely ended."""
    for announces in (True, False):
        async with pair(scheme) as (a, b):
            await a.write(1)
            await b.read()
            near, far = (comm._stream for comm in (a, b))  # type: ignore[attr-defined]
            near.agreement = near.agreement._replace(closing=announces)
            reset(far.socket)
            b.abort()
            for _ in range(2):
                error = await error_of(a.write(2))
                assert (error.code, error.kind) == (CloseCode.ABNORMAL, "lost")
                assert "reset by peer" in str(error)
                assert error.errno == errno.ECONNRESET or scheme == "tls"


@aio
async def test_a_write_after_the_end_of_a_peer_that_says_nothing() -> None:
    """It meets a reset too, which the peer's kernel sends after an end in order."""
    async with pair("tcp") as (a, b):
        await a.write(1)
        await b.read()
        near = a._stream  # type: ignore[attr-defined]
        near.agreement = near.agreement._replace(closing=False)
        b.abort()
        for _ in range(2):  # nothing is known of it yet; then the kernel takes no more
            await a.write(bytes(20_000))
        error = await error_of(a.write(3))
        assert (error.code, error.kind) == (CloseCode.NO_STATUS, "unannounced")


@schemes
@aio
async def test_a_send_that_fails_finds_the_closing_message(scheme: str) -> None:
    """Over TLS close_notify follows it, in a record that is not received yet."""
    async with pair(scheme) as (a, b):
        await a.write(1)
        await b.read()
        stream = b._stream  # type: ignore[attr-defined]
        stream._sender.write_last(closing.encode(1011, "of the test"), stream.failure)
        stream._sender.send_eof()
        reset(stream.socket)
        b.abort()
        a._stream._sender.answering = True  # type: ignore[attr-defined]
        error = await error_of(a.write(2))
        assert (error.code, error.reason, error.closed_by) == (1011, "of the test", "peer")
