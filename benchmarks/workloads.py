"""What Dask users do, as whole workloads: seconds until the client has its result.

Part of the full set (`run.py --all`), or by itself::

    .venv/bin/python benchmarks/run.py --case 'workloads*'

Each is done once on a small scale, which loads what it needs, and then measured. All run on a fresh
cluster of processes; `node.py` calls `all_figures` in the client's. Each returns its seconds, where
what comes before is not to count, or None.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from importlib.util import find_spec
from typing import Any

from distributed import wait
from peers.computations import make, shuffle

Work = Callable[[Any, list[str], float], Awaitable[float | None]]

TEXT = 200_000  # words in each of the texts
WORDS = [f"word{number}" for number in range(5000)]


def increase(number: int) -> int:
    return number + 1


def spin(array: Any, rounds: int) -> int:
    """Pure Python beside an array that had to be fetched."""
    total = len(array)
    for number in range(rounds):
        total += number & 3
    return total


def text(seed: int, words: int) -> list[str]:
    return random.Random(seed).choices(WORDS, k=words)


def count(words: list[str]) -> Counter[str]:
    return Counter(words)


def merge(left: Counter[str], right: Counter[str]) -> Counter[str]:
    return left + right


async def tasks(client: Any, workers: list[str], scale: float) -> float | None:
    """Tiny tasks, all at once."""
    await client.gather(client.map(increase, range(int(5000 * scale)), pure=False))
    return None


async def chain(client: Any, workers: list[str], scale: float) -> float | None:
    """A chain of tasks that alternates between two workers."""
    last = client.submit(increase, 0, workers=[workers[0]], pure=False)
    for number in range(int(300 * scale)):
        last = client.submit(increase, last, workers=[workers[number % 2]], pure=False)
    await last
    return None


async def submits(client: Any, workers: list[str], scale: float) -> float | None:
    """Tasks one after the other, each waited for."""
    for number in range(int(200 * scale)):
        await client.submit(increase, number, pure=False)
    return None


async def rechunk(client: Any, workers: list[str], scale: float) -> float | None:
    """From rows to columns: every chunk is made of a part of each."""
    from dask import array as da

    side = max(64, int(4096 * scale))
    rows = client.persist(da.random.default_rng(0).random((side, side), chunks=(side // 16, side)))
    await wait(rows)
    start = time.perf_counter()
    await wait(client.persist(rows.rechunk((side, side // 16))))
    return time.perf_counter() - start


async def matrix(client: Any, workers: list[str], scale: float) -> float | None:
    """A product of blocked matrices."""
    from dask import array as da

    side = max(64, int(2048 * scale))
    generator = da.random.default_rng(0)
    block = max(32, side // 8)  # a tiny product is not one of hundreds of tasks
    left, right = (generator.random((side, side), chunks=block) for _ in range(2))
    await client.compute((left @ right).sum())
    return None


async def fed(client: Any, workers: list[str], scale: float) -> float | None:
    """Python tasks on one worker whose arrays come from the other, while the others compute."""
    number = max(2, int(24 * scale))
    arrays = client.map(make, [4 << 20] * number, workers=[workers[0]], pure=False)
    await wait(arrays)
    start = time.perf_counter()
    spun = [
        client.submit(spin, array, 200_000, workers=[workers[1]], pure=False) for array in arrays
    ]
    await client.gather(spun)
    return time.perf_counter() - start


async def words(client: Any, workers: list[str], scale: float) -> float | None:
    """Count words, and merge the counts in a tree."""
    texts = client.map(text, range(16), words=int(TEXT * scale), pure=False)
    counts = client.map(count, texts, pure=False)
    while len(counts) > 1:
        counts = [
            client.submit(merge, *counts[index : index + 2], pure=False)
            for index in range(0, len(counts), 2)
        ]
    found = await counts[0]
    if sum(found.values()) != 16 * int(TEXT * scale):
        raise ValueError("words were lost")
    return None


async def gather64(client: Any, workers: list[str], scale: float) -> float | None:
    """Arrays of 1 MiB to the client."""
    arrays = client.map(make, [1 << 20] * max(2, int(64 * scale)), pure=False)
    await wait(arrays)
    start = time.perf_counter()
    await client.gather(arrays)
    return time.perf_counter() - start


async def exchange(client: Any, workers: list[str], scale: float) -> float | None:
    """A table whose rows find their partition anew, worker to worker."""
    rows = max(100, int(100_000 * scale))
    moved = await shuffle(client, rows)
    return 16 * rows * 32 / moved / 1e6


ALL: dict[str, Work] = {
    work.__name__: work
    for work in (tasks, chain, submits, rechunk, matrix, fed, words, gather64, exchange)
}


async def all_figures(
    client: Any, seconds: float, *, workers: int, works: list[str], scale: float = 1.0
) -> dict[str, float]:
    """Seconds of each of the `works`; those whose libraries are missing are left out."""
    await client.wait_for_workers(workers, timeout=120)
    found: dict[str, float] = {}
    addresses = sorted((await client.scheduler.identity(n_workers=-1))["workers"])
    for name in works:
        if name == "exchange" and not all(find_spec(module) for module in ("pandas", "pyarrow")):
            continue
        work = ALL[name]
        await work(client, addresses, 0.05 * scale)
        began = time.perf_counter()
        measured = await work(client, addresses, scale)
        found[name] = time.perf_counter() - began if measured is None else measured
    return found
