"""Odd values and odd errors in calls: each is told where it is made, and ends no comm."""

from __future__ import annotations

import asyncio
import enum
import logging
import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from sealwire.comm import (
    CallLost,
    Calls,
    CloseCode,
    CommBusy,
    CommClosedError,
    DecodeError,
    EncodeError,
    ReconnectingClient,
    RemoteError,
    broadcast,
    register_error,
    register_type,
)
from support.aio import aio
from support.calling import calls_pair, raising, raising_later
from support.links import pair


class Method(str, enum.Enum):
    """As `enum.StrEnum`, which Python 3.10 does not have."""

    ADD = "add"


class Seconds(float):
    pass


NUMBERS = [5, 1e300, 2**70, Seconds(5), np.float64(5), np.float32(5), np.int64(5), Fraction(10, 3)]
NO_NUMBERS = [0, -1, math.nan, math.inf, 10**400, True, np.bool_(True), "5", b"5", 5j, [5], object]
NO_NUMBERS += [
    np.timedelta64(5, "s"),
    np.timedelta64("NaT", "s"),
    np.array([5.0, 5.0]),
]  # some are Real


@pytest.mark.parametrize("seconds", NUMBERS, ids=repr)
@aio
async def test_any_number_of_seconds_is_one(seconds: Any) -> None:
    async with calls_pair({"now": lambda: 1}) as (calls, called):
        assert await calls.call("now", timeout=seconds) == 1
        assert await calls.ping(seconds) > 0
        assert (await broadcast([calls.comm], [4, 1], timeout=seconds)).sent == [calls.comm]
        client = ReconnectingClient(
            "mem://nobody",
            backoff=seconds,
            backoff_cap=seconds,
            connect_timeout=seconds,
            ping_interval=seconds,
        )
        await client.close(grace=seconds)
        await called.close(grace=seconds)


@pytest.mark.parametrize("seconds", NO_NUMBERS, ids=lambda value: repr(value)[:20])
@aio
async def test_what_is_no_number_of_seconds(seconds: Any) -> None:
    async with calls_pair({"now": lambda: 1}) as (calls, _):
        for use in (
            calls.call("now", timeout=seconds),
            calls.ping(seconds),
            broadcast([calls.comm], 1, timeout=seconds),
        ):
            with pytest.raises(ValueError, match="bad timeout"):
                await use
        for name in ("backoff", "backoff_cap", "connect_timeout", "ping_interval"):
            with pytest.raises(ValueError, match=f"bad {name} "):
                ReconnectingClient("mem://nobody", **{name: seconds})
        assert await calls.call("now") == 1


@pytest.mark.parametrize("seconds", [1, 30.0, None, "5"])
@aio
async def test_the_timeout_of_connect_has_another_name(seconds: Any) -> None:
    """It was dropped without a word."""
    with pytest.raises(TypeError, match=r"argument 'timeout'; did you mean connect_timeout\?"):
        ReconnectingClient("mem://nobody", **{"timeout": seconds})


@pytest.mark.parametrize("called", ["add", Method.ADD])
@pytest.mark.parametrize("named", ["add", Method.ADD])
@aio
async def test_a_name_may_be_the_member_of_an_enum(called: str, named: str) -> None:
    got: list[int] = []
    async with calls_pair({named: got.append}) as (calls, _):
        await calls.call(called, 1)
        await calls.notify(called, 2)
        await calls.ping()
    assert got == [1, 2]


@aio
async def test_what_cannot_be_encoded_is_named() -> None:
    async with calls_pair() as (calls, _):
        for call in (calls.call, calls.notify):
            with pytest.raises(EncodeError, match=r"^method: cannot encode"):
                await call("\ud800")
            with pytest.raises(EncodeError, match=r"^keywords\S*: cannot encode"):
                await call("x", value={1})
            with pytest.raises(EncodeError, match=r"^argument 1: cannot encode"):
                await call("x", 0, {1})
        await calls.ping()


@pytest.mark.parametrize(
    "end",
    [
        {"code": 99},
        {"code": "1000"},
        {"code": True},
        {"reason": 5},
        {"grace": -1},
        {"grace": "x"},
        {"grace": math.nan},
        {"grace": -(10**400)},
        {"grace": np.timedelta64(5, "s")},
    ],
    ids=repr,
)
@aio
async def test_a_close_that_cannot_be_leaves_all_as_it_is(end: dict[str, Any]) -> None:
    async with calls_pair({"now": lambda: 1}) as (calls, called):
        for each in (calls, called):
            with pytest.raises((TypeError, ValueError)):
                await each.close(**end)
        assert await calls.call("now") == 1


# Errors whose own code raises


class Unsaid(Exception):
    def __init__(self, error: BaseException | None) -> None:
        super().__init__()
        self.error = error

    def __str__(self) -> str:
        if self.error is None:
            return 5  # type: ignore[return-value]
        raise self.error


class Unmade(Exception):
    args = property(lambda self: 1 / 0)  # type: ignore[assignment]


class Hidden(Exception):
    code = 7

    @property
    def detail(self) -> Any:
        raise ZeroDivisionError


class Named(Exception):
    pass


