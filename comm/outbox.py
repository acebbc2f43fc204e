"""What a stream has yet to send: chunks in order, and who waits for them to be gone. No I/O.

Small frames are copied together, so that a message costs as few sends as possible; larger ones are
referred to where they lie.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections import deque
from collections.abc import Callable, Sequence

from .errors import MessageTooLarge
from .framing import Buffer, pack
from .limits import Limits

__all__ = ["Outbox"]

COPIED_UP_TO = 16 * 1024  # a frame; copying a larger one costs more than another send
CHUNK = 256 * 1024  # joined frames, and the most that is offered to one send


class Outbox:
    """A queue of bytes.

    Attributes
    ----------
    queued, sent : int
        Bytes ever put in, and those gone since.
    """

    def __init__(self, limits: Limits, peer: str) -> None:
        self._limits = limits
        self._peer = peer
        self.queued = 0
        self.sent = 0
        self._chunks: deque[memoryview] = deque()
        self._waiters: list[tuple[int, int, asyncio.Future[None]]] = []  # a heap
        self._numbers = itertools.count()

    def __bool__(self) -> bool:
        return bool(self._chunks)

    def put(self, frames: Sequence[Buffer], shared: int) -> bool:
        """Queue a message; returns whether it has frames that were not copied.

        Raises `MessageTooLarge`, with nothing queued.
        """
        lengths = [memoryview(frame).nbytes for frame in frames]
        total = sum(lengths)
        if total > self._limits.max_message_size:
            raise self._too_large(f"{total} bytes", total, "max_message_size")
        if len(lengths) > self._limits.max_frames:
            raise self._too_large(f"{len(lengths)} frames", len(lengths), "max_frames")
        joined: list[Buffer] = [pack(lengths, shared)]
        size = len(joined[0])
        self.queued += size + total
        borrowed = False
        for frame, length in zip(frames, lengths, strict=True):
            if length > COPIED_UP_TO:
                if size:
                    self._chunks.append(memoryview(b"".join(joined)))
                    joined, size = [], 0
                self._chunks.append(memoryview(frame).cast("B"))
                borrowed = True
            else:
                joined.append(frame)
                size += length
                if size > CHUNK:
                    self._chunks.append(memoryview(b"".join(joined)))
                    joined, size = [], 0
        if size:
            self._chunks.append(memoryview(b"".join(joined)))
        return borrowed

    def _too_large(self, what: str, size: int, name: str) -> MessageTooLarge:
        limit = getattr(self._limits, name)
        return MessageTooLarge(
            f"message to {self._peer} too large: {what}, the limit is {limit}; "
            f"raise Limits.{name} or send less at once",
            size=size,
            limit=limit,
            peer=self._peer,
        )

    def next(self) -> memoryview:
        """What to offer to the next send.

        The same bytes until `advance`: after a send that would block, TLS must be offered them
        again.
        """
        return self._chunks[0][:CHUNK]

    def advance(self, size: int) -> None:
        """Note that the first `size` bytes of `next` are with the kernel."""
        self.sent += size
        chunk = self._chunks[0]
        if size == len(chunk):
            self._chunks.popleft()
        else:
            self._chunks[0] = chunk[size:]

    def wait(self, goal: int, future: asyncio.Future[None]) -> None:
        """Resolve `future` in `wake` once `sent` has reached `goal`."""
        heapq.heappush(self._waiters, (goal, next(self._numbers), future))

    def wake(self) -> None:
        """Resolve the waiters whose goal is reached."""
        waiters = self._waiters
        while waiters and waiters[0][0] <= self.sent:
            _, _, future = heapq.heappop(waiters)
            if not future.done():
                future.set_result(None)

    def fail(self, make_error: Callable[[], Exception]) -> None:
        """Forget what is left; its waiters get an error each."""
        self._chunks.clear()
        waiters, self._waiters = self._waiters, []
        for _, _, future in waiters:
            if not future.done():
                future.set_exception(make_error())
                future.exception()  # if nobody waits any more it is nobody's
