"""Calls to test with: both ends of a comm, and an end whose messages are written by hand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from sealwire.comm import Calls, Comm, Limits
from support.links import pair

Handlers = Mapping[str, Callable[..., Any]]


@asynccontextmanager
async def calls_pair(
    handlers: Handlers | None = None,
    ours: Handlers | None = None,
    *,
    scheme: str = "tcp",
    limits: Limits | None = None,
    ours_with: Mapping[str, int] | None = None,
    **bounds: int,
) -> AsyncIterator[tuple[Calls, Calls]]:
    """Who calls, with `ours`, and who is called, with `handlers` and `bounds`."""
    async with (
        pair(scheme, limits) as (a, b),
        Calls(b, handlers, **bounds) as called,
        Calls(a, ours, **(ours_with or {})) as calls,
    ):
        yield calls, called


@asynccontextmanager
async def called_by_hand(
    handlers: Handlers | None = None, **bounds: int
) -> AsyncIterator[tuple[Comm, Calls]]:
    """A bare comm, for envelopes of the test's own, and who is called over it."""
    async with pair("tcp") as (comm, b), Calls(b, handlers, **bounds) as called:
        yield comm, called


class Sleeper:
    """A handler that waits to be told, and notes how it ended."""

    def __init__(self) -> None:
        self.started = 0
        self.cancelled = 0
        self.go = asyncio.Event()
        self.changed = asyncio.Event()

    async def __call__(self, value: Any = None) -> Any:
        self.started += 1
        self.changed.set()
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            self.changed.set()
            raise
        return value

    async def until(self, condition: Callable[[Sleeper], bool]) -> None:
        while not condition(self):
            self.changed.clear()
            await self.changed.wait()


def raising(error: BaseException) -> Callable[[], Any]:
    def handler() -> Any:
        raise error

    return handler


def raising_later(error: BaseException) -> Callable[[], Any]:
    async def handler() -> Any:
        await asyncio.sleep(0)
        raise error

    return handler
