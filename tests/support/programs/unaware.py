"""A program: processes of a cluster that nothing but the configuration tells of this package.

    python -m support.programs.unaware KIND [ADDRESS]

It prints the addresses that it listens on by their names, or what it could not, and ends when its
standard input does. ADDRESS is the scheduler's.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import multiprocessing
import sys
from collections.abc import Callable
from typing import Any

HERE: dict[str, Any] = {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0"}


def show(**addresses: str) -> None:
    print(json.dumps(addresses), flush=True)
    sys.stdin.read()


def worker(address: str) -> None:
    from distributed import Worker

    async def run() -> None:
        async with Worker(address, nthreads=1, **HERE) as made:
            await asyncio.to_thread(show, worker=made.address)

    asyncio.run(run())


def clusters() -> None:
    """One of threads, and then one of processes."""
    from distributed import LocalCluster

    places = {**HERE, "worker_dashboard_address": "127.0.0.1:0"}
    found = {}
    with contextlib.ExitStack() as stack:
        for name, processes in (("threads", False), ("processes", True)):
            made = stack.enter_context(
                LocalCluster(n_workers=1, protocol="tls", processes=processes, **places)
            )
            ((worker, told),) = made.scheduler_info["workers"].items()
            found |= {f"{name}: scheduler": made.scheduler_address, f"{name}: worker": worker}
            if processes:
                found[f"{name}: nanny"] = told["nanny"]
        show(**found)


def client(address: str) -> None:
    from distributed import Client

    try:
        with Client(address, timeout=20) as made:
            show(scheduler=made.scheduler.address)
    except OSError as error:
        print(error)


def children() -> None:
    """A scheduler in each child of a process that has loaded Dask already, and one of its own."""
    import distributed

    found, pipes = {}, []
    for method in ("fork", "spawn", "forkserver"):
        context = multiprocessing.get_context(method)
        ours, theirs = context.Pipe()
        process = context.Process(target=_child, args=(theirs,))
        process.start()
        pipes.append((ours, process))
        found[f"scheduler by {method}"] = ours.recv()

    async def run() -> None:
        async with distributed.Scheduler(protocol="tls", port=0, **HERE) as made:
            await asyncio.to_thread(show, **found, **{"scheduler": made.address})

    asyncio.run(run())
    for ours, process in pipes:
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
    "worker": worker,
    "client": client,
    "clusters": clusters,
    "children": children,
}

if __name__ == "__main__":
    KINDS[sys.argv[1]](*sys.argv[2:])
