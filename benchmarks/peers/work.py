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
LARGE = 64 << 20  # bytes that the C library gives back to the system when they are freed


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
    step: Callable[[int], Awaitable[Any]], seconds: float, first: int = 1, most: int = MOST
) -> dict[str, Any]:
    """Run `step(count)` with growing counts until a run takes about `seconds`.

    The first run only warms up, unless there is to be one step only or it was very slow.
    """
    count, total = first, 0
    while True:
        start = time.perf_counter()
        await step(count)
        elapsed = time.perf_counter() - start
        cold = not total and most > 1 and elapsed < 4 * seconds
        total += count
        if not cold and (elapsed > 0.6 * seconds or count >= most):
            return {"count": count, "elapsed": elapsed, "total": total}
        if elapsed < seconds:
            count = min(most, max(1, int(count * min(20, seconds / max(elapsed, 1e-6)))))


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


async def payload(
    worker: Worker,
    *,
    seconds: float,
    size: int,
    most: int = MOST,
    flight: int = 1,
    plain: bool = False,
) -> dict[str, Any]:
    """Large arrays one way, each acknowledged; up to `flight` are sent before the first answer.

    With `plain` they are bytes of the message itself, which nothing serialises.
    """
    comm = worker.comms[0]
    made = array(size)
    message = {"op": "data", "data": made.tobytes()} if plain else worker.adapter.payload(made)

    async def step(count: int) -> None:
        ahead = min(flight, count)
        for _ in range(ahead):
            await comm.write(message)
        for _ in range(count - ahead):
            await comm.read()
            await comm.write(message)
        for _ in range(ahead):
            await comm.read()

    # Two buffers of the receiver's take turns. Memory that was free for a while has been taken back
    # by the host of a virtual machine, and then costs a second for each GB.
    warm = 2 if size >= LARGE and most > 1 else 0
    await step(warm)
    done = await repeat(step, seconds, most=most)
    done["total"] += warm
    done["bytes"] = size
    return done


async def connections(worker: Worker, *, seconds: float) -> dict[str, Any]:
    """Connect, with everything that takes, one round trip, close; one after the other."""

    async def step(count: int) -> None:
        for _ in range(count):
            comm = await worker.adapter.connect(worker.address)
            await comm.write(SMALL)
            await comm.read()
            await comm.close()

    return await repeat(step, seconds, 5, most=2000)  # ports stay taken for a minute


async def use(worker: Worker, *, seconds: float, largest: int) -> dict[str, Any]:
    """Traffic of every kind, so that the comm is one that was used."""
    for size in (1 << 16, largest, largest):
        await payload(worker, seconds=seconds, size=size, most=1)
    return await round_trip(worker, seconds=seconds)


async def idle(worker: Worker, *, seconds: float, trickle: int = 0) -> dict[str, Any]:
    """Nothing, or `trickle` round trips a second."""
    if not trickle:
        await asyncio.sleep(seconds)
    for _ in range(int(trickle * seconds)):
        await asyncio.sleep(1 / trickle)
        await worker.comms[0].write(SMALL)
        await worker.comms[0].read()
    return {"count": 1, "elapsed": seconds, "total": 1}
