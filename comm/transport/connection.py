"""A connected socket with its two directions: what it waits for, and how it ends.

`Receiver` and `Sender` are the directions, `Readiness` what the loop waits for on behalf of both.
All of them refer to the connection while it is alive, and drop the reference at its end, so that
neither the socket nor messages wait for the garbage collector.

While a connection is CLOSING, what was accepted is still sent, and after it the closing message
(`wire.closing`); nothing more can be written, and what arrives is discarded, until the peer's
kernel has acknowledged everything (`goodbye`). `finish` waits for that; after a message that was
refused, a task does.

Errors are `CommClosedError`s: whatever the socket or OpenSSL raises is translated once, here or in
`Handshake`, and kept as `Connection.error`. Later calls raise a fresh copy of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import functools
import socket
from collections import deque
from collections.abc import Callable
from typing import Any

from ..close_codes import CloseCode, is_sendable
from ..errors import CommClosedError, FramingError
from ..kinds import ErrorKind
from ..limits import Limits
from ..tls_errors import explain
from ..wire import closing
from ..wire.framing import Buffer, Frame
from ..wire.hello import Agreement
from .bounded import new_sender
from .end_errors import closed_by_peer, closed_by_us, hides_loss
from .end_watch import EndWatch, receive_rest
from .goodbye import is_calm, until_acknowledged, until_sent
from .handshake import Handshake
from .liveness import liveness_of
from .pending import too_late
from .readiness import Readiness
from .receiver import Receiver
from .sockets import outlive, reset, unread
from .switch_interval import guard_of
from .wakeup import begin_later

__all__ = ["Connection", "State"]


class State(enum.Enum):
    """The state of a connection; the values name what the peer has yet to do."""

    HANDSHAKE = "TLS handshake"
    HELLO = "hello"
    OPEN = "nothing"
    CLOSING = "its end"
    CLOSED = "more than nothing"


_BEFORE_OPEN = frozenset({State.HANDSHAKE, State.HELLO})
_OVER = frozenset({State.CLOSING, State.CLOSED})


def _failure(peer: str, error: BaseException | None) -> CommClosedError:
    """Return the reason why a stream is closed, as a fresh exception."""
    if isinstance(error, CommClosedError):
        return error.again()
    return closed_by_us(peer, CloseCode.NORMAL, "")


class Connection:
    """The part of a `FrameStream` that does not depend on how it began.

    Parameters and attributes are those of `FrameStream`.
    """

    # What most connections never set: less to write for each, and few enough attributes of its own
    # that CPython keeps them in a compact form (30 in 3.11).
    error: BaseException | None = None
    local_host_port: tuple[str, int] = ("", 0)
    tell: Callable[[ErrorKind, Callable[[], str]], object] | None = None
    agreement = Agreement()
    greeted = False
    when_established: Callable[[], object] | None = None
    _first_byte: asyncio.Future[None] | None = None
    _handshake: Handshake | None = None
    _deadline: asyncio.TimerHandle | None = None
    _when_closed: Callable[[], object] | None = None
    _gone: asyncio.Future[None] | None = None
    _leaving: asyncio.Task[None] | None = None
    _send_error: OSError | None = None  # what has arrived is read nevertheless
    _end_watch: EndWatch | None = None  # of those who wait for the end without reading

    def __init__(
        self, sock: socket.socket, limits: Limits, peer: str, state: State = State.HELLO
    ) -> None:
        sock.setblocking(False)
        self.state = state
        self.socket = sock
        self.limits = limits
        self.peer = peer
        self.tls_facts: dict[str, Any] = {}
        self._loop = loop = asyncio.get_running_loop()
        self.began = loop.time()
        self._guard = guard_of(loop)
        self._liveness = liveness_of(loop)
        self.readiness = readiness = Readiness(sock, loop)
        self._sender = sender = new_sender(self, limits, peer, loop)
        self._receiver = receiver = Receiver(
            self,
            sender,
            limits,
            peer,
            loop,
            self._guard,
            errors_once=readiness.errors_once,
        )
        # Bound here, not wrapped in methods: they are called for every message.
        self.inbox: deque[tuple[list[Frame], int]] = receiver.inbox
        self.arrival = receiver.arrival
        self.take_frames = receiver.take_frames
        self.write: Callable[..., tuple[int, int | None]] = sender.write
        self.write_frames: Callable[..., tuple[int, int | None]] = sender.write
        self.write_frame: Callable[[Buffer], tuple[int, int | None]] = sender.write_frame
        self.drain = sender.drain

    def set_deadline(self, seconds: float) -> None:
        """Fail unless `established` is called within `seconds`; replaces an earlier deadline."""
        self._cancel_deadline()
        self._deadline = self._loop.call_later(seconds, self._deadline_passed, seconds)

    def _cancel_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _deadline_passed(self, seconds: float) -> None:
        self.fail(too_late(self.peer, self.state.value, seconds))

    # What the loop waits for

    def watch(self) -> None:
        """Update what the loop waits for; called by receiver and sender after a change."""
        if self.state is State.CLOSED:
            return
        readiness = self.readiness
        receiver, sender = self._receiver, self._sender
        read = not receiver.paused or sender.wants_read
        if read != readiness.reads:
            readiness.on_readable(receiver.receive if read else None)
        write = receiver.wants_write or sender.blocked
        if write != readiness.writes:
            readiness.on_writable(self._writable if write else None)
        if self._end_watch is not None and receiver.paused:
            self._end_watch.look_beyond()

    def _writable(self) -> None:
        self._guard.touch()
        self._sender.flush()
        if self._receiver.wants_write:
            self._receiver.receive(in_event=False)
        self.watch()

    def resume_sending(self) -> None:
        """Retry a send that waited for OpenSSL to receive."""
        self._sender.flush()
        self.watch()

    # The end

    def broken(self, error: OSError) -> None:
        """Stop sending after an error; first receive what has arrived: it may give the reason."""
        announces = self.agreement.closing
        if self.state not in _OVER:
            self._send_error = error
        receive_rest(self._receiver, all_of_it=announces)
        said = announces and closing.found(self.inbox)
        if self.state is State.OPEN and not said and unread(self.socket):
            # More than one receive takes, or than the reader wants now. Go on without sending.
            self.state = State.CLOSING
            self.error = explain(error, self.peer, handshaking=False)
            self._sender.end(functools.partial(_failure, self.peer, self.error))
            self.watch()
            self._tell_end()
        else:
            self.lost(error)

    def ended(self, error: CommClosedError) -> None:
        """Close because the peer has sent end of file."""
        self._sender.answer_eof()
        self.fail(error)

    def cut_off(self, error: CommClosedError) -> None:
        """Close without sending what is queued.

        It is told if it understands closing messages, and takes the message that it has in part
        within `Limits.close_timeout`. Otherwise the connection is reset.
        """
        error.peer = self.peer
        failure = functools.partial(_failure, self.peer, error)
        announced = self.state is State.OPEN and self.agreement.closing
        if announced and (not self._sender.outbox or self._sender.drop_rest(failure)):
            self._begin_closing(error, error.reason, forget=False)
            self._leave_alone()
        else:
            self.close(error)
        self._report(error)

    def _report(self, error: CommClosedError) -> None:
        """Report the error that ends it, once."""
        tell = self.tell
        if tell is not None:
            self.tell = None
            tell(error.kind, error.__str__)

    def lost(self, error: OSError | ValueError) -> None:
        """Close because of an error of the socket or OpenSSL."""
        self.fail(explain(error, self.peer, handshaking=self._may_be_refused()), error)

    def _may_be_refused(self) -> bool:
        """Whether the peer has yet to say hello, and so may still refuse us."""
        greeted = self.inbox or self._receiver.messages >= 0
        return self.state in _BEFORE_OPEN and not greeted

    def fail(self, error: CommClosedError, cause: BaseException | None = None) -> None:
        """Close because of `error`, which readers and writers will get.

        A peer whose message was refused is sent the reason, if it understands closing messages.
        """
        if self.state is State.CLOSED:
            return
        said = None
        if error.closed_by != "us" and self.agreement.closing:
            said = self._receiver.closing_message()
            if said is not None:
                error, cause = closed_by_peer(self.peer, said), None
        if said is None and self._send_error is not None and hides_loss(error, self._send_error):
            cause = self._send_error
            error = explain(cause, self.peer, handshaking=self._may_be_refused())
        error.peer = self.peer
        error.__cause__ = cause
        error.errno = getattr(cause, "errno", None)
        announced = self.agreement.closing and error.closed_by == "us" and is_sendable(error.code)
        if self.state is State.OPEN and announced:
            why = str(error).partition(": ")[2]
            number = self._receiver.messages
            if isinstance(error, FramingError):  # of one that has not arrived
                number += len(self.inbox) + 1
            self._begin_closing(error, f"message {number}: {why}", forget=False)
            self._leave_alone()
        else:
            self.close(error)

    def peer_closed(self, said: closing.Closing) -> CommClosedError:
        """Close after the peer's closing message; return the error to raise for it."""
        error = closed_by_peer(self.peer, said)
        self.inbox.clear()  # nothing follows it
        if self.state is not State.CLOSED:
            self._sender.answer_eof()
            self.close(error)
        return error.again()

    def _begin_closing(self, error: CommClosedError, reason: str, *, forget: bool) -> bool:
        """Accept no more messages in either direction, and queue the closing message.

        Returns whether the connection is at rest, so that closing it at once loses nothing.
        """
        sender = self._sender
        calm = error.code == CloseCode.NORMAL and not sender.outbox and is_calm(self.socket)
        announced = self.state is State.OPEN and self.agreement.closing
        self.state = State.CLOSING
        self.error = error
        failure = functools.partial(_failure, self.peer, error)
        self.write = self.write_frames = self.write_frame = sender.refuse
        last = closing.encode(error.code, reason) if announced else None
        sender.write_last(last, failure)
        if calm and not sender.outbox:
            return True
        self._receiver.discard(failure, forget=forget)
        return False

    def _leave_alone(self) -> None:
        """Finish closing in a task, since nobody waits for it: a message was refused."""
        self._leaving = begin_later(self._loop, self._leave())
        # Not in the coroutine: nothing of it runs if it is cancelled before it has begun.
        self._leaving.add_done_callback(lambda _: self.close(self.error))

    async def _leave(self) -> None:
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._say_goodbye(), self.limits.close_timeout)

    async def _say_goodbye(self) -> None:
        if await until_sent(self._sender, self.socket, self.peer, self.limits.close_timeout):
            self._sender.send_eof()
            self._receiver.bypass_tls()
            if self.state is State.CLOSING:
                if self._gone is None:
                    self._gone = self._loop.create_future()
                await until_acknowledged(self.socket, self._gone, self.limits.close_timeout)

    def close(self, error: BaseException | None = None) -> None:
        """Close at once, by a reset if data is unsent. `error` is why; None if we want to."""
        if self._loop.is_closed():
            self._abandon()
            return
        if error is None:
            self._sender.release()  # messages held back to be coalesced
        if self.state is State.CLOSED:
            return
        if self.state is not State.CLOSING or self._send_error is not None:
            self.error = error
        self.state = State.CLOSED
        self._send_error = None
        error = self.error
        if self._sender.outbox:
            reset(self.socket)
        else:
            outlive(self.socket, self.limits.keepalive_timeout)
        self._cancel_deadline()
        self._liveness.forget(self)
        self.readiness.stop()
        failure = functools.partial(_failure, self.peer, error)
        if self._first_byte is not None and not self._first_byte.done():
            self._first_byte.set_exception(failure())
        handshake, self._handshake = self._handshake, None
        if handshake is not None:
            handshake.stop(failure())
        self.socket.close()
        self._sender.end(failure)
        self._receiver.end(failure, forget=error is None)
        if self._gone is not None and not self._gone.done():
            self._gone.set_result(None)
        callback, self._when_closed = self._when_closed, None
        if callback is not None:
            callback()
        self._tell_end()

    def closed(self) -> bool:
        """Whether it is closed or closing; messages that arrived before can still be read."""
        return self.state in _OVER

    def exhausted(self) -> bool:
        """Whether it is closed and every message that arrived has been read."""
        return self.state in _OVER and not self.inbox

    def failure(self) -> CommClosedError:
        """Return the reason why it is closed, as a fresh exception."""
        return _failure(self.peer, self.error)

    def when_closed(self, callback: Callable[[], object]) -> None:
        """Call `callback` as soon as the stream is closed; replaces an earlier one."""
        if self.state is State.CLOSED:
            callback()
        else:
            self._when_closed = callback

    def _tell_end(self) -> None:
        watch, self._end_watch = self._end_watch, None
        if watch is not None:
            watch.tell()

    def drop(self) -> None:
        """Close, from any thread: for finalizers, which the garbage collector runs anywhere."""
        try:
            self._loop.call_soon_threadsafe(self.close)
        except RuntimeError:
            self._abandon()

    def _abandon(self) -> None:
        """Close the socket alone: the loop is closed, as it may be when a finalizer runs."""
        self.state = State.CLOSED
        if self._sender.outbox:
            reset(self.socket)
        self.socket.close()

    async def finish(self, code: int = CloseCode.NORMAL, reason: str = "") -> None:
        """Send what is queued, then `code` and `reason`, then end of file, and close.

        What arrives meanwhile is dropped. Returns when the peer's kernel has acknowledged all, or
        has taken nothing for `Limits.close_timeout`. A cancelled call closes the stream, dropping
        unsent data.
        """
        if self.state is State.CLOSED:
            return
        try:
            if self.state is not State.CLOSING:
                ours = closed_by_us(self.peer, code, reason)
                if self._begin_closing(ours, reason, forget=True):
                    self._receiver.inbox.clear()
                    self._sender.answer_eof()  # of TLS alone; the rest follows from `close`
                    return
            if self._leaving is not None:
                await asyncio.wait([self._leaving])
            else:
                await self._say_goodbye()
        finally:
            self.close()
