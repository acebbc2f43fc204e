"""A process that listens by every face; each of its comms works until it fails as it was told.

    python -m support.programs.failing_peer LOOP

LOOP is ``asyncio`` or ``uvloop``. The pickled `Security` comes on standard input, which is followed
by a byte whenever it is time to fail, for the comms that there are. Prints the addresses, one a
line, and then "at work" for each comm. The first message of a comm is what to do, and how to fail:
``reset``, ``raise``, ``close``, or anything else where somebody else will see to it.
"""

from __future__ import annotations

import asyncio
import contextlib
import pickle
import socket
import struct
import sys
from typing import Any

import uvloop

from sealwire.comm import Limits
from sealwire.dask_backend import install
from support import links
from support.faces import faces

MESSAGE = bytes(50_000)


async def work(comm: Any, doing: str) -> None:
    """As long as the comm lasts."""
    with contextlib.suppress(OSError):
        if doing in ("sending", "both"):
            while True:
                await comm.write(MESSAGE)
                await asyncio.sleep(0.001)  # Dask's writes do not wait
        while doing in ("waiting", "receiving"):
            await comm.read()


def reset(comm: Any) -> None:
    sock = (comm.stream if hasattr(comm, "stream") else comm._stream).socket
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    comm.abort()


async def serve() -> None:
    times = [asyncio.Event()]

    async def handle(comm: Any) -> None:
        doing, fault = await comm.read()
        now = times[-1]
        working = [asyncio.ensure_future(work(comm, doing))]
        if doing == "both":
            working.append(asyncio.ensure_future(work(comm, "receiving")))
        print("at work", flush=True)
        await now.wait()
        if fault == "reset":
            reset(comm)
        elif fault == "close":
            await comm.close()
        elif fault == "raise":
            raise LookupError("of the handler")
        await asyncio.gather(*working)

    listeners = [await face.listen("127.0.0.1", handle) for face in faces(Limits())]
    for listener in listeners:
        print(listener.contact_address, flush=True)
    while await asyncio.to_thread(sys.stdin.buffer.read, 1):
        times.append(asyncio.Event())
        times[-2].set()


if __name__ == "__main__":
    known = pickle.load(sys.stdin.buffer)
    links.security.cache_clear()
    links.security = lambda: known  # type: ignore[assignment]
    import support.faces

    support.faces.security = links.security
    install()

    run = uvloop.run if sys.argv[1] == "uvloop" else asyncio.run
    run(serve())
