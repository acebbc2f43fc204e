"""Runs tasks, SLOTS at a time, until it is stopped: worker.py ADDRESS SLOTS"""

import asyncio
import sys
import time
from typing import Any

from sealwire.comm import Calls, ReconnectingClient, stop_signal
from sealwire.security import Security


def note(path: str, line: str) -> None:
    with open(path, "a") as file:
        file.write(f"{line}\n")


def square(number: int) -> int:
    return number**2


FUNCTIONS: dict[str, Any] = {"square": square, "note": note, "sleep": time.sleep, "set": set}


async def run(function: str, *args: Any) -> Any:
    """Run a plain function in a thread, so that pings are answered meanwhile."""
    return await asyncio.to_thread(FUNCTIONS[function], *args)


async def main(address: str, slots: str) -> None:
    def join(calls: Calls) -> Any:  # in each session, before all else
        return calls.notify("join", int(slots))

    args = Security().get_connection_args("worker")  # over tls://, those of DASK_CONFIG

    async def stop() -> None:
        await stop_signal()
        await client.close(grace=10)  # what runs may finish; others are given the rest

    client = ReconnectingClient(address, {"run": run}, on_connect=join, ping_interval=5, **args)
    async with client:
        print("worker", flush=True)
        stopping = asyncio.create_task(stop())
        await client.serve()  # raises if the scheduler refuses us for good
        await stopping


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
