"""The sending side: from messages to the kernel, in as few sends as possible.

A message is sent at once as far as the socket takes it, the rest when the socket is writable again.
Small messages in close succession, with nothing received in between, are coalesced until the next
event-loop iteration: a send costs more than its content. A writer that exceeds the limits has to
wait or, if it does not wait, its connection is closed as that of a slow consumer.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import logging
import ssl
import sys
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from ..errors import CommClosedError
from ..limits import Limits
from ..wire.framing import ONE_FRAME, Buffer, pack_one
from ..wire.outbox import CHUNK, Outbox
from .channel import CLOSED, RECORD, Channel
from .end_errors import slow_consumer
from .interrupted import send_failed

__all__ = ["Sender"]

logger = logging.getLogger("sealwire.comm")

_CLOSELY = 50e-6  # seconds; small messages in closer succession are coalesced
_TOGETHER = 64 * 1024  # most bytes to hold back for it
_BLOCKED = (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError)


class Connection(Protocol):
    """What a sender needs of its stream."""

    def watch(self) -> None:
        """Update what the loop waits for."""

    def broken(self, error: OSError) -> None:
        """Close the connection: sending failed; the reason may have been received meanwhile."""

    def cut_off(self, error: CommClosedError) -> None:
        """Close the connection because its peer takes too little."""


class Sender:
    """The sending side of one connection.

    Attributes
    ----------
    outbox : Outbox
        What has yet to be sent.
    bypassed : int
        Bytes of the messages that the socket took at once, so that they were never in the outbox.
    answering : bool
        Something was received since the last send, so the peer may be waiting for an answer.
    messages : int
        How many messages were written, not counting the hello.
    held_back : bool
        Small messages are held back until the next event-loop iteration.
    wants_read : bool
        OpenSSL must receive before it can send more.
    """

    __slots__ = (
        "_channel",
        "_connection",
        "_failure",
        "_largest",
        "_last_send",
        "_loop",
        "_max_queued",
        "_numbers",
        "_peer",
        "_refusal",
        "_smallest",
        "_waiters",
        "_write_ahead",
        "answering",
        "bypassed",
        "held_back",
        "messages",
        "outbox",
        "wants_read",
    )

    def __init__(
        self,
        connection: Connection,
        limits: Limits,
        peer: str,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.outbox = Outbox(limits, peer)
        self.bypassed = 0
        self.answering = True
        self.messages = -1
        self.held_back = False
        self.wants_read = False
        self._connection: Connection | None = connection
        self._peer = peer
        self._loop = loop
        self._channel = CLOSED
        most = limits.max_queued
        self._max_queued = sys.maxsize if most is None else most
        self._write_ahead = min(limits.write_ahead, self._max_queued)
        self._largest = 0  # size of the largest queued message; undefined while none is queued
        self._smallest = min(RECORD - ONE_FRAME, limits.max_message_size)
        self._last_send = 0.0
        self._waiters: list[tuple[int, int, asyncio.Future[None]]] = []  # a heap
        self._numbers = itertools.count()
        self._failure: Callable[[], CommClosedError] | None = None  # set when closed
        self._refusal: Callable[[], CommClosedError] | None = None  # set when closing

    def begin(self, channel: Channel) -> None:
        """Start sending: the connection is open."""
        self._channel = channel
        self.outbox.fill_records = channel.whole_records

    def end(self, failure: Callable[[], CommClosedError]) -> None:
        """Stop: the connection is closed; `failure` makes a fresh error for each caller."""
        self._connection = None  # breaks the reference cycle
        self._channel = CLOSED
        self._failure = failure
        self.outbox.clear()
        waiters, self._waiters = self._waiters, []
        for _, _, future in waiters:
            if not future.done():
                future.set_exception(failure())
                future.exception()  # mark as retrieved, in case nobody is waiting

    @property
    def blocked(self) -> bool:
        """Whether there is something to send as soon as the socket is writable."""
        return bool(self.outbox) and not self.wants_read and not self.held_back

    @property
    def ended(self) -> bool:
        """Whether the connection is closed."""
        return self._failure is not None

    # The writer's side

    def write(self, frames: Sequence[Buffer], shared: int = 1) -> tuple[int, int | None]:
        """Queue a message, and send as much of it as the socket takes now.

        Parameters
        ----------
        frames, shared
            As for `framing.pack`. Frames above 16 KiB are not copied and must not change until they
            are sent.

        Returns
        -------
        size : int
            Bytes on the wire.
        leave : int or None
            What to pass to `drain` in order to wait: 0 while frames are still referenced,
            `Limits.write_ahead` if more than that is unsent, None if there is no need to wait.

        Raises
        ------
        CommClosedError
            If the connection is closed.
        MessageTooLarge
            With nothing queued.
        """
        if len(frames) == 1 and len(frames[0]) <= self._smallest:
            outbox = self.outbox
            if outbox.queued == outbox.sent:
                if self.answering or time.perf_counter() - self._last_send > _CLOSELY:
                    return self._send_small(frames[0])
            elif self.held_back and self._failure is None:
                return self._hold_small(frames[0])
        return self._queue(frames, shared)

    def refuse(self, *_: object) -> tuple[int, int | None]:
        """Raise; replaces `write` once nothing more is accepted."""
        assert self._refusal is not None
        raise self._refusal()

    def write_last(self, frame: Buffer | None, refusal: Callable[[], CommClosedError]) -> None:
        """Queue a last frame, if there is one, and send what the socket takes.

        `refusal` makes the error for later writes.
        """
        self._refusal = refusal
        outbox = self.outbox
        if frame is not None and not outbox:
            try:
                self.write([frame])
            except CommClosedError:  # it was lost a moment ago: who closes need not know
                pass
        elif frame is not None:
            outbox.put([frame], 1)
        self.held_back = False
        if outbox:
            self.flush()
            if self._connection is not None:
                self._connection.watch()

    def write_frame(self, frame: Buffer) -> tuple[int, int | None]:
        """`write` for a message of one frame."""
        return self.write([frame])

    def _send_small(self, frame: Buffer) -> tuple[int, int | None]:
        """Send a message past the queue, which is empty; the common case."""
        length = len(frame)
        data = pack_one(length) + frame
        sent = 0
        try:
            sent = self._channel.send(data)
        except _BLOCKED:  # `flush` will meet and handle it
            pass
        except BaseException as error:  # the system reports it once
            send_failed(self._connection, error)
            if self._failure is not None:
                raise self._failure() from None
        self.answering = False
        self.messages += 1
        self._last_send = time.perf_counter()
        size = length + ONE_FRAME
        if sent == size:
            self.bypassed += size
        else:
            self.outbox.sent_directly(data, sent)
            self._largest = size
            self.flush()
            if self._connection is not None:
                self._connection.watch()
        return size, None

    def _hold_small(self, frame: Buffer) -> tuple[int, int | None]:
        """Queue a message behind others that are held back."""
        outbox = self.outbox
        length = len(frame)
        outbox.put_small(frame, length)
        self.messages += 1
        size = length + ONE_FRAME
        unsent = outbox.queued - outbox.sent
        if unsent > _TOGETHER:
            self.release()
            self._largest = size
            unsent = outbox.queued - outbox.sent
        return size, self._write_ahead if unsent > self._write_ahead else None

    def _queue(self, frames: Sequence[Buffer], shared: int) -> tuple[int, int | None]:
        if self._failure is not None:
            raise self._failure()
        outbox = self.outbox
        before = outbox.queued
        idle = before == outbox.sent
        borrowed = outbox.put(frames, shared)
        self.messages += 1
        size = outbox.queued - before
        if idle:
            if self.answering or borrowed or time.perf_counter() - self._last_send > _CLOSELY:
                self.answering = False
                self.flush()
                if outbox.queued != outbox.sent and self._connection is not None:
                    self._largest = size
                    self._connection.watch()
            else:
                self.held_back = True
                self._loop.call_soon(self.release)
        elif self.held_back:
            if borrowed or outbox.queued - outbox.sent > _TOGETHER:
                self.release()
                self._largest = size
        else:  # the socket did not take what is queued when it was last tried
            if before - outbox.sent > self._max_queued + self._largest:
                self._expect_room(before)
            if size > self._largest:
                self._largest = size
            if size > CHUNK:  # its writer may not let the loop run for long
                self.flush()
        unsent = outbox.queued - outbox.sent
        if borrowed and unsent:
            return size, 0
        return size, self._write_ahead if unsent > self._write_ahead else None

    def _expect_room(self, before: int) -> None:
        """Close and raise if too much of the first `before` bytes stays queued.

        First they are offered to the socket once more. Closing frees what is queued.
        """
        behind = time.perf_counter() - self._last_send
        self.flush()
        if self._failure is not None:
            raise self._failure()
        unsent = before - self.outbox.sent
        if unsent <= self._max_queued + self._largest:
            return
        error = slow_consumer(self._peer, unsent, self._max_queued, behind)
        assert self._connection is not None
        self._connection.cut_off(error)
        raise error.again()

    async def drain(self, leave: int = 0) -> None:
        """Wait until all that is queued now, except the last `leave` bytes, is with the kernel.

        A cancelled call changes nothing: the bytes are still sent.

        Raises
        ------
        CommClosedError
            If the connection is closed before.
        """
        if self._failure is not None:
            raise self._failure()
        goal = self.outbox.queued - leave
        if self.outbox.sent < goal:
            future: asyncio.Future[None] = self._loop.create_future()
            heapq.heappush(self._waiters, (goal, next(self._numbers), future))
            await future

    def drop_rest(self, failure: Callable[[], CommClosedError]) -> bool:
        """Drop what is queued but for the message that the peer has in part, if that is possible.

        Writers that wait for the others get `failure`. Returns whether another one can follow.
        """
        return False

    def send_eof(self) -> None:
        """Send end of file, unless something is unsent, which the peer must be able to notice."""
        if not self.outbox:
            self._channel.send_eof()

    def answer_eof(self) -> None:
        """Answer the peer's end of file, where the protocol has an answer."""
        if not self.outbox:
            self._channel.answer_eof()

    # The loop's side

    def release(self) -> None:
        """Send the small messages that were held back."""
        if self.held_back and self._connection is not None:
            self.held_back = False
            self.flush()
            if self.outbox and self._connection is not None:
                self._largest = 0  # none of them is large
                self._connection.watch()

    def flush(self) -> None:
        """Send what is queued, up to the budget; wake up the writers that waited for it."""
        self.wants_read = False
        outbox = self.outbox
        channel = self._channel
        before = outbox.sent
        stop = before + channel.budget
        send_several = channel.send_several
        try:
            while outbox.sent != outbox.queued and outbox.sent < stop:
                if send_several is not None and len(several := outbox.several()) > 1:
                    outbox.advance(send_several(several))
                else:
                    outbox.advance(channel.send(outbox.next()))
        except (BlockingIOError, ssl.SSLWantWriteError):
            pass
        except ssl.SSLWantReadError:
            self.wants_read = True
        except BaseException as error:
            send_failed(self._connection, error)
            return
        if outbox.sent != before:
            self._last_send = time.perf_counter()
        waiters = self._waiters
        while waiters and waiters[0][0] <= outbox.sent:
            _, _, future = heapq.heappop(waiters)
            if not future.done():
                future.set_result(None)
