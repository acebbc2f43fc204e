"""Message framing, without I/O.

The wire format is distributed's; all numbers are unsigned 64-bit little-endian::

    lead | count | length × count | frame × count
         |<------------ lead bytes ------...>|

``lead`` is the size of the first block: the prelude (count and lengths) and the frames that share
the block. The frames after it are sent bare. Receivers allocate one buffer for the frames of the
block and one for each bare frame, so a large frame that is to be freed on its own is sent bare.

`pack` creates a prelude. `Splitter` takes bytes in pieces of any size and delivers whole messages.
It checks every number before allocating anything, and allocates a frame only once the whole prelude
has arrived, so a lying peer makes it hold no more than the peer really sent.
"""

from __future__ import annotations

import functools
import struct
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Sequence
from itertools import accumulate, islice
from typing import Union

from ..errors import FramingError, HelloError, MessageTooLarge
from .foreign import name_foreign

__all__ = ["ONE_FRAME", "OVERHEAD", "PER_FRAME", "Buffer", "Frame", "Splitter", "pack", "pack_one"]

Buffer = Union[bytes, bytearray, memoryview]  # noqa: UP007 (an alias, evaluated on 3.10)
Frame = Union[bytearray, memoryview]  # noqa: UP007

OVERHEAD = 512
"""What an unread message costs besides its bytes."""

PER_FRAME = 200  # the same for each further frame: a view of the block

# With more frames than this in a message or its first block, each one below this many bytes is a
# bytearray, and no view of a block or an array, which takes several times its memory and time.
_MANY, _SMALL = 1024, 4096

_HEAD = struct.Struct("<QQ")
_ONE_FRAME = struct.Struct("<QQQ")
_LEAD = struct.Struct("<Q")
_EMPTY = memoryview(bytearray())


def pack(lengths: Sequence[int], shared: int) -> bytes:
    """Return the bytes that precede the frames of one message.

    Parameters
    ----------
    lengths
        Size of each frame in bytes.
    shared
        How many of the first frames share the first block; the others are sent bare. The frames
        follow in order either way.
    """
    count = len(lengths)
    lead = 8 + 8 * count + sum(lengths[:shared])
    return struct.pack(f"<{count + 2}Q", lead, count, *lengths)


ONE_FRAME = 24
"""Bytes that `pack_one` gives."""


@functools.lru_cache(1024)  # faster than a call, and lengths repeat
def pack_one(length: int) -> bytes:
    """`pack` for a message of a single frame, the common case."""
    return _ONE_FRAME.pack(16 + length, 1, length)


