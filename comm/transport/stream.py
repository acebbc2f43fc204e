"""The life of one connection that carries messages as lists of frames.

::

            secure()            the peer's hello
    HANDSHAKE ------> HELLO ---------------------> OPEN
        |               |    established()          | finish(), a refused message
        |               |                           v
        |               |                        CLOSING
        +---------------+------------+--------------+
                          close(), fail(), the peer
                                     |
                                     v
                                  CLOSED

A plain connection begins with HELLO. While it is CLOSING, what was accepted is sent, and after it
why it is closed; nothing more can be written, and what arrives is dropped. When the peer is to be
told why its message was refused, a task of the stream does the same.

`Receiver` and `Sender` are its two sides, `Readiness` what the loop waits for on behalf of both;
which of the two may be called when, they say themselves. All of them refer to the stream while it
lives, and let go of it at its end, so that nothing waits for the collector: not the socket, nor
memory of messages.

Errors are `CommClosedError`s: whatever the socket or OpenSSL raises is translated once, here and in
`Handshake`, and kept as `FrameStream.error`. What comes after the end gets a fresh copy of it.
"""

from __future__ import annotations

import asyncio
import enum
import functools
import socket
import ssl
from collections import deque
from collections.abc import Callable
from typing import Any

from ..close_codes import CloseCode, is_sendable
from ..errors import CommClosedError, FramingError
from ..limits import Limits
from ..tls_errors import explain
from ..wire import closing, hello
from ..wire.framing import Buffer, Frame
from .channel import Channel, plain, secure
from .endings import closed_by_peer, closed_by_us
from .goodbye import is_calm, until_acknowledged
from .handshake import Handshake
from .handshake_throttle import HandshakeThrottle
from .liveness import liveness_of
from .pending import too_late
from .readiness import Readiness
from .receiver import Receiver
from .sender import Sender
from .sockets import reset, unread
from .switch_interval import guard_of
from .wakeup import Wakeup

__all__ = ["FrameStream", "State"]


class State(enum.Enum):
    """How far a connection has come; the values are what the peer still owes."""

    HANDSHAKE = "TLS handshake"
    HELLO = "hello"
    OPEN = "nothing"
    CLOSING = "its end"
    CLOSED = "more than nothing"


_BEFORE_OPEN = frozenset({State.HANDSHAKE, State.HELLO})
_OVER = frozenset({State.CLOSING, State.CLOSED})


def _failure(peer: str, error: BaseException | None) -> CommClosedError:
    """Why a stream is closed, as a fresh exception."""
    if isinstance(error, CommClosedError):
        return error.again()
    return closed_by_us(peer, CloseCode.NORMAL, "")


