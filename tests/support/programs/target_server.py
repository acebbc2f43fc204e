"""A server to be attacked, in a process of its own: `target.Target` starts it.

    python -m support.programs.target_server CONFIGURATION

CONFIGURATION is JSON: kind, scheme, loop, files, limits, descriptors. Prints its address, then
answers each line of standard input with a line of JSON. What a comm does is decided by the first
message, if that is a map with an ``op``; else it is echoed.
"""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import json
import logging
import os
import sys
import threading
import time
from typing import Any

SOURCE_MESSAGE = 64 << 10  # bytes
BEAT = 0.005  # seconds

# How long the loop is held is a matter of time in full runs, which have the machine to themselves.
# An everyday one may share it: there it is the time that this thread computes.
FULL = os.environ.get("SEALWIRE_HOSTILE") == "full"
clock = time.perf_counter if FULL else time.thread_time
ASLEEP = BEAT if FULL else 0.0


class Server:
    """The listener, what it was asked for, and how long its loop was held."""

    def __init__(self, configuration: dict[str, Any]) -> None:
        self.configuration = configuration
        self.worst = 0.0
        self.slept = clock()
        self.written = 0
        self.listener: Any = None
        self.kept: list[Any] = []  # comms that nothing but their handler's end should close

    async def run(self) -> None:
        await self.listen()
        print(self.listener.contact_address, flush=True)
        loop = asyncio.get_running_loop()
        loop.slow_callback_duration = 60  # seconds; asyncio's debug mode warns of a busy machine
        lines: asyncio.Queue[str] = asyncio.Queue()

        def pump() -> None:
            for line in sys.stdin:
                loop.call_soon_threadsafe(lines.put_nowait, line.strip())
            loop.call_soon_threadsafe(lines.put_nowait, "")

        threading.Thread(target=pump, daemon=True).start()
        heart = asyncio.ensure_future(self.beat())
        while command := await lines.get():
            print(json.dumps(getattr(self, command)()), flush=True)
        heart.cancel()

    async def listen(self) -> None:
        options = self.configuration
        limits, files = options["limits"], options["files"]
        address = f"{options['scheme']}://127.0.0.1:0"
        fields = {
            "tls_ca_file": files["ca"],
            "tls_scheduler_cert": files["server"],
            "require_encryption": options["scheme"] == "tls",
        }
        if options["kind"] == "dask":
            import dask
            from distributed.comm import listen as dask_listen

            from sealwire.dask_backend import Security

            named = {f"sealwire.limits.{k.replace('_', '-')}": v for k, v in limits.items()}
            dask.config.set(named)
            args = Security(**fields).get_listen_args("scheduler")
            if options["scheme"] == "tcp":
                args = {"require_encryption": False, "encryption_decided": True}
            self.listener = await dask_listen(address, self.attend, **args)
        else:
            from sealwire.comm import Limits
            from sealwire.comm import listen as our_listen
            from sealwire.security import Security as OurSecurity

            args = OurSecurity(**fields).get_listen_args("scheduler")
            if options["scheme"] == "tcp":
                args["ssl_context"] = None
            self.listener = await our_listen(address, self.attend, limits=Limits(**limits), **args)

    async def attend(self, comm: Any) -> None:
        while True:
            try:
                message = await comm.read()
            except OSError:
                if self.configuration["kind"] == "dask":
                    comm.abort()
                    return
                raise
            op = message.get("op") if isinstance(message, dict) else None
            if op in ("raise", "return"):
                self.kept.append(comm)
            if op == "raise":
                raise ZeroDivisionError("asked for")
            if op == "return":
                return
            if op == "close":
                await comm.close()
                return
            if op == "source":
                size = message.get("size", SOURCE_MESSAGE)
                for _ in range(message["count"]):
                    await comm.write(b"x" * size)  # zeros would take no memory
                    self.written += size
            else:
                await comm.write(message)

    async def beat(self) -> None:
        """Note the longest time that the loop did not come round."""
        while True:
            self.slept = clock()
            await asyncio.sleep(BEAT)
            self.worst = max(self.worst, clock() - self.slept - ASLEEP)

    # Commands

    def stats(self) -> dict[str, Any]:
        stats = getattr(self.listener, "stats", None)
        return dataclasses.asdict(stats) if stats is not None else {}

    def held(self) -> float:
        now = clock()  # the hold asked for may be the one that has just ended
        worst = max(self.worst, now - self.slept - ASLEEP)
        self.worst, self.slept = 0.0, now
        return worst

    def sent(self) -> int:
        return self.written

    def alive(self) -> int:
        """Streams that the collector cannot free."""
        from sealwire.comm.transport.stream import FrameStream

        gc.collect()
        return sum(isinstance(each, FrameStream) for each in gc.get_objects())

    def stop(self) -> str:
        self.listener.stop()
        return "stopped"


def main() -> None:
    configuration = json.loads(sys.argv[1])
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    logging.getLogger("sealwire").setLevel(logging.INFO)
    if configuration["descriptors"]:
        import resource

        limit = configuration["descriptors"]
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    if configuration["loop"] == "uvloop":
        import uvloop

        uvloop.install()
    asyncio.run(Server(configuration).run())


main()
