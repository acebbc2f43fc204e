"""A handler that neither reads nor writes learns that its peer has gone."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from sealwire.comm import CloseCode, Comm, CommClosedError, Limits, connect, listen
from support.aio import aio, until
from support.endings import error_of
from support.links import (
    RawPeer,
    by_port,
    connect_args,
    echo,
    listen_args,
    over_schemes,
    pair,
    place,
)

pytest_generate_tests = over_schemes

LIMITS = Limits(read_ahead=205_000)  # 20 messages of those below
BEYOND = {
    "tcp": 25,
    "tls": 21,
    "unix": 25,
    "mem": 25,
}  # messages that are more, and whose rest fits into the kernel
UNREAD = pytest.mark.parametrize(
    "unread", [0, 1, 5, None], ids=lambda count: f"{count or 'too many'}"
)


async def send(comm: Comm, scheme: str, unread: int | None) -> int:
    count = BEYOND[scheme] if unread is None else unread
    for number in range(count):
        await comm.write([number, bytes(10_000)])
    return count


async def take(comm: Comm, count: int) -> None:
    for number in range(count):
        assert (await comm.read())[0] == number


@UNREAD
@aio
async def test_a_peer_that_closes(scheme: str, unread: int | None) -> None:
    async with pair(scheme, LIMITS) as (a, b):
        waiting = [asyncio.ensure_future(b.wait_closed()) for _ in range(3)]
        count = await send(a, scheme, unread)
        await asyncio.sleep(0)
        assert not any(task.done() for task in waiting)
        waiting.pop().cancel()
        await a.close(3456, "why not")
        for error in [*await asyncio.gather(*waiting), await b.wait_closed()]:
            assert (error.code, error.reason, error.closed_by) == (3456, "why not", "peer")
        assert b.closed_by == "peer"
        await take(b, count)  # they are still there
        assert (await error_of(b.read())).code == 3456


@UNREAD
@aio
async def test_a_peer_that_is_lost(scheme: str, unread: int | None) -> None:
    async with pair(scheme, LIMITS) as (a, b):
        waiting = asyncio.ensure_future(b.wait_closed())
        count = await send(a, scheme, unread)
        await until(lambda: b._stream.bytes_in >= min(count, 20) * 10_000)
        a.abort()
        error = await waiting
        assert isinstance(error, CommClosedError)
        assert (error.code, error.closed_by, error.clean) == (CloseCode.ABNORMAL, "lost", False)


@by_port
@aio
async def test_a_peer_that_resets(scheme: str) -> None:
    """With unread messages beyond the read-ahead, by a kernel that has more to say."""
    ended: asyncio.Future[CommClosedError] = asyncio.get_running_loop().create_future()

    async def wait(comm: Comm) -> None:
        ended.set_result(await comm.wait_closed())

    address = place(scheme)
    async with listen(address, wait, limits=LIMITS, **listen_args(scheme)) as listener:
        context = connect_args(scheme).get("ssl_context")
        peer = await RawPeer.dial(listener.contact_address, context)
        peer.say_hello()
        await peer.receive()
        for _ in range(100):
            peer.send(bytes(10_000))
        await peer.writer.drain()
        peer.reset()
        assert (await ended).closed_by == "lost"


@aio
async def test_one_who_waits_beside_a_reader_and_after_our_own_close(scheme: str) -> None:
    async with pair(scheme) as (a, b):
        waiting = asyncio.ensure_future(b.wait_closed())
        reading = asyncio.ensure_future(b.read())
        await a.write(1)
        assert await reading == 1
        assert not waiting.done()
        await b.close(CloseCode.GOING_AWAY, "we go")
        for error in (await waiting, await b.wait_closed()):
            assert (error.code, error.reason, error.closed_by) == (1001, "we go", "us")
        first, second = await a.wait_closed(), await a.wait_closed()
        assert first is not second
        assert first.code == second.code == 1001


@aio
async def test_one_who_stops_waiting_leaves_nothing(scheme: str) -> None:
    async with pair(scheme) as (a, b):
        for _ in range(100):
            task = asyncio.ensure_future(b.wait_closed())
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        watch = b._stream._end_watch  # type: ignore[attr-defined]
        assert len(watch._waiting) <= 1
        await a.write(1)
        assert await b.read() == 1


@UNREAD
@pytest.mark.parametrize("end", ["close", "abort"])
@aio
async def test_handlers_are_cancelled_if_asked_for(
    scheme: str, end: str, unread: int | None
) -> None:
    started, cancelled = asyncio.Event(), asyncio.Event()

    async def work(comm: Comm) -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    address = place(scheme)
    async with listen(
        address, work, limits=LIMITS, cancel_on_disconnect=True, **listen_args(scheme)
    ) as listener:
        comm = await connect(listener.contact_address, **connect_args(scheme))
        await send(comm, scheme, unread)
        await started.wait()
        done = getattr(comm, end)()
        if done is not None:
            await done
        await cancelled.wait()
        await listener.wait_closed() if listener.stop() is None else await listener.close()
        assert listener.comms == ()


@aio
async def test_they_are_not_cancelled_for_their_own_close_nor_by_default(scheme: str) -> None:
    done: list[Any] = []

    async def work(comm: Comm) -> None:
        await comm.read()
        await comm.close()
        for _ in range(20):
            await asyncio.sleep(0)
        done.append("worked")

    async def wait(comm: Comm) -> None:
        done.append((await comm.wait_closed()).code)
        for _ in range(20):
            await asyncio.sleep(0)
        done.append("worked")

    for handler, cancels in ((work, True), (wait, False)):
        done.clear()
        listener = await listen(
            place(scheme), handler, cancel_on_disconnect=cancels, **listen_args(scheme)
        )
        async with connect(listener.contact_address, **connect_args(scheme)) as comm:
            await comm.write(1)
            if handler is work:
                await error_of(comm.read())
        listener.stop()
        await listener.wait_closed()
        assert done[-1] == "worked"
    assert done == [1000, "worked"]


@pytest.mark.parametrize("value", [None, 1, "yes", 0])
@aio
async def test_what_is_no_bool(scheme: str, value: Any) -> None:
    with pytest.raises(TypeError, match="got cancel_on_disconnect="):
        listen(place(scheme), echo, cancel_on_disconnect=value, **listen_args(scheme))
