"""What arrives with the end of a comm, heartbeats, and the signal to end."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from typing import Any

import pytest
import uvloop

from sealwire.comm import CallLost, Calls, CloseCode, ReconnectingClient, listen, stop_signal
from sealwire.comm.testing import pair as cuttable
from support.aio import aio, until
from support.calling import called_by_hand
from support.links import over_schemes, pair

pytest_generate_tests = over_schemes

loops = pytest.mark.parametrize(
    "loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"]
)


@pytest.mark.parametrize("request_", [[0, 1, "work", None, None], [2, "work", None]])
@pytest.mark.parametrize("gathered", [False, True])
@aio
async def test_a_reply_before_the_end_reaches_its_handler(
    scheme: str, request_: list[Any], gathered: bool
) -> None:
    """Though the handler is cancelled for the end, which came with it."""
    got: list[Any] = []

    async def ask(calls: Calls) -> None:
        got.append(await calls.call("ask"))
        await asyncio.sleep(600)

    async def work() -> None:
        await (asyncio.gather(ask(called), ask(called)) if gathered else ask(called))

    async with pair(scheme) as (comm, b), Calls(b, {"work": work}) as called:
        await comm.write(request_)
        asked = [await comm.read() for _ in range(1 + gathered)]
        for _, number, *_ in asked:
            comm.write_nowait([1, number, None, "the answer"])
        await comm.close()
        await called.wait_closed()
        assert got == ["the answer"] * len(asked)
        await until(lambda: called.running == 0)


@aio
async def test_who_answers_no_ping_is_given_up(caplog: pytest.LogCaptureFixture) -> None:
    async with (
        cuttable() as (a, b, link),
        Calls(a, ping_interval=0.05) as calls,
        Calls(b, ping_interval=3600) as other,
    ):
        assert await calls.ping(timeout=20) > 0
        link.hold()
        with pytest.raises(CallLost):
            await calls.call("anything")
        assert calls.failure is not None
        link.release()
        await other.wait_closed()
    assert "no answer to a ping for 0.05 s" in caplog.text


@pytest.mark.parametrize("interval", [0, -1, "1", True, float("nan"), float("inf")])
@aio
async def test_bad_intervals(interval: Any) -> None:
    async with pair("mem") as (a, _):
        with pytest.raises(ValueError, match="bad ping_interval"):
            Calls(a, ping_interval=interval)
        await a.write("it is nobody's yet")


async def fail(client: ReconnectingClient) -> None:
    async with client:
        await client.session()
        raise ZeroDivisionError


@aio
async def test_a_client_that_fails_says_so() -> None:
    """As a comm does, and calls, at the end of a block that raises."""
    ended: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    async def serve(comm: Any) -> None:
        async with Calls(comm) as calls:
            await calls.wait_closed()
            ended.set_result(calls.failure)

    async with listen("mem://", serve) as listener:
        with pytest.raises(ZeroDivisionError):
            await fail(ReconnectingClient(listener.contact_address))
        failure = await asyncio.wait_for(ended, 20)
    assert (failure.code, failure.reason) == (
        CloseCode.HANDLER_FAILED,
        "its user raised ZeroDivisionError",
    )


@aio
async def test_an_attempt_of_a_reconnecting_client_is_one() -> None:
    """The pauses between attempts are its own, and not those of `connect` within each."""
    seen: list[Any] = []
    for further, expected in (({}, 1), ({"max_attempts": 3}, 3)):
        client = ReconnectingClient("mem://nobody", backoff=0.001, backoff_cap=0.01, **further)
        await until(lambda: client._last is not None)  # noqa: B023 (used at once)
        seen.append((getattr(client._last, "attempts", None), expected))
        await client.close()
    assert seen == [(1, 1), (3, 3)]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
@loops
@aio
async def test_a_signal_to_end(number: signal.Signals, loop_factory: Any) -> None:
    before = signal.getsignal(number)
    given = {} if number != signal.SIGUSR1 else {"signals": [number]}
    waiting = asyncio.ensure_future(stop_signal(**given))
    await asyncio.sleep(0)
    os.kill(os.getpid(), number)
    os.kill(os.getpid(), number)  # in time for the first
    assert await waiting is number
    assert signal.getsignal(number) == before


@loops
@aio
async def test_nobody_waits_for_signals_any_more(loop_factory: Any) -> None:
    before = [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)]
    waiting = asyncio.ensure_future(stop_signal())
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)] == before


@pytest.mark.parametrize("loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_signals_are_for_the_main_thread(loop_factory: Any) -> None:
    raised: list[BaseException] = []

    def run() -> None:
        loop = loop_factory()
        try:
            loop.run_until_complete(stop_signal())
        except BaseException as error:
            raised.append(error)
        finally:
            loop.close()

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    (error,) = raised
    assert isinstance(error, RuntimeError)
    assert str(error).startswith("cannot wait for SIGTERM, SIGINT in this event loop: ")


@aio
async def test_a_handler_is_still_cancelled_for_the_end() -> None:
    cancelled = asyncio.Event()

    async def wait() -> None:
        try:
            await asyncio.sleep(600)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    async with called_by_hand({"wait": wait}) as (comm, called):
        await comm.write([0, 1, "wait", None, None])
        await until(lambda: called.running == 1)
        comm.abort()
        await asyncio.wait_for(cancelled.wait(), 20)


@pytest.mark.parametrize("signals", [[], [0], [99999], [-1]])
@aio
async def test_what_is_no_signal(signals: Any) -> None:
    with pytest.raises(ValueError, match="signal"):
        await stop_signal(signals)


@pytest.mark.parametrize(("number", "name"), [(signal.SIGKILL, "SIGKILL"), (9, "9")])
@aio
async def test_a_signal_that_nobody_can_wait_for(number: Any, name: str) -> None:
    with pytest.raises(RuntimeError, match=f"cannot wait for {name} "):
        await stop_signal([number])
