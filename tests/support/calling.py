"""Calls to test with: both ends of a comm, and an end whose messages are written by hand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from sealwire.comm import Calls, Comm, Limits, Listener, listen
from support.links import listen_args, pair

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


class House:
    """A listener whose comms can be ended, and which counts them."""

    def __init__(self, **handlers: Callable[..., Any]) -> None:
        self.handlers = handlers
        self.guests: list[Calls] = []
        self.arrived = 0

    async def receive(self, comm: Comm) -> None:
        async with Calls(comm, self.handlers) as calls:
            self.arrived += 1
            self.guests.append(calls)
            try:
                await calls.serve()
            finally:
                self.guests.remove(calls)

    def listen(self, scheme: str = "tcp", port: int = 0) -> Listener:
        return listen(f"{scheme}://127.0.0.1:{port}", self.receive, **listen_args(scheme))


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
