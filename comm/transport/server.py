"""`FrameServer` accepts streams, and lets through those whose TLS and hello are done in time.

Whoever connects is *pending* until then. Pending connections are bounded in number and in time,
cost little while they are silent, and give way, the oldest first, when there are too many or when
descriptors run out. Nothing they do raises anything here: they are counted, and logged in a line.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import logging
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from tornado.netutil import bind_sockets

from ..addressing import format_address
from ..errors import CommClosedError
from ..limits import Limits
from ..listener_log import ListenerStats, Watch
from ..tls_errors import TLS_RECORD, explain, named, not_tls
from .handshake_throttle import Turns
from .readiness import Readiness
from .sockets import INHERITED, STARVED, descriptor_limit, has_caller, tune
from .stream import FrameStream
from .wakeup import Wakeup

__all__ = ["FrameServer", "serve"]

_REST = 0.1  # seconds without accepting when there is nothing left to accept with
_HELD = 0.5  # seconds by which a timer is late only if something has held the event loop
_PEEK = 16  # bytes that tell what a peer speaks
# For peers without TLS, which need 8 bytes to see what it is: protocol_version and close_notify.
_ALERT = b"\x15\x03\x01\x00\x02\x02\x46" + b"\x15\x03\x01\x00\x02\x01\x00"

logger = logging.getLogger("sealwire.comm")


class _Visitor:
    """A pending connection."""

    __slots__ = ("deadline", "opening", "stage", "stream")

    def __init__(self, stream: FrameStream, stage: str, deadline: float) -> None:
        self.stream = stream
        self.stage = stage  # what it still owes
        self.deadline = deadline  # by the loop's clock
        self.opening: Wakeup | None = None  # while its first byte is awaited


class FrameServer:
    """Accepts on bound sockets; hands over each stream once TLS and hello are done.

    Parameters
    ----------
    scheme
        Of the addresses in errors.
    greet
        Called with a new stream; returns when its hello is done. Until then the stream is pending.
        A `CommClosedError` from it is the peer's doing; anything else is logged with its
        traceback. Either closes the stream.
    attend
        Called with what `greet` returned; its errors are its own business.
    context
        For TLS.
    """

    def __init__(
        self,
        scheme: str,
        limits: Limits,
        greet: Callable[[FrameStream], Awaitable[Any]],
        attend: Callable[[Any], Awaitable[None]],
        context: ssl.SSLContext | None = None,
    ) -> None:
        self._scheme = scheme
        self._limits = limits
        self._greet = greet
        self._attend = attend
        self._context = context
        self._loop = asyncio.get_running_loop()
        self._sockets: list[socket.socket] = []
        self._accepting: list[Readiness] = []
        self._resting: asyncio.TimerHandle | None = None
        self._visitors: dict[FrameStream, _Visitor] = {}  # the oldest first
        self._next_deadline: asyncio.TimerHandle | None = None  # of the oldest, or of one before
        self._tasks: set[asyncio.Task[None]] = set()
        self._turns = Turns(self._loop, limits.handshake_slice)
        self._watch = Watch(self._own_address, limits.max_log_lines)
        self.address: tuple[str, int] = ("", 0)

    @property
    def stats(self) -> ListenerStats:
        """The counters as they are now."""
        return self._watch.stats(len(self._visitors))

    def add_sockets(self, sockets: Iterable[socket.socket]) -> None:
        """Begin to accept on these, which listen already; they are closed by `stop`."""
        self._sockets += sockets
        if INHERITED:
            for listening in self._sockets:
                tune(listening, self._limits.keepalive_timeout)
        self._begin()

    def stop(self) -> None:
        """Stop accepting. Streams whose hello is under way have `Limits.stop_timeout` for it."""
        self._rest(None)
        sockets, self._sockets = self._sockets, []
        for listening in sockets:
            listening.close()
        if self._visitors:
            self._loop.call_later(self._limits.stop_timeout, self.drop_pending)
        else:
            self.drop_pending()

    def drop_pending(self) -> None:
        """Close the streams whose hello is not done."""
        for visitor in list(self._visitors.values()):
            self._drop(visitor, "stopped", "we stopped listening", "dial another address")
        if self._next_deadline is not None:
            self._next_deadline.cancel()
            self._next_deadline = None
        self._watch.close()

    def _own_address(self) -> str:
        return format_address(self._scheme, *self.address)

    # Accepting

    def _begin(self) -> None:
        self._resting = None
        for listening in self._sockets:
            readiness = Readiness(listening)
            readiness.on_readable(functools.partial(self._accept, listening))
            self._accepting.append(readiness)

    def _rest(self, seconds: float | None) -> None:
        """Leave the listening sockets alone, for good if without a time."""
        if self._resting is None:
            while self._accepting:
                self._accepting.pop().stop()
        else:
            self._resting.cancel()
            self._resting = None
        if seconds is not None:
            self._resting = self._loop.call_later(seconds, self._begin)

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
        self._watch.starved(f"{why} (this process may open {descriptor_limit()})")
        if not self._visitors:
            self._rest(_REST)
            return False
        self._drop_oldest(why)
        return True

    def _admit(self, accepted: socket.socket, address: tuple[Any, ...]) -> None:
        self._watch.accepted += 1
        if not INHERITED:
            tune(accepted, self._limits.keepalive_timeout)
        most = self._limits.max_pending
        descriptors = descriptor_limit()
        if descriptors is not None:
            most = max(1, min(most, descriptors // 2))
        while len(self._visitors) >= most:
            self._drop_oldest(f"{most} others are pending, which is the limit")
        peer = format_address(self._scheme, *address[:2])
        stream = FrameStream(accepted, self._limits, peer)
        deadline = self._loop.time() + self._limits.handshake_timeout
        stage = "hello" if self._context is None else "TLS handshake"
        visitor = self._visitors[stream] = _Visitor(stream, stage, deadline)
        if self._next_deadline is None:
            self._next_deadline = self._loop.call_at(deadline, self._drop_late)
        task = self._loop.create_task(self._receive(visitor))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # Letting go

    def _drop_late(self) -> None:
        """Drop those whose time is over; a timer for each would cost more than its hello.

        If the loop was held meanwhile, what they have sent is looked at first.
        """
        now = self._loop.time()
        timer, self._next_deadline = self._next_deadline, None
        held = now - timer.when() if timer is not None else 0.0
        if held > _HELD:
            grace = min(held, self._limits.handshake_timeout / 4)
            self._next_deadline = self._loop.call_later(grace, self._drop_late)
            return
        for visitor in list(self._visitors.values()):
            if visitor.deadline > now:
                self._next_deadline = self._loop.call_at(visitor.deadline, self._drop_late)
                break
            self._drop(
                visitor,
                "timeout",
                f"no {visitor.stage} within {self._limits.handshake_timeout:g} s",
                "check that the other side speaks the same protocol and is not overloaded",
            )

    def _drop_oldest(self, why: str) -> None:
        oldest = next(iter(self._visitors.values()))
        self._drop(oldest, "crowded", f"its {oldest.stage} was not done and {why}", "try again")

    def _drop(self, visitor: _Visitor, kind: str, why: str, remedy: str) -> None:
        stream = visitor.stream
        error = CommClosedError(
            f"connection with {stream.peer} dropped: {why}; {remedy}", peer=stream.peer
        )
        error.kind = kind
        self._forget(visitor)
        stream.fail(error)

    def _forget(self, visitor: _Visitor) -> None:
        """It is not pending any more, whatever becomes of it."""
        self._visitors.pop(visitor.stream, None)
        if visitor.opening is not None and not visitor.opening.done():
            visitor.opening.set_result(None)

    # Letting in

    async def _receive(self, visitor: _Visitor) -> None:
        """The life of a connection."""
        stream = visitor.stream
        try:
            try:
                greeted = await self._let_in(visitor)
            except BaseException:
                self._forget(visitor)
                stream.close()
                raise
        except CommClosedError as error:
            refusal = error
            self._watch.refused(error.kind, lambda: str(named(refusal, self._context)))
            return
        except Exception:
            self._watch.refused(
                "failed", lambda: f"cannot greet {stream.peer}; the next lines say why"
            )
            logger.exception("listener on %s: cannot greet %s", self._own_address(), stream.peer)
            return
        self._forget(visitor)
        self._watch.greeted += 1
        try:
            await self._attend(greeted)
        finally:
            end = stream.error
            if isinstance(end, CommClosedError) and not end.clean:
                self._watch.broken(end.kind, end.__str__)
            stream.tell = self._watch.broken  # Dask's servers go on with it in a task of theirs

    async def _let_in(self, visitor: _Visitor) -> Any:
        stream = visitor.stream
        if stream.closed():  # dropped before its turn came
            raise stream.failure()
        if self._context is None:
            stream.open()
        else:
            await self._expect_tls(visitor)
            await stream.secure(self._context, server_side=True, turns=self._turns)
        visitor.stage = "hello"
        return await self._greet(stream)

    async def _expect_tls(self, visitor: _Visitor) -> None:
        """Wait for the first byte and look at it.

        So a silent peer costs no TLS object, and one that speaks something else is told so in a
        way that ours understand.
        """
        stream = visitor.stream
        head = self._peek(stream)
        if head is None:
            opening = visitor.opening = Wakeup(loop=self._loop)
            stream.readiness.on_readable(opening.resume)
            await opening
            visitor.opening = None
            if stream.closed():
                raise stream.failure()
            head = self._peek(stream)
        if head and head[:1] != TLS_RECORD:
            _answer_plain(stream.socket)
            raise not_tls(head, stream.peer)
        if not head:
            raise CommClosedError(
                f"connection with {stream.peer} closed by the peer before a TLS handshake",
                peer=stream.peer,
            )

    def _peek(self, stream: FrameStream) -> bytes | None:
        """The first bytes, left where they are; None if there are none yet."""
        try:
            return stream.socket.recv(_PEEK, socket.MSG_PEEK)
        except BlockingIOError:
            return None
        except OSError as error:
            raise explain(error, stream.peer, handshaking=True) from error


def _answer_plain(sock: socket.socket) -> None:
    """Tell a peer without TLS that this port has it. Reading first keeps the answer alive: the
    kernel resets a connection that is closed with bytes unread."""
    with contextlib.suppress(OSError):
        for _ in range(16):
            if len(sock.recv(65536)) < 65536:
                break
        sock.send(_ALERT)
        sock.shutdown(socket.SHUT_WR)


def serve(server: FrameServer, host: str, port: int, backlog: int) -> None:
    """Bind `server` to every address of `host` and begin to accept; sets `server.address`.

    An empty host means every interface, port 0 any free one. Raises `OSError`.
    """
    attempts = 5 if port == 0 else 1  # a free port may be taken for the other family meanwhile
    for attempt in range(attempts):
        try:
            sockets = bind_sockets(port, host or None, backlog=backlog)
            break
        except OSError as error:
            if error.errno != errno.EADDRINUSE or attempt == attempts - 1:
                raise
    # Where both families are bound, the IPv4 address is the one more peers can use.
    chosen = min(sockets, key=lambda sock: sock.family != socket.AF_INET)
    server.address = chosen.getsockname()[:2]
    server.add_sockets(sockets)
