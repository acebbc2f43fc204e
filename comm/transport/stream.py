"""Messages over one TCP or TLS socket, as lists of frames, on Tornado's event loop.

`FrameStream` is an `IOStream` that does its own I/O. While it is open READ stays registered (unless
the reader is far behind); each readable event receives into one scratch buffer, or straight into
the frame being filled, takes out every message that is complete, and resumes the reader. Writes go
out at once as far as the socket takes them, but small ones that follow each other closely are sent
together. Both directions yield to the loop after a bounded number of bytes. The reading and writing
methods of `IOStream` itself are not for use here.

Errors are `CommClosedError`s: whatever the socket or OpenSSL raises is translated once, here and in
`Handshake`, and kept as `IOStream.error`.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
import ssl
import struct
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from tornado.iostream import IOStream

from ..errors import CommBusy, CommClosedError, MessageTooLarge
from ..limits import Limits
from ..tls_errors import explain
from ..wire.framing import OVERHEAD, Buffer, Frame, Splitter
from ..wire.outbox import Outbox
from .buffers import allocate
from .handshake import Handshake
from .handshake_throttle import Turns
from .liveness import pulse_of
from .readiness import Readiness
from .sockets import given_up, is_dead
from .switch_interval import guard_of
from .wakeup import Wakeup

__all__ = ["FrameStream", "log_end"]

logger = logging.getLogger("sealwire.comm")

_SCRATCH = 68 * 1024  # one receive: 64 KiB and what stands before them; copied once more
_DIRECT = 64 * 1024  # a frame that misses more is received in place
_BUDGET = 4 << 20  # bytes either direction moves before the loop gets a turn: some 2 ms
_TLS_BUDGET = 1 << 20
_RECORD = 16 * 1024  # the payload of a full TLS record
_CLOSELY = 50e-6  # small messages nearer to each other than this share a send
_TOGETHER = 64 * 1024  # no more than this waits for company
_GATHERS = hasattr(socket.socket, "sendmsg")

_ONE_FRAME = struct.Struct("<QQQ")

_local = threading.local()


def _scratch() -> bytearray:
    """This thread's receive buffer; what it holds is parsed before anyone else can use it."""
    scratch: bytearray | None = getattr(_local, "scratch", None)
    if scratch is None:
        scratch = _local.scratch = bytearray(_SCRATCH)
    return scratch


def _nothing_goes(data: Buffer) -> int:
    """What a closed stream sends with."""
    raise OSError(errno.EBADF, os.strerror(errno.EBADF))


def log_end(kind: str, words: Callable[[], str]) -> None:
    """Tell of a comm that no listener watches."""
    logger.info("%s", words())


