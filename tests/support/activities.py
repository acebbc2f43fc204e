"""Comms of every face in every activity, between two hosts, and when each end was told of its end.

idle: nobody reads or writes. waiting: both read, nobody writes. sending: the near side writes, the
far side reads; receiving: the other way round.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, NamedTuple

from sealwire.comm.transport.goodbye import is_calm
from support.faces import Face, keep
from support.network import HANG, Side

ACTIVITIES = ("idle", "waiting", "sending", "receiving")
PAUSE = 0.02  # seconds between two messages, or looks
MESSAGE = bytes(20_000)


class Told(NamedTuple):
    """The end of a comm, as one side met it."""

    when: float
    error: OSError


class End:
    """One side of one comm, at work."""

    def __init__(self, name: str, side: Side, comm: Any) -> None:
        self.name = name
        self.comm = comm
        self.side = side
        self.messages = 0  # received or, by who writes, sent
        self.told: Future[Told] | None = None

    def begin(self, role: str) -> None:
        self.told = self.side.begin(getattr(self, role)())

    async def idle(self) -> Told:
        while not self.comm.closed():
            await asyncio.sleep(PAUSE)
        when = time.monotonic()
        try:
            await self.comm.read()
        except OSError as error:
            return Told(when, error)
        raise AssertionError("a message came")

    async def waiting(self) -> Told:
        try:
            while True:
                await self.comm.read()
                self.messages += 1
        except OSError as error:
            return Told(time.monotonic(), error)

    async def sending(self) -> Told:
        try:
            while True:
                await self.comm.write(MESSAGE)
                self.messages += 1
                await asyncio.sleep(PAUSE)
        except OSError as error:
            return Told(time.monotonic(), error)


ROLES = {
    "idle": ("idle", "idle"),
    "waiting": ("waiting", "waiting"),
    "sending": ("sending", "waiting"),
    "receiving": ("waiting", "sending"),
}


async def open_comms(face: Face, near: Side, far: Side, number: int) -> list[tuple[Any, Any]]:
    """Near and far ends of new comms; to be awaited on the near side."""
    accepted: asyncio.Queue[Any] = asyncio.Queue()

    async def accept(comm: Any) -> None:
        near.loop.call_soon_threadsafe(accepted.put_nowait, comm)
        await keep(comm)

    listening = asyncio.wrap_future(far.begin(face.listen(far.host, accept)))
    listener = await listening
    address = listener.contact_address
    comms = [(await face.connect(address), await accepted.get()) for _ in range(number)]
    far.loop.call_soon_threadsafe(listener.stop)
    return comms


def at_work(faces: Iterable[Face], near: Side, far: Side) -> list[End]:
    """Both ends of a comm for each face and activity, once messages go through."""
    ends = []
    for face in faces:
        comms = near.do(open_comms(face, near, far, len(ACTIVITIES)))
        for activity, pair in zip(ACTIVITIES, comms, strict=True):
            for side, comm, role in zip((near, far), pair, ROLES[activity], strict=True):
                name = "near" if side is near else "far"
                end = End(f"{face}, {activity}, {name}", side, comm)
                end.begin(role)
                ends.append(end)
    busy = [end for end in ends if "sending" in end.name or "receiving" in end.name]
    until(lambda: all(end.messages > 2 for end in busy), "nothing goes through")
    return ends


def until(condition: Any, words: str, seconds: float = HANG) -> float:
    """Look again and again, until it holds; how long that took."""
    start = time.monotonic()
    while not condition():
        assert time.monotonic() - start < seconds, words
        time.sleep(PAUSE / 4)
    return time.monotonic() - start


def abort_all(ends: list[End]) -> None:
    """Close all comms at once, and have everybody told of it."""
    for end in ends:
        end.side.loop.call_soon_threadsafe(end.comm.abort)
    for end in ends:
        if end.told is not None:
            with suppress(OSError):
                end.told.result(HANG)


def stream_of(comm: Any) -> Any:
    return comm.stream if hasattr(comm, "stream") else comm._stream


def until_calm(comms: Iterable[Any]) -> None:
    """Wait until all that was sent has been acknowledged."""
    sockets = [stream_of(comm).socket for comm in comms]
    until(lambda: all(map(is_calm, sockets)), "something is on its way")
