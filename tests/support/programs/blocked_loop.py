"""A client of a cluster whose loops it has held, each in turn, by a task that keeps the GIL.

    python -m support.programs.blocked_loop SCHEDULER CA CERTIFICATE SECONDS WORKERS

The cluster has that many workers; one is "held". While the loop of the worker "held", and then of
the scheduler, stands still, everybody goes on dialling it, asking it and fetching from it. Prints
what came of it as a line of JSON.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
import sys
import tempfile
import time
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import dask
from distributed import Client, Worker
from distributed.core import rpc

from sealwire.dask_backend import Security

CALLERS = 40
BLOCK = 4 << 20


def block(number: int) -> bytes:
    return bytes([number]) * BLOCK


def total(blocks: list[bytes]) -> int:
    return sum(len(each) * each[0] for each in blocks)


def hold(seconds: float, begun: str, dask_scheduler: Any = None) -> float:
    """Keep the GIL in one call of C, where the interpreter never lets it go; how long it was."""
    Path(begun).touch()
    start = time.perf_counter()
    all(map((start + seconds).__gt__, iter(time.perf_counter, None)))
    return time.perf_counter() - start


async def watch(dask_worker: Any = None, dask_scheduler: Any = None) -> None:
    """Have this process note the longest time that its loop does not come round."""
    node = dask_worker or dask_scheduler
    node.longest_hold = 0.0

    async def beat() -> None:
        while True:
            before = time.perf_counter()
            await asyncio.sleep(0.02)
            node.longest_hold = max(node.longest_hold, time.perf_counter() - before)

    node.beat = asyncio.create_task(beat())


async def seen(dask_worker: Any = None, dask_scheduler: Any = None) -> dict[str, Any]:
    from sealwire.dask_backend.links import links

    node = dask_worker or dask_scheduler
    return {
        "name": getattr(node, "name", "scheduler") if dask_worker else "scheduler",
        "held": node.longest_hold,
        "stats": dataclasses.asdict(node.listeners[0].stats),
        "links": [[link["local"], link["peer"]] for link in links()],
    }


class Held:
    """The cluster, asked for one thing after the other."""

    def __init__(self, client: Client, security: Security, seconds: float, number: int) -> None:
        self.client = client
        self.security = security
        self.seconds = seconds
        self.number = number
        self.workers: dict[str, str] = {}  # addresses

    async def look(self) -> dict[str, Any]:
        found = [*(await self.client.run(seen)).values(), await self.client.run_on_scheduler(seen)]
        return {each.pop("name"): each for each in found}

    async def call(self, address: str) -> str:
        """Dial anew, ask, hang up."""
        arguments = self.security.get_connection_args("client")
        async with rpc(address, connection_args=arguments) as node:
            return str((await node.identity())["type"])

    async def meanwhile(self, holding: Awaitable[float], begun: str, late: str) -> dict[str, Any]:
        """Dial whoever is held now from all sides; what they got, once it goes on."""
        client, security = self.client, self.security
        address = self.workers["held"] if late == "first" else client.scheduler.address
        deadline = time.monotonic() + 60
        while not os.path.exists(begun):  # noqa: ASYNC240 (one look)
            if time.monotonic() > deadline:
                raise TimeoutError("nobody is held")
            await asyncio.sleep(0.005)
        start = time.monotonic()
        calls = [asyncio.create_task(self.call(address)) for _ in range(CALLERS)]
        async with contextlib.AsyncExitStack() as stack:
            worker = Worker(
                client.scheduler.address, name=late, nthreads=1, security=security, memory_limit=0,
                dashboard=False, host="127.0.0.1", dashboard_address="127.0.0.1:0",
            )  # fmt: skip
            await stack.enter_async_context(worker)
            other = Client(client.scheduler.address, security=security, asynchronous=True)
            await stack.enter_async_context(other)
            blocks = [
                other.submit(block, n, workers="held", pure=False, key=f"{late}-{n}")
                for n in range(1, 5)
            ]
            asked = (*(name for name in self.workers if name != "held"), late)
            sums = [other.submit(total, blocks, workers=w, pure=False) for w in asked]
            results = await other.gather(sums)
            del blocks, sums
            answers = await asyncio.gather(*calls)
            return {
                "sums": results,
                "answers": answers,
                "held": await holding,
                "seconds": time.monotonic() - start,
            }

    async def run(self, folder: str) -> dict[str, Any]:
        client = self.client
        await client.wait_for_workers(self.number, timeout=60)
        names = await client.run(lambda dask_worker: dask_worker.name)
        self.workers = {name: address for address, name in names.items()}
        await client.run(watch)
        await client.run_on_scheduler(watch)
        # Comms of all with all, that stay open.
        blocks = [client.submit(block, n, workers=w) for n, w in enumerate(self.workers, 1)]
        await client.gather([client.submit(total, blocks, workers=w) for w in self.workers])
        before = await self.look()
        told = {}
        begun = f"{folder}/worker"
        task = client.submit(hold, self.seconds, begun, workers="held", pure=False)
        told["worker"] = await self.meanwhile(task.result(), begun, "first")
        begun = f"{folder}/scheduler"
        held = client.run_on_scheduler(hold, self.seconds, begun)
        told["scheduler"] = await self.meanwhile(asyncio.ensure_future(held), begun, "second")
        again = [client.submit(total, blocks, workers=w, pure=False) for w in self.workers]
        told["again"] = await client.gather(again)
        for _ in range(600):
            after = await self.look()
            if not any(each["stats"]["pending"] for each in after.values()):
                break  # on a slow machine somebody may be dialling again just now
            await asyncio.sleep(0.05)
        for name, each in before.items():
            kept = {tuple(link) for link in after[name]["links"]}
            told[name] = {**told.get(name, {}), **{k: after[name][k] for k in ("stats", "links")}}
            told[name]["longest"] = after[name]["held"]
            told[name]["lost"] = [link for link in each["links"] if tuple(link) not in kept]
            told[name]["links"] = len(each["links"])
        return told


async def main(scheduler: str, ca: str, certificate: str, seconds: float, number: int) -> None:
    security = Security(tls_ca_file=ca, tls_worker_cert=certificate, tls_client_cert=certificate)
    with tempfile.TemporaryDirectory() as folder:
        async with Client(scheduler, security=security, asynchronous=True) as client:
            told = await Held(client, security, seconds, number).run(folder)
    print(f"told {json.dumps(told)}", flush=True)


if __name__ == "__main__":
    dask.config.set({"distributed.worker.profile.enabled": False})
    asyncio.run(main(*sys.argv[1:4], float(sys.argv[4]), int(sys.argv[5])))
