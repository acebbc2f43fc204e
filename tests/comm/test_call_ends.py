"""Calls that are given up, and calls whose comm ends."""

from __future__ import annotations

import asyncio
import math
from contextlib import AsyncExitStack
from typing import Any

import pytest
import uvloop

from sealwire.comm import (
    CallError,
    CallLost,
    CallRefused,
    Calls,
    CallTimeout,
    CloseCode,
    CommClosedError,
)
from support.aio import aio, until
from support.calling import Sleeper, calls_pair
from support.links import pair

loops = pytest.mark.parametrize(
    "loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"]
)


@aio
async def test_a_deadline_ends_the_call_and_the_handler() -> None:
    sleeper = Sleeper()
    async with calls_pair({"sleep": sleeper}) as (calls, called):
        with pytest.raises(
            CallTimeout, match=r"^call of 'sleep' to .*timed out: .*0\.05 s"
        ) as late:
            await calls.call("sleep", timeout=0.05)
        assert isinstance(late.value, TimeoutError)
        assert late.value.may_have_run
        await sleeper.until(lambda s: s.cancelled == 1)
        await until(lambda: called.running == 0)
        assert calls.pending == 0


@aio
async def test_a_deadline_is_kept_by_the_called_side_alone() -> None:
    """As if the caller were too busy to notice."""
    sleeper = Sleeper()
    async with pair("tcp") as (comm, b), Calls(b, {"sleep": sleeper}) as called:
        await comm.write([0, 1, "sleep", 0.05, None])
        assert await comm.read() == [6, 1, "expired", ""]
        assert sleeper.cancelled == 1
        await until(lambda: called.running == 0)


@aio
async def test_deadlines_of_many_calls_pass_one_by_one() -> None:
    sleeper = Sleeper()
    async with calls_pair({"sleep": sleeper, "now": lambda: 1}) as (calls, _):
        order: list[int] = []

        async def use(number: int) -> None:
            with pytest.raises(CallTimeout):
                await calls.call("sleep", timeout=0.02 * number)
            order.append(number)

        numbers = [5, 1, 4, 2, 3]
        tasks = [asyncio.ensure_future(use(number)) for number in numbers]
        for _ in range(3000):  # those of ended calls are forgotten meanwhile
            await calls.call("now", timeout=3600)
        await asyncio.gather(*tasks)
        assert sorted(order) == [1, 2, 3, 4, 5]
        assert len(calls._deadlines._heap) <= 1100


@pytest.mark.parametrize("timeout", [0, -1, math.nan, math.inf, "5", True, [1]])
@aio
async def test_a_bad_timeout_is_told_at_the_call(timeout: Any) -> None:
    async with calls_pair({"now": lambda: 1}) as (calls, _):
        for use in (calls.call("now", timeout=timeout), calls.ping(timeout=timeout)):
            with pytest.raises(ValueError, match="bad timeout"):
                await use
        assert calls.pending == 0


@aio
async def test_a_cancelled_call_cancels_its_handler_alone() -> None:
    sleeper = Sleeper()
    async with calls_pair({"sleep": sleeper}) as (calls, called):
        tasks = [asyncio.ensure_future(calls.call("sleep", number)) for number in range(3)]
        await sleeper.until(lambda s: s.started == 3)
        tasks[1].cancel()
        await sleeper.until(lambda s: s.cancelled == 1)
        with pytest.raises(asyncio.CancelledError):
            await tasks[1]
        await until(lambda: called.running == 2)
        sleeper.go.set()
        assert [await tasks[0], await tasks[2]] == [0, 2]
        assert sleeper.cancelled == 1


@aio
async def test_a_call_cancelled_at_once_cancels_a_handler_that_has_not_begun() -> None:
    sleeper = Sleeper()
    async with calls_pair({"sleep": sleeper, "now": lambda: 1}) as (calls, called):
        task = asyncio.ensure_future(calls.call("sleep"))
        await asyncio.sleep(0)
        task.cancel()
        assert await calls.call("now") == 1
        await until(lambda: called.running == 0)
        assert sleeper.started == sleeper.cancelled


@aio
async def test_a_handler_that_does_not_let_itself_be_cancelled() -> None:
    go = asyncio.Event()

    async def stubborn() -> str:
        while not go.is_set():
            try:
                await go.wait()
            except asyncio.CancelledError:
                pass
        return "late"

    async with calls_pair({"stubborn": stubborn, "now": lambda: 1}) as (calls, called):
        with pytest.raises(CallTimeout):
            await calls.call("stubborn", timeout=0.05)
        assert called.running == 1
        go.set()
        await until(lambda: called.running == 0)
        assert await calls.call("now") == 1


# The end


