"""The send queue of a stream: chunks in order, and how much of them has been sent.

Small frames are copied together, also across messages, so that they take as few sends as possible;
larger ones are referenced in place.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from ..errors import MessageTooLarge
from ..limits import Limits
from .framing import ONE_FRAME, Buffer, pack, pack_one

__all__ = ["Outbox"]

COPIED_UP_TO = 16 * 1024  # size of a frame; copying a larger one costs more than another send
CHUNK = 256 * 1024  # most bytes of joined frames, and of one send over TLS
GATHERED = 4 << 20  # most bytes of one gathering send
_RECORD = 16 * 1024  # the payload of a full TLS record


def _kept(frame: Buffer) -> Buffer:
    """`frame` as it is now: its writer does not wait, and may change its memory meanwhile."""
    if isinstance(frame, memoryview) and type(frame.obj) is bytes:
        return frame
    return bytes(frame)


class Outbox:
    """A queue of bytes.

    Parameters
    ----------
    fill_records
        For TLS: small frames before a large one are filled up from it to a full record.

    Attributes
    ----------
    queued, sent : int
        Total bytes ever queued, and ever sent.
    """

    def __init__(self, limits: Limits, peer: str) -> None:
        self._limits = limits
        self._peer = peer
        self.fill_records = False
        self.queued = 0
        self.sent = 0
        self._chunks: deque[bytes | memoryview] = deque()
        self._small: list[Buffer] = []  # after the chunks: small frames, to be joined
        self._small_size = 0

    def __bool__(self) -> bool:
        return self.sent != self.queued

    def put(self, frames: Sequence[Buffer], shared: int) -> bool:
        """Queue a message; return whether it has frames that were not copied.

        Raises `MessageTooLarge`, with nothing queued.
        """
        lengths = list(map(len, frames))
        total = sum(lengths)
        if total > self._limits.max_message_size:
            raise self._too_large(f"{total} bytes", total, "max_message_size")
        if len(lengths) > self._limits.max_frames:
            raise self._too_large(f"{len(lengths)} frames", len(lengths), "max_frames")
        prelude = pack(lengths, shared)
        self._small.append(prelude)
        self._small_size += len(prelude)
        self.queued += len(prelude) + total
        borrowed = False
        for frame, length in zip(frames, lengths, strict=True):
            if length > COPIED_UP_TO:
                self._put_large(memoryview(frame))
                borrowed = True
            elif length:  # an empty chunk would be offered for ever
                self._small.append(frame if type(frame) is bytes else _kept(frame))
                self._small_size += length
                if self._small_size > CHUNK:
                    self._join()
        return borrowed

    def put_small(self, frame: Buffer, length: int) -> None:
        """`put` for a message of one frame that is copied, and within the limits."""
        small = self._small
        small.append(pack_one(length))
        small.append(frame if type(frame) is bytes else _kept(frame))
        size = ONE_FRAME + length
        self.queued += size
        self._small_size += size
        if self._small_size > CHUNK:
            self._join()

    def sent_directly(self, data: bytes, sent: int) -> None:
        """Count a message that bypassed the empty queue; queue what was not sent of it."""
        size = len(data)
        self.queued += size
        self.sent += sent
        if sent < size:
            self._chunks.append(data[sent:])

    def _put_large(self, frame: memoryview) -> None:
        if self._small:
            if self.fill_records:
                missing = max(0, _RECORD - self._small_size)
                self._small.append(frame[:missing])
                frame = frame[missing:]
            self._join()
        self._chunks.append(frame)

    def _join(self) -> None:
        self._chunks.append(b"".join(self._small))
        self._small = []
        self._small_size = 0

    def _too_large(self, what: str, size: int, name: str) -> MessageTooLarge:
        limit = getattr(self._limits, name)
        return MessageTooLarge(
            f"message to {self._peer} too large: {what}, the limit is {limit}; "
            f"raise Limits.{name} or send less at once",
            size=size,
            limit=limit,
            peer=self._peer,
        )

    def next(self) -> Buffer:
        """Return what to pass to the next send, if there is anything.

        The same bytes until `advance`: after a send that would block, OpenSSL must be given the
        same bytes again.
        """
        if not self._chunks:
            self._join()
        chunk = self._chunks[0]
        return chunk if len(chunk) <= CHUNK else memoryview(chunk)[:CHUNK]

    def several(self) -> list[Buffer]:
        """Return what to pass to the next gathering send, if there is anything."""
        if self._small:
            self._join()
        offered: list[Buffer] = []
        size = 0
        for chunk in self._chunks:
            offered.append(chunk if len(chunk) <= GATHERED else memoryview(chunk)[:GATHERED])
            size += len(chunk)
            if size >= GATHERED or len(offered) == 16:
                break
        return offered

    def advance(self, size: int) -> None:
        """Note that the first `size` bytes of what was offered are with the kernel."""
        self.sent += size
        chunks = self._chunks
        while size:
            chunk = chunks[0]
            if size < len(chunk):
                chunks[0] = memoryview(chunk)[size:]
                return
            size -= len(chunk)
            chunks.popleft()

    def drop_after(self, end: int) -> None:
        """Drop what was queued after the first `end` bytes ever queued."""
        if self._small:
            self._join()
        chunks = self._chunks
        surplus = self.queued - end
        self.queued = end
        while surplus:
            last = chunks.pop()
            if len(last) > surplus:
                chunks.append(memoryview(last)[: len(last) - surplus])
                return
            surplus -= len(last)

    def clear(self) -> None:
        """Drop the rest."""
        self._chunks.clear()
        self._small.clear()
        self._small_size = 0
        self.queued = self.sent