class FrameStream:
    """One connected socket that carries messages as lists of frames.

    Parameters
    ----------
    sock
        Taken over; closed with the stream.
    limits
        Bounds for both directions. Those of the hello hold for the first message.
    peer
        The other side's address, for errors.
    state
        What is expected first.

    Attributes
    ----------
    state : State
    socket : socket.socket
        Over TLS the `ssl.SSLSocket`, from the handshake on.
    error : BaseException or None
        Why it is closed, if not because we closed it.
    local_host_port : tuple
        Our end; as what follows, known once the stream is open.
    tls_facts : dict
        ``peercert``, ``cipher`` and ``protocol`` of a TLS stream; empty for a plain one.
    inbox, arrival, take_frames
        Of the `Receiver`.
    write, write_frames (the same), write_frame, drain
        Of the `Sender`.
    readiness : Readiness
        Of the socket, for who waits for something else before the stream is open.
    agreement : hello.Agreement
        What both sides understand, once they have exchanged hellos.
    greeted : bool
        Whether it has been established.
    when_established : callable or None
        Called once when it is.
    tell : callable or None
        Called with kind and words when a slow consumer is closed; None leaves it to the handler.
    """

    def __init__(
        self, sock: socket.socket, limits: Limits, peer: str, state: State = State.HELLO
    ) -> None:
        sock.setblocking(False)
        self.state = state
        self.socket = sock
        self.limits = limits
        self.peer = peer
        self.error: BaseException | None = None
        self.local_host_port: tuple[str, int] = ("", 0)
        self.tls_facts: dict[str, Any] = {}
        self.tell: Callable[[str, Callable[[], str]], object] | None = None
        self._loop = asyncio.get_running_loop()
        self._guard = guard_of(self._loop)
        self._liveness = liveness_of(self._loop)
        self.readiness = Readiness(sock)
        self._sender = Sender(self, limits, peer, self._loop)
        self._receiver = Receiver(
            self,
            self._sender,
            limits,
            peer,
            self._loop,
            self._guard,
            errors_once=self.readiness.errors_once,
        )
        # Not methods that call these: they are called for every message.
        self.inbox: deque[tuple[list[Frame], int]] = self._receiver.inbox
        self.arrival = self._receiver.arrival
        self.take_frames = self._receiver.take_frames
        self.write: Callable[..., tuple[int, int | None]] = self._sender.write
        self.write_frames: Callable[..., tuple[int, int | None]] = self._sender.write
        self.write_frame: Callable[[Buffer], tuple[int, int | None]] = self._sender.write_frame
        self.drain = self._sender.drain
        self.agreement = hello.Agreement()
        self.greeted = False
        self.when_established: Callable[[], object] | None = None
        self._first_byte: Wakeup | None = None
        self._handshake: Handshake | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._when_closed: Callable[[], object] | None = None
        self._gone: asyncio.Future[None] | None = None
        self._leaving: asyncio.Task[None] | None = None
        self._reads_on = False  # what has arrived, though sending has failed

    # Beginning

    async def peek(self, size: int) -> bytes:
        """Up to `size` of the first bytes, left where they are; none if the peer has ended.

        For before the stream is open or secure. Raises `CommClosedError`.
        """
        while True:
            try:
                return self.socket.recv(size, socket.MSG_PEEK)
            except BlockingIOError:
                pass
            except OSError as error:
                self.lost(error)
                raise self.failure() from error
            self._first_byte = Wakeup(loop=self._loop)
            self.readiness.on_readable(self._first_byte.resume)
            await self._first_byte

    def open(self) -> None:
        """Begin to receive on a plain, connected socket."""
        self._liveness.watch(self, self.limits.keepalive_timeout)
        self._begin(plain(self.socket))

    async def secure(
        self,
        context: ssl.SSLContext,
        *,
        server_side: bool,
        server_hostname: str | None = None,
        throttle: HandshakeThrottle | None = None,
    ) -> None:
        """Shake hands with `context`, then begin to receive. `throttle` says when to go on.

        Raises `HandshakeError` if either side refuses, other `CommClosedError`s if the connection
        is lost. Cancelling closes the stream.
        """
        self.state = State.HANDSHAKE
        tls = self._wrap(context, server_side, server_hostname)
        handshake = self._handshake = Handshake(
            tls, self.readiness, self._guard, self.peer, self.limits.max_handshake_size, throttle
        )
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
        self.state = State.HELLO
        self.tls_facts = handshake.facts
        self._begin(secure(tls))

    def _wrap(
        self, context: ssl.SSLContext, server_side: bool, server_hostname: str | None
    ) -> ssl.SSLSocket:
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
            self._liveness.watch(self, self.limits.keepalive_timeout)
            self.socket = tls = context.wrap_socket(
                self.socket,
                server_side=server_side,
                server_hostname=server_hostname,
                do_handshake_on_connect=False,
                suppress_ragged_eofs=False,
            )
        except (OSError, ValueError) as error:  # the peer has gone already
            self.lost(error)
            raise self.failure() from error
        return tls

    def _begin(self, channel: Channel) -> None:
        self.local_host_port = self.socket.getsockname()[:2]
        self._sender.begin(channel)
        self.readiness.on_readable(self._receiver.receive)
        self._receiver.begin(channel)

    def established(self) -> None:
        """The peer's hello is done: lift the deadline.

        The stream may have closed already, because of what came after the hello.
        """
        self.greeted = True
        if self.state is State.HELLO:
            self.state = State.OPEN
        self._cancel_deadline()
        callback, self.when_established = self.when_established, None
        if callback is not None:
            callback()

    def set_deadline(self, seconds: float) -> None:
        """Fail the stream if it is not `established` within `seconds`; replaces an earlier one."""
        self._cancel_deadline()
        self._deadline = self._loop.call_later(seconds, self._deadline_passed, seconds)

    def _cancel_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _deadline_passed(self, seconds: float) -> None:
        self.fail(too_late(self.peer, self.state.value, seconds))

    # What the loop is to wait for

    def watch(self) -> None:
        """Tell the loop; to be called when a part has changed its mind."""
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

    def _writable(self) -> None:
        self._guard.touch()
        self._sender.flush()
        if self._receiver.wants_write:
            self._receiver.receive(in_event=False)
        self.watch()

    def resume_sending(self) -> None:
        """OpenSSL may have received what it needs in order to send."""
        self._sender.flush()
        self.watch()

    # The end

    def broken(self, error: OSError) -> None:
        """Sending has failed. What has arrived is read first: the end of it may say why."""
        receiver = self._receiver
        if not receiver.paused:
            receiver.receive(in_event=False)
        if self.state is State.OPEN and unread(self.socket):
            # More than a turn's worth, or than the reader wants now. Nothing more can be sent.
            self.state = State.CLOSING
            self.error = explain(error, self.peer, handshaking=False)
            self._reads_on = True
            self._sender.end(functools.partial(_failure, self.peer, self.error))
            self.watch()
        else:
            self.lost(error)

    def ended(self, error: CommClosedError) -> None:
        """The peer has said goodbye."""
        self._sender.answer_goodbye()
        self.fail(error)

    def slow_consumer(self, error: CommClosedError) -> None:
        """The peer takes too little of what is queued; no word would reach it."""
        error.peer = self.peer
        self.close(error)
        if self.tell is not None:
            self.tell(error.kind, error.__str__)

    def lost(self, error: OSError | ValueError) -> None:
        """Close because the connection is of no use any more."""
        handshaking = self.state in _BEFORE_OPEN
        self.fail(explain(error, self.peer, handshaking=handshaking), error)

    def fail(self, error: CommClosedError, cause: BaseException | None = None) -> None:
        """Close because of `error`; it is what readers and writers will get.

        A peer that understands it is told why its message was refused.
        """
        if self.state is State.CLOSED:
            return
        if error.closed_by != "us" and self.agreement.closing:
            said = self._receiver.closing_message()
            if said is not None:
                error, cause = closed_by_peer(self.peer, said), None
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
            self._leaving = self._loop.create_task(self._leave())
        else:
            self.close(error)

    async def read_frames(self) -> list[Frame]:
        """The frames of the next message, in buffers that belong to the caller.

        Raises `CommClosedError` once the peer has closed and every message that arrived whole has
        been read, or at once if we have closed, and `CommBusy` if another task is waiting. A
        cancelled call takes nothing.
        """
        while not self.inbox:
            await self.arrival()
        frames = self.take_frames()
        said = closing.decode(frames) if self.agreement.closing else None
        if said is not None:
            raise self.peer_closed(said)
        return frames

    def peer_closed(self, said: closing.Closing) -> CommClosedError:
        """Close since the peer has; the error to raise for it."""
        error = closed_by_peer(self.peer, said)
        self.ended(error)
        return error.again()

    def _begin_closing(self, error: CommClosedError, reason: str, *, forget: bool) -> bool:
        """Take no more messages in either direction; the last one that is sent says why.

        Returns whether the connection is at rest, so that its close loses nothing.
        """
        calm = is_calm(self.socket) and error.code == CloseCode.NORMAL and not self._sender.outbox
        announced = self.state is State.OPEN and self.agreement.closing
        self.state = State.CLOSING
        self.error = error
        failure = functools.partial(_failure, self.peer, error)
        self.write = self.write_frames = self.write_frame = self._sender.refuse
        last = closing.encode(error.code, reason) if announced else None
        self._receiver.discard(failure, forget=forget)
        self._sender.write_last(last, failure)
        return calm

    async def _leave(self) -> None:
        """End what `fail` has begun."""
        try:
            await asyncio.wait_for(self._say_goodbye(wait=True), self.limits.close_timeout)
        except asyncio.TimeoutError:
            pass
        finally:
            self.close(self.error)

    async def _say_goodbye(self, *, wait: bool) -> None:
        if await self._sender.finish():
            self._sender.say_goodbye()
            self._receiver.bypass_tls()
            if wait and self.state is State.CLOSING:
                self._gone = self._loop.create_future()
                await until_acknowledged(self.socket, self._gone, self.limits.close_timeout)

    def close(self, error: BaseException | None = None) -> None:
        """Close at once; drops what the socket does not take. `error` says why, if not at will.

        The peer learns of what was dropped: the connection is reset.
        """
        if error is None:
            self._sender.let_go()  # it only waited for company
        if self.state is State.CLOSED:
            return
        if self.state is not State.CLOSING or self._reads_on:
            self.error = error
        self.state = State.CLOSED
        error = self.error
        if self._sender.outbox:
            reset(self.socket)
        self._cancel_deadline()
        self._liveness.forget(self)
        self.readiness.stop()
        failure = functools.partial(_failure, self.peer, error)
        if self._first_byte is not None and not self._first_byte.done():
            self._first_byte.set_exception(failure())
        if self._handshake is not None:
            self._handshake.stop(failure())
        self.socket.close()
        self._sender.end(failure)
        self._receiver.end(failure, forget=error is None)
        if self._gone is not None and not self._gone.done():
            self._gone.set_result(None)
        callback, self._when_closed = self._when_closed, None
        if callback is not None:
            callback()

    def closed(self) -> bool:
        """Whether it is over, or about to be; messages that arrived before can be read still."""
        return self.state in _OVER

    def exhausted(self) -> bool:
        """Whether it is closed and every message that arrived has been read."""
        return self.state in _OVER and not self.inbox

    def failure(self) -> CommClosedError:
        """Why it is closed, as a fresh exception."""
        return _failure(self.peer, self.error)

    def when_closed(self, callback: Callable[[], object]) -> None:
        """Call `callback` as soon as the stream is closed; there is one at most."""
        if self.state is State.CLOSED:
            callback()
        else:
            self._when_closed = callback

    def drop(self) -> None:
        """Close from any thread, for finalizers: the collector runs where it likes."""
        try:
            self._loop.call_soon_threadsafe(self.close)
        except RuntimeError:  # the loop is closed; nothing watches the socket any more
            self.socket.close()

    async def finish(self, code: int = CloseCode.NORMAL, reason: str = "") -> None:
        """Send what is queued, say goodbye with `code` and `reason`, close.

        Whatever arrives meanwhile is dropped. Done when the peer's kernel has acknowledged all;
        gives up once it has taken nothing for `Limits.close_timeout`. Never raises; cancelling
        closes at once.
        """
        calm = False
        if not self.closed():
            ours = closed_by_us(self.peer, code, reason)
            calm = self._begin_closing(ours, reason, forget=True)
        try:
            await self._say_goodbye(wait=not calm)
        finally:
            self.close()

    # Figures

    @property
    def bytes_in(self) -> int:
        """Payload received so far, without TLS's own."""
        return self._receiver.bytes_in

    @property
    def bytes_out(self) -> int:
        """Payload sent so far, without TLS's own."""
        return self._sender.outbox.sent
