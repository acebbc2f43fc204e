"""A reconnecting client that is closed, in odd ways, stays closed."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Any

import pytest

from sealwire.comm import CallLost, Calls, CloseCode, Comm, ReconnectingClient, listen
from support.aio import aio, until
from support.calling import Sleeper


class House:
    """A listener that counts the sessions it has, and knows the last one."""

    def __init__(self) -> None:
        self.arrived = 0
        self.guest: asyncio.Future[Calls] = asyncio.get_running_loop().create_future()

    async def __call__(self, comm: Comm) -> None:
        async with Calls(comm, {"now": lambda: 1}) as calls:
            self.arrived += 1
            if not self.guest.done():
                self.guest.set_result(calls)
            await calls.wait_closed()


async def stays_closed(client: ReconnectingClient, house: House) -> None:
    """Its task has ended, so that it can make no other session."""
    await asyncio.wait([client._task], timeout=20)
    assert client._task.done()
    assert client.closed()
    assert house.arrived == 1
    await client.close()
    with pytest.raises(CallLost, match=r"client of .* closed"):
        await client.call("now")


@pytest.mark.parametrize("grace", [None, 0, 60])
@aio
async def test_by_a_handler_of_its_own(grace: float | None) -> None:
    house = House()

    async def stop() -> None:
        await client.close(CloseCode.GOING_AWAY, grace=grace)

    async with listen("mem://", house) as listener:
        client = ReconnectingClient(listener.contact_address, {"stop": stop}, backoff=0.001)
        with pytest.raises(CallLost) as caught:
            await (await house.guest).call("stop")
        assert caught.value.code == CloseCode.GOING_AWAY
        await stays_closed(client, house)


@aio
async def test_by_its_own_greeting() -> None:
    house = House()

    async def greet(calls: Calls) -> None:
        await client.close(CloseCode.GOING_AWAY, "not here")

    async with listen("mem://", house) as listener:
        client = ReconnectingClient(listener.contact_address, on_connect=greet, backoff=0.001)
        guest = await house.guest
        await guest.wait_closed()
        assert guest.failure is not None
        assert (guest.failure.code, guest.failure.reason) == (CloseCode.GOING_AWAY, "not here")
        await stays_closed(client, house)


@pytest.mark.parametrize("turns", range(6))
@pytest.mark.parametrize("grace", [None, 60])
@aio
async def test_by_a_close_that_is_cancelled_at_any_step(grace: float | None, turns: int) -> None:
    """The session ends with it, though a handler runs."""
    house = House()
    sleeper = Sleeper()
    async with listen("mem://", house) as listener:
        client = ReconnectingClient(listener.contact_address, {"sleep": sleeper}, backoff=0.001)
        running = asyncio.ensure_future((await house.guest).call("sleep"))
        await sleeper.until(lambda s: s.started == 1)
        closing = asyncio.ensure_future(client.close(grace=grace))
        for _ in range(turns):
            await asyncio.sleep(0)
        closing.cancel()
        await asyncio.wait([closing])
        if not turns:  # it had not begun
            assert not client.closed()
            await client.close()
        with pytest.raises(CallLost):
            await running
        await stays_closed(client, house)
        assert sleeper.cancelled == 1


@aio
async def test_by_several_at_once() -> None:
    """Whoever closes without a grace ends that of the others, and the peer is told by the first."""
    house = House()
    sleeper = Sleeper()
    async with listen("mem://", house) as listener:
        client = ReconnectingClient(listener.contact_address, {"sleep": sleeper}, backoff=0.001)
        guest = await house.guest
        running = asyncio.ensure_future(guest.call("sleep"))
        await sleeper.until(lambda s: s.started == 1)
        patient = asyncio.ensure_future(client.close(CloseCode.GOING_AWAY, grace=3600))
        await until(client.closed)
        await client.close(CloseCode.GOING_AWAY)
        await patient
        with pytest.raises(CallLost) as caught:
            await running
        assert (caught.value.code, caught.value.closed_by) == (CloseCode.GOING_AWAY, "peer")
        await stays_closed(client, house)


@pytest.mark.parametrize(
    "end", [{"code": 99}, {"code": "1000"}, {"reason": 5}, {"grace": -1}, {"grace": math.nan}]
)
@aio
async def test_a_close_that_cannot_be_changes_nothing(end: dict[str, Any]) -> None:
    async with (
        listen("mem://", House()) as listener,
        ReconnectingClient(listener.contact_address) as client,
    ):
        with pytest.raises((TypeError, ValueError)):
            await client.close(**end)
        assert not client.closed()
        assert await client.call("now") == 1


@pytest.mark.parametrize(
    "args",
    [
        {"on_connect": 5},
        {"handlers": 5},
        {"handlers": {"a": 5}},
        {"handlers": [("a", len)]},
        {"final_codes": ["4001"]},
        {"final_codes": [None]},
        {"final_codes": "abc"},
    ],
    ids=repr,
)
@aio
async def test_misuse_is_told_at_once(args: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match="bad"):
        ReconnectingClient("mem://nobody", **args)


@pytest.mark.parametrize("there", [True, False])
@aio
async def test_another_threads_loop_is_refused_by_name(there: bool) -> None:
    def uses() -> list[Callable[[], Any]]:
        return [lambda: client.call("now"), client.session, client.close]

    def use() -> None:
        for each in uses():
            with pytest.raises(RuntimeError, match="outside the event loop that it was made in"):
                asyncio.run(each())

    async with listen("mem://", House()) as listener:
        address = listener.contact_address if there else "mem://nobody"
        async with ReconnectingClient(address) as client:
            if there:
                await client.session()
            await asyncio.to_thread(use)
            assert not client.closed()
            if there:
                assert await client.call("now") == 1
