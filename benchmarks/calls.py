"""What a call costs beside bare messages: 16 at once over one comm, between two processes.

    python benchmarks/calls.py [--rounds 9] [--count 400] [--uvloop]

"bare" keeps 16 messages under way without telling whose answer is whose. The rounds of all kinds
are interleaved; shown are medians of the CPU time of both processes, which other programs on the
machine disturb less than the time that passes.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import statistics
import time
from collections.abc import Awaitable, Callable
from multiprocessing.connection import Connection
from typing import Any

from sealwire.comm import Calls, Comm, connect, listen

WIDTH = 16
DATA = b"x" * 84


async def serve(pipe: Connection) -> None:
    """Echo messages at one address, and calls at another."""

    async def bare(comm: Comm) -> None:
        async for message in comm:
            await comm.write(message)

    async def calls(comm: Comm) -> None:
        handlers = {"echo": lambda data: data, "cpu": time.process_time}
        async with Calls(comm, handlers) as served:
            await served.serve()

    async with listen("tcp://127.0.0.1:0", bare) as one, listen("tcp://127.0.0.1:0", calls) as two:
        pipe.send((one.contact_address, two.contact_address))
        await asyncio.Event().wait()


def server(pipe: Connection, uvloop: bool) -> None:
    run(serve(pipe), uvloop)


async def bare(comm: Comm, count: int) -> None:
    message = {"op": "echo", "data": DATA}
    for _ in range(WIDTH):
        await comm.write(message)
    for left in range(WIDTH * count, 0, -1):
        await comm.read()
        if left > WIDTH:
            await comm.write(message)


async def called(calls: Calls, count: int, timeout: float | None) -> None:
    async def one() -> None:
        for _ in range(count):
            await calls.call("echo", DATA, timeout=timeout)

    await asyncio.gather(*(one() for _ in range(WIDTH)))


async def measure(pipe: Connection, rounds: int, count: int) -> dict[str, list[float]]:
    """Microseconds of CPU for each message or call, of both processes, by kind."""
    plain, served = pipe.recv()
    took: dict[str, list[float]] = {}
    async with connect(plain) as comm, Calls(await connect(served)) as calls:
        kinds: dict[str, Callable[[], Awaitable[None]]] = {
            "bare messages": lambda: bare(comm, count),
            "calls": lambda: called(calls, count, None),
            "calls with a deadline": lambda: called(calls, count, 30),
        }
        for number in range(rounds + 1):  # the first one only warms up
            for kind, work in kinds.items():
                before = time.process_time() + await calls.call("cpu")
                await work()
                spent = time.process_time() + await calls.call("cpu") - before
                if number:
                    took.setdefault(kind, []).append(spent / count / WIDTH * 1e6)
    return took


def run(main: Any, uvloop: bool) -> Any:
    if uvloop:
        import uvloop as loops

        loops.install()
    return asyncio.run(main)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--count", type=int, default=400, help="calls of each of the 16")
    parser.add_argument("--uvloop", action="store_true")
    given = parser.parse_args()
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(
        target=server, args=(theirs, given.uvloop), daemon=True
    )
    process.start()
    try:
        took = run(measure(ours, given.rounds, given.count), given.uvloop)
    finally:
        process.terminate()
        process.join()
    least = statistics.median(took["bare messages"])
    for kind, times in took.items():
        middle = statistics.median(times)
        print(f"{kind:22} {middle:6.1f} us of CPU  {middle / least:5.2f} of bare messages")


if __name__ == "__main__":
    main()
