"""Runs tasks, SLOTS at a time, until it is stopped: worker.py ADDRESS SLOTS"""

import asyncio
import sys
import time

from sealwire.comm import ReconnectingClient, stop_signal
from sealwire.security import Security


def note(path, line):
    with open(path, "a") as file:
        file.write(f"{line}\n")


FUNCTIONS = {"square": lambda number: number**2, "note": note, "sleep": time.sleep, "set": set}


async def run(function, *args):
    """Run a plain function in a thread, so that pings are answered meanwhile."""
    return await asyncio.to_thread(FUNCTIONS[function], *args)


async def main(address, slots):
    args = Security().get_connection_args("worker")  # over tls://, those of DASK_CONFIG
    args["on_connect"] = lambda calls: calls.notify("join", int(slots))
    async with ReconnectingClient(address, {"run": run}, ping_interval=5, **args) as client:
        print("worker", flush=True)
        await stop_signal()
        await client.close(
            grace=10
        )  # running tasks may finish; the scheduler gives the rest to others


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
