"""The kinds of work, as the driving side does them.

Each repeats its step until a run of it has taken long enough, and tells about that last run:
``count`` steps in ``elapsed`` seconds. What came before has warmed everything up. ``total`` counts
all steps, for figures that the whole work is divided by, as CPU time.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from .messages import batch_of

if TYPE_CHECKING:
    from .worker import Worker

ACK = {"op": "ok"}
SMALL = {"op": "echo", "data": b"x" * 84}  # 100 bytes as msgpack
NOTE = {"op": "note", "data": b"x" * 84}
SYNC = {"op": "sync"}
MOST = 1_000_000  # steps of one run


@functools.lru_cache(1)
def array(size: int) -> Any:
    """A payload whose first and last bytes are known."""
    made = np.tile(np.arange(256, dtype=np.uint8), -(-size // 256))[:size]
    made[-1] = 0xA5
    return made


def check(data: Any) -> None:
    """Raise ValueError unless `data` is such a payload."""
    view = memoryview(data)
    if view[0] != 0 or view[-1] != 0xA5:
        raise ValueError(f"a payload of {len(view)} bytes arrived wrong")


async def repeat(
    step: Callable[[int], Awaitable[Any]], seconds: float, first: int = 1
) -> dict[str, Any]:
    """Run `step(count)` with growing counts until a run takes about `seconds`."""
    count, total = first, 0
    while True:
        start = time.perf_counter()
        await step(count)
        elapsed = time.perf_counter() - start
        total += count
        if elapsed > 0.6 * seconds or count >= MOST:
            return {"count": count, "elapsed": elapsed, "total": total}
        count = min(MOST, 1 + int(count * min(20, seconds / max(elapsed, 1e-6))))


async def round_trip(worker: Worker, *, seconds: float, comms: int = 1) -> dict[str, Any]:
    """A small message there and back, on each of `comms` comms at once."""
    used = worker.comms[:comms]
    times: list[float] = []

    async def ping(comm: Any, count: int) -> None:
        clock = time.perf_counter
        for _ in range(count):
            start = clock()
            await comm.write(SMALL)
            await comm.read()
            times.append(clock() - start)

    async def step(count: int) -> None:
        times.clear()
        if comms == 1:
            await ping(used[0], count)
        else:
            each = -(-count // comms)
            await asyncio.gather(*(ping(comm, each) for comm in used))

    done = await repeat(step, seconds, 10 * comms)
    done["count"] = len(times)
    times.sort()
    done["p50"] = times[len(times) // 2]
    done["p99"] = times[int(len(times) * 0.99)]
    return done


async def flood(worker: Worker, *, seconds: float) -> dict[str, Any]:
    """Small messages one way, as fast as they go; one answer when all have arrived."""
    comm = worker.comms[0]

    async def step(count: int) -> None:
        for _ in range(count):
            await comm.write(NOTE)
        await comm.write(SYNC)
        await comm.read()

    return await repeat(step, seconds, 100)


async def batch(worker: Worker, *, seconds: float, of: str) -> dict[str, Any]:
    """Batches as Dask's streams send them, each acknowledged."""
    comm = worker.comms[0]
    message = batch_of(of)

    async def step(count: int) -> None:
        for _ in range(count):
            await comm.write(message)
            await comm.read()

    return await repeat(step, seconds, 5)


async def payload(worker: Worker, *, seconds: float, size: int, most: int = MOST) -> dict[str, Any]:
    """Large arrays one way, each acknowledged."""
    comm = worker.comms[0]
    message = worker.adapter.payload(array(size))

    async def step(count: int) -> None:
        for _ in range(count):
            await comm.write(message)
            await comm.read()

    done = await repeat(step, seconds)
    done["bytes"] = size
    return done
