"""What a Dask user does that moves data, on a cluster of two workers, `giver` and `taker`."""

from __future__ import annotations

import time
from importlib.util import find_spec
from typing import Any

import numpy as np
from distributed import Event, get_worker, wait

SMALL = 1 << 20  # bytes of each of many arrays
PARTS = 16  # of a table with four columns of int64
MOST = 20  # arrays of one measurement


def make(size: int) -> Any:
    """An array that no compression makes smaller."""
    return np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8)


def compute() -> int:
    """Pure Python, until told to stop."""
    worker, rounds = get_worker(), 0
    worker.benchmark_stop = False
    Event("begun").set()
    while not worker.benchmark_stop:
        for _ in range(2000):
            rounds += 1
    return rounds


def stop(dask_worker: Any) -> None:
    """End `compute`."""
    dask_worker.benchmark_stop = True


def received(dask_worker: Any) -> list[tuple[int, float]]:
    """Bytes and seconds of every transfer from another worker."""
    log = dask_worker.transfer_incoming_log
    return [(entry["total"], entry["stop"] - entry["start"]) for entry in log]


async def all_figures(
    client: Any, seconds: float, *, large: int, many: int, rows: int
) -> dict[str, float]:
    """Every figure in its turn.

    `large` is the size of the arrays that workers fetch from each other, `many` the number of those
    that are gathered and scattered, `rows` the length of each of the parts of a table, 0 for none.
    """
    await client.wait_for_workers(2, timeout=60)
    workers = (await client.scheduler.identity(n_workers=-1))["workers"]
    by_name = {worker["name"]: address for address, worker in workers.items()}
    giver, taker = by_name["giver"], by_name["taker"]
    found = {"fetch_idle": await fetch(client, giver, taker, large, seconds)}
    task = client.submit(compute, workers=[taker], pure=False)
    await Event("begun").wait()
    found["fetch_busy"] = await fetch(client, giver, taker, large, seconds)
    await client.run(stop, workers=[taker])
    await task
    found.update(await gather_and_scatter(client, many, seconds))
    if rows and all(find_spec(name) for name in ("pandas", "pyarrow")):
        found["shuffle"] = await shuffle(client, rows)
    return found


async def fetch(client: Any, giver: str, taker: str, size: int, seconds: float) -> float:
    """MB/s of arrays that one worker fetches from the other, as the worker itself logs them."""
    before = len((await client.run(received, workers=[taker]))[taker])
    began = time.perf_counter()
    for count in range(MOST):
        array = client.submit(make, size, workers=[giver], pure=False)
        await wait(array)
        await client.submit(len, array, workers=[taker], pure=False)
        if count and time.perf_counter() - began > 2 * seconds:
            break
    log = (await client.run(received, workers=[taker]))[taker][before:]
    return sum(size for size, _ in log) / sum(spent for _, spent in log) / 1e6


async def gather_and_scatter(client: Any, many: int, seconds: float) -> dict[str, float]:
    """MB/s of many arrays from the workers to the client, and back."""
    gathering = scattering = 0.0
    began = time.perf_counter()
    for count in range(1, MOST + 1):
        arrays = client.map(make, [SMALL] * many, pure=False)
        await wait(arrays)
        start = time.perf_counter()
        here = await client.gather(arrays)
        middle = time.perf_counter()
        there = await client.scatter(here, hash=False)
        end = time.perf_counter()
        gathering += middle - start
        scattering += end - middle
        del arrays, here, there
        if count > 1 and end - began > 4 * seconds:
            break
    moved = count * many * SMALL / 1e6
    return {"gather": moved / gathering, "scatter": moved / scattering}


async def shuffle(client: Any, rows: int) -> float:
    """MB/s of a table whose rows find their partition anew, worker to worker."""
    import dask
    import pandas as pd
    from dask import dataframe as dd

    def part(seed: int, rows: int) -> Any:
        random = np.random.default_rng(seed)
        return pd.DataFrame({name: random.integers(0, 1 << 40, rows) for name in "abcd"})

    async def spent(rows: int) -> float:
        parts = dd.from_map(part, range(PARTS), rows=rows, meta=part(0, 1).head(0))
        table = client.persist(parts)
        await wait(table)
        start = time.perf_counter()
        await wait(client.persist(table.shuffle("a")))
        return time.perf_counter() - start

    with dask.config.set({"dataframe.shuffle.method": "p2p"}):
        await spent(min(100, rows))  # loads what the first one needs
        return PARTS * rows * 32 / await spent(rows) / 1e6
