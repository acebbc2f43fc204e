"""Strangers take turns: their handshakes use no more than a slice of each turn of the event loop.

A step of a TLS handshake holds the loop for about a millisecond. Hundreds that become ready at once
would hold it for as many, so steps beyond the slice wait for the loop's next turns, the oldest
first, and open comms are served between.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable

__all__ = ["HandshakeThrottle"]


class HandshakeThrottle:
    """Does pieces of work in order, for no longer than `seconds` in each turn of the loop.

    A piece that has begun is not cut short, and each turn does one at least.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, seconds: float) -> None:
        self._loop = loop
        self._slice = self._left = seconds
        self._waiting: deque[Callable[[], None]] = deque()
        self._renewal_due = False

    def take(self, work: Callable[[], None]) -> bool:
        """Whether the work is done; else it is done later."""
        if self._waiting or self._left <= 0:
            self._waiting.append(work)
            return False
        self._do(work)
        return True

    def _do(self, work: Callable[[], None]) -> None:
        if not self._renewal_due:
            self._renewal_due = True
            self._loop.call_soon(self._renew)  # what is called soon runs in the next turn
        start = time.perf_counter()
        work()
        self._left -= time.perf_counter() - start

    def _renew(self) -> None:
        self._renewal_due = False
        self._left = self._slice
        while self._waiting and self._left > 0:
            self._do(self._waiting.popleft())
