"""The receiving side: from the loop's events to whole messages for one reader.

While a connection is open its socket is watched for reading, unless the reader is far behind. Each
event receives into one scratch buffer, or directly into the frame being filled; takes out every
complete message; and resumes the reader before it returns (`wakeup`). It yields to the loop after
a bounded number of bytes.

An event is worth one receive unless that filled its buffer: events are level-triggered, so the rest
is announced again. TLS is the exception: no event announces what OpenSSL has decrypted already, and
a receive yields one record, so a full record is followed by another receive.
"""

from __future__ import annotations

import asyncio
import math
import ssl
from collections import deque
from collections.abc import Callable
from typing import Protocol

from ..errors import CommBusy, CommClosedError, MessageTooLarge
from ..limits import Limits
from ..tls_details import is_eof
from ..wire import closing
from ..wire.framing import OVERHEAD, PER_FRAME, Buffer, Frame, Splitter
from ..wire.hello import Agreement
from .buffers import allocate, scratch
from .channel import CLOSED, SCRATCH, Channel, bare
from .end_errors import ended_by_peer, reset_or_timed_out
from .interrupted import receive_failed
from .sender import Sender
from .sockets import given_up, is_dead
from .switch_interval import Guard
from .wakeup import resume

__all__ = ["Receiver"]

_DIRECT = 64 * 1024  # a frame that lacks at least this many bytes is received in place


class _Discarding:
    """Replaces the splitter once nothing that arrives is wanted."""

    block = None
    delivered = made = 0
    expected = None
    progress = str  # "": there is no message to be in the middle of

    def feed(self, data: Buffer, size: int) -> None:
        """Drop it."""

    def target(self, _: int) -> None:
        """No memory is being filled."""

    def discard(self) -> None:
        """There is nothing to free."""

    advance = target


class Connection(Protocol):
    """What a receiver needs of its stream."""

    agreement: Agreement

    def watch(self) -> None:
        """Update what the loop waits for."""

    def resume_sending(self) -> None:
        """Retry a send that waited for OpenSSL to receive."""

    def ended(self, error: CommClosedError) -> None:
        """Close the connection: the peer has sent end of file, as `error` says."""

    def fail(self, error: CommClosedError, cause: BaseException | None = None) -> None:
        """Close the connection because of `error`."""

    def lost(self, error: OSError) -> None:
        """Close the connection because of an error of the socket or OpenSSL."""


