"""The server of `sealwire bench`: it counts, echoes or acknowledges what it receives.

Run as a module it is the child process of a local run: it reads its certificates as a line of JSON
from stdin, prints its addresses in a line on stdout, and ends when stdin is closed. No request
makes it hold more than one payload of at most `LARGEST` bytes for each of `COMMS` comms.
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
from collections.abc import Coroutine, Mapping
from typing import Any

from sealwire.comm import CommClosedError, Limits, listen
from sealwire.comm.interfaces import Comm, Listener
from sealwire.security import Security

LARGEST = 64 << 20  # bytes of one payload
COMMS = 8  # served at once; more are refused
LIMITS = Limits(max_message_size=LARGEST + (1 << 16), read_ahead=1 << 20)
CHILD_LIFE = 600.0  # seconds after which a child ends by itself


class Server:
    """Serves comms of `bench.client`."""

    def __init__(self) -> None:
        self.comms = 0
        self._payload = bytearray(0)

    async def attend(self, comm: Comm) -> None:
        """Serve one comm until its peer closes."""
        if self.comms >= COMMS:
            await comm.write({"op": "busy"})
            return
        self.comms += 1
        try:
            async for message in comm:
                await self._answer(comm, message)
        except CommClosedError:
            pass  # the peer was killed, or does not follow the protocol
        finally:
            self.comms -= 1

    async def _answer(self, comm: Comm, message: Any) -> None:
        op = message.get("op") if isinstance(message, Mapping) else None
        if op == "echo":
            await comm.write(message)
        elif op == "send":
            await comm.write({"op": "data", "data": self._part(message.get("size"))})
        elif op != "note":
            await comm.write({"op": "ok"})

    def _part(self, size: Any) -> memoryview:
        size = size if isinstance(size, int) and 0 <= size <= LARGEST else 0
        if len(self._payload) < size:
            self._payload = bytearray(size)
        return memoryview(self._payload)[:size]


def listener(address: str, security: Security) -> Listener:
    """Return a listener for the benchmark on `address`, to be awaited."""
    args = security.get_listen_args("scheduler")
    if address.startswith("tcp://"):  # passing a context would be an error
        args["ssl_context"] = None
    return listen(address, Server().attend, limits=LIMITS, **args)


async def serve_parent(fields: dict[str, Any]) -> None:
    """Serve over tls, and also over tcp, until stdin is closed."""
    secured = listener("tls://127.0.0.1:0", Security(**fields))
    plain = listener("tcp://127.0.0.1:0", Security(require_encryption=False))
    async with secured, plain:
        addresses = {"tls": secured.contact_address, "tcp": plain.contact_address}
        print(json.dumps(addresses), flush=True)
        loop, ended = asyncio.get_running_loop(), asyncio.Event()

        def wait() -> None:
            sys.stdin.read()
            loop.call_soon_threadsafe(ended.set)

        # In a thread, since event loops cannot watch pipes on Windows.
        threading.Thread(target=wait, daemon=True).start()
        try:
            await asyncio.wait_for(ended.wait(), CHILD_LIFE)
        except asyncio.TimeoutError:
            pass


def run_loop(main: Coroutine[Any, Any, Any], *, uvloop: bool) -> Any:
    """Run a coroutine to its end, optionally on uvloop."""
    if not uvloop:
        return asyncio.run(main)
    import uvloop as library

    loop = library.new_event_loop()
    try:
        asyncio.set_event_loop(loop)
        return loop.run_until_complete(main)
    finally:
        asyncio.set_event_loop(None)
        loop.close()


def main() -> None:
    """Run as the child process of a local run."""
    who = json.loads(sys.stdin.readline())
    run_loop(serve_parent(who["security"]), uvloop=who["uvloop"])


if __name__ == "__main__":
    main()
