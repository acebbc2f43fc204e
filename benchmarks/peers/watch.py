"""What a process observes of itself: memory, the holds of its loop, the speed of its threads."""

from __future__ import annotations

import asyncio
import statistics
import threading
import time


class Memory:
    """Peak of the resident memory above what it was at `reset`."""

    def reset(self) -> None:
        """Begin anew."""
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
        self.before = self._status("VmRSS")

    def extra(self) -> int:
        """Bytes of the peak above the beginning."""
        return self._status("VmHWM") - self.before

    @staticmethod
    def _status(name: str) -> int:
        with open("/proc/self/status") as file:
            for line in file:
                if line.startswith(name):
                    return int(line.split()[1]) << 10
        raise LookupError(name)


class Ticker:
    """The longest time for which the loop let a timer of a millisecond wait."""

    PERIOD = 0.001

    def __init__(self) -> None:
        self.worst = 0.0
        self.task = asyncio.ensure_future(self._tick())

    async def _tick(self) -> None:
        last = time.perf_counter()
        while True:
            await asyncio.sleep(self.PERIOD)
            now = time.perf_counter()
            self.worst = max(self.worst, now - last - self.PERIOD)
            last = now

    async def stop(self) -> float:
        """Seconds."""
        await asyncio.sleep(5 * self.PERIOD)
        self.task.cancel()
        return self.worst


class Busy:
    """Threads that compute in pure Python, and how fast."""

    ROUND = 2000
    WINDOW = 0.1

    def __init__(self, threads: int) -> None:
        self.counts = [0] * threads
        self.stopped = False
        self.number = threads
        self.threads = [
            threading.Thread(target=self._compute, args=(index,), daemon=True)
            for index in range(threads)
        ]
        for thread in self.threads:
            thread.start()
        self.mark()

    def _compute(self, index: int) -> None:
        x = 1
        while not self.stopped:
            for _ in range(self.ROUND):
                x = x * 1103515245 + 12345 & 0x7FFFFFFF
            self.counts[index] += 1

    def mark(self) -> None:
        """Begin to count."""
        self.started = time.perf_counter()
        self.before = sum(self.counts)

    def speed(self) -> float:
        """Rounds a second since the mark, of all threads together."""
        return (sum(self.counts) - self.before) / (time.perf_counter() - self.started)

    async def sample(self, seconds: float) -> float:
        """The median speed over windows: what else happens on the machine is mostly short."""
        speeds = []
        for _ in range(max(3, round(seconds / self.WINDOW))):
            self.mark()
            await asyncio.sleep(self.WINDOW)
            speeds.append(self.speed())
        return statistics.median(speeds)

    def stop(self) -> None:
        """End all threads."""
        self.stopped = True
        for thread in self.threads:
            thread.join()
