"""Request and reply over one comm: results, notifications, misuse."""

from __future__ import annotations

import asyncio
import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import uvloop

from sealwire.comm import (
    Calls,
)
from support.aio import aio, until
from support.calling import Sleeper, calls_pair, raising
from support.links import SCHEMES, pair

loops = pytest.mark.parametrize(
    "loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"]
)


async def double(value: Any) -> Any:
    await asyncio.sleep(0)
    return 2 * value


@pytest.mark.parametrize("scheme", SCHEMES)
@loops
@aio
async def test_many_calls_at_once_in_both_directions(
    scheme: str, loop_factory: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    methods = {
        "double": double,
        "add": operator.add,
        "echo": lambda value, also=None: [value, also],
    }
    async with calls_pair(methods, methods, scheme=scheme) as (calls, called):

        async def use(side: Calls, number: int) -> None:
            assert await side.call("double", number) == 2 * number
            assert await side.call("add", number, 1, timeout=30) == number + 1
            assert await side.call("echo", "ä", also=number) == ["ä", number]
            assert await side.call("echo", number, timeout=30, also=None) == [number, None]

        await asyncio.gather(*(use(side, n) for n in range(100) for side in (calls, called)))
        assert calls.pending == called.pending == calls.running == called.running == 0


VALUES = [
    None,
    True,
    0,
    -(2**80),
    1.5,
    "",
    "ä\0",
    b"",
    bytearray(70_000),
    [],
    {},
    [[1, [2]], {"a": {}}],
]


@aio
async def test_values_arrive_as_in_messages() -> None:
    async with calls_pair({"echo": lambda value: value}) as (calls, _):
        for value in VALUES:
            assert await calls.call("echo", value) == value
        array = np.arange(100_000.0).reshape(100, 1000)
        np.testing.assert_array_equal(await calls.call("echo", array), array)


@aio
async def test_replies_come_in_the_order_in_which_handlers_finish() -> None:
    sleeper = Sleeper()
    async with calls_pair({"sleep": sleeper, "now": lambda: "now"}) as (calls, _):
        slow = asyncio.ensure_future(calls.call("sleep", "slow"))
        assert await calls.call("now") == "now"
        assert 0 <= await calls.ping() < 60
        assert not slow.done()
        sleeper.go.set()
        assert await slow == "slow"


@aio
async def test_a_handler_calls_back() -> None:
    async with pair("tcp") as (a, b):

        async def ask(depth: int) -> int:
            if not depth:
                return 0
            return 1 + int(await called.call("answer", depth - 1))

        async def answer(depth: int) -> int:
            return int(await calls.call("ask", depth)) if depth else 0

        async with Calls(a, {"answer": answer}) as calls, Calls(b, {"ask": ask}) as called:
            assert await asyncio.gather(*(calls.call("ask", 5) for _ in range(20))) == [5] * 20


@aio
async def test_a_notification_is_run_without_a_reply(caplog: pytest.LogCaptureFixture) -> None:
    got: list[Any] = []

    async def later(*values: Any) -> None:
        got.append(values)

    methods = {
        "now": lambda *a, **k: got.append((a, k)),
        "later": later,
        "fail": raising(KeyError()),
    }
    async with calls_pair(methods) as (calls, _):
        await calls.notify("now", 1, two=2)
        await calls.notify("later", 3, 4)
        await calls.notify("fail")
        await calls.notify("nothing")
        await calls.ping()
        await until(lambda: len(got) == 2)
        assert got == [((1,), {"two": 2}), (3, 4)]
    assert [
        "'fail'" in r.getMessage() or "'nothing'" in r.getMessage() for r in caplog.records
    ] == [
        True,
        True,
    ]


@pytest.mark.parametrize(
    "handlers", [["add"], {1: len}, {"add": 1}, "add", {"add": None}], ids=repr
)
@aio
async def test_bad_handlers_are_told_at_once(handlers: Any) -> None:
    async with pair("tcp") as (a, _):
        with pytest.raises(TypeError, match="bad handler"):
            Calls(a, handlers)


@pytest.mark.parametrize("method", [None, b"now", 1, len, ["now"]], ids=repr)
@aio
async def test_what_is_no_name_of_a_method_is_told_at_once(method: Any) -> None:
    async with calls_pair({"now": lambda: 1}) as (calls, _):
        for use in (calls.call(method), calls.notify(method)):
            with pytest.raises(TypeError, match="need the name of a method"):
                await use


@pytest.mark.parametrize("name", ["max_pending", "max_running", "max_waiting"])
@pytest.mark.parametrize("value", [0, -1, 1.5, None, "1"])
@aio
async def test_bad_bounds_are_told_at_once(name: str, value: Any) -> None:
    async with pair("tcp") as (a, _):
        with pytest.raises(ValueError, match=f"bad {name}"):
            Calls(a, **{name: value})


@aio
async def test_what_is_no_comm_is_told_at_once() -> None:
    with pytest.raises(TypeError, match="need a Comm"):
        Calls("tcp://127.0.0.1:1")  # type: ignore[arg-type]


@aio
async def test_another_loop_is_refused_before_anything_is_sent() -> None:
    async with calls_pair({"now": lambda: 1}) as (calls, _):

        def elsewhere() -> None:
            uses = [calls.call("now"), calls.notify("now"), calls.ping(), calls.close()]
            for use in (*uses, calls.serve(), calls.wait_closed()):
                with pytest.raises(RuntimeError, match="outside the event loop of its comm"):
                    asyncio.run(use)

        await asyncio.get_running_loop().run_in_executor(None, elsewhere)
        assert calls.pending == 0
        assert await calls.call("now") == 1
