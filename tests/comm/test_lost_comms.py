"""Ends that nobody announced, and what must not be lost by those that somebody did."""

from __future__ import annotations

import asyncio
import errno
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

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
from sealwire.comm.transport.sockets import reset, unacknowledged
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


@pytest.mark.parametrize(
    ("scheme", "loop_factory"),
    [
        ("tcp", asyncio.new_event_loop),
        ("tls", uvloop.new_event_loop),
        ("unix", asyncio.new_event_loop),
    ],
    ids=["tcp", "tls", "unix"],
)
@aio
async def test_who_takes_little_at_a_time_gets_it_all(
    scheme: str, loop_factory: LoopFactory, tmp_path: Path
) -> None:
    """A kernel with a full buffer takes more from us only long after the peer took something."""
    held: asyncio.Future[Comm] = asyncio.get_running_loop().create_future()
    over = asyncio.Event()

    async def hold(comm: Comm) -> None:
        held.set_result(comm)
        await over.wait()

    address = f"unix://{tmp_path}/s" if scheme == "unix" else f"{scheme}://127.0.0.1:0"
    arguments = {} if scheme == "unix" else listen_args(scheme)
    async with listen(address, hold, limits=Limits(read_ahead=1), **arguments) as listener:
        comm: Any = await connect(
            listener.contact_address,
            limits=Limits(close_timeout=0.4),
            **({} if scheme == "unix" else connect_args(scheme)),
        )
        reader = await held
        comm._stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 600_000)
        stream: Any = reader._stream  # type: ignore[attr-defined]
        stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 50_000)
        count = 0
        while comm.queued < 50_000:
            comm.write_nowait([count, bytes(10_000)])
            count += 1
            await asyncio.sleep(0.001)
        closing = asyncio.ensure_future(comm.close(3000, "all of it"))
        numbers = []

        async def take() -> None:
            while True:
                numbers.append((await reader.read())[0])
                await asyncio.sleep(0.02)

        assert (await error_of(take())).code == 3000
        assert numbers == list(range(count))
        await closing
        over.set()


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


BEFORE = {
    # messages before the closing message, and what the other side reads ahead of them
    "nothing": ([], 1 << 22),
    "small ones": ([10] * 5, 1 << 22),
    "more than one receive takes": ([50_000] * 8, 1 << 22),
    "more than is read ahead": ([10, 50_000, 50_000], 1000),
}


@schemes
@loops
@pytest.mark.parametrize("name", BEFORE)
@aio
async def test_a_send_that_fails_finds_the_closing_message(
    scheme: str, name: str, loop_factory: LoopFactory
) -> None:
    """In the same call: it may have the last word of a program. What came before is not lost."""
    sizes, read_ahead = BEFORE[name]
    async with pair(scheme, Limits(read_ahead=read_ahead)) as (a, b):
        await a.write(1)
        await b.read()
        stream = b._stream  # type: ignore[attr-defined]
        near = a._stream.socket  # type: ignore[attr-defined]
        near.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        for size in sizes:
            b.write_nowait(bytes(size))
            stream._sender.release()  # over TLS, each in a record of its own
        stream._sender.write_last(closing.encode(1011, "of the test"), stream.failure)
        stream._sender.send_eof()
        until_acknowledged(stream.socket)
        reset(stream.socket)
        b.abort()
        a._stream._sender.answering = True  # type: ignore[attr-defined]
        error = await error_of(a.write(2))
        assert (error.code, error.reason, error.closed_by) == (1011, "of the test", "peer")
        assert a.closed_by == "peer"
        assert [len(await a.read()) for _ in sizes] == sizes
        assert (await error_of(a.read())).code == 1011


def until_acknowledged(sock: socket.socket) -> None:
    """The loop does not run meanwhile, so nothing is received."""
    for _ in range(5000):
        if not unacknowledged(sock):
            return
        time.sleep(0.001)
    raise AssertionError("the kernel of the other side does not take it")


async def waits(comm: Comm) -> CommClosedError:
    return await comm.wait_closed()


async def writes(comm: Comm) -> CommClosedError:
    while True:
        try:
            await comm.write(bytes(1000))
        except CommClosedError as error:
            return error
        await asyncio.sleep(0.001)


async def asks_later(comm: Comm) -> CommClosedError:
    await until(comm.closed)
    return await error_of(comm.read())


AFTERWARDS = {
    "a message": message(b"\x01"),
    "another code": message(closing.encode(3000, "again")),
    "the same": message(closing.encode(1001, "first")),
    "many": message(b"\x01") * 100 + message(closing.encode(1000, "")),
    "half a message": message(bytes(100))[:70],
}


@schemes
@pytest.mark.parametrize("name", AFTERWARDS)
@aio
async def test_the_first_closing_message_counts_for_who_does_not_read(
    scheme: str, name: str
) -> None:
    for tells in (waits, writes, asks_later):
        async with pair(scheme) as (a, b):
            stream: Any = a._stream  # type: ignore[attr-defined]
            told = asyncio.ensure_future(tells(b))
            await asyncio.sleep(0)
            stream._sender._channel.send(message(closing.encode(1001, "first")) + AFTERWARDS[name])
            a.abort()
            error = await told
            assert (error.code, error.reason, error.closed_by) == (1001, "first", "peer"), tells
