"""Runs tasks, several at once, for as long as there is a scheduler: worker.py ADDRESS SLOTS"""

import asyncio
import sys

from common import credentials, told_to_stop

from sealwire.comm import ReconnectingClient


def note(path, line):
    with open(path, "a") as file:
        file.write(f"{line}\n")


FUNCTIONS = {"square": lambda number: number**2, "note": note, "sleep": asyncio.sleep, "set": set}


async def run(function, *args):
    """Plain functions run in threads, so that pings are answered meanwhile."""
    what = FUNCTIONS[function]
    return await (what(*args) if what is asyncio.sleep else asyncio.to_thread(what, *args))


async def main(address, slots):
    async def join(calls):
        await calls.call("join", int(slots), timeout=10)

    stop = told_to_stop()
    args = credentials(address, "worker")
    client = ReconnectingClient(address, {"run": run}, on_connect=join, ping_interval=5, **args)
    print("worker", flush=True)
    await stop.wait()
    await client.close(grace=10)  # what runs may finish; the scheduler gives the rest to others


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
