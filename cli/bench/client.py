"""The measurements of `sealwire bench` over one comm, each bounded in time and bytes."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from sealwire.comm.errors import CommClosedError
from sealwire.comm.interfaces import Comm

MESSAGE = {"op": "echo", "data": b"x" * 84}  # 100 bytes on the wire
NOTE = {"op": "note", "data": b"x" * 84}
BURST = 200  # messages between two checks of the time
SIZES = (64 << 10, 1 << 20, 16 << 20, 64 << 20)
MOST_BYTES = 4 << 30  # per measurement
PATIENCE = 4  # skip a payload that would take this many times the requested time


class Busy(Exception):
    """The server refuses for lack of capacity, or is not a benchmark server."""


@dataclass(frozen=True)
class Figure:
    """One result: `what` was measured, its `value`, and how to format it."""

    what: str
    value: float
    unit: str

    def __str__(self) -> str:
        digits = 0 if self.value >= 100 else 1
        return f"{self.value:,.{digits}f} {self.unit}"


def size_name(size: int) -> str:
    """Format a size: ``64 KiB``, ``16 MiB``."""
    return f"{size >> 20} MiB" if size >> 20 else f"{size >> 10} KiB"


def throughput_name(direction: str, size: int) -> str:
    """Return the name of a throughput figure: ``upload, 1 MiB``."""
    return f"{direction}, {size_name(size)}"


STEPS = 2 + 2 * len(SIZES)  # number of steps that `measure` yields


async def measure(comm: Comm, seconds: float) -> AsyncIterator[list[Figure]]:
    """Yield the figures of each step, about `seconds` each. Raises `Busy`, `CommClosedError`."""
    yield await round_trips(comm, seconds)
    yield await messages(comm, seconds)
    for direction, move in (("upload", upload), ("download", download)):
        speed = 0.0  # bytes per second so far
        for size in SIZES:
            if speed and size / speed > PATIENCE * seconds:
                yield []
                continue
            speed = await move(comm, size, seconds)
            yield [Figure(throughput_name(direction, size), speed / 1e6, "MB/s")]


async def ask(comm: Comm, message: dict[str, Any]) -> dict[str, Any]:
    """Send and receive one message. Raises `Busy` if the server says so."""
    with contextlib.suppress(CommClosedError):  # the server's last message may have arrived before
        await comm.write(message)
    answer = await comm.read()
    if not isinstance(answer, dict):
        raise Busy(f"it answers with a {type(answer).__name__}: it is no sealwire bench --serve")
    if answer.get("op") == "busy":
        raise Busy("it serves as many comms as it can; try again later")
    return answer


async def round_trips(comm: Comm, seconds: float) -> list[Figure]:
    """Measure small messages to the server and back, one at a time."""
    times: list[float] = []
    for _ in range(20):
        await ask(comm, MESSAGE)
    end = time.perf_counter() + seconds
    while not times or time.perf_counter() < end:
        start = time.perf_counter()
        await ask(comm, MESSAGE)
        times.append(time.perf_counter() - start)
    times.sort()
    return [
        Figure("round trip of 100 B, median", 1e6 * statistics.median(times), "µs"),
        Figure("round trip of 100 B, 99 %", 1e6 * times[int(0.99 * len(times))], "µs"),
    ]


async def messages(comm: Comm, seconds: float) -> list[Figure]:
    """Measure small messages in one direction, until the server has received all."""
    count, start = 0, time.perf_counter()
    while not count or time.perf_counter() - start < seconds:
        for _ in range(BURST):
            await comm.write(NOTE)
        count += BURST
    await ask(comm, {"op": "sync"})
    return [Figure("messages of 100 B, one way", count / (time.perf_counter() - start), "/s")]


async def upload(comm: Comm, size: int, seconds: float) -> float:
    """Measure bytes per second to the server, with each payload acknowledged."""
    message = {"op": "data", "data": bytearray(size)}
    return await _throughput(lambda: ask(comm, message), size, seconds)


async def download(comm: Comm, size: int, seconds: float) -> float:
    """Measure bytes per second from the server, with each payload requested."""
    return await _throughput(lambda: ask(comm, {"op": "send", "size": size}), size, seconds)


async def _throughput(move: Callable[[], Awaitable[Any]], size: int, seconds: float) -> float:
    start = time.perf_counter()
    await move()
    first = time.perf_counter() - start
    if first > seconds:  # no time to measure it again
        return size / first
    count, start = 0, time.perf_counter()
    while not count or time.perf_counter() - start < seconds:
        await move()
        count += 1
        if count * size >= MOST_BYTES:
            break
    return count * size / (time.perf_counter() - start)
