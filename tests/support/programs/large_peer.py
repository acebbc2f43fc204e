"""A process that sends or receives one large message and tells what it cost in memory.

    python -m support.programs.large_peer receive SCHEME     prints its address, then a line of JSON
    python -m support.programs.large_peer send ADDRESS SIZE  prints a line of JSON

The pickled `Security` comes on standard input. The payload is zero but for a mark every `STEP`.
"""

from __future__ import annotations

import asyncio
import json
import mmap
import pickle
import sys
import time
from pathlib import Path
from typing import Any

from sealwire.comm import Comm, connect, listen
from sealwire.security import Security

STEP = 64 << 20


STATUS = Path("/proc/self/status")  # Linux; elsewhere only the arrival is tested


def mark(position: int) -> bytes:
    return position.to_bytes(8, "little")


def reset_peak() -> int:
    """Resident bytes now; peaks count from here."""
    if STATUS.exists():
        Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def peak() -> int:
    return _status("VmHWM")


def _status(name: str) -> int:
    lines = STATUS.read_text().splitlines() if STATUS.exists() else [f"{name}: 0"]
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


async def receive(scheme: str, security: Security) -> None:
    done: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()

    async def handle(comm: Comm) -> None:
        before = reset_peak()
        start = time.perf_counter()
        data = (await comm.read())["data"]
        elapsed = time.perf_counter() - start
        extra = peak() - before
        marks = all(data[p : p + 8] == mark(p) for p in range(0, len(data), STEP))
        zeros = all(data[p] == 0 for p in range(100, len(data), 999_983))
        await comm.write("received")
        facts = {"size": len(data), "intact": marks and zeros, "extra": extra, "seconds": elapsed}
        done.set_result(facts)

    args = security.get_listen_args("scheduler")
    args = args if scheme == "tls" else {}
    async with listen(f"{scheme}://127.0.0.1:0", handle, **args) as listener:
        print(listener.contact_address, flush=True)
        print(json.dumps(await done), flush=True)


async def send(address: str, size: int, security: Security) -> None:
    args = security.get_connection_args("worker") if address.startswith("tls") else {}
    # Private and untouched: reading it costs no memory, so what is measured is the comm's.
    payload = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    for position in range(0, size, STEP):
        payload[position : position + 8] = mark(position)
    async with connect(address, **args) as comm:
        before = reset_peak()
        await comm.write({"data": memoryview(payload)})
        extra = peak() - before
        assert await comm.read() == "received"
        print(json.dumps({"extra": extra}), flush=True)


if __name__ == "__main__":
    what, where, *rest = sys.argv[1:]
    given: Security = pickle.load(sys.stdin.buffer)
    asyncio.run(receive(where, given) if what == "receive" else send(where, int(rest[0]), given))
