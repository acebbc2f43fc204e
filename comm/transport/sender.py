"""From messages to the kernel, in as few sends as may be.

A message goes out at once as far as the socket takes it, what is left when it can be written again.
Small ones that follow each other closely, with nothing received between, wait for each other until
the loop's next turn: a send costs more than what it carries. Whoever queues more than the limits
allow is told to wait, or, where writers do not wait, is closed as a slow consumer's.
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

from ..close_codes import CloseCode
from ..errors import CommClosedError
from ..limits import Limits
from ..wire.framing import ONE_FRAME, Buffer, pack_one
from ..wire.outbox import Outbox
from .channel import CLOSED, RECORD, Channel

__all__ = ["Sender"]

logger = logging.getLogger("sealwire.comm")

_CLOSELY = 50e-6  # seconds; small messages nearer to each other than this share a send
_TOGETHER = 64 * 1024  # no more than this waits for company


class Connection(Protocol):
    """What a sender needs of the stream whose part it is."""

    def watch(self) -> None:
        """What is to be waited for has changed."""

    def broken(self, error: OSError) -> None:
        """Sending has failed; why may have arrived meanwhile."""

    def slow_consumer(self, error: CommClosedError) -> None:
        """The connection ends since its peer takes too little."""


class Sender:
    """The sending side of one connection.

    Attributes
    ----------
    outbox : Outbox
        What has yet to be sent.
    answering : bool
        Something has arrived since the last send, so that the peer may be waiting.
    held_back : bool
        What is queued waits for company, in this turn of the loop.
    wants_read : bool
        OpenSSL must receive before it can send more.
    """

    __slots__ = (
        "_channel",
        "_close_timeout",
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
        "held_back",
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
        self.answering = True
        self.held_back = False
        self.wants_read = False
        self._connection: Connection | None = connection
        self._peer = peer
        self._loop = loop
        self._channel = CLOSED
        self._close_timeout = limits.close_timeout
        most = limits.max_queued
        self._max_queued = sys.maxsize if most is None else most
        self._write_ahead = min(limits.write_ahead, self._max_queued)
        self._largest = 0  # message among those that are queued; of no meaning while none is
        self._smallest = min(RECORD - ONE_FRAME, limits.max_message_size)
        self._last_send = 0.0
        self._waiters: list[tuple[int, int, asyncio.Future[None]]] = []  # a heap
        self._numbers = itertools.count()
        self._failure: Callable[[], CommClosedError] | None = None  # once it is over
        self._refusal: Callable[[], CommClosedError] | None = None  # once nothing more is taken

    def begin(self, channel: Channel) -> None:
        """The connection is open."""
        self._channel = channel
        self.outbox.fill_records = channel.whole_records

    def end(self, failure: Callable[[], CommClosedError]) -> None:
        """The connection is closed. `failure` makes an error that says why, for each who asks."""
        self._connection = None  # which refers to us
        self._channel = CLOSED
        self._failure = failure
        self.outbox.clear()
        waiters, self._waiters = self._waiters, []
        for _, _, future in waiters:
            if not future.done():
                future.set_exception(failure())
                future.exception()  # if nobody waits any more it is nobody's

    @property
    def blocked(self) -> bool:
        """Whether there is something to be sent as soon as the socket can be written."""
        outbox = self.outbox
        return outbox.queued != outbox.sent and not self.wants_read and not self.held_back

    # The writer's side

    def write(self, frames: Sequence[Buffer], shared: int = 1) -> tuple[int, int | None]:
        """Queue a message, and send as much of it as the socket takes now.

        Parameters
        ----------
        frames, shared
            As for `framing.pack`. Frames above 16 KiB are not copied; they must not change until
            sent.

        Returns the bytes the message has on the wire, and what the caller may pass to `drain` if
        it is to wait: 0 if frames of its own are still referred to, `Limits.write_ahead` if more
        than that is unsent, None if there is nothing to wait for. Raises `CommClosedError`, and
        `MessageTooLarge` with nothing queued.
        """
        outbox = self.outbox
        if len(frames) == 1 and outbox.queued == outbox.sent:
            # A small message, as most are, passes the queue.
            frame = frames[0]
            length = len(frame)
            if length <= self._smallest and (
                self.answering or time.perf_counter() - self._last_send > _CLOSELY
            ):
                data = pack_one(length) + frame
                sent = 0
                try:
                    sent = self._channel.send(data)
                except OSError:  # `flush` will meet it again
                    if self._failure is not None:
                        raise self._failure() from None
                self.answering = False
                self._last_send = time.perf_counter()
                size = length + ONE_FRAME
                outbox.passed(data, sent)
                if sent < size:
                    self._largest = size
                    self.flush()
                    if self._connection is not None:
                        self._connection.watch()
                return size, None
        return self._queue(frames, shared)

    def refuse(self, *_: object) -> tuple[int, int | None]:
        """In the place of `write` when nothing more is taken."""
        assert self._refusal is not None
        raise self._refusal()

    def write_last(self, frame: Buffer | None, refusal: Callable[[], CommClosedError]) -> None:
        """Queue a frame behind all that was accepted, and send what the socket takes.

        `refusal` makes the error for who writes after it.
        """
        self._refusal = refusal
        if frame is not None:
            self.outbox.put([frame], 1)
        self.held_back = False
        self.flush()
        if self._connection is not None:
            self._connection.watch()

    def write_frame(self, frame: Buffer) -> tuple[int, int | None]:
        """`write` for a message of one frame."""
        return self.write([frame])

    def _queue(self, frames: Sequence[Buffer], shared: int) -> tuple[int, int | None]:
        if self._failure is not None:
            raise self._failure()
        outbox = self.outbox
        before = outbox.queued
        idle = before == outbox.sent
        borrowed = outbox.put(frames, shared)
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
                self._loop.call_soon(self.let_go)
        elif self.held_back:
            if borrowed or outbox.queued - outbox.sent > _TOGETHER:
                self.let_go()
                self._largest = size
        else:  # the socket has been offered what is queued, and did not take it yet
            if before - outbox.sent > self._max_queued + self._largest:
                self._expect_room(before)
            if size > self._largest:
                self._largest = size
        unsent = outbox.queued - outbox.sent
        if borrowed and unsent:
            return size, 0
        return size, self._write_ahead if unsent > self._write_ahead else None

    def _expect_room(self, before: int) -> None:
        """Close, and raise, if too much of the first `before` bytes stays queued.

        They are offered once more: a writer that does not wait may have let no turn of the loop
        pass. What is queued is freed.
        """
        behind = time.perf_counter() - self._last_send
        self.flush()
        if self._failure is not None:
            raise self._failure()
        unsent = before - self.outbox.sent
        if unsent <= self._max_queued + self._largest:
            return
        error = CommClosedError(
            f"comm with {self._peer} closed: {unsent} bytes are queued unsent, the limit is "
            f"{self._max_queued}, and it last took some {behind:.1f} s ago; see whether that "
            f"process is stopped or overloaded, or raise Limits.max_queued"
        )
        error.kind = "slow-consumer"
        error.code = CloseCode.SLOW_CONSUMER
        error.closed_by = "us"
        assert self._connection is not None
        self._connection.slow_consumer(error)
        raise error.again()

    async def drain(self, leave: int = 0) -> None:
        """Wait until all that is queued now, but for the last `leave` bytes, is with the kernel.

        Raises `CommClosedError`. Cancelling changes nothing: the bytes still go out.
        """
        if self._failure is not None:
            raise self._failure()
        goal = self.outbox.queued - leave
        if self.outbox.sent < goal:
            future: asyncio.Future[None] = self._loop.create_future()
            heapq.heappush(self._waiters, (goal, next(self._numbers), future))
            await future

    async def finish(self) -> bool:
        """Send what is queued; whether all of it is with the kernel.

        Gives up, with a warning, once the peer has taken nothing for `Limits.close_timeout`; ends
        at once if the connection does. Cancelling changes nothing.
        """
        outbox = self.outbox
        while outbox and self._failure is None:
            before = outbox.sent
            try:
                await asyncio.wait_for(self.drain(), self._close_timeout)
            except asyncio.TimeoutError:
                if outbox.sent == before:
                    logger.warning(
                        "comm with %s closed with %d bytes unsent: it took nothing for %g s; "
                        "raise Limits.close_timeout if its event loop may be busy for longer",
                        self._peer,
                        outbox.queued - outbox.sent,
                        self._close_timeout,
                    )
                    return False
            except CommClosedError:
                return False
        return self._failure is None

    def say_goodbye(self) -> None:
        """Tell the peer that this is all, unless something is unsent, which it is to know."""
        if not self.outbox:
            self._channel.say_goodbye()

    def answer_goodbye(self) -> None:
        """The same for a peer that has said it, where its protocol has an answer."""
        if not self.outbox:
            self._channel.answer_goodbye()

    # The loop's side

    def let_go(self) -> None:
        """Send what was held back for company."""
        if self.held_back and self._connection is not None:
            self.held_back = False
            self.flush()
            if self.outbox and self._connection is not None:
                self._largest = 0  # none of them is large
                self._connection.watch()

    def flush(self) -> None:
        """Send what is queued, up to the budget; resume who waited for it."""
        self.wants_read = False
        outbox = self.outbox
        channel = self._channel
        stop = outbox.sent + channel.budget
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
        except OSError as error:
            if self._connection is not None:
                self._connection.broken(error)
            return
        self._last_send = time.perf_counter()
        waiters = self._waiters
        while waiters and waiters[0][0] <= outbox.sent:
            _, _, future = heapq.heappop(waiters)
            if not future.done():
                future.set_result(None)