class Receiver:
    """The receiving side of one connection.

    Attributes
    ----------
    inbox : deque
        Messages that have arrived, for `take_frames`: frames, and the memory that they take.
    bytes_in : int
        Payload received so far, without TLS overhead.
    messages : int
        How many messages were taken, not counting the hello: the number of the last one.
    paused : bool
        Whether receiving is suspended: before the connection is open, while the reader is far
        behind, and after the end.
    read_ahead : float
        Unread bytes from which on receiving pauses.
    wants_write : bool
        Whether OpenSSL must send before it can receive more.
    """

    __slots__ = (
        "_channel",
        "_connection",
        "_consumed",
        "_enough",
        "_errors_once",
        "_failure",
        "_guard",
        "_limits",
        "_loop",
        "_peer",
        "_reader",
        "_rest_due",
        "_scratch",
        "_sender",
        "_splitter",
        "bytes_in",
        "inbox",
        "messages",
        "paused",
        "read_ahead",
        "wants_write",
    )

    def __init__(
        self,
        connection: Connection,
        sender: Sender,
        limits: Limits,
        peer: str,
        loop: asyncio.AbstractEventLoop,
        guard: Guard,
        *,
        errors_once: bool = False,
    ) -> None:
        self.inbox: deque[tuple[list[Frame], int]] = deque()
        self.bytes_in = 0
        self.messages = -1
        self.paused = True
        self.wants_write = False
        self._connection: Connection | None = connection
        self._sender = sender
        self._limits = limits
        self.read_ahead: float = limits.read_ahead
        self._peer = peer
        self._loop = loop
        self._guard = guard
        self._errors_once = errors_once
        self._channel = CLOSED
        self._splitter: Splitter | _Discarding = Splitter(
            self.inbox,
            allocate,
            max_size=limits.max_message_size,
            max_frames=limits.max_frames,
            max_hello_size=limits.max_hello_size,
            peer=peer,
        )
        self._scratch = scratch(SCRATCH)
        self._enough = 1  # a receive of fewer bytes has emptied the socket
        self._consumed = 0  # of the splitter's `delivered`
        self._reader: asyncio.Future[None] | None = None
        self._rest_due = False  # a receive is scheduled
        self._failure: Callable[[], CommClosedError] | None = None  # set when closed

    def begin(self, channel: Channel) -> None:
        """Start receiving. What OpenSSL has read already is received in the next iteration."""
        self._channel = channel
        self._enough = min(SCRATCH, channel.full)
        self.paused = False
        self._receive_rest()

    def bypass_tls(self) -> None:
        """Receive past OpenSSL from now on, which has sent close_notify."""
        if self._channel is not CLOSED:
            self._channel = bare(self._channel.socket)
            self._enough = SCRATCH
            self.wants_write = False

    def discard(self, failure: Callable[[], CommClosedError], *, forget: bool) -> None:
        """Receive and drop from now on; readers get an error; see `end_reading`.

        Otherwise the peer could block in its writes, and the kernel would reset the connection on
        close because of unread bytes, discarding what it has yet to send.
        """
        self._splitter.discard()
        self._splitter = _Discarding()
        self._consumed = 0
        self.end_reading(failure, forget)
        self.receive_all()

    def end(self, failure: Callable[[], CommClosedError], *, forget: bool) -> None:
        """Stop: the connection is closed. The parameters are those of `end_reading`."""
        self._connection = None  # breaks the reference cycle
        self._channel = CLOSED
        self.paused = True
        self._splitter.discard()
        self.end_reading(failure, forget)

    def receive_all(self) -> None:
        """Receive however much is unread; for when nothing is kept, or the peer has ended."""
        if self.paused and self._connection is not None and self._channel is not CLOSED:
            self.read_ahead = math.inf
            self.paused = False
            self._connection.watch()
            self._receive_rest()

    def end_reading(self, failure: Callable[[], CommClosedError], forget: bool) -> None:
        """Let readers get an error; what has arrived comes first, or with `forget` is dropped."""
        if self._failure is None:
            self._failure = failure
        if forget:
            self.inbox.clear()
        # Dropped: its exception's traceback would keep the reader's frame, and so the comm, alive.
        reader, self._reader = self._reader, None
        if reader is not None and not reader.done():
            if self.inbox:
                reader.set_result(None)  # messages that arrived before the end come first
            else:
                reader.set_exception(failure())
                reader.exception()  # mark as retrieved, in case nobody is waiting

    # The reader's side

    def arrival(self) -> asyncio.Future[None]:
        """Return a future to await while `inbox` is empty; check `inbox` again afterwards.

        It raises `CommClosedError` once the peer has closed, or at once if we have. Raises
        `CommBusy` if another task is waiting for one. Cancelling it consumes nothing.
        """
        if self._failure is not None:
            raise self._failure()
        reader = self._reader
        if reader is not None and not reader.done():
            raise CommBusy(
                f"cannot read from {self._peer}: another task is reading; use one reader a comm"
            )
        reader = self._reader = self._loop.create_future()
        return reader

    def take_frames(self) -> list[Frame]:
        """Remove the next message from `inbox`; its frames belong to the caller."""
        frames, size = self.inbox.popleft()
        self._consumed += size + OVERHEAD
        self.messages += 1
        if (
            self.paused
            and self._connection is not None
            and self._splitter.delivered - self._consumed < self.read_ahead
        ):
            self.paused = False
            self._connection.watch()
            self._receive_rest()
        return frames

    # The loop's side

    def _receive_rest(self) -> None:
        """Schedule a receive for bytes that no event announces."""
        if not self._rest_due and self._channel.pending():
            self._rest_due = True
            self._loop.call_soon(self.receive, False)

    def receive(self, in_event: bool = True) -> None:
        """Receive up to the budget, and resume the reader.

        With `in_event` the loop has called: no task is running, so the reader can be resumed.
        """
        guard = self._guard  # `Guard.touch`, inlined
        guard.recent = True
        if not guard.active:
            guard.begin()
        self._rest_due = False
        if self.paused:
            return
        self.wants_write = False
        splitter = self._splitter
        try:
            if splitter.block is None:  # the common event: one receive takes all there is
                channel = self._channel
                size = channel.receive(self._scratch)
                self.bytes_in += size
                splitter.feed(self._scratch, size)
                if (
                    not 0 < size < self._enough
                    or splitter.delivered - self._consumed >= self.read_ahead
                ) and self._may_go_on(size, size >= self._enough):
                    self._take_in(channel.budget - size)
            else:
                self._take_in(self._channel.budget)
        except (BlockingIOError, ssl.SSLWantReadError):
            pass
        except BaseException as error:
            self._handle_error(error)
        if self._errors_once and not self.paused and is_dead(self._channel.socket):
            self._rest_due = True  # an error came with the last bytes: no event will follow
            self._loop.call_soon(self.receive, False)
        sender = self._sender
        sender.answering = True
        if in_event and sender.wants_read and self._connection is not None:
            self._connection.resume_sending()
        reader = self._reader
        if reader is not None and self.inbox:
            self._reader = None
            if in_event:
                resume(reader)
            elif not reader.done():
                reader.set_result(None)

    def _handle_error(self, error: BaseException) -> None:
        """Act on an exception of a receive."""
        if (connection := self._connection) is None:
            raise error
        if isinstance(error, CommClosedError):
            connection.fail(error)
        elif isinstance(error, MemoryError):
            connection.fail(self._no_memory(error))
        elif isinstance(error, ssl.SSLWantWriteError):
            self.wants_write = True
            connection.watch()
        elif isinstance(error, ssl.SSLZeroReturnError):
            connection.ended(self._ended(connection.agreement, notified=True))
        elif is_eof(error):
            # Stock peers send no close_notify. A lost connection looks the same before Python 3.12.
            if given_up(self._channel.socket):
                connection.fail(reset_or_timed_out(self._peer, self._where()), error)
            else:
                connection.fail(self._ended(connection.agreement))
        else:
            receive_failed(connection, error)

    def _take_in(self, budget: int) -> None:
        """Receive up to `budget` bytes: into the frame being filled, or the scratch buffer."""
        channel = self._channel
        splitter = self._splitter
        made = splitter.made
        while budget > PER_FRAME * (splitter.made - made):  # a frame takes as long as these bytes
            target = splitter.target(_DIRECT) if splitter.block is not None else None
            if target is None:
                size = channel.receive(self._scratch)
                more = size >= self._enough
                self.bytes_in += size
                splitter.feed(self._scratch, size)
            else:
                target = target[:budget]
                size, last = channel.fill(target, self._advance)
                more = size == len(target) or last >= channel.full
            if not self._may_go_on(size, more):
                return
            budget -= size
        self._receive_rest()

    def _may_go_on(self, size: int, more: bool) -> bool:
        """Whether to receive again in this event, after a receive of `size` bytes.

        Without `more`, it would cost a system call, and over TLS an exception as well.
        """
        connection = self._connection
        if connection is None:
            return False
        if not size:
            connection.ended(self._ended(connection.agreement, self._channel.authentic_end))
            return False
        if self._splitter.delivered - self._consumed >= self.read_ahead:
            self.paused = True
            connection.watch()
            return False
        return more

    def _advance(self, size: int) -> None:
        self.bytes_in += size
        self._splitter.advance(size)

    def _where(self) -> str:
        progress = self._splitter.progress()
        if progress:
            return f" in the middle of a message, after {progress}"
        return "" if self._splitter.delivered else " before its hello"

    def _ended(self, agreement: Agreement, notified: bool = False) -> CommClosedError:
        """Return the error for the peer's end of file; `notified` says whether TLS announced it."""
        where = self._where()
        return ended_by_peer(self._peer, where, notified=notified, announces=agreement.closing)

    def closing_message(self) -> closing.Closing | None:
        """Remove and return the closing message, if there is one in `inbox`."""
        said = closing.take(self.inbox)
        if said is not None:
            self.messages += 1
        return said

    def _no_memory(self, error: MemoryError) -> MessageTooLarge:
        expected = self._splitter.expected
        return MessageTooLarge(
            f"message from {self._peer} too large: {expected} bytes, no memory for them "
            f"({error}); send less at once",
            size=expected or 0,
            limit=self._limits.max_message_size,
        )