class FrameStream(IOStream):
    """One connected socket that carries messages as lists of frames.

    Parameters
    ----------
    sock
        Taken over; closed with the stream.
    limits
        Bounds for both directions. Those of the hello hold for the first message.
    peer
        The other side's address, for errors.

    Attributes
    ----------
    local_host_port : tuple
        Our end; as all of these, known once the stream is open.
    tls_facts : dict
        ``peercert``, ``cipher`` and ``protocol`` of a TLS stream; empty for a plain one.
    inbox : deque
        Messages that have arrived, for `take_frames`.
    bytes_in : int
        Payload received so far, without TLS's own.
    readiness : Readiness
        Of the socket, for who waits for something else before the stream is open.
    """

    def __init__(self, sock: socket.socket, limits: Limits, peer: str) -> None:
        super().__init__(sock)
        self.limits = limits
        self.peer = peer
        self.local_host_port: tuple[str, int] = ("", 0)
        self.tls_facts: dict[str, Any] = {}
        self.bytes_in = 0
        self._loop = asyncio.get_running_loop()
        self.readiness = Readiness(sock)
        self._gil = guard_of(self._loop)
        self._pulse = pulse_of(self._loop)
        self.inbox: deque[tuple[list[Frame], int]] = deque()
        self._splitter = Splitter(
            self.inbox,
            allocate,
            max_size=limits.max_message_size,
            max_frames=limits.max_frames,
            max_hello_size=limits.max_hello_size,
            peer=peer,
        )
        self._scratch = _scratch()
        self._taken = 0  # of what the splitter has delivered
        self._paused = True  # until open() or the end of the handshake
        self._reader: Wakeup | None = None
        self._outbox = Outbox(limits, peer)
        most = limits.max_queued
        self._max_queued = sys.maxsize if most is None else most
        self._write_ahead = min(limits.write_ahead, self._max_queued)
        self._largest = 0  # message among those that are queued; of no meaning while none is
        # Who tells of a slow consumer, by kind and words; None if that is for the handler's end.
        self.tell: Callable[[str, Callable[[], str]], object] | None = None
        self._gathers = _GATHERS
        self._smallest = min(_RECORD - 24, limits.max_message_size)
        self._answering = True  # something has arrived since the last send
        self._last_send = 0.0
        self._flush_due = False  # in this turn of the loop
        self._tls: ssl.SSLSocket | None = None
        # Bound once, and over TLS those of OpenSSL's object: `SSLSocket` adds two calls to each.
        self._send: Callable[[Buffer], int] = sock.send
        self._read_tls: Callable[[int, Buffer], int] | None = None
        self._handshake: Handshake | None = None
        self._established = False
        self._send_wants_read = False
        self._receive_wants_write = False
        self._rest_due = False  # a receive is scheduled
        self._when_closed: Callable[[], object] | None = None
        self._deadline: asyncio.TimerHandle | None = None

    # Life

    def open(self) -> None:
        """Begin to receive on a plain, connected socket."""
        self._pulse.watch(self, self.limits.keepalive_timeout)
        self.local_host_port = self.socket.getsockname()[:2]
        self._paused = False
        self._watch()

    async def secure(
        self,
        context: ssl.SSLContext,
        *,
        server_side: bool,
        server_hostname: str | None = None,
        turns: Turns | None = None,
    ) -> None:
        """Shake hands with `context`, then begin to receive. The steps wait for their `turns`.

        Raises `HandshakeError` if either side refuses, other `CommClosedError`s if the connection
        is lost. Cancelling closes the stream.
        """
        try:
            # Of a peer that has gone already wrap_socket would make an error that holds the socket.
            self.socket.getpeername()
        except OSError as error:
            self.fail(
                CommClosedError(
                    f"connection with {self.peer} closed by the peer before the TLS handshake; "
                    f"see the peer's log"
                ),
                error,
            )
            raise self.failure() from error
        try:
            self._pulse.watch(self, self.limits.keepalive_timeout)
            self.socket = self._tls = context.wrap_socket(
                self.socket,
                server_side=server_side,
                server_hostname=server_hostname,
                do_handshake_on_connect=False,
                suppress_ragged_eofs=False,
            )
        except (OSError, ValueError) as error:  # the peer has gone already
            self.fail(explain(error, self.peer, handshaking=True), error)
            raise self.failure() from error
        handshake = Handshake(
            self._tls,
            self.readiness,
            self._gil,
            self.peer,
            self.limits.max_handshake_size,
            turns,
        )
        self._handshake = handshake
        try:
            await handshake.finish()
        except CommClosedError as error:
            self.fail(error, error.__cause__)
            raise self.failure() from error.__cause__
        except asyncio.CancelledError:
            self.close()
            raise
        finally:
            self._handshake = None
        if self.closed():
            raise self.failure()
        # The handshake is over, and an allow-list has been asked: it stands in the way of nothing.
        tls: Any = getattr(self._tls, "_sslobj", None) or self._tls
        self._send, self._read_tls = tls.write, tls.read
        self._outbox.fill_records = True
        self._gathers = False
        self.local_host_port = self.socket.getsockname()[:2]
        self.tls_facts = handshake.facts
        self._paused = False
        self.readiness.on_readable(self._receive)
        self._receive_rest()

    def set_deadline(self, seconds: float) -> None:
        """Fail the stream if it is not `established` within `seconds`; replaces an earlier one."""
        self._cancel_deadline()
        self._deadline = self._loop.call_later(seconds, self._deadline_passed, seconds)

    def established(self) -> None:
        """The hello is done: lift the deadline."""
        self._established = True
        self._cancel_deadline()

    def _cancel_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _deadline_passed(self, seconds: float) -> None:
        stage = "TLS handshake" if self._handshake is not None else "hello"
        self.fail(
            CommClosedError(
                f"connection with {self.peer} dropped: no {stage} within {seconds:g} s; "
                f"check that the other side speaks the same protocol and is not overloaded",
                peer=self.peer,
            )
        )

    def lost(self, error: OSError) -> None:
        """Close because the connection is of no use any more."""
        self.fail(explain(error, self.peer, handshaking=not self._established), error)

    def fail(self, error: CommClosedError, cause: BaseException | None = None) -> None:
        """Close because of `error`; it is what readers and writers will get."""
        if not self.closed():
            error.peer = self.peer
            error.__cause__ = cause
            self.close(exc_info=error)

    def failure(self) -> CommClosedError:
        """Why the stream is closed, as a fresh exception."""
        if isinstance(self.error, CommClosedError):
            return self.error.again()
        error = CommClosedError(f"comm with {self.peer} is closed: we closed it", peer=self.peer)
        error.clean = True
        return error

    def when_closed(self, callback: Callable[[], object]) -> None:
        """Call `callback` as soon as the stream is closed; there is one at most."""
        if self._closed:
            callback()
        else:
            self._when_closed = callback

    def exhausted(self) -> bool:
        """Whether the stream is closed and every message that arrived has been read."""
        return self.closed() and not self.inbox

    def drop(self) -> None:
        """Close from any thread, for finalizers: the collector runs where it likes."""
        try:
            self._loop.call_soon_threadsafe(self.close)
        except RuntimeError:  # the loop is closed; nothing watches the socket any more
            if self.socket is not None:
                self.socket.close()

    async def finish(self) -> None:
        """Send what is queued, say goodbye, close.

        Gives up once the peer has taken nothing for `Limits.close_timeout`.
        """
        outbox = self._outbox
        try:
            while outbox and not self.closed():
                before = outbox.sent
                try:
                    await asyncio.wait_for(self.drain(), self.limits.close_timeout)
                except asyncio.TimeoutError:
                    if outbox.sent == before:
                        logger.warning(
                            "comm with %s closed with %d bytes unsent: it took nothing for %g s; "
                            "raise Limits.close_timeout if its event loop may be busy for longer",
                            self.peer,
                            outbox.queued - outbox.sent,
                            self.limits.close_timeout,
                        )
                        break
        except CommClosedError:
            pass
        finally:
            if not self.closed():
                self._say_goodbye()
                self.close()

    def _say_goodbye(self) -> None:
        if self._outbox:  # cut short: an end without close_notify says so to the peer
            return
        try:
            if self._tls is not None:
                self._tls.unwrap()  # sends close_notify, then asks for the peer's
        except (OSError, ValueError):
            pass
        try:
            socket.socket.shutdown(self.socket, socket.SHUT_WR)
        except OSError:
            pass

    def _signal_closed(self) -> None:
        super()._signal_closed()
        self._pulse.forget(self)
        self._cancel_deadline()
        self._splitter.discard()
        if self.error is None:  # we closed it: what is unread is not wanted any more
            self.inbox.clear()
        self._outbox.fail(self.failure)
        # Not kept: its error's traceback would hold the reader's frame, and with it the comm.
        reader, self._reader = self._reader, None
        if reader is not None and not reader.done():
            if self.inbox:
                reader.set_result(None)  # what arrived before the end comes first
            else:
                reader.set_exception(self.failure())
                reader.exception()  # if nobody waits any more it is nobody's
        callback, self._when_closed = self._when_closed, None
        if callback is not None:
            callback()

    # Events

    def _watch(self) -> None:
        """Tell the loop what to wait for now.

        Directly, not through `IOLoop`, which costs a call an event.
        """
        if self._closed:
            return
        readiness = self.readiness
        read = not self._paused or self._send_wants_read
        if read != readiness.reads:
            readiness.on_readable(self._receive if read else None)
        write = self._receive_wants_write or (
            self._outbox.queued != self._outbox.sent
            and not self._send_wants_read
            and not self._flush_due
        )
        if write != readiness.writes:
            readiness.on_writable(self._writable if write else None)

    def _handle_events(self, fd: Any, events: int) -> None:
        """Called by `IOLoop` once: when Tornado's `connect` has an outcome."""
        self._handle_connect()
        if self._state is not None:
            self.io_loop.remove_handler(self.fileno())
            self._state = None

    def _maybe_add_error_listener(self) -> None:
        """`IOStream` would have the socket watched twice."""

    def close(self, exc_info: Any = False) -> None:
        """Close at once; drops what the socket does not take."""
        if self._flush_due and not exc_info and not self._closed:
            self._flush_due = False
            self._flush()  # it only waited for company
        super().close(exc_info)

    def close_fd(self) -> None:
        self.readiness.stop()
        if self._handshake is not None:
            self._handshake.stop(self.failure())
        self._send, self._read_tls = _nothing_goes, None  # they would keep OpenSSL's buffers
        super().close_fd()

    def _writable(self) -> None:
        self._gil.touch()
        self._flush()
        if self._receive_wants_write:
            self._receive(in_event=False)
        self._watch()

    # Receiving

    def arrival(self) -> Wakeup:
        """A future to await while `inbox` is empty; look again afterwards.

        It raises `CommClosedError` once the peer has closed, or at once if we have. Raises
        `CommBusy` if another task is waiting for one. Cancelling takes nothing.
        """
        if self._closed:
            raise self.failure()
        reader = self._reader
        if reader is not None and not reader.done():
            raise CommBusy(
                f"cannot read from {self.peer}: another task is reading; use one reader a comm"
            )
        reader = self._reader = Wakeup(loop=self._loop)
        return reader

    async def read_frames(self) -> list[Frame]:
        """The frames of the next message, in buffers that belong to the caller.

        Raises `CommClosedError` once the peer has closed and every message that arrived whole has
        been read, or at once if we have closed, and `CommBusy` if another task is waiting. A
        cancelled call takes nothing.
        """
        while not self.inbox:
            await self.arrival()
        return self.take_frames()

    def take_frames(self) -> list[Frame]:
        """`read_frames` without waiting, for a message that is in `inbox`."""
        frames, size = self.inbox.popleft()
        self._taken += size + OVERHEAD
        if self._paused and self._unread() < self.limits.read_ahead and not self._closed:
            self._paused = False
            self._watch()
            self._receive_rest()
        return frames

    def _receive_rest(self) -> None:
        """Receive in the loop's next turn what no event announces: what OpenSSL has decrypted."""
        if self._tls is not None and not self._rest_due and self._tls.pending():
            self._rest_due = True
            self._loop.call_soon(self._receive, False)

    def _unread(self) -> int:
        """Bytes of the messages that lie in the inbox."""
        return self._splitter.delivered - self._taken

    def _receive(self, in_event: bool = True) -> None:
        """Take what the socket has, up to the budget, and resume the reader.

        `in_event` says that the loop has called: no task is running, so that the reader can be.
        """
        gil = self._gil  # as Guard.touch, without its call
        gil.recent = True
        if not gil.active:
            gil.begin()
        self._rest_due = False
        if self._paused or self._closed:
            return
        splitter = self._splitter
        scratch = self._scratch
        sock = self.socket
        read_tls = self._read_tls
        read_ahead = self.limits.read_ahead
        budget = _BUDGET if read_tls is None else _TLS_BUDGET
        self._receive_wants_write = False
        try:
            while True:
                target = splitter.target(_DIRECT) if splitter.block is not None else None
                if target is None:
                    room = _SCRATCH
                    size = sock.recv_into(scratch) if read_tls is None else read_tls(room, scratch)
                    last = size
                    self.bytes_in += size
                    splitter.feed(scratch, size)
                else:
                    target = target[:budget]
                    room = len(target)
                    if read_tls is None:
                        size = last = sock.recv_into(target)
                        self.bytes_in += size
                        splitter.advance(size)
                    else:
                        size, last = self._read_records(read_tls, target)
                if not size:
                    if read_tls is not None:
                        self._say_goodbye()  # close_notify is answered
                    self._peer_closed()
                    break
                if splitter.delivered - self._taken >= read_ahead:
                    self._paused = True
                    self._watch()
                    break
                # The socket is empty, or will tell again: events are level-triggered, and what is
                # left of a record is waited for by OpenSSL. To ask once more would cost a system
                # call, over TLS an exception besides.
                if size < room and (read_tls is None or last < _RECORD):
                    break
                budget -= size
                if budget <= 0:
                    self._receive_rest()
                    break
        except (BlockingIOError, ssl.SSLWantReadError):
            pass
        except ssl.SSLWantWriteError:
            self._receive_wants_write = True
            self._watch()
        except ssl.SSLZeroReturnError:
            self._say_goodbye()
            self._peer_closed()
        except ssl.SSLEOFError as error:
            # A stock peer sends no close_notify. A lost connection looks alike before Python 3.12.
            self._peer_closed(error if given_up(sock) else None)
        except CommClosedError as error:
            self.fail(error)
        except MemoryError as error:
            expected = splitter.expected
            self.fail(
                MessageTooLarge(
                    f"message from {self.peer} too large: {expected} bytes, no memory for "
                    f"them ({error}); send less at once",
                    size=expected or 0,
                    limit=self.limits.max_message_size,
                )
            )
        except OSError as error:
            self.fail(explain(error, self.peer, handshaking=not self._established), error)
        if self.readiness.errors_once and not self._closed and not self._paused and is_dead(sock):
            self._rest_due = True  # an error that came with the last bytes: no event will follow
            self._loop.call_soon(self._receive, False)
        self._answering = True
        if in_event and self._send_wants_read:
            self._flush()
            self._watch()
        reader = self._reader
        if reader is not None and self.inbox:
            self._reader = None
            if in_event:
                reader.resume()
            elif not reader.done():
                reader.set_result(None)

    def _read_records(
        self, read: Callable[[int, Buffer], int], target: memoryview
    ) -> tuple[int, int]:
        """Fill `target`; the bytes read in all, and those of the last record.

        Each read gives one record at most, so this is the inner loop of a large transfer.
        """
        room = len(target)
        filled = size = 0
        try:
            while filled < room:
                size = read(room - filled, target[filled:])
                filled += size
                if size < _RECORD:
                    break
        except ssl.SSLWantReadError:
            if not filled:
                raise
            size = 0
        finally:
            self.bytes_in += filled
            self._splitter.advance(filled)
        return filled, size

    def _peer_closed(self, lost: ssl.SSLError | None = None) -> None:
        progress = self._splitter.progress()
        where = ""
        if progress:
            where = f" in the middle of a message, after {progress}"
        elif not self._splitter.delivered:
            where = " before its hello"
        if lost is not None:
            error = CommClosedError(
                f"connection with {self.peer} lost{where}: connection reset by peer, or connection "
                f"timed out (through TLS it cannot be told); see the peer's log"
            )
        else:
            why = f"{where}; see the peer's log" if where else ""
            error = CommClosedError(f"connection with {self.peer} closed by the peer{why}")
            error.clean = not where
        self.fail(error, lost)

    # Sending

    def write_frames(self, frames: Sequence[Buffer], shared: int) -> tuple[int, int | None]:
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
        if self._closed:
            raise self.failure()
        outbox = self._outbox
        before = outbox.queued
        idle = before == outbox.sent
        borrowed = outbox.put(frames, shared)
        size = outbox.queued - before
        if idle:
            if self._answering or borrowed or time.perf_counter() - self._last_send > _CLOSELY:
                self._answering = False
                self._flush()
                if outbox.queued != outbox.sent:
                    self._largest = size
                    self._watch()
            else:
                self._flush_due = True
                self._loop.call_soon(self._flush_now)
        elif self._flush_due:
            if borrowed or outbox.queued - outbox.sent > _TOGETHER:
                self._flush_now()
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
        self._flush()
        if self._closed:
            raise self.failure()
        unsent = before - self._outbox.sent
        if unsent <= self._max_queued + self._largest:
            return
        error = CommClosedError(
            f"comm with {self.peer} closed: {unsent} bytes are queued unsent, the limit is "
            f"{self._max_queued}, and it last took some {behind:.1f} s ago; see whether that "
            f"process is stopped or overloaded, or raise Limits.max_queued"
        )
        error.kind = "slow-consumer"
        self.fail(error)
        if self.tell is not None:
            self.tell(error.kind, error.__str__)
        raise self.failure()

    def write_frame(self, frame: Buffer) -> tuple[int, int | None]:
        """`write_frames` for a message of one frame. A small one, as most are, passes the queue."""
        outbox = self._outbox
        length = len(frame)
        if (
            self._closed
            or outbox.queued != outbox.sent
            or length > self._smallest
            or not (self._answering or time.perf_counter() - self._last_send > _CLOSELY)
        ):
            return self.write_frames([frame], 1)
        data = _ONE_FRAME.pack(16 + length, 1, length) + frame
        size = 24 + length
        sent = 0
        try:
            sent = self._send(data)
        except OSError:  # _flush will meet it again
            pass
        self._answering = False
        self._last_send = time.perf_counter()
        outbox.queued += size
        outbox.sent += sent
        if sent < size:
            outbox.put_back(data[sent:])
            self._largest = size
            self._flush()
            self._watch()
        return size, None

    def _flush_now(self) -> None:
        """Send what was held back for company."""
        if self._flush_due and not self._closed:
            self._flush_due = False
            self._flush()
            if self._outbox:
                self._largest = 0  # none of them is large
                self._watch()

    @property
    def bytes_out(self) -> int:
        """Payload sent so far, without TLS's own."""
        return self._outbox.sent

    async def drain(self, leave: int = 0) -> None:
        """Wait until all that is queued now, but for the last `leave` bytes, is with the kernel.

        Raises `CommClosedError`. Cancelling changes nothing: the bytes still go out.
        """
        if self.closed():
            raise self.failure()
        goal = self._outbox.queued - leave
        if self._outbox.sent < goal:
            future: asyncio.Future[None] = self._loop.create_future()
            self._outbox.wait(goal, future)
            await future

    def _flush(self) -> None:
        """Send what is queued, up to the budget."""
        self._send_wants_read = False
        outbox = self._outbox
        stop = outbox.sent + (_BUDGET if self._tls is None else _TLS_BUDGET)
        gathers = self._gathers
        try:
            while outbox.sent != outbox.queued and outbox.sent < stop:
                if gathers and len(several := outbox.several()) > 1:
                    outbox.advance(self.socket.sendmsg(several))
                else:
                    outbox.advance(self._send(outbox.next()))
        except (BlockingIOError, ssl.SSLWantWriteError):
            pass
        except ssl.SSLWantReadError:
            self._send_wants_read = True
        except OSError as error:
            # The reason may be waiting to be read: a TLS 1.3 server's verdict on our certificate.
            self._paused = False
            self._receive(in_event=False)
            self.fail(explain(error, self.peer, handshaking=not self._established), error)
            return
        self._last_send = time.perf_counter()
        if outbox.waiters:
            outbox.wake()
