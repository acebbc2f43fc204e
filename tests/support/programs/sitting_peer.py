"""A process that has dialled a comm and is in one of its states when somebody ends it.

    python -m support.programs.sitting_peer ADDRESS STATE LOOP

STATE is ``idle``, ``sending``, ``receiving`` (and taking nothing) or ``waiting`` for a message;
LOOP is ``asyncio`` or ``uvloop``. The pickled `Security` comes on standard input. Prints "ready"
once it is in its state.
"""

from __future__ import annotations

import asyncio
import pickle
import sys

import uvloop

from sealwire.comm import connect
from sealwire.security import Security


async def sit(address: str, state: str, security: Security) -> None:
    args = security.get_connection_args("worker") if address.startswith("tls") else {}
    comm = await connect(address, **args)
    await comm.write(state)
    await comm.read()
    print("ready", flush=True)
    if state == "sending":
        while True:
            await comm.write(bytes(100_000))
    if state == "waiting":
        await comm.read()
    await asyncio.Event().wait()  # idle, or receiving without a reader


if __name__ == "__main__":
    address, state, loop = sys.argv[1:]
    run = uvloop.run if loop == "uvloop" else asyncio.run
    run(sit(address, state, pickle.load(sys.stdin.buffer)))
