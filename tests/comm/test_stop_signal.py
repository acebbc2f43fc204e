"""Several tasks of a process may wait for the signal that ends it, and each one gets it."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest
import uvloop

import sealwire.comm.signals
from sealwire.comm import stop_signal
from sealwire.comm.testing import pair
from support.aio import aio

loops = pytest.mark.parametrize(
    "loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"]
)
BOTH = (signal.SIGTERM, signal.SIGINT)


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """Whoever was asked before is asked again afterwards."""
    before = [signal.getsignal(number) for number in BOTH]
    yield
    assert [signal.getsignal(number) for number in BOTH] == before


async def waiting(*signals: Any) -> list[asyncio.Task[signal.Signals]]:
    tasks = [asyncio.ensure_future(stop_signal(each)) for each in signals]
    await asyncio.sleep(0)
    return tasks


@pytest.mark.parametrize("number", BOTH)
@pytest.mark.parametrize("count", [2, 3, 10])
@loops
@aio
async def test_each_of_several_gets_it(
    count: int, number: signal.Signals, loop_factory: Any
) -> None:
    tasks = await waiting(*[BOTH] * count)
    os.kill(os.getpid(), number)
    assert await asyncio.gather(*tasks) == [number] * count


@loops
@aio
async def test_each_gets_what_it_waits_for(loop_factory: Any) -> None:
    both, terminated, interrupted = await waiting(BOTH, [signal.SIGTERM], [int(signal.SIGINT)])
    os.kill(os.getpid(), signal.SIGTERM)
    assert [await both, await terminated] == [signal.SIGTERM] * 2
    assert not interrupted.done()
    os.kill(os.getpid(), signal.SIGINT)
    assert await interrupted == signal.SIGINT


@pytest.mark.parametrize("gone", [[0], [1], [2], [0, 1], [0, 2], [1, 2]])
@loops
@aio
async def test_those_that_are_cancelled_take_it_from_nobody(
    gone: list[int], loop_factory: Any
) -> None:
    tasks = await waiting(BOTH, BOTH, BOTH)
    for index in gone:
        tasks[index].cancel()
    await asyncio.sleep(0)
    os.kill(os.getpid(), signal.SIGTERM)
    ends = await asyncio.gather(*tasks, return_exceptions=True)
    assert [isinstance(end, asyncio.CancelledError) for end in ends] == [
        n in gone for n in range(3)
    ]
    assert [end for n, end in enumerate(ends) if n not in gone] == [signal.SIGTERM] * (
        3 - len(gone)
    )


@loops
@aio
async def test_one_that_cannot_wait_takes_it_from_nobody(loop_factory: Any) -> None:
    (task,) = await waiting(BOTH)
    for signals in ([signal.SIGTERM, signal.SIGKILL], [signal.SIGTERM, 99999], []):
        with pytest.raises((RuntimeError, ValueError)):
            await stop_signal(signals)
    os.kill(os.getpid(), signal.SIGTERM)
    assert await task is signal.SIGTERM


@loops
@aio
async def test_who_comes_later_waits_for_the_next(loop_factory: Any) -> None:
    (first,) = await waiting(BOTH)
    os.kill(os.getpid(), signal.SIGTERM)
    await first
    (second,) = await waiting(BOTH)
    assert not second.done()
    os.kill(os.getpid(), signal.SIGINT)
    assert await second is signal.SIGINT


@pytest.mark.parametrize(
    "set_to", [signal.SIG_DFL, signal.SIG_IGN, lambda *_: None], ids=["end", "ignore", "handle"]
)
@aio
async def test_peers_that_could_end_the_process_are_warned_of(
    set_to: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """SIGPIPE is ignored by Python, and ends those who have it otherwise at a peer's pleasure."""
    monkeypatch.setattr(sealwire.comm.signals, "_warned", False)
    before = signal.signal(signal.SIGPIPE, set_to)
    try:
        for _ in range(2):
            async with pair():
                pass
    finally:
        signal.signal(signal.SIGPIPE, before)
    told = [record.getMessage() for record in caplog.records if "SIGPIPE" in record.getMessage()]
    assert len(told) == (set_to is signal.SIG_DFL)
    assert all(text.endswith("or ignore it (SIG_IGN)") for text in told)
