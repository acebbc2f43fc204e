"""`FrameServer` accepts streams, and lets through those whose TLS and hello are done in time.

Whoever connects is *pending* until then. Pending connections are bounded in number and in time,
cost little while they are silent, and give way, the oldest first, when there are too many or when
descriptors run out. Nothing they do raises anything here: they are counted, and logged in a line.

A `TCPServer` accepts until the kernel has nothing more, hands each socket over as it is, and lets
errors of `accept` pass. So what accepts is our own; the rest of the class is Tornado's.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import inspect
import logging
import socket
import ssl
from collections.abc import Awaitable, Iterable
from typing import Any

from tornado.netutil import bind_sockets
from tornado.tcpserver import TCPServer

from ..addressing import format_address
from ..arguments import expect_secure
from ..errors import CommClosedError, EncryptionRequired
from ..limits import DEFAULT_LIMITS, Limits
from ..listener_log import ListenerLog, ListenerStats
from ..tls_errors import TLS_RECORD, named, not_tls
from .greeting import exchange_hellos
from .handshake_throttle import HandshakeThrottle
from .pending import Pending, dropped, too_late
from .readiness import Readiness
from .sockets import INHERITED, STARVED, descriptor_limit, has_caller, tune
from .stream import FrameStream, State

__all__ = ["FrameServer"]

_REST = 0.1  # seconds without accepting when there is nothing left to accept with
_PEEK = 16  # bytes that tell what a peer speaks
# For peers without TLS, which need 8 bytes to see what it is: protocol_version and close_notify.
_ALERT = b"\x15\x03\x01\x00\x02\x02\x46" + b"\x15\x03\x01\x00\x02\x01\x00"

logger = logging.getLogger("sealwire.comm")


class FrameServer(TCPServer):
    """A Tornado `TCPServer` whose streams carry frames, and that holds under attack.

    Who connects is pending until TLS and hello are done. Then its stream arrives at
    `handle_stream`, which a subclass overrides, as with any `TCPServer`::

        class Echo(FrameServer):
            async def handle_stream(self, stream, address):
                while True:
                    stream.write(await stream.read_frames())

        server = Echo(**security.get_listen_args("scheduler"))
        server.listen(8786, "127.0.0.1")

    Parameters
    ----------
    ssl_options
        A context that demands a certificate of the peer, as `Security.get_listen_args` gives;
        without one the links are plain. Also as ``ssl_context``, the name that it has there.
    limits
        For every stream.
    require_encryption
        Refuse to go without a context; what `get_listen_args` gives besides.

    Raises `TypeError` for what is no context, `ValueError` for one that does not demand a
    certificate or speaks TLS before 1.2, `EncryptionRequired`.

    Attributes
    ----------
    scheme : str
        Of the addresses in errors: ``tls`` or ``tcp``.
    """

    def __init__(
        self,
        ssl_options: ssl.SSLContext | None = None,
        limits: Limits = DEFAULT_LIMITS,
        *,
        ssl_context: ssl.SSLContext | None = None,
        require_encryption: bool | None = False,
    ) -> None:
        context = ssl_options if ssl_context is None else ssl_context
        if context is not None:
            instead = "pass **security.get_listen_args(role)"
            expect_secure(type(self).__name__, context, "server", instead)
        elif require_encryption:
            raise EncryptionRequired(
                f"refusing {type(self).__name__} without an ssl_context: encryption is required; "
                f"give the Security a CA, certificate and key for this role"
            )
        super().__init__(ssl_options=context)
        self._context = context
        self.scheme = "tcp" if context is None else "tls"
        self._limits = limits
        self._loop = asyncio.get_running_loop()
        self._listening: list[socket.socket] = []
        self._last_address: tuple[str, int] = ("", 0)
        self._accepting: list[Readiness] = []
        self._resting: asyncio.TimerHandle | None = None
        self._pending: Pending[FrameStream] = Pending(limits.handshake_timeout, self._loop.time)
        self._look: asyncio.Handle | None = None  # for those that are late
        self._tasks: set[asyncio.Task[None]] = set()
        self._throttle = HandshakeThrottle(self._loop, limits.handshake_slice)
        self._log = ListenerLog(self._own_address, limits.max_log_lines)

    # To be overridden

    async def greet(self, stream: FrameStream) -> None:
        """Exchange hellos with a stream whose TLS is done.

        It is pending until it is `established`; where that is not the doing of `greet`, it must be
        that of `handle_stream`. A `CommClosedError` is the peer's doing, counted and logged in a
        line; anything else is logged with its traceback. Either closes the stream.
        """
        await exchange_hellos(stream)

    def handle_stream(  # type: ignore[override]
        self, stream: FrameStream, address: tuple[Any, ...]
    ) -> Awaitable[None] | None:
        """Called with each stream that has been greeted, and the peer's address as of `accept`.

        The stream is the handler's from now on, also to close; an error that it raises closes it.
        """
        raise NotImplementedError("override FrameServer.handle_stream")

    # TCPServer's

    def listen(  # type: ignore[override]
        self, port: int, address: str | None = None, backlog: int | None = None, **options: Any
    ) -> None:
        """Bind to every address of the host and begin to accept.

        No or an empty address means every interface, port 0 any free one; `options` are those of
        `TCPServer.listen`. Raises `OSError`.
        """
        attempts = 5 if port == 0 else 1  # a free port may be taken for the other family meanwhile
        if backlog is None:
            backlog = self._limits.backlog
        for attempt in range(attempts):
            try:
                sockets = bind_sockets(port, address or None, backlog=backlog, **options)
                break
            except OSError as error:
                if error.errno != errno.EADDRINUSE or attempt == attempts - 1:
                    raise
        self.add_sockets(sockets)

    def add_sockets(self, sockets: Iterable[socket.socket]) -> None:
        """Begin to accept on these, which listen already; they are closed by `stop`."""
        added = list(sockets)
        if INHERITED:
            for listening in added:
                tune(listening, self._limits.keepalive_timeout)
        self._listening += added
        if self._resting is None:
            self._accept_on(added)

    def stop(self) -> None:
        """Stop accepting. Streams whose hello is under way have `Limits.stop_timeout` for it."""
        self._rest(None)
        self._last_address = self.address
        sockets, self._listening = self._listening, []
        for listening in sockets:
            listening.close()
        if self._pending:
            self._loop.call_later(self._limits.stop_timeout, self.drop_pending)
        else:
            self.drop_pending()

    # Our own

    def drop_pending(self) -> None:
        """Close the streams whose hello is not done."""
        for stream in self._pending:
            self._drop(stream, "stopped", "we stopped listening", "dial another address")
        if self._look is not None:
            self._look.cancel()
            self._look = None
        self._log.close()

    @property
    def address(self) -> tuple[str, int]:
        """Host and port; where both families are bound those of IPv4, which more peers can use."""
        if not self._listening:
            return self._last_address
        chosen = min(self._listening, key=lambda sock: sock.family != socket.AF_INET)
        host, port = chosen.getsockname()[:2]
        return host, port

    @property
    def stats(self) -> ListenerStats:
        """The counters as they are now."""
        return self._log.stats(len(self._pending))

    def _own_address(self) -> str:
        return format_address(self.scheme, *self.address)

    # Accepting

    def _accept_on(self, sockets: Iterable[socket.socket]) -> None:
        for listening in sockets:
            readiness = Readiness(listening)
            readiness.on_readable(functools.partial(self._accept, listening))
            self._accepting.append(readiness)

    def _rest(self, seconds: float | None) -> None:
        """Leave the listening sockets alone, for good if without a time."""
        while self._accepting:
            self._accepting.pop().stop()
        if self._resting is not None:
            self._resting.cancel()
            self._resting = None
        if seconds is not None:
            self._resting = self._loop.call_later(seconds, self._rested)

    def _rested(self) -> None:
        self._resting = None
        self._accept_on(self._listening)

    def _accept(self, listening: socket.socket) -> None:
        for _ in range(self._limits.max_accepts):
            try:
                accepted, address = listening.accept()
            except BlockingIOError:
                return
            except OSError as error:
                # Others than STARVED tell of connections that broke in the queue.
                if error.errno in STARVED and not self._make_room(listening, error):
                    return
            else:
                self._admit(accepted, address)

    def _make_room(self, listening: socket.socket, error: OSError) -> bool:
        """Whether accepting may be tried again at once."""
        if not has_caller(listening):
            return False
        why = (error.strerror or str(error)).lower()
        self._log.starved(f"{why} (this process may open {descriptor_limit()})")
        if not self._pending:
            self._rest(_REST)
            return False
        self._make_way(next(iter(self._pending)), why)
        return True

    def _admit(self, accepted: socket.socket, address: tuple[Any, ...]) -> None:
        self._log.accepted += 1
        if not INHERITED:
            tune(accepted, self._limits.keepalive_timeout)
        most = self._limits.max_pending
        descriptors = descriptor_limit()
        if descriptors is not None:
            most = max(1, min(most, descriptors // 2))
        for oldest in self._pending.surplus(most):
            self._make_way(oldest, f"{most} others are pending, which is the limit")
        peer = format_address(self.scheme, *address[:2])
        first = State.HELLO if self._context is None else State.HANDSHAKE
        stream = FrameStream(accepted, self._limits, peer, first)
        deadline = self._pending.add(stream)
        if self._look is None:
            self._look = self._loop.call_at(deadline, self._drop_late, deadline)
        task = self._loop.create_task(self._serve(stream, address))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # Letting go

    def _drop_late(self, planned: float) -> None:
        """Drop those whose time is over; a timer for each would cost more than its hello."""
        late, then = self._pending.late(planned)
        self._look = None if then is None else self._loop.call_at(then, self._drop_late, then)
        seconds = self._limits.handshake_timeout
        for stream in late:
            self._end(stream, too_late(stream.peer, stream.state.value, seconds))

    def _make_way(self, stream: FrameStream, why: str) -> None:
        owes = stream.state.value
        self._drop(stream, "crowded", f"its {owes} was not done and {why}", "try again")

    def _drop(self, stream: FrameStream, kind: str, why: str, remedy: str) -> None:
        self._end(stream, dropped(stream.peer, kind, why, remedy))

    def _end(self, stream: FrameStream, error: CommClosedError) -> None:
        self._pending.remove(stream)
        stream.fail(error)

    # Letting in

    async def _serve(self, stream: FrameStream, address: tuple[Any, ...]) -> None:
        """The life of a connection."""
        try:
            try:
                await self._let_in(stream)
                await self.greet(stream)
                served = self.handle_stream(stream, address)
                if inspect.isawaitable(served):
                    await served
            except BaseException:
                self._pending.remove(stream)
                stream.close()
                raise
        except CommClosedError as error:
            if not stream.greeted and self._only_knocked(stream, error):
                self._log.knocked()
            elif not stream.greeted:
                refusal = error
                self._log.refused(error.kind, lambda: str(named(refusal, self._context)))
        except Exception:
            if not stream.greeted:
                self._log.refused(
                    "failed", lambda: f"cannot greet {stream.peer}; the next lines say why"
                )
            done = "serve" if stream.greeted else "greet"
            logger.exception("listener on %s: cannot %s %s", self._own_address(), done, stream.peer)
        finally:
            stream.when_established = None  # it refers to the stream
            end = stream.error
            if stream.greeted and isinstance(end, CommClosedError) and not end.clean:
                self._log.broken(end.kind, end.__str__)
            stream.tell = self._log.broken  # Dask's servers go on with it in a task of theirs

    async def _let_in(self, stream: FrameStream) -> None:
        if stream.closed():  # dropped before its turn came
            raise stream.failure()
        stream.when_established = functools.partial(self._established, stream)
        if self._context is None:
            stream.open()
            return
        try:
            head = await stream.peek(_PEEK)  # so a silent peer costs no TLS object
        except CommClosedError as error:
            if error.kind == "lost":
                error.kind = "probe"
            raise
        if head and head[:1] != TLS_RECORD:
            _answer_plain(stream.socket)
            raise not_tls(head, stream.peer)
        if not head:
            gone = CommClosedError(
                f"connection with {stream.peer} closed by the peer before a TLS handshake",
                peer=stream.peer,
            )
            gone.kind = "probe"
            raise gone
        await stream.secure(self._context, server_side=True, throttle=self._throttle)

    def _only_knocked(self, stream: FrameStream, error: CommClosedError) -> bool:
        """Whether a peer has come and gone without a byte, as probes of liveness do."""
        plain = self._context is None and error.kind == "lost" and not stream.bytes_in
        return plain or error.kind == "probe"

    def _established(self, stream: FrameStream) -> None:
        self._pending.remove(stream)
        self._log.greeted += 1


def _answer_plain(sock: socket.socket) -> None:
    """Tell a peer without TLS that this port has it.

    Reading first keeps the answer alive: the kernel resets a connection that is closed with bytes
    unread.
    """
    with contextlib.suppress(OSError):
        for _ in range(16):
            if len(sock.recv(65536)) < 65536:
                break
        sock.send(_ALERT)
        sock.shutdown(socket.SHUT_WR)