Named.__qualname__ = "\ud800" * 1000
register_error(Hidden, fields=("code", "detail"), name="tests.oddly.Hidden")


@pytest.mark.parametrize("make", [raising, raising_later])
@pytest.mark.parametrize(
    ("error", "name", "message"),
    [
        (Unsaid(ZeroDivisionError()), "Unsaid", "(its text cannot be made)"),
        (Unsaid(GeneratorExit()), "Unsaid", "(its text cannot be made)"),
        (Unsaid(asyncio.CancelledError()), "Unsaid", "(its text cannot be made)"),
        (Unsaid(SystemExit(3)), "Unsaid", "(its text cannot be made)"),
        (Unsaid(KeyboardInterrupt()), "Unsaid", "(its text cannot be made)"),
        (Unsaid(None), "Unsaid", "(its text cannot be made)"),
        (Unmade(), "Unmade", "(its text cannot be made)"),
        (Named("\ud800"), "?" * 100, "?"),
        (Hidden("no"), "tests.oddly.Hidden", "no"),
    ],
    ids=[
        "raises",
        "closes",
        "cancels",
        "exits",
        "interrupts",
        "number",
        "args",
        "surrogates",
        "field",
    ],
)
@aio
async def test_an_error_may_not_say_what_it_is(
    make: Callable[[BaseException], Any],
    error: BaseException,
    name: str,
    message: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Its caller is told all the same, and the comm goes on."""
    caplog.set_level(logging.CRITICAL, "sealwire")  # no report of a test can hold a surrogate
    async with calls_pair({"fail": make(error), "now": lambda: 1}) as (calls, _):
        with pytest.raises(RemoteError) as caught:
            await calls.call("fail", timeout=20)
        assert caught.value.name.endswith(name)
        assert caught.value.message == message
        assert await calls.call("now") == 1


class Picky(Exception):
    def __init__(self, message: str, code: Any) -> None:
        if type(code) is not int:
            raise _picked[code]
        super().__init__(message)


_picked = {each.__name__: each for each in (GeneratorExit, SystemExit, KeyboardInterrupt)}
register_error(Picky, fields=["code"], name="tests.oddly.Picky")


@pytest.mark.parametrize("code", _picked)
@aio
async def test_a_class_may_refuse_what_a_peer_sends_as_it_likes(code: str) -> None:
    async with pair("mem") as (comm, b), Calls(b) as calls:
        task = asyncio.ensure_future(calls.call("x"))
        number = (await comm.read())[1]
        await comm.write([1, number, ["tests.oddly.Picky", "no", {"code": code}], None])
        with pytest.raises(RemoteError, match=r"tests\.oddly\.Picky: no"):
            await task


class Refused:
    """A type whose objects the function registered for it refuses, as its peer has chosen."""

    def __init__(self, how: str) -> None:
        self.how = how

    @staticmethod
    def made(how: str) -> Any:
        raise {"exit": SystemExit(3), "close": GeneratorExit(), "cancel": asyncio.CancelledError()}[
            how
        ]


register_type(Refused, lambda refused: refused.how, Refused.made, name="tests.oddly.Refused")


@pytest.mark.parametrize("how", ["exit", "close", "cancel"])
@aio
async def test_a_peers_value_ends_no_process(how: str) -> None:
    """As that of a parser of command lines does; the comm ends, and says why to both."""
    async with calls_pair({"now": lambda _: 1}) as (calls, called):
        with pytest.raises(CallLost, match="Refused' raised") as caught:
            await calls.call("now", Refused(how), timeout=20)
        assert caught.value.code == CloseCode.BAD_MESSAGE
        await called.wait_closed()
        assert isinstance(called.failure, DecodeError)


@pytest.mark.parametrize(
    "error",
    [
        RemoteError(object(), {1}),  # type: ignore[arg-type]
        RemoteError("\ud800" * 9, "\ud800"),
        EncodeError(),
        Unsaid(SystemExit(3)),
        type("Unsaid", (Unsaid, EncodeError), {})(SystemExit(3)),
    ],
    ids=["no texts", "surrogates", "empty", "exits", "exits as ours"],
)
@pytest.mark.parametrize("make", [raising, raising_later])
@aio
async def test_an_error_made_by_hand_is_told(
    make: Any, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, "sealwire")  # no report of a test can hold a surrogate
    async with calls_pair({"fail": make(error), "now": lambda: 1}) as (calls, _):
        with pytest.raises(RemoteError):
            await calls.call("fail", timeout=20)
        assert await calls.call("now") == 1


# One reader


@aio
async def test_calls_over_one_comm_are_made_once() -> None:
    async with calls_pair({"now": lambda: 1}) as (calls, _):
        with pytest.raises(CommBusy, match="other Calls read from it"):
            Calls(calls.comm)
        assert await calls.call("now") == 1


@aio
async def test_who_reads_beside_calls_ends_them_by_name(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)
    async with pair("mem") as (a, _):
        reading = asyncio.ensure_future(a.read())
        await asyncio.sleep(0)
        with pytest.raises(CommClosedError):
            await Calls(a).serve()
        with pytest.raises(CommClosedError):
            await reading
    (record,) = caplog.records
    assert "another task is reading" in record.getMessage()
    assert not record.exc_info
