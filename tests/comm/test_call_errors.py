"""Errors of handlers travel as data; what cannot be sent or run is an error of one call."""

from __future__ import annotations

import asyncio
import functools
import operator
from collections.abc import Callable
from typing import Any

import pytest
import uvloop

from sealwire.comm import (
    CallLost,
    CallRefused,
    CommClosedError,
    EncodeError,
    Limits,
    MessageTooLarge,
    RemoteError,
    register_error,
)
from support.aio import aio
from support.calling import calls_pair, raising, raising_later

loops = pytest.mark.parametrize(
    "loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"]
)


class Broken(Exception):
    """Not registered."""


@register_error
class OutOfStock(Exception):
    """Registered, without fields."""


class Rejected(ValueError):
    """Registered, with fields."""

    def __init__(self, message: str, code: int, detail: Any = None) -> None:
        super().__init__(message)
        if not isinstance(code, int):
            raise TypeError("a code is an int")
        self.code = code
        self.detail = detail


register_error(Rejected, fields=["code", "detail"], name="shop.Rejected")


class MoreThanRejected(Rejected):
    """Arrives as what it is more than."""


@pytest.mark.parametrize("make", [raising, raising_later])
@pytest.mark.parametrize(
    ("error", "name", "message"),
    [
        (KeyError("k"), "KeyError", "k"),
        (ValueError(), "ValueError", ""),
        (ValueError("a", 2), "ValueError", "('a', 2)"),
        (Broken("ä;\nb"), f"{Broken.__module__}.Broken", "ä;\nb"),
        (RuntimeError("x" * 100_000), "RuntimeError", "x" * 4000),
        (OSError(2, "gone"), "FileNotFoundError", "[Errno 2] gone"),
        (asyncio.CancelledError(), "asyncio.exceptions.CancelledError", ""),
        (StopAsyncIteration(), "StopAsyncIteration", ""),
        (CallRefused("not here"), "sealwire.comm.calls.errors.CallRefused", "not here"),
        (CommClosedError("another"), "sealwire.comm.errors.CommClosedError", "another"),
        (RemoteError("far.Away", "text"), "far.Away", "text"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
@aio
async def test_an_error_arrives_as_its_name_and_text(
    make: Callable[[BaseException], Any],
    error: BaseException,
    name: str,
    message: str,
) -> None:
    async with calls_pair({"fail": make(error)}) as (calls, _):
        with pytest.raises(RemoteError) as caught:
            await calls.call("fail")
        assert (caught.value.name, caught.value.message) == (name, message)
        assert caught.value.method == "fail"
        assert caught.value.may_have_run
        assert await calls.ping() >= 0


@aio
async def test_a_registered_error_arrives_as_its_class(caplog: pytest.LogCaptureFixture) -> None:
    errors = {
        "empty": OutOfStock("none left"),
        "rejected": Rejected("no", 7, ["a"]),
        "more": MoreThanRejected("no", 8),
        "unencodable": Rejected("no", 9, object()),
    }
    async with calls_pair({name: raising(error) for name, error in errors.items()}) as (calls, _):
        with pytest.raises(OutOfStock, match=r"^none left$"):
            await calls.call("empty")
        with pytest.raises(Rejected, match=r"^no$") as caught:
            await calls.call("rejected")
        assert (caught.value.code, caught.value.detail) == (7, ["a"])
        with pytest.raises(Rejected) as caught:
            await calls.call("more")
        assert caught.value.code == 8
        # Its fields cannot be sent, and without them it cannot be made.
        with pytest.raises(RemoteError, match=r"^shop\.Rejected: no$"):
            await calls.call("unencodable")
    assert not caplog.records, "they are part of what the handlers promise"


@aio
async def test_other_errors_are_logged_where_they_happen(caplog: pytest.LogCaptureFixture) -> None:
    async with calls_pair({"fail": raising(KeyError("k")), "set": lambda: {1}}) as (calls, _):
        with pytest.raises(RemoteError):
            await calls.call("fail")
        with pytest.raises(RemoteError):
            await calls.call("set")
    failed, unsent = caplog.records
    assert failed.getMessage().startswith("handler of 'fail', called by tcp://127.0.0.1:")
    assert failed.exc_info is not None
    assert "cannot encode" in unsent.getMessage()
    assert unsent.exc_info is None


@pytest.mark.parametrize(
    ("cls", "fields", "name"),
    [
        (int, (), None),
        (KeyboardInterrupt, (), None),
        ("ValueError", (), None),
        (CallLost, (), None),
        (StopIteration, (), None),
        (Broken, "code", None),
        (Broken, [1], None),
        (Broken, (), "shop.Rejected"),
        (Broken, (), "x" * 201),
    ],
)
def test_what_cannot_be_registered(cls: Any, fields: Any, name: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="cannot register"):
        register_error(cls, fields=fields, name=name)


# Poison


class Unknown:
    """A type without a wire form."""


@aio
async def test_what_cannot_be_sent_is_an_error_of_the_call_alone() -> None:
    """Either way."""
    limits = Limits(max_message_size=100_000)
    handlers = {
        "unknown": Unknown,
        "large": lambda: bytes(200_000),
        "ok": lambda *args: len(args),
        "deep": lambda: functools.reduce(lambda inner, _: [inner], range(5000), []),
    }
    async with calls_pair(handlers, limits=limits) as (calls, _):
        for bad in (Unknown(), {1, 2}, object(), {(): 1}):
            with pytest.raises(EncodeError, match=r"^argument 1"):
                await calls.call("ok", 0, bad)
        with pytest.raises(EncodeError, match=r"^keywords"):
            await calls.call("ok", bad=Unknown())
        with pytest.raises(MessageTooLarge):
            await calls.call("ok", bytes(200_000))
        with pytest.raises(EncodeError):
            await calls.notify("ok", Unknown())
        with pytest.raises(RemoteError, match=r"EncodeError: result: cannot encode"):
            await calls.call("unknown")
        with pytest.raises(RemoteError, match=r"MessageTooLarge: .*200\d\d\d bytes, the limit is"):
            await calls.call("large")
        with pytest.raises(RemoteError, match=r"EncodeError: .*nested too deep"):
            await calls.call("deep")
        assert calls.pending == 0
        assert await calls.call("ok", 1, 2) == 2


@pytest.mark.parametrize(
    ("method", "args", "kind"),
    [
        ("nothing", (), "unknown-method"),
        ("", (), "unknown-method"),
        ("x;\n" * 1000, (), "unknown-method"),
        ("add", (), "bad-arguments"),
        ("add", (1, 2, 3), "bad-arguments"),
        ("async", (1,), "bad-arguments"),
        ("builtin", (1, "a"), "bad-arguments"),
    ],
)
@aio
async def test_a_refused_call(method: Any, args: tuple[Any, ...], kind: str) -> None:
    async def later() -> None:
        """Takes nothing."""

    handlers = {"add": lambda a, b: a + b, "async": later, "builtin": operator.add}
    async with calls_pair(handlers) as (calls, _):
        with pytest.raises(CallRefused) as caught:
            await calls.call(method, *args, timeout=30)
        assert caught.value.kind == kind
        assert not caught.value.may_have_run
        assert len(str(caught.value)) < 2500
        assert await calls.call("add", 1, b=2) == 3


@aio
async def test_a_type_error_inside_a_handler_is_its_error() -> None:
    def broken(value: Any) -> Any:
        return value + 1

    async with calls_pair({"broken": broken}) as (calls, _):
        with pytest.raises(RemoteError, match=r"^TypeError: can only concatenate"):
            await calls.call("broken", "a")
