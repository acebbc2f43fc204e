"""What a listener costs, for docs/performance.md: memory and CPU time of each comm, CPU at rest.

.venv/bin/python benchmarks/listener_cost.py

The listener is this process; the peers are another one. Times are CPU times of this process.
"""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import resource
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from sealwire.comm import Comm, connect, listen
from sealwire.security import Security

PEERS = 1000
QUIET = 5.0  # seconds at rest


def resident() -> int:
    """Bytes of this process in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


async def echo(comm: Comm) -> None:
    """Answer, until the peer is gone."""
    try:
        async for message in comm:
            await comm.write(message)
    except OSError:
        pass  # aborted


def peers(pipe: Connection, address: str, arguments: dict[str, Any]) -> None:
    """Another process: open as many comms as asked for, use each once, and keep them."""

    async def main() -> None:
        comms = []
        security = arguments.get("security")
        more = security.get_connection_args("worker") if security else {}
        for _ in range(PEERS):
            comm = await connect(address, timeout=60, **more)
            await comm.write(1)
            await comm.read()
            comms.append(comm)
        pipe.send("open")
        await asyncio.to_thread(pipe.recv)
        for comm in comms:
            comm.abort()

    asyncio.run(main())


async def measure(scheme: str) -> dict[str, float]:
    """Of one scheme: bytes and CPU seconds of each comm, and CPU of all of them at rest."""
    security = Security.temporary() if scheme == "tls" else None
    more = security.get_listen_args("scheduler") if security else {}
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    async with listen(f"{scheme}://127.0.0.1:0", echo, **more) as listener:
        arguments = {"security": security} if security else {}
        child = context.Process(target=peers, args=(theirs, listener.contact_address, arguments))
        gc.collect()
        before, cpu = resident(), time.process_time()
        child.start()
        await asyncio.to_thread(ours.recv)
        gc.collect()
        opened, used = resident(), time.process_time()
        await asyncio.sleep(QUIET)
        rested = time.process_time()
        ours.send("done")
        await asyncio.to_thread(child.join)
    return {
        "kib": (opened - before) / PEERS / 1024,
        "ms": (used - cpu) / PEERS * 1000,
        "rest": (rested - used) / QUIET * 100,
    }


def main() -> None:
    """Print a line for each scheme."""
    print(f"{PEERS} comms, each used once; Python {sys.version.split()[0]}")
    for scheme in ("tcp", "tls"):
        found = asyncio.run(measure(scheme))
        print(
            f"{scheme}: {found['kib']:.1f} KiB and {found['ms']:.2f} ms of CPU time for each comm; "
            f"all at rest: {found['rest']:.2f} % of a CPU"
        )


if __name__ == "__main__":
    main()
