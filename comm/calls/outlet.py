"""What calls send: without waiting, and knowing when they have to wait before they send more."""

from __future__ import annotations

import asyncio
import heapq
import math
from collections import deque
from collections.abc import Callable, Container
from typing import Any

from ..errors import CommClosedError
from ..interfaces import Comm
from ..transport.wakeup import begin_later

__all__ = ["Deadlines", "Outlet", "Turns"]

_FEW = 256


class Outlet:
    """The sending side of a comm.

    Attributes
    ----------
    send : callable
        The comm's `write_nowait`. If it returns false, tell `fill`.
    full : bool
        Whether more is queued than a writer should add to. Callbacks of `when_drained` run later.
    """

    def __init__(self, comm: Comm) -> None:
        self.send = comm.write_nowait
        self.full = False
        self._comm = comm
        self._loop = asyncio.get_running_loop()
        self._draining: asyncio.Task[None] | None = None
        self._then: list[Callable[[], object]] = []

    def put(self, message: list[Any]) -> None:
        """Send `message`, or nothing once the comm is closed. Raises as `Comm.write_nowait`."""
        try:
            if not self.send(message):
                self.fill()
        except CommClosedError:  # also `MessageTooLarge`, with which it may be open
            if not self._comm.closed():
                raise

    def fill(self) -> None:
        """Note that the peer has to take something before more is sent."""
        self.full = True
        if self._draining is None:
            self._draining = begin_later(self._loop, self._drain())

    def when_drained(self, callback: Callable[[], object]) -> None:
        """Call `callback` each time when there is room again."""
        self._then.append(callback)

    async def drained(self) -> None:
        """Wait until there is room, or the comm has ended."""
        while self.full and self._draining is not None:
            await asyncio.wait([self._draining])

    async def _drain(self) -> None:
        try:
            await self._comm.drain()
        except CommClosedError:
            pass  # the reader learns it, too
        finally:
            self.full = False
            self._draining = None
        for callback in self._then:
            callback()


class Turns:
    """Callers that wait until another call may be sent: in order, each with its deadline.

    `is_full` says whether there may be no more calls now.

    Attributes
    ----------
    waiting : deque
        Those who wait.
    """

    def __init__(self, is_full: Callable[[], bool]) -> None:
        self._is_full = is_full
        self._loop = asyncio.get_running_loop()
        self.waiting: deque[asyncio.Future[None]] = deque()
        self._ended = False

    async def wait(self, deadline: float | None, late: Callable[[], Exception]) -> None:
        """Wait for a turn, or for the end. Raises what `late` makes once `deadline` has passed."""
        while not self._ended:
            turn: asyncio.Future[None] = self._loop.create_future()
            self.waiting.append(turn)
            timer = None
            if deadline is not None:
                timer = self._loop.call_at(deadline, _fail, turn, late)
            try:
                await turn
            except BaseException:
                if turn in self.waiting:
                    self.waiting.remove(turn)
                else:
                    self.next()  # it was our turn, and we do not take it
                raise
            finally:
                if timer is not None:
                    timer.cancel()
            if not self._is_full():
                self._loop.call_soon(self.next)  # after us: there may be room for more
                return

    def next(self) -> None:
        """Let the next one go, if it may."""
        while self.waiting and not self._is_full():
            turn = self.waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return

    def end(self) -> None:
        """Let all go: what they do next fails."""
        self._ended = True
        for turn in self.waiting:
            if not turn.done():
                turn.set_result(None)
        self.waiting.clear()


def _fail(turn: asyncio.Future[None], late: Callable[[], Exception]) -> None:
    if not turn.done():
        turn.set_exception(late())


class Deadlines:
    """The deadlines of many calls, with one timer: the loop's own cost as much as a call.

    `expire` is called with the number and the seconds of each call among `pending` whose deadline
    has passed. Those of calls that have ended are forgotten now and then.
    """

    def __init__(self, pending: Container[int], expire: Callable[[int, float], object]) -> None:
        self._pending = pending
        self._expire = expire
        self._loop = asyncio.get_running_loop()
        self._heap: list[tuple[float, int, float]] = []
        self._most = _FEW  # entries until those of ended calls are looked for
        self._next = math.inf  # when the timer is due
        self._timer: asyncio.TimerHandle | None = None

    def add(self, deadline: float, number: int, seconds: float) -> None:
        """Expire call `number`, which has `seconds`, at `deadline`."""
        heap = self._heap
        heapq.heappush(heap, (deadline, number, seconds))
        if deadline < self._next:
            self._arm()
        elif len(heap) > self._most:
            self._heap = [entry for entry in heap if entry[1] in self._pending]
            heapq.heapify(self._heap)
            self._most = max(_FEW, 4 * len(self._heap))
            self._arm()

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._next = None, math.inf
        if self._heap:
            self._next = self._heap[0][0]
            self._timer = self._loop.call_at(self._next, self._due)

    def _due(self) -> None:
        now = self._loop.time()
        heap, pending = self._heap, self._pending
        while heap and (heap[0][0] <= now or heap[0][1] not in pending):
            _, number, seconds = heapq.heappop(heap)
            if number in pending:
                self._expire(number, seconds)
        self._arm()

    def end(self) -> None:
        """Forget all."""
        self._heap = []
        self._arm()
