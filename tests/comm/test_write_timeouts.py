"""Writes that do not wait for ever, `drain`, and what either leaves behind."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from sealwire.comm import Comm, CommClosedError, CommError, Limits, WriteTimeout
from support.aio import aio
from support.links import over_schemes, pair

pytest_generate_tests = over_schemes

FIRST = 5_000_000  # more than the read-ahead
LARGE = 30_000_000  # more than kernels hold
TIMES = [0.02, 1, 10**9]


async def held_up(comm: Comm) -> asyncio.Task[Any]:
    """A write to a peer that does not read: behind a message that fills its read-ahead."""
    await comm.write(bytes(FIRST))
    task = asyncio.create_task(comm.write(bytes(LARGE)))
    await asyncio.sleep(0)
    assert not task.done()
    return task


@aio
async def test_a_small_message_has_its_own_deadline(scheme: str) -> None:
    """Behind a large one to a peer that does not read; all arrive in their order in the end."""
    async with pair(scheme) as (a, b):
        large = await held_up(a)
        for number in range(3):
            with pytest.raises(WriteTimeout, match=r"within 0\.02 s: \d+ bytes are que") as caught:
                await a.write(["small", number], timeout=0.02)
            assert caught.value.unsent > 10_000_000
            assert caught.value.peer == a.peer_address
            assert isinstance(caught.value, CommError)
            assert isinstance(caught.value, TimeoutError)
            assert not isinstance(caught.value, CommClosedError)
        assert not large.done()
        assert not a.closed()
        with pytest.raises(WriteTimeout):
            await a.drain(timeout=0.02)
        assert [len(await b.read()) for _ in range(2)] == [FIRST, LARGE]
        await large
        assert [await b.read() for _ in range(3)] == [["small", number] for number in range(3)]
        await a.drain()
        await a.write("after", timeout=0.02)
        assert await b.read() == "after"


@pytest.mark.parametrize("how", ["timeout", "cancel"])
@aio
async def test_drain_waits_for_what_was_left_behind(scheme: str, how: str) -> None:
    async with pair(scheme) as (a, b):
        await asyncio.wait_for(a.drain(), 5)  # of nothing
        content = bytearray(b"x" * LARGE)
        await a.write(bytes(FIRST))
        if how == "timeout":
            with pytest.raises(WriteTimeout):
                await a.write(content, timeout=0.05)
        else:
            writing = asyncio.ensure_future(a.write(content))
            await asyncio.sleep(0)
            writing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await writing
        draining = [asyncio.ensure_future(a.drain()) for _ in range(3)]
        draining.pop().cancel()
        await asyncio.sleep(0)
        assert not any(task.done() for task in draining)
        assert len(await b.read()) == FIRST
        reading = asyncio.ensure_future(b.read())
        await asyncio.gather(*draining)
        content[:] = bytes(LARGE)  # may be used again
        assert bytes(await reading) == b"x" * LARGE


@aio
async def test_the_end_of_the_comm_ends_them(scheme: str) -> None:
    async with pair(scheme) as (a, b):
        waiting = [
            await held_up(a),
            *map(asyncio.ensure_future, (a.drain(), a.drain(timeout=60), a.write(1, timeout=60))),
        ]
        await asyncio.sleep(0)
        b.abort()
        for task in waiting:
            with pytest.raises(CommClosedError):
                await task
        for late in (a.drain(), a.drain(timeout=1), a.write(1, timeout=1)):
            with pytest.raises(CommClosedError):
                await late


@pytest.mark.parametrize("seconds", TIMES)
@aio
async def test_a_timeout_that_is_not_needed(scheme: str, seconds: float) -> None:
    async with pair(scheme, Limits(write_ahead=1)) as (a, b):
        for size in (0, 1, 100_000):
            assert await a.write(bytes(size), timeout=seconds) > size
            await a.drain(timeout=seconds)
            assert len(await b.read()) == size


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf"), True, "1", 1j, [], 0.0])
@aio
async def test_what_is_no_timeout(scheme: str, value: Any) -> None:
    async with pair(scheme) as (a, b):
        for call in (a.write(1, timeout=value), a.drain(timeout=value)):
            with pytest.raises((TypeError, ValueError), match=r"\(\) got timeout="):
                await call
        await a.write(2)
        assert await b.read() == 2, "nothing was sent before"


@pytest.mark.parametrize("how", ["timeout", "cancel"])
@aio
async def test_memory_is_the_callers_again(scheme: str, how: str) -> None:
    """After `drain`, though the error of the write is kept, and with it the frames it has left."""
    async with pair(scheme) as (a, b):
        content = bytearray(b"x" * LARGE)
        task = asyncio.create_task(a.write([content], timeout=1e-6 if how == "timeout" else None))
        await asyncio.sleep(0)
        if how == "cancel":
            task.cancel()
        (error,) = await asyncio.gather(task, return_exceptions=True)
        assert isinstance(error, (WriteTimeout, asyncio.CancelledError))
        with pytest.raises(BufferError):
            content.append(1)
        assert len((await b.read())[0]) == LARGE
        await a.drain()
        content.append(1)
