"""Fifty workers and a client in one process, against a scheduler elsewhere.

    python -m support.programs.fifty_workers SCHEDULER CA CERTIFICATE WORKERS

Prints what a computation gave that moved data between all of them, and what the scheduler's
listener had counted by then.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import sys
from typing import Any

import dask
from distributed import Client, Scheduler, Worker

from sealwire.dask_backend import Security


async def main(scheduler: str, ca: str, certificate: str, number: int) -> None:
    security = Security(tls_ca_file=ca, tls_worker_cert=certificate, tls_client_cert=certificate)
    async with contextlib.AsyncExitStack() as stack:
        workers = [
            Worker(
                scheduler, name=f"w{n}", nthreads=1, security=security, memory_limit=0,
                dashboard=False, local_directory=None,
                host="127.0.0.1", dashboard_address="127.0.0.1:0",
            )
            for n in range(number)
        ]  # fmt: skip
        await asyncio.gather(*(stack.enter_async_context(worker) for worker in workers))
        client = await stack.enter_async_context(
            Client(scheduler, security=security, asynchronous=True, timeout="60 s")
        )
        print(f"up {len(workers)}", flush=True)
        parts = [
            client.submit(bytes, [n]*10_000, workers=f"w{n}", pure=False) for n in range(number)
        ]  # fmt: skip
        sums = [
            client.submit(add_up, parts, workers=f"w{n}", pure=False) for n in range(0, number, 5)
        ]
        print(f"result {sum(await client.gather(sums))}", flush=True)
        print(f"stats {json.dumps(await client.run_on_scheduler(stats))}", flush=True)


def add_up(parts: list[bytes]) -> int:
    return sum(map(sum, parts))


def stats(dask_scheduler: Scheduler) -> dict[str, Any]:
    return dataclasses.asdict(dask_scheduler.listeners[0].stats)


if __name__ == "__main__":
    dask.config.set({"distributed.worker.profile.enabled": False})
    asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])))