@pytest.mark.parametrize("code", [CloseCode.NORMAL, CloseCode.GOING_AWAY, 4321])
@aio
async def test_pending_calls_learn_how_the_comm_ended(code: int) -> None:
    sleeper = Sleeper()
    async with calls_pair({"sleep": sleeper}) as (calls, called):
        task = asyncio.ensure_future(calls.call("sleep"))
        await sleeper.until(lambda s: s.started == 1)
        await called.close(code, "until tomorrow")
        with pytest.raises(CallLost, match="until tomorrow") as caught:
            await task
        error = caught.value
        assert isinstance(error, CommClosedError)
        assert isinstance(error, CallError)
        assert (error.code, error.reason, error.closed_by) == (code, "until tomorrow", "peer")
        assert (error.method, error.may_have_run) == ("sleep", True)
        assert sleeper.cancelled == 1
        for use in (calls.call("sleep"), calls.notify("sleep"), calls.ping()):
            with pytest.raises(CallLost) as caught:
                await use
            assert not caught.value.may_have_run
        assert calls.closed()
        if code == 4321:
            with pytest.raises(CommClosedError, match="until tomorrow"):
                await calls.serve()
        else:
            await calls.serve()


@aio
async def test_handlers_end_with_the_comm() -> None:
    sleeper = Sleeper()
    async with calls_pair({"sleep": sleeper}) as (calls, called):
        task = asyncio.ensure_future(calls.call("sleep"))
        await sleeper.until(lambda s: s.started == 1)
        calls.comm.abort()
        await sleeper.until(lambda s: s.cancelled == 1)
        with pytest.raises(CallLost):
            await task
        with pytest.raises(CommClosedError) as caught:
            await called.serve()
        assert caught.value.closed_by == "lost"


@aio
async def test_a_graceful_stop_finishes_what_runs_and_refuses_the_rest() -> None:
    sleeper = Sleeper()
    async with calls_pair({"sleep": sleeper}, max_running=1) as (calls, called):
        runs = asyncio.ensure_future(calls.call("sleep", "done"))
        waits = asyncio.ensure_future(calls.call("sleep", "waits"))
        await sleeper.until(lambda s: s.started == 1)
        await calls.ping()
        stopping = asyncio.ensure_future(called.close(CloseCode.GOING_AWAY, grace=60))
        for refused in (waits, calls.call("sleep", "new")):
            with pytest.raises(CallRefused) as caught:
                await refused
            assert caught.value.kind == "stopping"
        assert not stopping.done()
        sleeper.go.set()
        assert await runs == "done"
        await stopping
        assert sleeper.started == 1


@aio
async def test_what_outlasts_the_grace_is_cancelled() -> None:
    sleeper = Sleeper()
    async with calls_pair({"sleep": sleeper}) as (calls, called):
        task = asyncio.ensure_future(calls.call("sleep"))
        await sleeper.until(lambda s: s.started == 1)
        for bad in (-1, math.nan, "1", True):
            with pytest.raises(ValueError, match="bad grace"):
                await called.close(grace=bad)  # type: ignore[arg-type]
        await called.close(grace=0.05)
        with pytest.raises(CallLost) as caught:
            await task
        assert caught.value.may_have_run
        assert sleeper.cancelled == 1
        assert called.running == 0


@aio
async def test_a_handler_may_close_its_calls() -> None:
    async with pair("tcp") as (a, b):

        async def leave() -> None:
            await called.close(CloseCode.GOING_AWAY)

        async with Calls(a) as calls, Calls(b, {"leave": leave}) as called:
            with pytest.raises(CallLost) as caught:
                await calls.call("leave")
            assert caught.value.code == CloseCode.GOING_AWAY


@aio
async def test_an_error_in_the_block_closes_with_its_name() -> None:
    async with pair("tcp") as (a, b), Calls(b) as called:
        with pytest.raises(KeyError):
            async with Calls(a):
                raise KeyError
        with pytest.raises(CommClosedError, match="its user raised KeyError") as caught:
            await called.serve()
        assert caught.value.code == CloseCode.HANDLER_FAILED


@pytest.mark.parametrize("loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_a_caller_that_ends_the_event_loop_takes_no_reply_of_others(loop_factory: Any) -> None:
    """Whose replies have arrived with his."""
    loop: asyncio.AbstractEventLoop = loop_factory()
    together = AsyncExitStack()

    async def begin() -> Calls:
        made = calls_pair({"echo": lambda value: value}, scheme="mem")
        calls, _ = await together.enter_async_context(made)
        return calls

    async def call(number: int) -> Any:
        value = await calls.call("echo", number, timeout=20)
        if number == 0:
            raise SystemExit(3)
        return value

    calls = loop.run_until_complete(begin())
    several = [loop.create_task(call(number)) for number in range(5)]
    with pytest.raises(SystemExit):
        loop.run_until_complete(asyncio.wait(several))
    others = asyncio.wait_for(asyncio.gather(*several[1:]), 20)
    assert loop.run_until_complete(others) == [1, 2, 3, 4]
    assert isinstance(several[0].exception(), SystemExit)
    loop.run_until_complete(together.aclose())
    loop.close()
