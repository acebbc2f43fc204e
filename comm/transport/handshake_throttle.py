"""Limits the handshakes of pending connections to a slice of each event-loop iteration.

A step of a TLS handshake takes about a millisecond. Hundreds that become ready at once would block
the loop for as long, so steps beyond the slice are queued for the following iterations, oldest
first, and open comms are served in between.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable

__all__ = ["HandshakeThrottle"]


class HandshakeThrottle:
    """Runs pieces of work in order, for at most `seconds` in each event-loop iteration.

    A piece that has begun is not interrupted, and each iteration runs at least one.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, seconds: float) -> None:
        self._loop = loop
        self._slice = self._left = seconds
        self._waiting: deque[Callable[[], None]] = deque()
        self._renewal_due = False

    def take(self, work: Callable[[], None]) -> bool:
        """Run `work` now and return True, or queue it and return False."""
        if self._waiting or self._left <= 0:
            self._waiting.append(work)
            return False
        self._do(work)
        return True

    def _do(self, work: Callable[[], None]) -> None:
        if not self._renewal_due:
            self._renewal_due = True
            self._loop.call_soon(self._renew)  # runs in the next iteration
        start = time.perf_counter()
        work()
        self._left -= time.perf_counter() - start

    def _renew(self) -> None:
        self._renewal_due = False
        self._left = self._slice
        while self._waiting and self._left > 0:
            self._do(self._waiting.popleft())
