"""`FrameServer` accepts streams, and serves those whose TLS handshake and hello are done in time.

Until then a connection is *pending*. Pending connections are bounded in number and in time, cost
little while they are silent, and are dropped, oldest first, when there are too many or file
descriptors run out. Nothing they do raises here: errors are counted, and logged in one line.

`TCPServer` accepts until the kernel has no more connections, hands each socket over unchecked, and
ignores most errors of `accept`. So the accepting is our own; the rest of the class is Tornado's.
"""

from __future__ import annotations

import asyncio
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
from ..close_codes import CloseCode
from ..errors import CommClosedError, EncryptionRequired
from ..kinds import ErrorKind
from ..leaving import is_failure
from ..limits import DEFAULT_LIMITS, Limits
from ..listener_log import ListenerLog, ListenerStats
from ..tls_errors import TLS_RECORD, named, not_tls
from .acceptor import Acceptor
from .connection import State
from .end_errors import is_broken
from .goodbye import answer_plain
from .greeting import exchange_hellos, is_probe
from .handshake_throttle import HandshakeThrottle
from .inquiry import HTTP_REQUEST
from .pending import Pending, dropped, too_late
from .sockets import INHERITED, descriptor_limit, host_and_port, tune
from .stream import FrameStream

__all__ = ["FrameServer"]

_PEEK = 16  # bytes that identify what a peer speaks

logger = logging.getLogger("sealwire.comm")


