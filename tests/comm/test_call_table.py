"""docs/errors.md: what calls raise, as they raise it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, get_args

import pytest

from sealwire.comm import (
    CallError,
    CallLost,
    CallRefused,
    Calls,
    CommError,
    Limits,
    register_error,
)
from sealwire.comm.calls.errors import RefusalKind
from support.aio import aio, until
from support.links import pair

DOCS = (Path(__file__).resolve().parents[2] / "docs" / "errors.md").read_text(encoding="utf-8")
_, _, rest = DOCS.partition("<!-- calls -->\n")
TABLE = rest.partition("<!-- end -->")[0].strip().splitlines()


@register_error
class OutOfStock(Exception):
    """As an application has its own."""


class Sides:
    """Who calls, the comm below it, and who is called, with one place to run and one to wait."""

    def __init__(self, calls: Calls, called: Calls) -> None:
        self.calls = calls
        self.called = called

    async def busy(self, count: int) -> None:
        """Let `count` calls be under way."""
        waiting = [asyncio.ensure_future(self.calls.call("wait")) for _ in range(count)]
        for each in waiting:  # what becomes of them is of no interest
            each.add_done_callback(lambda done: done.cancelled() or done.exception())
        await until(lambda: self.calls.pending == count and self.called.running == 1)

    async def overloaded(self) -> None:
        await self.busy(2)
        await self.calls.call("wait")

    async def stopping(self) -> None:
        await self.busy(1)
        closing = asyncio.ensure_future(self.called.close(grace=20))
        await asyncio.sleep(0)
        try:
            await self.calls.call("wait")
        finally:
            await self.calls.close()
            await closing

    async def late_in_line(self) -> None:
        await self.busy(2)
        await self.calls.call("wait", timeout=0.01)

    async def lost(self) -> None:
        await self.busy(1)
        calling = asyncio.ensure_future(self.calls.call("wait"))
        await asyncio.sleep(0)
        self.called.comm.abort()
        await calling

    async def closed(self) -> None:
        await self.called.close()
        await self.calls.wait_closed()
        await self.calls.call("wait")

    async def broken(self) -> None:
        await self.busy(1)
        self.called.comm.write_nowait("no call")
        await self.calls.call("wait")


def fail(error: Exception) -> Any:
    raise error


async def wait() -> None:
    await asyncio.sleep(600)


HANDLERS: dict[str, Callable[..., Any]] = {
    "wait": wait,
    "fail": lambda: fail(ZeroDivisionError("division by zero")),
    "out": lambda: fail(OutOfStock("no more")),
    "odd": object,
    "large": lambda: bytes(200_000),
    "take": len,
}

ROWS: dict[str, Callable[[Sides], Awaitable[Any]]] = {
    "it has no handler of that name": lambda sides: sides.calls.call("sing"),
    "its handler does not take these arguments": lambda sides: sides.calls.call("wait", 1),
    "too many calls run and wait there (`max_running`, `max_waiting`)": Sides.overloaded,
    "it is closing (`close`), and lets only what runs finish": Sides.stopping,
    "the deadline passed while it ran": lambda sides: sides.calls.call("wait", timeout=0.05),
    "the deadline passed while too many of our calls were pending (`max_pending`)": (
        Sides.late_in_line
    ),
    "the comm was lost before the reply": Sides.lost,
    "the comm was closed before the call": Sides.closed,
    "it sent what is no call, which ends the comm": Sides.broken,
    "its handler raised": lambda sides: sides.calls.call("fail"),
    "its handler raised an error that both have given to `register_error`": (
        lambda sides: sides.calls.call("out")
    ),
    "its handler returned what cannot be sent": lambda sides: sides.calls.call("odd"),
    "its handler returned what is over a limit": lambda sides: sides.calls.call("large"),
    "our arguments cannot be sent": lambda sides: sides.calls.call("take", object()),
    "our arguments are over a limit": lambda sides: sides.calls.call("take", bytes(200_000)),
}


async def row(what: str) -> str:
    """Do it: a line of the table."""
    limits = Limits(max_message_size=100_000)
    async with (
        pair("tcp", limits) as (a, b),
        Calls(b, HANDLERS, max_running=1, max_waiting=1) as called,
        Calls(a, max_pending=2 if ROWS[what] is Sides.late_in_line else 1000) as calls,
    ):
        with pytest.raises(Exception, match=r".") as raised:
            await asyncio.wait_for(ROWS[what](Sides(calls, called)), 30)
    error = raised.value
    kind = f"`{error.kind}`" if isinstance(error, CallRefused | CommError) else ""
    if isinstance(error, CallError):
        ran = "yes" if error.may_have_run else "no"
        again = "if it may run twice" if error.may_have_run else "yes"
        if not isinstance(error, CallLost | CallRefused | TimeoutError):
            again = "by what it says"
        elif isinstance(error, CallRefused) and error.kind not in ("overloaded", "stopping"):
            again = "no"
    else:
        ran, again = ("yes", "by what it says") if isinstance(error, OutOfStock) else ("no", "no")
    name = "that class" if isinstance(error, OutOfStock) else f"`{type(error).__name__}`"
    return f"| {what} | {name} | {kind} | {ran} | {again} |"


@pytest.mark.parametrize("what", ROWS)
@aio
async def test_the_table_says_what_is_raised(what: str) -> None:
    assert await row(what) in TABLE


def test_the_table_has_no_other_rows() -> None:
    assert [line.split(" | ")[0].removeprefix("| ") for line in TABLE[2:]] == list(ROWS)


def test_every_kind_of_a_refusal_is_explained() -> None:
    """Of which one comes from a peer that is none of ours."""
    for kind in get_args(RefusalKind):
        assert f"`{kind}`" in rest.partition("\n## ")[0], kind


async def main() -> None:
    """Print the table."""
    for what in ROWS:
        print(await row(what))


if __name__ == "__main__":
    asyncio.run(main())
