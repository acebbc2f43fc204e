"""Connecting to the first of several addresses that answers (RFC 8305, section 5).

An address that does not answer is given a quarter of a second before the next one is tried in
parallel; one that refuses, no time at all. If all stay silent, all are tried again after a few
seconds, in parallel with the older attempts: the kernel doubles its retransmission timeout, and
would notice late that a network is back, or that another path works.
"""

from __future__ import annotations

import asyncio
import errno
import functools
import os
import socket
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from .readiness import Readiness
from .sockets import reset
from .wakeup import resume

__all__ = ["Place", "Race"]

Place = tuple[socket.AddressFamily, tuple[Any, ...]]
"""Where to connect to: address family, and the address as `socket.connect` takes it."""

STAGGER = 0.25  # seconds that an address is given before the next one is tried
AGAIN = 3.0  # seconds after which all are tried again
PATIENCE = 10.0  # seconds for everything; a caller with more time resolves the name again

# This machine has no route to the address; the error of another address is more useful.
_OUT_OF_REACH = frozenset(
    (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
)


class Race:
    """Connection attempts to the addresses of one host. For a single use.

    Parameters
    ----------
    places : iterable of Place
        As sorted by the resolver; the address families alternate.
    prepare : callable
        Called with each socket before it connects.
    source_ip, source_port : optional
        Our end. With a port, the attempts follow each other. A port alone is one of the loopback
        address, as in Tornado's `TCPClient`.
    """

    def __init__(
        self,
        places: Iterable[Place],
        prepare: Callable[[socket.socket], object],
        source_ip: str | None = None,
        source_port: int | None = None,
    ) -> None:
        self._places = _alternating(list(places))
        self._prepare = prepare
        self._source_ip = source_ip
        self._source_port = source_port
        self._loop = asyncio.get_running_loop()
        self._left: deque[Place] = deque()
        self._going: dict[socket.socket, Readiness] = {}
        self._refused: dict[Place, OSError] = {}
        self._timers: list[asyncio.TimerHandle] = []  # for all of it, and for what is next
        self._outcome: socket.socket | OSError | None = None
        self._over = False  # also once `winner` has taken the outcome
        self._waiting: asyncio.Future[None] | None = None

    async def winner(self) -> socket.socket:
        """Return the socket that was connected first; it belongs to the caller.

        Raises `OSError`. A cancelled call leaves the attempts running: repeat it, or `close`.
        """
        if not self._timers and self._outcome is None:
            self._left.extend(self._places)
            self._next()
            if self._outcome is None:
                self._timers = [self._loop.call_later(PATIENCE, self._late)]
                self._set_timer()
        while self._outcome is None:
            self._waiting = self._loop.create_future()
            await self._waiting
        outcome, self._outcome = self._outcome, None
        self.close()
        if isinstance(outcome, OSError):
            try:
                raise outcome
            finally:
                del outcome  # its traceback refers to this frame
        return outcome

    def close(self) -> None:
        """Close all sockets."""
        self._over = True
        if isinstance(self._outcome, socket.socket):
            self._outcome.close()
        for timer in self._timers:
            timer.cancel()
        self._drop_all()
        self._refused.clear()

    def abandon(self) -> None:
        """Close all sockets although the loop is closed."""
        for sock in self._going:
            sock.close()

    def _drop_all(self) -> None:
        while self._going:
            sock, readiness = self._going.popitem()
            readiness.stop()
            sock.close()

    def _next(self) -> None:
        """Try the next address, and the following ones for as long as they fail at once."""
        while self._left:
            place = self._left.popleft()
            if place not in self._refused and self._begins(place):
                return
        if not self._going:
            self._end(_telling(list(self._refused.values())))

    def _begins(self, place: Place) -> bool:
        """Begin to connect; return False if that failed at once."""
        if self._source_port is not None:
            self._drop_all()
        family, address = place
        try:
            sock = socket.socket(family, socket.SOCK_STREAM)
        except OSError as error:
            self._refused[place] = error
            return False
        try:
            sock.setblocking(False)
            self._bind(sock, family)
            self._prepare(sock)
            if _is_connected_to(sock, address):
                if _is_itself(sock):
                    raise OSError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))
                self._end(sock)
                return True
        except OSError as error:
            sock.close()
            self._refused[place] = error
            return False
        readiness = self._going[sock] = Readiness(sock, self._loop)
        readiness.on_writable(functools.partial(self._settled, sock, place))
        return True

    def _bind(self, sock: socket.socket, family: socket.AddressFamily) -> None:
        if self._source_ip is not None or self._source_port is not None:
            loopback = "::1" if family == socket.AF_INET6 else "127.0.0.1"
            sock.bind((self._source_ip or loopback, self._source_port or 0))

    def _settled(self, sock: socket.socket, place: Place) -> None:
        self._going.pop(sock).stop()
        code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if not code and _is_itself(sock):
            code = errno.ECONNREFUSED
        if not code:
            self._end(sock)
            return
        sock.close()
        self._refused[place] = OSError(code, os.strerror(code))
        self._next()
        self._set_timer()

    def _set_timer(self) -> None:
        if not self._over:
            for timer in self._timers[1:]:
                timer.cancel()
            pause = STAGGER if self._left and self._source_port is None else AGAIN
            self._timers[1:] = [self._loop.call_later(pause, self._go_on)]

    def _go_on(self) -> None:
        if not self._left:
            self._left.extend(self._places)
        self._next()
        self._set_timer()

    def _late(self) -> None:
        self._end(OSError(errno.ETIMEDOUT, f"no answer within {PATIENCE:g} s"))

    def _end(self, outcome: socket.socket | OSError) -> None:
        """Resume the waiter, which has taken the outcome when this returns."""
        self._over = True
        self._outcome = outcome
        for timer in self._timers:
            timer.cancel()
        if self._waiting is not None:
            resume(self._waiting)


def _alternating(places: list[Place]) -> list[Place]:
    """Sort the addresses so that the first family and the others alternate; drop duplicates."""
    if len(places) == 1:
        return places
    rows: dict[bool, list[Place]] = {True: [], False: []}
    for place in dict.fromkeys(places):
        rows[place[0] == places[0][0]].append(place)
    first, others = rows[True], rows[False]
    shared = min(len(first), len(others))
    pairs = [place for pair in zip(first, others) for place in pair]  # noqa: B905 (3.10)
    return pairs + first[shared:] + others[shared:]


def _is_connected_to(sock: socket.socket, address: tuple[Any, ...]) -> bool:
    """Begin to connect; return whether the connection is complete. Raises `OSError`.

    On one machine the connection is complete before `connect` returns ``EINPROGRESS``; checking
    for that saves two iterations of the event loop.
    """
    try:
        sock.connect(address)
    except BlockingIOError:
        try:
            sock.getpeername()
        except OSError:
            return False
    return True


def _is_itself(sock: socket.socket) -> bool:
    """Whether `sock` is connected to itself; then its close is a reset.

    If nobody listens on a port of this machine, the kernel may choose this port for our end, and
    TCP connects the two. It would be our own peer, and whoever is to listen there could not bind.
    """
    try:
        itself: bool = sock.getsockname() == sock.getpeername()
    except OSError:  # it has ended already, as whoever uses it will notice
        return False
    if itself:
        reset(sock)
    return itself


def _telling(errors: list[OSError]) -> OSError:
    """Return the most useful error."""
    for error in errors:
        if error.errno not in _OUT_OF_REACH:
            return error
    return errors[0] if errors else OSError(errno.EADDRNOTAVAIL, "the name has no address")