class FrameServer(TCPServer):
    """A Tornado `TCPServer` whose streams carry frames, and that withstands attacks.

    A connection is pending until its TLS handshake and hello are done. Then its stream is passed to
    `handle_stream`, which a subclass overrides, as with any `TCPServer`::

        class Echo(FrameServer):
            async def handle_stream(self, stream, address):
                while True:
                    stream.write(await stream.read_frames())

        server = Echo(**security.get_listen_args("scheduler"))
        server.listen(8786, "127.0.0.1")

    Parameters
    ----------
    ssl_options, ssl_context : ssl.SSLContext, optional
        A context that requires a peer certificate, as from ``Security.get_listen_args``; without
        one the connections are plain. The second is the name it has in ``get_listen_args``.
    limits : Limits, optional
        Bounds for the server and every stream.
    require_encryption : bool, optional
        Whether to refuse to work without a context.

    Attributes
    ----------
    scheme : str
        ``tls`` or ``tcp``, for addresses in errors.

    Raises
    ------
    TypeError
        For anything but an SSL context.
    ValueError
        For a context that requires no certificate or allows TLS below 1.2.
    EncryptionRequired
        If there is no context though encryption is required.
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
            self.expect_context(context)
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
        self._acceptor = Acceptor(self._loop, limits.max_accepts, self._admit, self._make_room)
        self._last_address: tuple[str, int] = ("", 0)
        self._pending: Pending[FrameStream] = Pending(limits.handshake_timeout, self._loop.time)
        self._deadline_timer: asyncio.Handle | None = None  # the timer for expired deadlines
        self.tasks: set[asyncio.Task[None]] = set()  # of all connections, pending ones included
        self._throttle = HandshakeThrottle(self._loop, limits.handshake_slice)
        self._log = ListenerLog(self._own_address, limits.max_log_lines, self._pending)

    # To be overridden

    def expect_context(self, context: ssl.SSLContext) -> None:
        """Raise unless the context identifies peers; for a subclass that has another way to.

        Parameters
        ----------
        context : ssl.SSLContext
            What the server was given.

        Raises
        ------
        TypeError, ValueError
            As the class documents them.
        """
        instead = "pass **security.get_listen_args(role)"
        expect_secure(type(self).__name__, context, "server", instead)

    async def greet(self, stream: FrameStream) -> None:
        """Exchange hellos with a stream whose TLS handshake is done; may be overridden.

        Parameters
        ----------
        stream : FrameStream
            Pending until its `established` is called, by `greet` or else by `handle_stream`.

        Raises
        ------
        CommClosedError
            For an error of the peer: counted, and logged in one line. Anything else is logged with
            its traceback. Either closes the stream.
        """
        await exchange_hellos(stream)

    def handle_stream(  # type: ignore[override]
        self, stream: FrameStream, address: tuple[Any, ...]
    ) -> Awaitable[None] | None:
        """Serve a stream whose hellos are exchanged; to be overridden.

        Parameters
        ----------
        stream : FrameStream
            Belongs to the handler, which must close it; an exception closes it.
        address : tuple
            The peer's address as returned by `accept`.
        """
        raise NotImplementedError("override FrameServer.handle_stream")

    # TCPServer's

    def listen(  # type: ignore[override]
        self, port: int, address: str | None = None, backlog: int | None = None, **options: Any
    ) -> None:
        """Bind to every address of the host and begin to accept.

        Parameters
        ----------
        port : int
            0 means any free port.
        address : str, optional
            None or empty means all interfaces.
        backlog : int, optional
            `Limits.backlog` by default.
        **options
            Those of `TCPServer.listen`.

        Raises
        ------
        OSError
            If the address cannot be bound.
        """
        attempts = 5 if port == 0 else 1  # a free port may be taken for the other family
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
        """Begin to accept on listening sockets; `stop` closes them.

        Parameters
        ----------
        sockets : iterable of socket.socket
            Become non-blocking.

        Raises
        ------
        ValueError
            For a socket that does not listen. None is accepted on then.
        """
        added = list(sockets)
        self._acceptor.add(added)
        if INHERITED:
            for listening in added:
                tune(listening, self._limits.keepalive_timeout)
        self._last_address = self.address

    def stop(self) -> None:
        """Stop accepting. Pending connections have `Limits.stop_timeout` to finish their hello."""
        self._acceptor.stop()
        if self._pending:
            self._loop.call_later(self._limits.stop_timeout, self.drop_pending)
        else:
            self.drop_pending()

    # Our own

    def drop_pending(self) -> None:
        """Close all pending connections."""
        for stream in self._pending:
            self._drop(stream, "stopped", "we stopped listening", "dial another address")
        if self._deadline_timer is not None:
            self._deadline_timer.cancel()
            self._deadline_timer = None
        self._log.close()

    @property
    def address(self) -> tuple[str, int]:
        """Host and port; if both families are bound those of IPv4, which more peers can reach."""
        if not self._acceptor.sockets:
            return self._last_address
        chosen = min(self._acceptor.sockets, key=lambda sock: sock.family != socket.AF_INET)
        return host_and_port(chosen.getsockname())

    @property
    def stats(self) -> ListenerStats:
        """A snapshot of the counters."""
        return self._log.stats()

    def _own_address(self) -> str:
        return format_address(self.scheme, *self.address)

    # Accepting

    def _make_room(self, why: str) -> bool:
        """Drop the oldest pending connection, because of `why`; return whether there was one."""
        self._log.starved(f"{why} (this process may open {descriptor_limit()})")
        if not self._pending:
            return False
        self._drop_crowded(next(iter(self._pending)), why)
        return True

    def _admit(self, accepted: socket.socket, address: tuple[Any, ...]) -> None:
        self._log.counts.accepted += 1
        if self._pending:
            self._make_way()
        stream: FrameStream = self._stream_of(accepted, address)
        stream.accepted = True
        deadline = self._pending.add(stream)
        if self._deadline_timer is None:
            self._deadline_timer = self._loop.call_at(deadline, self._drop_late, deadline)
        task = self._loop.create_task(self._serve(stream, address))
        self.tasks.add(task)
        task.add_done_callback(functools.partial(self._served, stream))

    def _stream_of(self, accepted: socket.socket, address: tuple[Any, ...]) -> FrameStream:
        if not INHERITED:
            tune(accepted, self._limits.keepalive_timeout)
        peer = format_address(self.scheme, *host_and_port(address))
        first = State.HELLO if self._context is None else State.HANDSHAKE
        return FrameStream(accepted, self._limits, peer, first)

    def _served(self, stream: FrameStream, task: asyncio.Task[None]) -> None:
        self.tasks.discard(task)
        if task.cancelled():  # perhaps before it began, so that nothing of `_serve` has run
            self._pending.remove(stream)
            stream.close()

    # Dropping connections

    def _make_way(self) -> None:
        """Drop the oldest pending connections if there are too many for another one."""
        most = self._limits.max_pending
        descriptors = descriptor_limit()
        if descriptors is not None:
            most = max(1, min(most, descriptors // 2))
        for oldest in self._pending.surplus(most):
            self._drop_crowded(oldest, f"{most} others are pending, which is the limit")

    def _drop_late(self, planned: float) -> None:
        """Drop connections whose deadline has passed; one timer serves all of them."""
        late, then = self._pending.late(planned)
        self._deadline_timer = (
            None if then is None else self._loop.call_at(then, self._drop_late, then)
        )
        seconds = self._limits.handshake_timeout
        for stream in late:
            self._end(stream, too_late(stream.peer, stream.state.value, seconds))

    def _drop_crowded(self, stream: FrameStream, why: str) -> None:
        owes = stream.state.value
        self._drop(stream, "crowded", f"its {owes} was not done and {why}", "try again")

    def _drop(self, stream: FrameStream, kind: ErrorKind, why: str, remedy: str) -> None:
        self._end(stream, dropped(stream.peer, kind, why, remedy))

    def _end(self, stream: FrameStream, error: CommClosedError) -> None:
        self._pending.remove(stream)
        stream.fail(error)

    # Serving connections

    async def _serve(self, stream: FrameStream, address: tuple[Any, ...]) -> None:
        """Serve one connection from handshake to end."""
        task = asyncio.current_task()
        try:
            try:
                await self._establish(stream)
                await self.greet(stream)
                served = self.handle_stream(stream, address)
                if inspect.isawaitable(served):
                    await served
            except BaseException as error:
                self._pending.remove(stream)
                if stream.greeted and is_failure(error, task):
                    reason = f"its handler raised {type(error).__name__}"
                    await stream.finish(CloseCode.HANDLER_FAILED, reason)
                stream.close()
                raise
        except CommClosedError as error:
            if not stream.greeted and is_probe(stream, error):
                self._log.probed()
            elif not stream.greeted:
                refusal = error
                self._log.refused(error.kind, lambda: str(named(refusal, self._context)))
        except BaseException as error:
            if not is_failure(error, task):
                raise
            if not stream.greeted:
                self._log.refused(
                    "failed", lambda: f"cannot greet {stream.peer}; the next lines say why"
                )
            done = "serve" if stream.greeted else "greet"
            logger.exception("listener on %s: cannot %s %s", self._own_address(), done, stream.peer)
        finally:
            del task  # the traceback of what it raises refers to this frame
            stream.when_established = None  # breaks a reference cycle
            end = stream.error
            if stream.greeted and isinstance(end, CommClosedError) and is_broken(end):
                self._log.broken(end.kind, end.__str__)
            else:
                stream.tell = self._log.broken  # Dask's servers continue in a task of their own

    async def _establish(self, stream: FrameStream) -> None:
        if stream.closed():  # dropped before its task ran
            raise stream.failure()
        stream.when_established = functools.partial(self._established, stream)
        if self._context is None:
            stream.open()
            return
        head = await stream.peek(_PEEK)  # so a silent peer costs no TLS object
        if head and head[:1] != TLS_RECORD:
            answer_plain(stream.socket)
            refusal = not_tls(head, stream.peer)
            if HTTP_REQUEST.startswith(head):  # a peer of ours asks why we are silent
                refusal.kind = "probe"
            raise refusal
        if not head:
            raise CommClosedError(
                f"connection with {stream.peer} closed by the peer before a TLS handshake",
                peer=stream.peer,
            )
        await stream.secure(self._context, server_side=True, throttle=self._throttle)

    def _established(self, stream: FrameStream) -> None:
        self._pending.remove(stream)
        self._log.counts.greeted += 1
