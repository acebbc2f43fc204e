"""A sender that closes the comm of a slow consumer, and can still tell it so.

No word reaches a peer through a queue that it does not take. So all of the queue is dropped but the
message that the peer has in part, since only after a whole message it understands another one.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from collections.abc import Callable, Sequence

from ..errors import CommClosedError
from ..limits import Limits
from ..wire.framing import Buffer
from .sender import Connection, Sender

__all__ = ["BoundedSender", "new_sender"]


class BoundedSender(Sender):
    """One with `Limits.max_queued`, which knows where the queued messages end."""

    __slots__ = ("_ends",)

    def __init__(
        self,
        connection: Connection,
        limits: Limits,
        peer: str,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        super().__init__(connection, limits, peer, loop)
        self._ends: deque[int] = deque()  # of messages; `Outbox.queued` after each

    def _queue(self, frames: Sequence[Buffer], shared: int) -> tuple[int, int | None]:
        written = super()._queue(frames, shared)
        ends = self._ends
        outbox = self.outbox
        ends.append(outbox.queued)
        while ends and ends[0] <= outbox.sent:
            ends.popleft()
        return written

    def _hold_small(self, frame: Buffer) -> tuple[int, int | None]:
        return self._queue([frame], 1)

    def drop_rest(self, failure: Callable[[], CommClosedError]) -> bool:
        """Drop what has not begun to be sent; see `Sender.drop_rest`."""
        outbox = self.outbox
        begun = outbox.sent
        if outbox and outbox.fill_records:  # OpenSSL must be given again what it was given
            begun += len(outbox.next())
        end = next((end for end in self._ends if end >= begun), None)
        if end is None:
            return False
        outbox.drop_after(end)
        kept = [waiter for waiter in self._waiters if waiter[0] <= end]
        for goal, _, future in self._waiters:
            if goal > end and not future.done():
                future.set_exception(failure())
                future.exception()  # mark as retrieved, in case nobody is waiting
        heapq.heapify(kept)
        self._waiters = kept
        return True


def new_sender(
    connection: Connection, limits: Limits, peer: str, loop: asyncio.AbstractEventLoop
) -> Sender:
    """Return the sender for `limits`."""
    kind = Sender if limits.max_queued is None else BoundedSender
    return kind(connection, limits, peer, loop)
