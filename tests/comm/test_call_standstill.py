"""Handlers of both sides that wait for each other: it is told, and ends with the deadlines."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from sealwire.comm import Calls, CallTimeout
from sealwire.comm.calls import handlers
from support.aio import aio, until
from support.calling import Sleeper, calls_pair

ROOM = {"max_running": 2}


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handlers, "_STANDSTILL", 0.05)


class Ladder:
    """A handler of either side, which calls the other one's until none is left."""

    def __init__(self) -> None:
        self.peer: Calls | None = None

    async def __call__(self, left: int, seconds: float | None = None) -> int:
        assert self.peer is not None
        if not left:
            return 0
        done: int = await self.peer.call("climb", left - 1, timeout=seconds)
        return 1 + done


def told(caplog: pytest.LogCaptureFixture) -> int:
    return caplog.text.count("stand still: 2 handlers have run for 0.05 s")


@aio
async def test_it_is_told_once_and_they_go_on(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    ours, theirs = Ladder(), Ladder()
    async with calls_pair({"climb": theirs}, {"climb": ours}, ours_with=ROOM, **ROOM) as (
        calls,
        called,
    ):
        ours.peer, theirs.peer = calls, called
        climbing = [asyncio.ensure_future(calls.call("climb", 9, 30)) for _ in range(2)]
        await until(lambda: told(caplog) == 1)
        assert "2 requests wait for them, and 2 calls of ours to it have no reply" in caplog.text
        climbing.append(asyncio.ensure_future(calls.call("climb", 0)))
        await asyncio.wait(climbing, timeout=0.2)
        assert not any(each.done() for each in climbing)
        assert told(caplog) == 1
        for each in climbing[:2]:  # as their deadline does
            each.cancel()
        assert await climbing[2] == 0
        assert await calls.call("climb", 3) == 3


@aio
async def test_a_deadline_ends_it() -> None:
    ours, theirs = Ladder(), Ladder()
    async with calls_pair({"climb": theirs}, {"climb": ours}, ours_with=ROOM, **ROOM) as (
        calls,
        called,
    ):
        ours.peer, theirs.peer = calls, called
        climbing = [calls.call("climb", 9, 0.2, timeout=0.2) for _ in range(4)]
        for done in await asyncio.gather(*climbing, return_exceptions=True):
            assert isinstance(done, CallTimeout)
        assert await calls.call("climb", 3) == 3


@pytest.mark.parametrize("beside", [0, 1])
@aio
async def test_handlers_that_are_slow_are_not_taken_for_it(
    beside: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Nor if one of them calls, or there are calls of others."""
    caplog.set_level(logging.WARNING)
    sleeper, elsewhere = Sleeper(), Sleeper()
    async with calls_pair({"sleep": sleeper}, {"sleep": elsewhere}, **ROOM) as (calls, called):
        others: list[Any] = [asyncio.ensure_future(called.call("sleep")) for _ in range(beside)]
        asleep = [asyncio.ensure_future(calls.call("sleep", n)) for n in range(5)]
        await asyncio.wait(asleep, timeout=0.3)
        assert not told(caplog)
        sleeper.go.set()
        elsewhere.go.set()
        assert await asyncio.gather(*asleep, *others) == [0, 1, 2, 3, 4, *[None] * beside]
