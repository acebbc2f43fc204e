"""The life of one connection that carries messages as lists of frames.

::

            secure()            the peer's hello
    HANDSHAKE ------> HELLO ---------------------> OPEN
        |               |    established()          |
        +---------------+------------+--------------+
                          close(), fail(), the peer
                                     |
                                     v
                                  CLOSED

A plain connection begins with HELLO. `Receiver` and `Sender` are its two sides, `Readiness` what
the loop waits for on behalf of both; which of the two may be called when, they say themselves. All
of them refer to the stream while it lives, and let go of it at its end, so that nothing waits for
the collector: not the socket, nor memory of messages.

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

from ..errors import CommClosedError
from ..limits import Limits
from ..tls_errors import explain
from ..wire import hello
from ..wire.framing import Frame
from .channel import Channel, plain, secure
from .handshake import Handshake
from .handshake_throttle import HandshakeThrottle
from .liveness import liveness_of
from .pending import too_late
from .readiness import Readiness
from .receiver import Receiver
from .sender import Sender
from .switch_interval import guard_of
from .wakeup import Wakeup

__all__ = ["FrameStream", "State"]


class State(enum.Enum):
    """How far a connection has come; the values are what the peer still owes."""

    HANDSHAKE = "TLS handshake"
    HELLO = "hello"
    OPEN = "nothing"
    CLOSED = "more than nothing"


def _failure(peer: str, error: BaseException | None) -> CommClosedError:
    """Why a stream is closed, as a fresh exception."""
    if isinstance(error, CommClosedError):
        return error.again()
    ours = CommClosedError(f"comm with {peer} is closed: we closed it", peer=peer)
    ours.clean = True
    return ours


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
        ``peercert``, ``cipher``, ``protocol`` and ``holds_gil`` over TLS; empty for a plain one.
    inbox, arrival, take_frames, read_frames
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
        self.read_frames = self._receiver.read_frames
        self.write = self.write_frames = self._sender.write
        self.write_frame = self._sender.write_frame
        self.drain = self._sender.drain
        self.agreement = hello.Agreement()
        self.greeted = False
        self.when_established: Callable[[], object] | None = None
        self._first_byte: Wakeup | None = None
        self._handshake: Handshake | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._when_closed: Callable[[], object] | None = None

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
        self._begin(channel := secure(tls))
        self.tls_facts = {**handshake.facts, "holds_gil": channel.holds_gil}

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
        if self.state is not State.CLOSED:
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
        """Sending has failed. Why may be waiting to be read, as a TLS server's verdict is."""
        self._receiver.paused = False
        self._receiver.receive(in_event=False)
        self.lost(error)

    def ended(self, error: CommClosedError) -> None:
        """The peer has said goodbye."""
        self._sender.answer_goodbye()
        self.fail(error)

    def slow_consumer(self, error: CommClosedError) -> None:
        """The peer takes too little of what is queued."""
        self.fail(error)
        if self.tell is not None:
            self.tell(error.kind, error.__str__)

    def lost(self, error: OSError | ValueError) -> None:
        """Close because the connection is of no use any more."""
        handshaking = self.state is not State.OPEN
        self.fail(explain(error, self.peer, handshaking=handshaking), error)

    def fail(self, error: CommClosedError, cause: BaseException | None = None) -> None:
        """Close because of `error`; it is what readers and writers will get."""
        if not self.closed():
            error.peer = self.peer
            error.__cause__ = cause
            self.close(error)

    def close(self, error: BaseException | None = None) -> None:
        """Close at once; drops what the socket does not take. `error` says why, if not at will."""
        if error is None:
            self._sender.let_go()  # it only waited for company
        if self.state is State.CLOSED:
            return
        self.state = State.CLOSED
        self.error = error
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
        callback, self._when_closed = self._when_closed, None
        if callback is not None:
            callback()

    def closed(self) -> bool:
        """Whether it is over; messages that arrived before can be read still."""
        return self.state is State.CLOSED

    def exhausted(self) -> bool:
        """Whether it is closed and every message that arrived has been read."""
        return self.state is State.CLOSED and not self.inbox

    def failure(self) -> CommClosedError:
        """Why it is closed, as a fresh exception."""
        return _failure(self.peer, self.error)

    def when_closed(self, callback: Callable[[], object]) -> None:
        """Call `callback` as soon as the stream is closed; there is one at most."""
        if self.closed():
            callback()
        else:
            self._when_closed = callback

    def drop(self) -> None:
        """Close from any thread, for finalizers: the collector runs where it likes."""
        try:
            self._loop.call_soon_threadsafe(self.close)
        except RuntimeError:  # the loop is closed; nothing watches the socket any more
            self.socket.close()

    async def finish(self) -> None:
        """Send what is queued, say goodbye, close.

        Gives up once the peer has taken nothing for `Limits.close_timeout`.
        """
        try:
            await self._sender.finish()
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
