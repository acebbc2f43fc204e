"""The life of one connection that carries messages as lists of frames.

HANDSHAKE, HELLO, OPEN, CLOSING and CLOSED are its states; docs/architecture.md draws the
transitions. A plain connection begins with HELLO. How a connection begins is here, the rest in
`connection`.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket
import ssl
import sys
from collections import deque
from typing import cast

from .. import statistics
from ..arguments import weakness
from ..errors import CommClosedError
from ..limits import Limits
from ..signals import warn_of_sigpipe
from ..tls_errors import too_weak
from ..wire import closing
from ..wire.framing import Frame
from .channel import Channel, plain, secure
from .connection import Connection, State
from .end_errors import closed_by_us, inherited, is_broken, peer_revoked
from .end_watch import EndWatch
from .handshake import Handshake
from .handshake_throttle import HandshakeThrottle
from .openssl import forgetter
from .sockets import host_and_port
from .wakeup import resume

__all__ = ["FrameStream"]


class FrameStream(Connection):
    """A connected socket that carries messages as lists of frames.

    Parameters
    ----------
    sock : socket.socket
        Owned, and closed, by the stream.
    limits : Limits
        Bounds for both directions; the first message is bounded as a hello.
    peer : str
        The other side's address, for errors.
    state : State
        The initial state.

    Attributes
    ----------
    state : State
    socket : socket.socket
        Over TLS the `ssl.SSLSocket`, from the handshake on.
    error : BaseException or None
        Why it is closed; None if we closed it without saying so.
    began : float
        The event loop's time when the socket was connected.
    local_host_port : tuple
        Address of our end, known once the stream is open.
    tls_facts : dict
        ``peercert``, ``cipher`` and ``protocol`` of a TLS stream; empty for a plain one.
    inbox, arrival, take_frames
        Those of `Receiver`.
    write, write_frames (the same), write_frame, drain
        Those of `Sender`.
    readiness : Readiness
        Of the socket, for waiting before the stream is open.
    agreement : hello.Agreement
        The capabilities both sides share, once hellos are exchanged.
    greeted : bool
        Whether `established` was called.
    accepted : bool
        Whether the peer has dialled, so that a listener of ours has accepted it.
    when_established : callable or None
        Called once, when it is.
    tell : callable or None
        Called once with kind and text: when a peer is cut off, and on an accepted stream whatever
        error ends it. None leaves it to the handler.
    """

    accepted = False
    _counted = True  # whether its numbers are part of the process's; it has none yet

    def __init__(
        self, sock: socket.socket, limits: Limits, peer: str, state: State = State.HELLO
    ) -> None:
        super().__init__(sock, limits, peer, state)
        warn_of_sigpipe()
        statistics.began(self)
        self._counted = False

    # Beginning

    async def peek(self, size: int) -> bytes:
        """Return up to `size` of the first bytes without consuming them; empty at end of file.

        For use before `open` or `secure`. Raises `CommClosedError` if the connection fails.
        """
        while True:
            try:
                return self.socket.recv(size, socket.MSG_PEEK)
            except BlockingIOError:
                pass
            except OSError as error:
                self.lost(error)
                raise self.failure() from error
            self._first_byte = self._loop.create_future()
            self.readiness.on_readable(functools.partial(resume, self._first_byte))
            await self._first_byte

    def open(self) -> None:
        """Start receiving on a plain, connected socket."""
        self._liveness.watch(self, self.limits.keepalive_timeout)
        self._begin(plain(self.socket))

    async def secure(
        self,
        context: ssl.SSLContext,
        *,
        server_side: bool,
        server_hostname: str | None = None,
        throttle: HandshakeThrottle | None = None,
        outlives: bool = False,
    ) -> None:
        """Do the TLS handshake with `context`, scheduled by `throttle` if given; start receiving.

        Raises
        ------
        HandshakeError
            If either side refuses.
        CommClosedError
            If the connection is lost otherwise.

        Notes
        -----
        A cancelled call closes the stream, but with `outlives` the handshake goes on: then repeat
        the call, or close the stream.
        """
        handshake = self._handshake
        if handshake is None:
            if self.closed():
                raise self.failure()
            self.state = State.HANDSHAKE
            tls = self._wrap(context, server_side, server_hostname)
            most = self.limits.max_handshake_size
            handshake = Handshake(tls, self.readiness, self._guard, self.peer, most, throttle)
            self._handshake = handshake
        try:
            await handshake.finish()
        except asyncio.CancelledError:
            if not outlives:
                self.close()
            raise
        except CommClosedError as error:
            self._handshake = None
            self.fail(error, error.__cause__)
            raise self.failure() from error.__cause__
        self._handshake = None
        if self.closed():
            raise self.failure()
        self.state = State.HELLO
        channel = secure(cast(ssl.SSLSocket, self.socket), handshake.pointer, handshake.options)
        self.tls_facts = {**handshake.facts, "holds_gil": channel.holds_gil}
        self._begin(channel)
        follow = getattr(self.socket, "when_revoked", None)
        if follow is not None:
            follow(self.revoked)

    def _wrap(
        self, context: ssl.SSLContext, server_side: bool, server_hostname: str | None
    ) -> ssl.SSLSocket:
        try:
            # If the peer has gone, wrap_socket would raise an error that holds the socket.
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
        if not getattr(type(context), "admits_strangers", False):
            why = weakness(context, "server" if server_side else "client")
            if why is not None:  # since it was given to us
                self.fail(too_weak(self.peer, why))
                raise self.failure()
        try:
            self._liveness.watch(self, self.limits.keepalive_timeout)
            self.socket = tls = context.wrap_socket(
                self.socket,
                server_side=server_side,
                server_hostname=server_hostname,
                do_handshake_on_connect=False,
                suppress_ragged_eofs=False,
            )
        except (OSError, ValueError) as error:  # the peer has gone meanwhile
            self.lost(error)
            raise self.failure() from error
        return tls

    def _begin(self, channel: Channel) -> None:
        self.local_host_port = host_and_port(self.socket.getsockname())
        self._sender.begin(channel)
        self.readiness.on_readable(self._receiver.receive)
        self._receiver.begin(channel)

    def established(self) -> None:
        """Note that the peer's hello is done: cancel the deadline.

        The stream may have closed already, because of data after the hello.
        """
        self.greeted = True
        statistics.greeted(self, self._loop.time() - self.began)
        if self.state is State.HELLO:
            self.state = State.OPEN
        self._cancel_deadline()
        callback, self.when_established = self.when_established, None
        if callback is not None:
            callback()

    async def read_frames(self) -> list[Frame]:
        """Read the frames of the next message, in buffers that belong to the caller.

        Raises
        ------
        CommClosedError
            Once the peer has closed and every complete message has been read, or at once if we
            have closed.
        CommBusy
            If another task is reading.

        Notes
        -----
        A cancelled call consumes nothing.
        """
        while not self.inbox:
            await self.arrival()
        frames = self.take_frames()
        said = closing.decode(frames) if self.agreement.closing else None
        if said is not None:
            raise self.peer_closed(said)
        return frames

    def revoked(self, why: str) -> None:
        """End it, from any thread: a certificate of the peer's has been revoked."""
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._end_revoked, why)

    def _end_revoked(self, why: str) -> None:
        if self.state is State.CLOSED:
            return
        self._receiver.inbox.clear()  # nothing more of it is read
        if self.state is State.CLOSING:
            self.close(self.error)
        else:
            self.cut_off(peer_revoked(self.peer, why))

    def leave_to_parent(self) -> None:
        """In a forked child: refuse all use from now on.

        Connection, registrations with the event loop, and the keys of TLS are our parent's: records
        of two processes would share their numbers, and so tell what they encrypt. Only the child's
        descriptor is closed.
        """
        if self.state is State.CLOSED:
            return
        self.state, self.error = State.CLOSED, inherited(self.peer)
        self._counted = True
        self.readiness.reads = self.readiness.writes = False
        self._first_byte = self._handshake = self._send_error = None
        self.socket.close()
        # Its waiters may be another thread's, which is not here; asyncio's debug mode says so.
        with contextlib.suppress(RuntimeError):
            self._sender.end(self.failure)
        with contextlib.suppress(RuntimeError):
            self._receiver.end(self.failure, forget=True)

    # For those who do not read

    def end(self) -> asyncio.Future[None]:
        """Return a future that is done once nobody is at the other end, or we have closed.

        Unread messages do not delay it. With more of them than `Limits.read_ahead`, the peer's end
        is noticed once it has reached our kernel; then the rest is received, which the kernel's
        buffer bounds.
        """
        ended: asyncio.Future[None] = self._loop.create_future()
        if self.state is State.CLOSED or self._send_error is not None:
            ended.set_result(None)
            return ended
        if self._end_watch is None:
            self._end_watch = EndWatch(self.socket, self._receiver, self._loop)
        self._end_watch.add(ended)
        return ended

    def end_reading(self, code: int, reason: str) -> None:
        """Let reads end from now on as if we had closed, while writes go on; see `finish`."""
        if self.state is State.OPEN:
            self.inbox = deque()  # not the receiver's any more
            ours = closed_by_us(self.peer, code, reason)
            self._receiver.end_reading(ours.again, False)

    # Counters

    def close(self, error: BaseException | None = None) -> None:
        """Close at once, see `Connection.close`, and count it."""
        super().close(error)
        if self.tls_facts:
            forgetter()()  # what `ssl` leaves of it would meet others
        if not self._counted and self.state is State.CLOSED:
            broken = self._count_end()
            if broken is not None and self.accepted:
                self._report(broken)

    def __del__(self) -> None:
        # Never closed if its event loop has ended before.
        if not self._counted and not sys.is_finalizing():
            self._count_end()

    def _count_end(self) -> CommClosedError | None:
        """Add its numbers to the process's; return the error if it is a comm that has broken."""
        self._counted = True
        end = self.error
        if self.greeted and isinstance(end, CommClosedError) and is_broken(end):
            statistics.ended(self, end.kind)
            return end
        statistics.ended(self)
        return None

    def is_open(self) -> bool:
        """Whether hellos are exchanged, and neither side has closed."""
        return self.state is State.OPEN

    def traffic(self) -> statistics.Traffic:
        """Return what it has carried, and what is queued."""
        receiver, sender = self._receiver, self._sender
        read, written = receiver.messages, sender.messages  # -1 before the hello
        outbox = sender.outbox
        sent = outbox.sent
        return (
            receiver.bytes_in,
            sent + sender.bypassed,
            read if read > 0 else 0,
            written if written > 0 else 0,
            outbox.queued - sent,
        )

    @property
    def bytes_in(self) -> int:
        """Payload bytes received so far, without TLS overhead."""
        return self._receiver.bytes_in

    @property
    def bytes_out(self) -> int:
        """Payload bytes sent so far, without TLS overhead."""
        return self._sender.outbox.sent + self._sender.bypassed

    @property
    def bytes_queued(self) -> int:
        """Bytes that are written and not with the kernel yet."""
        outbox = self._sender.outbox
        return outbox.queued - outbox.sent
