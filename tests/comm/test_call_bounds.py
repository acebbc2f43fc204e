"""What a hostile or broken peer can do to calls: nothing but lose its own."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import tracemalloc
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from sealwire.comm import (
    CallError,
    CallLost,
    CallRefused,
    Calls,
    CallTimeout,
    CloseCode,
    CommClosedError,
    Limits,
    RemoteError,
    register_error,
    register_type,
)
from sealwire.comm.calls import handlers
from support.aio import aio, until
from support.calling import Sleeper, called_by_hand, calls_pair, raising, raising_later
from support.links import pair

NO_CALLS: list[Any] = [
    None, 0, "", b"x", {}, [], {"op": "call"}, [None], ["call"], [True, 1], [[]], [1.0, 2],
    [-1, 0], [7, 0], [99, 0, 0, 0], [2**70, 0],
    [0], [0, None], [0, "1", "now", None, None], [0, -1, "now", None, None],
    [0, 2**63, "now", None, None], [0, True, "now", None, None], [0, [], "now", None, None],
    [1], [1, 0], [1, 0, None], [1, [], None, None], [1, 0, None, None, None],
    [2], [2, "now"], [2, 1, None], [2, "now", []], [2, "now", {1: 2}], [2, [], None],
    [3], [3, None], [3, "1"], [3, []], [4], [4, -1], [4, {}], [5], [5, 1.0],
    [6, 0], [6, 0, "stopping"], [6, None, "stopping", ""],
]  # fmt: skip


@pytest.mark.parametrize("message", NO_CALLS, ids=repr)
@aio
async def test_what_is_no_call_ends_the_comm(message: Any) -> None:
    async with called_by_hand({"now": lambda: 1}) as (comm, called):
        await comm.write(message)
        with pytest.raises(CommClosedError, match="which is no call") as caught:
            await comm.read()
        assert (caught.value.code, caught.value.closed_by) == (CloseCode.PROTOCOL_ERROR, "peer")
        with pytest.raises(CommClosedError) as caught:
            await called.serve()
        assert (caught.value.code, caught.value.closed_by) == (CloseCode.PROTOCOL_ERROR, "us")


BAD_REQUESTS: list[Any] = [
    [0, 1], [0, 1, "now"], [0, 1, "now", None],
    [0, 1, None, None, None], [0, 1, b"now", None, None], [0, 1, [], None, None],
    [0, 1, "now", 0, None], [0, 1, "now", -1, None], [0, 1, "now", "5", None],
    [0, 1, "now", True, None], [0, 1, "now", float("nan"), None], [0, 1, "now", [1], None],
    [0, 1, "now", None, []], [0, 1, "now", None, {1: 2}], [0, 1, "now", None, "a"],
]  # fmt: skip


@pytest.mark.parametrize("message", BAD_REQUESTS, ids=repr)
@aio
async def test_a_bad_request_is_refused(message: Any) -> None:
    async with called_by_hand({"now": lambda: 1}) as (comm, _):
        await comm.write(message)
        assert (await comm.read())[:3] == [6, 1, "bad-request"]
        await comm.write([0, 2, "now", None, None])
        assert await comm.read() == [1, 2, None, 1]


@pytest.mark.parametrize("seconds", [1, 5.0, 1e9, float("inf"), 2**63])
@aio
async def test_any_deadline_ahead_is_one(seconds: Any) -> None:
    async with called_by_hand({"now": lambda: 1, "sleep": lambda: asyncio.sleep(0)}) as (comm, _):
        for number, method in enumerate(["now", "sleep"]):
            await comm.write([0, number, method, seconds, None])
            assert (await comm.read())[:3] == [1, number, None]


@aio
async def test_a_number_in_use_ends_the_comm() -> None:
    sleeper = Sleeper()
    async with called_by_hand({"sleep": sleeper}, max_running=1) as (comm, _):
        await comm.write([0, 7, "sleep", None, None])
        await comm.write([0, 7, "sleep", None, None])
        with pytest.raises(CommClosedError, match="call 7 a second time"):
            await comm.read()
        await sleeper.until(lambda s: s.started == s.cancelled)


@aio
async def test_replies_that_nobody_waits_for_are_dropped() -> None:
    async with pair("tcp") as (comm, b), Calls(b) as calls:
        for number in range(1000):
            await comm.write([1, number, None, number])
            await comm.write([5, number])
            await comm.write([3, number])
            await comm.write([6, number, "stopping", ""])
        await comm.write([4, 1])
        assert await comm.read() == [5, 1]
        assert calls.pending == 0
        assert not calls.closed()


ERRORS: list[tuple[Any, str, str]] = [
    (1, "unknown", "the other side has sent an error that is none"),
    ([], "unknown", "the other side has sent an error that is none"),
    (["builtins.SystemExit", "", {}], "builtins.SystemExit", ""),
    (["os.system", "ls", {}], "os.system", "ls"),
    ([None, None, None], "unknown", ""),
    (["n" * 10_000, "m" * 1_000_000, {}], "n" * 200, "m" * 4000),
]


@pytest.mark.parametrize(("error", "name", "message"), ERRORS, ids=[0, 1, 2, 3, 4, 5])
@aio
async def test_any_error_of_a_peer_is_one(error: Any, name: str, message: str) -> None:
    async with pair("tcp") as (comm, b), Calls(b) as calls:
        task = asyncio.ensure_future(calls.call("x"))
        number = (await comm.read())[1]
        await comm.write([1, number, error, None])
        with pytest.raises(RemoteError) as caught:
            await task
        assert (caught.value.name, caught.value.message) == (name, message)


@pytest.mark.parametrize("kind", [None, 1, "other", [], "expired", "stopping"])
@aio
async def test_any_refusal_of_a_peer_is_one(kind: Any) -> None:
    async with pair("tcp") as (comm, b), Calls(b) as calls:
        task = asyncio.ensure_future(calls.call("x"))
        number = (await comm.read())[1]
        await comm.write([6, number, kind, "why;\n" * 10_000])
        with pytest.raises(CallTimeout if kind == "expired" else CallRefused) as caught:
            await task
        assert len(str(caught.value)) < 5000


class Contrary:
    """An object that cannot be compared, hashed, or asked whether it is true."""

    __hash__ = None  # type: ignore[assignment]

    def refuse(self, *_: object) -> Any:
        raise LookupError("of the test")

    __eq__ = __bool__ = __len__ = __repr__ = __iter__ = refuse


register_type(Contrary, lambda value: 0, lambda value: Contrary(), name="test.Contrary")

ODD: dict[str, Any] = {
    "an array": np.arange(3), "an empty array": np.zeros(0), "a matrix": np.zeros((2, 2)),
    "dates": np.zeros(2, "M8[s]"), "a scalar": np.array(1), "a date": datetime.datetime(2026, 1, 1),
    "bytes": b"x", "a large int": 2**70, "NaN": float("nan"), "nested": [[[{}]]], "contrary":
    Contrary(), "escapes": "\x1b[2J\r\u202e", "arrays": [np.arange(3)] * 3, "keys": {1: 2, "a": []},
}  # fmt: skip
REPLIES: list[list[Any]] = [
    [1, 0, None, None], [1, 0, ["ValueError", "m", {}], None], [6, 0, "stopping", "why"],
]  # fmt: skip
REQUESTS: list[list[Any]] = [
    [0, 1, "now", None, None], [0, 1, "now", 5.0, {}, 1], [2, "now", None], [3, 1], [4, 1],
]  # fmt: skip


def with_odd(message: list[Any], value: Any) -> Iterator[list[Any]]:
    """`message` with `value` at each place of it, and in what is at each place."""
    for place, item in enumerate(message):
        yield [*message[:place], value, *message[place + 1 :]]
        if isinstance(item, list):
            for inner in with_odd(item, value):
                yield [*message[:place], inner, *message[place + 1 :]]


@pytest.mark.parametrize("name", ODD)
@aio
async def test_an_odd_value_at_any_place(name: str, caplog: pytest.LogCaptureFixture) -> None:
    """It refuses a call or ends the comm; whoever waits is told, and nothing fails in our code."""
    for reply in REPLIES:
        for message in with_odd(reply, ODD[name]):
            async with pair("tcp") as (comm, b), Calls(b) as calls:
                task = asyncio.ensure_future(calls.call("x", timeout=5))
                number = (await comm.read())[1]
                if message[1] is reply[1]:
                    message[1] = number
                await comm.write(message)
                await comm.close()
                with contextlib.suppress(CallError):
                    await task
    for request in REQUESTS:
        for message in with_odd(request, ODD[name]):
            async with called_by_hand({"now": lambda *_: 1}) as (comm, called):
                await comm.write(message)
                await comm.close()
                await called.wait_closed()
    failed = [record for record in caplog.records if record.exc_info]
    assert not failed, caplog.text


@aio
async def test_the_text_of_a_peers_error_is_no_command_to_a_terminal() -> None:
    async with pair("tcp") as (comm, b), Calls(b) as calls:
        task = asyncio.ensure_future(calls.call("x"))
        number = (await comm.read())[1]
        await comm.write([1, number, ["a\x1b[2J", "two\nlines\r\x07\u202e", {}], None])
        with pytest.raises(RemoteError) as caught:
            await task
    assert caught.value.message == "two\nlines\r\x07\u202e"
    assert str(caught.value) == "a?[2J: two\nlines???"


# Bounds


@aio
async def test_handlers_beyond_the_bound_wait_and_then_are_refused() -> None:
    sleeper = Sleeper()
    async with calls_pair({"sleep": sleeper}, max_running=2, max_waiting=3) as (calls, called):
        tasks = [asyncio.ensure_future(calls.call("sleep", number)) for number in range(8)]
        await until(lambda: sum(task.done() for task in tasks) == 3)
        for task in tasks[5:]:
            with pytest.raises(CallRefused) as caught:
                await task
            assert caught.value.kind == "overloaded"
        assert called.running == sleeper.started == 2
        tasks[2].cancel()  # waits there
        await asyncio.wait([tasks[2]])
        with pytest.raises(CallTimeout):
            await calls.call("sleep", timeout=0.05)  # takes its place, and waits too long
        sleeper.go.set()
        assert await asyncio.gather(*tasks[:2], *tasks[3:5]) == [0, 1, 3, 4]
        assert sleeper.started == 4


@aio
async def test_calls_beyond_the_bound_wait_for_their_turn() -> None:
    sleeper = Sleeper()
    handlers = {"sleep": sleeper, "now": lambda: 1}
    async with calls_pair(handlers, ours_with={"max_pending": 2}) as (calls, called):
        tasks = [asyncio.ensure_future(calls.call("sleep", number)) for number in range(2)]
        await sleeper.until(lambda s: s.started == 2)
        late = asyncio.ensure_future(calls.call("now", timeout=0.05))
        given_up = asyncio.ensure_future(calls.call("now"))
        others = [asyncio.ensure_future(calls.call("now")) for _ in range(20)]
        with pytest.raises(CallTimeout, match="could not be sent within") as caught:
            await late
        assert not caught.value.may_have_run
        given_up.cancel()
        assert calls.pending == called.running == 2
        assert await calls.ping() >= 0
        sleeper.go.set()
        assert await asyncio.gather(*tasks, *others) == [0, 1, *[1] * 20]


@aio
async def test_calls_that_wait_learn_that_the_comm_has_ended() -> None:
    sleeper = Sleeper()
    async with calls_pair({"sleep": sleeper}, ours_with={"max_pending": 1}) as (calls, called):
        tasks = [asyncio.ensure_future(calls.call("sleep")) for _ in range(5)]
        await sleeper.until(lambda s: s.started == 1)
        called.comm.abort()
        for number, task in enumerate(tasks):
            with pytest.raises(CallLost) as caught:
                await task
            assert caught.value.may_have_run == (number == 0)


@aio
async def test_notifications_beyond_the_bound_are_dropped(
    caplog: pytest.LogCaptureFixture,
) -> None:
    sleeper = Sleeper()
    async with calls_pair({"sleep": sleeper}, max_running=2, max_waiting=2) as (calls, _):
        for _ in range(50):
            await calls.notify("sleep")
        await calls.ping()
        sleeper.go.set()
        await sleeper.until(lambda s: s.started == 4)
    (record,) = caplog.records
    assert "notification 'sleep'" in record.getMessage()


@aio
async def test_large_calls_in_both_directions_do_not_block_each_other() -> None:
    """More than sockets, read_ahead and write_ahead hold together."""
    limits = Limits(write_ahead=100_000, read_ahead=100_000)
    large = bytes(4 << 20)
    handlers = {"echo": lambda value: value, "later": Sleeper()}
    handlers["later"].go.set()
    async with calls_pair(handlers, handlers, limits=limits) as (calls, called):
        for replies in await asyncio.gather(
            *(
                side.call(way, large)
                for _ in range(8)
                for side in (calls, called)
                for way in handlers
            )
        ):
            assert replies == large


@aio
async def test_a_peer_that_reads_no_replies_costs_a_bounded_amount(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is not answered any more, and in the end disconnected."""
    monkeypatch.setattr(handlers, "_MOST_UNREAD", 500)
    tracemalloc.start()
    try:
        limits = Limits(write_ahead=100_000, read_ahead=100_000)
        reply = bytes(50_000)
        async with pair("tcp", limits) as (comm, b), Calls(b, {"get": lambda: reply}) as called:
            number = 0
            with contextlib.suppress(CommClosedError):
                while not called.closed():  # and read nothing
                    await comm.write([0, number, "get", None, None])
                    await asyncio.sleep(0)
                    number += 1
            assert number > 500
            _, peak = tracemalloc.get_traced_memory()
            assert peak < 40 << 20
            await called.wait_closed()
    finally:
        tracemalloc.stop()


class Long(Exception):
    detail = [bytes(10_000)] * 10


Long.__qualname__ = "\U0001f600" * 300
register_error(Long, fields=["detail"], name="\U0001f600" * 200)


@pytest.mark.parametrize("make", [raising, raising_later])
@pytest.mark.parametrize("size", [100, 300, 1000, 4096, 16_384])
@aio
async def test_what_is_wrong_with_a_call_is_said_within_the_limits(size: int, make: Any) -> None:
    """A text that is over a limit of the comm ends neither the comm nor leaves the call waiting."""
    limits = Limits(max_message_size=size)
    text = "\U0001f600" * 4000
    handlers = {"a": make(Long(text)), "b": make(ValueError(text)), "c": lambda a, b: 1}
    word = "x" * (size // 3)
    async with calls_pair(handlers, limits=limits) as (calls, _):
        for method in "ab":
            with pytest.raises((RemoteError, Long)) as caught:
                await calls.call(method, timeout=20)
            assert text.startswith(getattr(caught.value, "message", str(caught.value)))
        with pytest.raises(CallRefused, match="it has no"):
            await calls.call(word)
        with pytest.raises(CallRefused):
            await calls.call("c", **{word: 0})
        assert await calls.call("c", 1, 2) == 1