class Splitter:
    """Splits a byte stream into messages; each is a list of frames in buffers of their own.

    Parameters
    ----------
    inbox
        Receives each message as it completes: its frames, and the bytes of memory that they take.
    allocate
        Returns a writable buffer of a given size, for frames; not for the small ones of very many.
    max_size, max_frames
        Bounds on a message.
    max_hello_size
        Bound on the first message, if different.
    peer
        The peer's address, for errors.

    Attributes
    ----------
    block : memoryview or None
        The buffer being filled: one frame, or all frames of the first block.
    made : int
        How many frames were taken out of what was fed, so far. Each takes time, however small.
    delivered : int
        Total bytes of memory put into the inbox, with `OVERHEAD` for each message.

    After an error the stream is out of step: feed nothing more.
    """

    def __init__(
        self,
        inbox: deque[tuple[list[Frame], int]],
        allocate: Callable[[int], memoryview],
        *,
        max_size: int,
        max_frames: int,
        max_hello_size: int | None = None,
        peer: str = "",
    ) -> None:
        self._from = f" from {peer}" if peer else ""
        self._inbox = inbox
        self._allocate = allocate
        self._hello_ahead = max_hello_size is not None
        self._max_size = max_size if max_hello_size is None else max_hello_size
        self._max_message_size = max_size
        self._max_frames = max_frames
        self.delivered = 0
        self._between = True  # no message has begun
        self._prelude = bytearray()  # the start of a message, until its prelude is complete
        self.block: memoryview | None = None
        self._filled = 0
        self._lengths: Sequence[int] = ()  # of all frames of the unfinished message
        self._frames: list[Frame] = []  # those of them that are complete
        self._sharing = 0  # how many of the first are made at once, as views of one block of
        self._shared = 0  # so many bytes
        self._total = 0
        self.made = 0

    def progress(self) -> str:
        """How much of the unfinished message has arrived, in words; empty between two messages."""
        if not self._lengths:
            return f"{len(self._prelude)} bytes of its prelude" if self._prelude else ""
        done = sum(memoryview(frame).nbytes for frame in self._frames) + self._filled
        return f"{done} of {self._total} bytes"

    @property
    def expected(self) -> int | None:
        """Size of the frames of the unfinished message in bytes, None while unknown."""
        return self._total if self._lengths else None

    def target(self, at_least: int) -> memoryview | None:
        """Return the buffer for the next bytes, if at least `at_least` bytes belong there.

        After receiving into it, call `advance`.
        """
        block = self.block
        if block is None or block.nbytes - self._filled < at_least:
            return None
        return block[self._filled :]

    def advance(self, size: int) -> None:
        """Note that `size` bytes were received into the buffer that `target` returned."""
        assert self.block is not None
        self._filled += size
        if self._filled == self.block.nbytes:
            self._block_done()
            self._make(_EMPTY)

    def discard(self) -> None:
        """Drop the unfinished message; feed nothing more."""
        self.block = None
        self._lengths, self._frames = (), []
        self._prelude = bytearray()

    def feed(self, data: bytearray, size: int) -> None:
        """Process the first `size` bytes of `data`: part of a message, one, or many.

        The caller may reuse `data`. Raises `FramingError` or `MessageTooLarge` at the first invalid
        number, after delivering the messages before it, `HelloError` for a hello of several frames,
        and `MemoryError` if a frame cannot be allocated.
        """
        position = 0
        if not self._between:  # the end of a message, often followed by more
            position = self._feed(memoryview(data)[:size], first=True)
        if self._between and not self._hello_ahead:  # small messages, whole: the common case
            append = self._inbox.append
            limit = self._max_size
            while size - position >= 24:
                lead, count, length = _ONE_FRAME.unpack_from(data, position)
                end = position + 24 + length
                if count != 1 or lead != 16 + length or end > size or length > limit:
                    break
                append(([data[position + 24 : end]], length))
                self.delivered += length + OVERHEAD
                if end == size:
                    return
                position = end
        if position < size:
            self._feed(memoryview(data)[position:size])

    def _feed(self, data: memoryview, *, first: bool = False) -> int:
        """Process all of `data`, or with `first` only the current message; return how much."""
        position, end = 0, data.nbytes
        while position < end and not (first and self._between):
            if self.block is not None:
                size = min(self.block.nbytes - self._filled, end - position)
                self.block[self._filled : self._filled + size] = data[position : position + size]
                position += size
                self._filled += size
                if self._filled == self.block.nbytes:
                    self._block_done()
                    position += self._make(data[position:])
            elif self._lengths:
                position += self._make(data[position:])
            elif self._prelude:
                position += self._continue_prelude(data[position:])
            else:
                size = end - position
                if size >= 16:
                    lead, count = _HEAD.unpack_from(data, position)
                    self._check_head(lead, count, data[position : position + 16])
                    if size >= 16 + 8 * count:
                        lengths = struct.unpack_from(f"<{count}Q", data, position + 16)
                        position += 16 + 8 * count
                        position += self._begin(lead, lengths, data[position:])
                        continue
                elif size >= 8:
                    self._check_lead(data[position:])
                self._prelude += data[position:]
                self._between = False
                return end
        return position

    def _continue_prelude(self, data: memoryview) -> int:
        prelude = self._prelude
        used = 0
        if len(prelude) < 16:
            had = len(prelude)
            used = min(16 - had, data.nbytes)
            prelude += data[:used]
            if len(prelude) < 16:
                if had < 8 <= len(prelude):
                    self._check_lead(prelude)
                return used
            lead, count = _HEAD.unpack_from(prelude)
            self._check_head(lead, count, prelude)
        lead, count = _HEAD.unpack_from(prelude)
        missing = 16 + 8 * count - len(prelude)
        taken = data[used : used + missing]
        prelude += taken
        used += taken.nbytes
        if taken.nbytes == missing:
            lengths = struct.unpack_from(f"<{count}Q", prelude, 16)
            self._prelude = bytearray()
            used += self._begin(lead, lengths, data[used:])
        return used

    def _check_lead(self, head: Buffer) -> None:
        (lead,) = _LEAD.unpack_from(head)
        if lead < 16 or lead > 8 + 8 * self._max_frames + self._max_size:
            raise self._not_ours(lead, head)

    def _check_head(self, lead: int, count: int, head: Buffer) -> None:
        if lead < 16 or lead > 8 + 8 * self._max_frames + self._max_size:
            raise self._not_ours(lead, head)
        if count == 0:
            raise self._bad("a message of 0 frames; it needs at least a header")
        if self._hello_ahead and count != 1:  # before waiting for that many lengths
            raise HelloError(
                f"bad hello{self._from}: got {count} frames, need 1; "
                f"check what listens on that port"
            )
        if count > self._max_frames:
            raise self._too_large(f"{count} frames", count, self._max_frames, "max_frames")
        if 8 + 8 * count > lead:
            raise self._bad(
                f"{count} frames need a first block of {8 + 8 * count} bytes, it is said to have "
                f"{lead}"
            )

    def _not_ours(self, lead: int, head: Buffer) -> FramingError:
        foreign = name_foreign(bytes(head[:16]))
        if foreign:
            return self._bad(f"{bytes(head[:8])!r} is {foreign}")
        if lead < 16:
            return self._bad(f"a first block of {lead} bytes, it has at least 16")
        return self._too_large(
            f"a first block of {lead} bytes", lead, self._max_size, self._limit_name()
        )

    def _limit_name(self) -> str:
        return "max_hello_size" if self._hello_ahead else "max_message_size"

    def _bad(self, why: str) -> FramingError:
        return FramingError(f"bad frame{self._from}: {why}")

    def _too_large(self, what: str, size: int, limit: int, name: str) -> MessageTooLarge:
        return MessageTooLarge(
            f"message{self._from} too large: {what}, the limit is {limit}; "
            f"raise Limits.{name} or send less at once",
            size=size,
            limit=limit,
        )

    def _begin(self, lead: int, lengths: tuple[int, ...], data: memoryview) -> int:
        """Start on the frames of a message; return how much of `data` was used."""
        total = sum(lengths)
        if total > self._max_size:
            raise self._too_large(
                f"{total} bytes in {len(lengths)} frames", total, self._max_size, self._limit_name()
            )
        count = len(lengths)
        shared = lead - 8 - 8 * count
        if shared and shared == lengths[0]:  # only the header shares the block: most common
            share_count = 1
        else:
            share_count = bisect_right(list(accumulate(lengths)), shared)
            if sum(lengths[:share_count]) != shared:
                raise self._bad(
                    f"a first block with {shared} bytes of frames ends inside frame {share_count} "
                    f"of {count} or after the last"
                )
        self._lengths, self._frames, self._total = lengths, [], total
        at_once = share_count <= _MANY or shared >= _SMALL * share_count
        self._sharing = share_count if at_once and share_count > 1 else 0
        self._shared = shared
        self._between = False
        return self._make(data)

    def _make(self, data: memoryview) -> int:
        """Make frames of the unfinished message of `data`; return how much of it was used.

        What is used ends with a message, with all of `data`, or before a frame that waits for more:
        a small one has no block until some of it is there.
        """
        lengths, frames = self._lengths, self._frames
        used, end = 0, data.nbytes
        if self._sharing and not frames:  # an array among them may outlive the message
            used = self._shared
            if used > end:
                return self._start(used, data)
            block = self._allocate(used)
            block[:] = data[:used]
            frames += _split(block, lengths[: self._sharing])
        made = len(frames)
        plenty = len(lengths) > _MANY
        for length in islice(lengths, made, None):
            stop = used + length
            if not length:
                frames.append(_EMPTY)
            elif stop > end:
                if length >= _SMALL or used < end:
                    used += self._start(length, data[used:])
                break
            elif (plenty and length < _SMALL) or not frames:  # the header is searched
                frames.append(bytearray(data[used:stop]))
                used = stop
            else:
                block = self._allocate(length)
                block[:] = data[used:stop]
                frames.append(block)
                used = stop
        self.made += len(frames) - made
        if len(frames) == len(lengths):
            self._lengths, self._frames = (), []
            self._deliver(frames, self._total)
        return used

    def _start(self, size: int, data: memoryview) -> int:
        """Allocate a block, and put `data` into it, which is less; return how much that is."""
        self.block = self._allocate(size)
        self._filled = data.nbytes
        self.block[: self._filled] = data
        return self._filled

    def _deliver(self, frames: list[Frame], size: int) -> None:
        if len(frames) > 1:  # any number of them may be empty
            size += PER_FRAME * (len(frames) - 1)
        self._inbox.append((frames, size))
        self.delivered += size + OVERHEAD
        self._between = True
        if self._hello_ahead:  # the peer may send more without waiting for our hello
            self._hello_ahead = False
            self._max_size = self._max_message_size

    def _block_done(self) -> None:
        block, self.block, self._filled = self.block, None, 0
        assert block is not None
        if self._sharing and not self._frames:
            self._frames += _split(block, self._lengths[: self._sharing])
        else:
            self._frames.append(block)


def _split(block: Frame, lengths: Sequence[int]) -> list[Frame]:
    """Split a block into the frames that share it."""
    view = memoryview(block)
    frames: list[Frame] = []
    start = 0
    for length in lengths:
        frames.append(view[start : start + length] if length else _EMPTY)
        start += length
    return frames
