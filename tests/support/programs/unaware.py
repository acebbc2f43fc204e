"""A program: processes of a cluster that nothing but the configuration tells of this package.

    python -m support.programs.unaware KIND [ADDRESS]

It prints the addresses that it listens on, or what it could not, and ends when its standard input
does. ADDRESS is the scheduler's.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import sys
from collections.abc import Callable
from typing import Any

HERE: dict[str, Any] = {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0"}


def show(*addresses: str) -> None:
    print(json.dumps(addresses), flush=True)
    sys.stdin.read()


def scheduler() -> None:
    from distributed import Scheduler

    async def run() -> None:
        async with Scheduler(protocol="tls", port=0, **HERE) as made:
            await asyncio.to_thread(show, made.address)

    asyncio.run(run())


def worker(address: str) -> None:
    from distributed import Worker

    async def run() -> None:
        async with Worker(address, nthreads=1, **HERE) as made:
            await asyncio.to_thread(show, made.address)

    asyncio.run(run())


def nanny(address: str) -> None:
    from distributed import Nanny

    async def run() -> None:
        async with Nanny(address, nthreads=1, **HERE) as made:
            assert made.worker_address is not None
            await asyncio.to_thread(show, made.address, made.worker_address)

    asyncio.run(run())


def cluster(processes: bool) -> None:
    from distributed import LocalCluster

    places = {**HERE, "worker_dashboard_address": "127.0.0.1:0"}
    with LocalCluster(n_workers=1, protocol="tls", processes=processes, **places) as made:
        workers = made.scheduler_info["workers"]
        nannies = [each["nanny"] for each in workers.values() if each.get("nanny")]
        show(made.scheduler_address, *workers, *nannies)


def client(address: str) -> None:
    from distributed import Client

    try:
        with Client(address, timeout=20) as made:
            show(made.scheduler.address)
    except OSError as error:
        print(error)


def child(method: str) -> None:
    """A scheduler in a child of a process that has loaded Dask already."""
    import distributed

    assert distributed.Scheduler
    context = multiprocessing.get_context(method)
    ours, theirs = context.Pipe()
    process = context.Process(target=_child, args=(theirs,))
    process.start()
    show(ours.recv())
    ours.send(None)
    process.join()


def _child(pipe: Any) -> None:
    from distributed import Scheduler

    async def run() -> None:
        async with Scheduler(protocol="tls", port=0, **HERE) as made:
            pipe.send(made.address)
            await asyncio.to_thread(pipe.recv)

    asyncio.run(run())


KINDS: dict[str, Callable[..., None]] = {
    "scheduler": scheduler,
    "worker": worker,
    "nanny": nanny,
    "client": client,
    "threads": lambda: cluster(False),
    "processes": lambda: cluster(True),
    "spawn": lambda: child("spawn"),
    "fork": lambda: child("fork"),
    "forkserver": lambda: child("forkserver"),
}

if __name__ == "__main__":
    KINDS[sys.argv[1]](*sys.argv[2:])
