"""What a process of a pair can be told: to listen, connect, work, be busy, and report.

Every public coroutine of `Worker` is a command; what it returns is the answer.
"""

from __future__ import annotations

import asyncio
import gc
import os
import time
from typing import Any

from . import work
from .adapters import Adapter
from .watch import Busy, Memory, Ticker


class Worker:
    """One end of a link: it answers every comm, or drives one."""

    def __init__(self, adapter: Adapter) -> None:
        self.adapter = adapter
        self.comms: list[Any] = []
        self.address = ""
        self.busy: Busy | None = None
        self.undisturbed: dict[int, float] = {}  # number of busy threads: their speed
        self.ticker: Ticker | None = None
        self.memory = Memory()
        self.kept: list[Any] = []
        self.keep = False

    async def listen(self) -> dict[str, Any]:
        """Accept comms."""
        return {"address": await self.adapter.listen(self._attend)}

    async def connect(self, address: str, comms: int = 1) -> None:
        """Have that many comms open."""
        self.address = address
        while len(self.comms) < comms:
            self.comms.append(await self.adapter.connect(address))

    async def place(self, cpus: list[int]) -> None:
        """Run on these CPUs only, with every thread."""
        for thread in os.listdir("/proc/self/task"):
            os.sched_setaffinity(int(thread), cpus)

    async def be_busy(self, threads: int, seconds: float) -> None:
        """Compute in that many Python threads; the first time see how fast they are undisturbed."""
        self.busy = Busy(threads)
        await asyncio.sleep(0.05)
        if threads not in self.undisturbed:
            self.undisturbed[threads] = await self.busy.sample(seconds)

    async def look_at_busy(self, seconds: float) -> dict[str, Any]:
        """How fast the threads are in the next seconds, as a share of their undisturbed speed."""
        assert self.busy is not None
        speed = await self.busy.sample(seconds)
        return {"keep": speed / self.undisturbed[self.busy.number]}

    async def be_calm(self) -> None:
        """Stop computing."""
        if self.busy is not None:
            self.busy.stop()
            self.busy = None

    async def begin(self, hold: bool = False, keep: bool = False) -> None:
        """Start to observe oneself; with `keep`, what is received is not freed."""
        gc.collect()
        self.keep = keep
        self.memory.reset()
        self.ticker = Ticker() if hold else None
        if self.busy is not None:
            self.busy.mark()
        self.cpu = time.process_time()

    async def end(self) -> dict[str, Any]:
        """What was observed since."""
        seen: dict[str, Any] = {"cpu": time.process_time() - self.cpu}
        if self.busy is not None:
            seen["keep"] = self.busy.speed() / self.undisturbed[self.busy.number]
        if self.ticker is not None:
            seen["hold"] = await self.ticker.stop()
        seen["rss"] = self.memory.extra()
        self.keep = False
        self.kept.clear()
        return seen

    async def measure(self, kind: str, seconds: float, options: dict[str, Any]) -> dict[str, Any]:
        """Drive the comms for about that long; see `work.py`."""
        function = getattr(work, kind)
        return await function(self, seconds=seconds, **options)  # type: ignore[no-any-return]

    async def prepare(self, size: int) -> None:
        """Have a payload in memory, so that making it is not measured."""
        work.array(size)

    async def _attend(self, comm: Any) -> None:
        """Serve one comm: echo, take payloads and batches, count."""
        try:
            while True:
                message = await comm.read()
                op = message["op"] if type(message) is dict else "batch"
                if op == "echo":
                    await comm.write(message)
                elif op == "data":
                    work.check(message["data"])
                    if self.keep:
                        self.kept.append(message)
                    del message  # or the next payload needs memory besides it
                    await comm.write(work.ACK)
                elif op != "note":
                    await comm.write(work.ACK)
        except OSError:  # the other side has closed
            await comm.close()
