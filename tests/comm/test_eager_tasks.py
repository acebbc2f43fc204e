"""Where tasks take their first step as they are made (`asyncio.eager_task_factory`)."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from sealwire.comm import Calls, EncryptionRequired, ReconnectingClient, listen
from support.aio import aio
from support.calling import House
from support.links import Wrapping, pair


def begin_at_once(loop: Any, coroutine: Coroutine[Any, Any, Any], **kwargs: Any) -> Any:
    """What the factory of Python 3.12 does; the step that others take later is taken here."""
    task = asyncio.Task(coroutine, loop=loop, **kwargs)
    if not loop.is_running():
        return task
    step = loop._ready.pop()
    around = asyncio.current_task(loop)
    if around is not None:
        asyncio.tasks._leave_task(loop, around)
    try:
        step._run()
    finally:
        if around is not None:
            asyncio.tasks._enter_task(loop, around)
    return task


def eager() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    factory: Any = getattr(asyncio, "eager_task_factory", begin_at_once)
    loop.set_task_factory(factory)
    return loop


on_eager = pytest.mark.parametrize("loop_factory", [eager], ids=["eager"])


class Full(Wrapping):
    """Always asks its writers to drain, and has nothing to wait for."""

    def write_nowait(self, message: Any) -> bool:
        super().write_nowait(message)
        return False

    async def drain(self, *, timeout: float | None = None) -> None:
        pass


@on_eager
@pytest.mark.parametrize("wrap", [lambda comm: comm, Full], ids=["ours", "full"])
@aio
async def test_what_has_arrived_before_the_calls_are_made(loop_factory: Any, wrap: Any) -> None:
    """Handlers run after them, so that they know whose they are; far more than fit on a stack."""
    gate = asyncio.Event()

    async def wait() -> int:
        await gate.wait()
        return called.running

    async def at_once(value: int) -> int:
        return value if called.running == 1 else -1

    async with pair("tcp") as (a, b), Calls(wrap(a)) as calls:
        waits = asyncio.ensure_future(calls.call("wait"))
        others = [asyncio.ensure_future(calls.call("at_once", n)) for n in range(800)]
        await a.drain()
        called = Calls(wrap(b), {"wait": wait, "at_once": at_once}, max_running=1)
        assert called.running == 0
        await calls.ping()
        gate.set()
        assert await waits == 1
        assert await asyncio.gather(*others) == list(range(800))


@on_eager
@pytest.mark.parametrize("last", ["close", "abort", "write"])
@aio
async def test_what_has_ended_before_the_calls_are_made(loop_factory: Any, last: str) -> None:
    async with pair("tcp") as (a, b):
        if last == "write":
            await a.write("no call")
        elif last == "close":
            await a.close()
        else:
            a.abort()
        await asyncio.sleep(0.01)
        before = asyncio.all_tasks()
        calls = Calls(b, ping_interval=5)
        await asyncio.wait_for(calls.wait_closed(), 5)
        assert calls.failure is not None
        assert calls.failure.clean is (last == "close")
        await asyncio.sleep(0)
        assert asyncio.all_tasks() <= before


@on_eager
@aio
async def test_clients_and_listeners(loop_factory: Any) -> None:
    """One that can have no session says why; handlers close what they are called through."""
    for address in ("tcp://127.0.0.1:1", "unix://@nobody", "mem://nobody"):
        async with ReconnectingClient(address, require_encryption=True) as refused:
            with pytest.raises(EncryptionRequired):
                await refused.call("anything")

    async def stop() -> str:
        await listener.close(grace=5)
        return "stopped"

    house = House(stop=stop, double=lambda value: 2 * value)
    async with house.listen() as listener:
        async with ReconnectingClient(listener.contact_address) as client:
            assert await client.call("double", 4) == 8
            assert await client.call("stop") == "stopped"
        await listener.wait_closed()
    async with listen("mem://", lambda comm: None, cancel_on_disconnect=True) as idle:
        await idle.close()
