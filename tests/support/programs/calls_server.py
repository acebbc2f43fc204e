"""A server of calls that keeps what it is told, for tests that kill it.

``calls_server.py ADDRESS FILE [--uvloop]``, with the keywords of a `Security` as JSON on stdin for
tls; it prints ``ready`` once it listens.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import Any

from sealwire.comm import Calls, Comm, listen
from sealwire.security import Security


async def main(address: str, file: str, credentials: dict[str, str]) -> None:
    kept = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    args: dict[str, Any] = {}
    if credentials:
        args = Security(**credentials).get_listen_args("scheduler")

    def keep(token: str) -> str:
        """Said to be kept only after it is."""
        os.write(kept, f"{token}\n".encode())
        return token

    async def keep_later(token: str) -> str:
        await asyncio.sleep(0.001)
        return keep(token)

    async def serve(comm: Comm) -> None:
        async with Calls(comm, {"keep": keep, "keep_later": keep_later}) as calls:
            await calls.serve()

    async with listen(address, serve, **args):
        print("ready", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    if "--uvloop" in sys.argv:
        import uvloop

        uvloop.install()
    asyncio.run(main(sys.argv[1], sys.argv[2], json.loads(sys.stdin.read() or "{}")))
