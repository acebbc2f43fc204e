"""A listener that is closed under `Calls`: what runs may finish, what is new is refused."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
import uvloop

from sealwire.comm import (
    CallLost,
    CallRefused,
    Calls,
    CloseCode,
    Comm,
    Listener,
    ReconnectingClient,
    connect,
    listen,
)
from support.aio import aio, until
from support.calling import Sleeper
from support.links import Wrapping, connect_args, listen_args, over_schemes, place

pytest_generate_tests = over_schemes

loops = pytest.mark.parametrize(
    "loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"]
)


class House:
    """A listener whose handlers serve calls, in one of the ways in which they can be written."""

    def __init__(
        self,
        handlers: Any,
        way: str = "with",
        wrap: Callable[[Comm], Comm] | None = None,
        **bounds: int,
    ) -> None:
        self.handlers = handlers
        self.bounds = bounds
        self.way = way
        self.wrap = wrap
        self.guests: list[Calls] = []

    async def receive(self, comm: Comm) -> None:
        calls = Calls(self.wrap(comm) if self.wrap else comm, self.handlers, **self.bounds)
        self.guests.append(calls)
        if self.way == "with":
            async with calls:
                await calls.serve()
        elif self.way == "serve":
            await calls.serve()
        else:
            await calls.wait_closed()

    def listen(self, scheme: str) -> Listener:
        return listen(place(scheme), self.receive, **listen_args(scheme))


async def dial(scheme: str, listener: Listener) -> Calls:
    return Calls(await connect(listener.contact_address, **connect_args(scheme)))


@pytest.mark.parametrize("way", ["with", "serve", "wait_closed"])
@aio
async def test_what_runs_finishes_within_the_grace(scheme: str, way: str) -> None:
    """It is answered, what waits and what is new is refused, and pings are answered."""
    sleeper = Sleeper()
    house = House({"sleep": sleeper}, way, max_running=2)
    listener = await house.listen(scheme)
    async with await dial(scheme, listener) as calls, await dial(scheme, listener) as idle:
        await idle.ping()
        running = [asyncio.ensure_future(calls.call("sleep", number)) for number in range(2)]
        await sleeper.until(lambda s: s.started == 2)
        waiting = asyncio.ensure_future(calls.call("sleep"))
        await calls.ping()
        closing = asyncio.ensure_future(listener.close(grace=60))
        await idle.serve()
        assert idle.failure is not None
        assert idle.failure.code == CloseCode.GOING_AWAY
        for refused in (waiting, calls.call("sleep")):
            with pytest.raises(CallRefused) as caught:
                await refused
            assert (caught.value.kind, caught.value.may_have_run) == ("stopping", False)
        await calls.ping()
        assert not closing.done()
        sleeper.go.set()
        assert await asyncio.gather(*running) == [0, 1]
        await closing
        await calls.serve()
        assert calls.failure is not None
        assert (calls.failure.code, calls.failure.closed_by) == (CloseCode.GOING_AWAY, "peer")
    assert (sleeper.started, sleeper.cancelled) == (2, 0)


@pytest.mark.parametrize("grace", [0, 1e-9, 0.05])
@pytest.mark.parametrize("way", ["with", "serve", "wait_closed"])
@aio
async def test_what_outlasts_the_grace_is_cancelled(scheme: str, way: str, grace: float) -> None:
    sleeper = Sleeper()
    listener = await House({"sleep": sleeper}, way).listen(scheme)
    calls = await dial(scheme, listener)
    running = asyncio.ensure_future(calls.call("sleep"))
    await sleeper.until(lambda s: s.started == 1)
    await listener.close(grace)
    with pytest.raises(CallLost) as caught:
        await running
    assert (caught.value.code, caught.value.closed_by) == (CloseCode.GOING_AWAY, "peer")
    assert caught.value.may_have_run
    await sleeper.until(lambda s: s.cancelled == 1)


@aio
async def test_a_handler_may_ask_its_caller_meanwhile(scheme: str) -> None:
    """And what it is answered arrives."""
    go = asyncio.Event()
    running = asyncio.Event()

    async def work() -> Any:
        running.set()
        await go.wait()
        return await house.guests[0].call("ask", 20)

    house = House({"work": work})
    listener = await house.listen(scheme)
    comm = await connect(listener.contact_address, **connect_args(scheme))
    async with Calls(comm, {"ask": lambda value: 2 * value}) as calls:
        asked = asyncio.ensure_future(calls.call("work"))
        await running.wait()
        closing = asyncio.ensure_future(listener.close(grace=60))
        await until(lambda: listener._server is None)  # type: ignore[attr-defined]
        go.set()
        assert await asked == 40
        await closing


@aio
async def test_a_handler_may_close_the_listener_that_it_is_called_through(scheme: str) -> None:
    async def leave(grace: float) -> str:
        await listener.close(grace)
        return "closed"

    for grace in (0.0, 60.0):
        listener = await House({"leave": leave}).listen(scheme)
        async with await dial(scheme, listener) as calls:
            assert await calls.call("leave", grace) == "closed"
            await calls.serve()
        await listener.wait_closed()


@aio
async def test_a_shorter_grace_and_a_cancelled_close(scheme: str) -> None:
    """Whoever gives up waiting for a close does not end it."""
    sleeper = Sleeper()
    listener = await House({"sleep": sleeper}).listen(scheme)
    async with await dial(scheme, listener) as calls:
        running = asyncio.ensure_future(calls.call("sleep"))
        await sleeper.until(lambda s: s.started == 1)
        closing = asyncio.ensure_future(listener.close(grace=1e6))
        await until(lambda: listener._server is None)  # type: ignore[attr-defined]
        with pytest.raises(CallRefused):
            await calls.call("sleep")
        closing.cancel()
        await asyncio.wait([closing])
        assert not sleeper.cancelled
        assert not running.done()
        with pytest.raises(CallRefused):
            await calls.call("sleep")
        await listener.close(grace=0.01)
        with pytest.raises(CallLost):
            await running
        assert sleeper.cancelled == 1


@loops
@aio
async def test_a_client_takes_what_is_refused_to_the_next_listener(loop_factory: Any) -> None:
    """A server that is replaced costs no call, idempotent or not."""
    sleeper = Sleeper()
    handlers = {"sleep": sleeper, "now": lambda: 1}
    first = await listen("mem://replaced", House(handlers).receive)
    async with ReconnectingClient("mem://replaced", backoff=0.001, backoff_cap=0.01) as client:
        running = asyncio.ensure_future(client.call("sleep", "done"))
        await sleeper.until(lambda s: s.started == 1)
        closing = asyncio.ensure_future(first.close(grace=60))
        await until(lambda: first._server is None)  # type: ignore[attr-defined]
        second = await listen("mem://replaced", House(handlers).receive)
        new = [asyncio.ensure_future(client.call("now")) for _ in range(5)]
        await asyncio.wait(new, timeout=0.05)
        sleeper.go.set()
        assert await running == "done"
        assert await asyncio.gather(*new) == [1] * 5
        await closing
    await second.close()


@pytest.mark.parametrize("way", ["with", "serve", "wait_closed"])
@aio
async def test_what_runs_over_a_comm_that_wraps_finishes_too(scheme: str, way: str) -> None:
    """Nothing of it is read any more: a call of ours that is pending, or new, is lost at once."""
    sleeper = Sleeper()
    asked: list[CallLost] = []

    async def ask() -> None:
        while len(asked) < 2:
            try:
                await house.guests[0].call("ask")
            except CallLost as error:
                asked.append(error)
        with pytest.raises(CallLost):
            await house.guests[0].ping()

    house = House({"sleep": sleeper, "ask": ask}, way, Wrapping)
    listener = await house.listen(scheme)
    comm = await connect(listener.contact_address, **connect_args(scheme))
    mute = Sleeper()
    async with Calls(comm, {"ask": mute}) as calls:
        running = asyncio.ensure_future(calls.call("sleep", "done"))
        asking = asyncio.ensure_future(calls.call("ask"))
        await sleeper.until(lambda s: s.started == 1)
        await mute.until(lambda s: s.started == 1)
        closing = asyncio.ensure_future(listener.close(grace=60))
        await asking
        assert [error.may_have_run for error in asked] == [True, False]
        assert not closing.done()
        sleeper.go.set()
        assert await running == "done"
        await closing
        await calls.serve()
        assert calls.failure is not None
        assert (calls.failure.code, calls.failure.closed_by) == (CloseCode.GOING_AWAY, "peer")
    assert sleeper.cancelled == 0


@pytest.mark.parametrize("way", ["with", "serve", "wait_closed"])
@aio
async def test_what_outlasts_the_grace_over_a_comm_that_wraps(scheme: str, way: str) -> None:
    sleeper = Sleeper()
    listener = await House({"sleep": sleeper}, way, Wrapping).listen(scheme)
    calls = await dial(scheme, listener)
    running = asyncio.ensure_future(calls.call("sleep"))
    await sleeper.until(lambda s: s.started == 1)
    await listener.close(0.05)
    with pytest.raises(CallLost) as caught:
        await running
    assert (caught.value.code, caught.value.closed_by) == (CloseCode.GOING_AWAY, "peer")
    await sleeper.until(lambda s: s.cancelled == 1)
