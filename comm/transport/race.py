"""A connected socket to the first of several addresses that answers (RFC 8305, section 5).

An address that does not answer is given a quarter of a second before the next one is tried beside
it, one that refuses none at all. If all are silent, all are tried anew after some seconds, beside
the older attempts: a packet that the network lost is sent again ever more seldom, and a way that
is back, or another one, would be found late.
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
from .wakeup import Wakeup

__all__ = ["Place", "Race"]

Place = tuple[socket.AddressFamily, tuple[Any, ...]]
"""Where to connect to: family, and address as sockets take it."""

STAGGER = 0.25  # seconds that an address is given before the next one is tried
AGAIN = 3.0  # seconds after which all are tried anew
PATIENCE = 10.0  # seconds for all of it; who still wants to looks the name up again

# Of an address that this machine cannot reach at all; what another one answers tells more.
_OUT_OF_REACH = frozenset(
    (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
)


class Race:
    """One use of it.

    Parameters
    ----------
    places
        As the resolver sorts them; the families take turns.
    prepare
        Called with each socket before it connects.
    source_ip, source_port
        Which end of ours to use. With a port there is one socket at a time. A port alone means one
        of loopback, as with Tornado's client.
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
        self._waiting: Wakeup | None = None

    async def winner(self) -> socket.socket:
        """The socket that was connected first; it is the caller's.

        Raises `OSError`. A cancelled call leaves the attempts going: call again, or `close`.
        """
        if not self._timers and self._outcome is None:
            self._left.extend(self._places)
            self._next()
            if self._outcome is None:
                self._timers = [self._loop.call_later(PATIENCE, self._late)]
                self._set_timer()
        while self._outcome is None:
            self._waiting = Wakeup()
            await self._waiting
        outcome, self._outcome = self._outcome, None
        self.close()
        if isinstance(outcome, OSError):
            try:
                raise outcome
            finally:
                del outcome  # it leads to this frame
        return outcome

    def close(self) -> None:
        """Leave nothing open."""
        if isinstance(self._outcome, socket.socket):
            self._outcome.close()
        for timer in self._timers:
            timer.cancel()
        self._drop_all()
        self._refused.clear()

    def abandon(self) -> None:
        """Close the sockets of a loop that is closed."""
        for sock in self._going:
            sock.close()

    def _drop_all(self) -> None:
        while self._going:
            sock, readiness = self._going.popitem()
            readiness.stop()
            sock.close()

    def _next(self) -> None:
        """Try the next address, and those after it for as long as they fail at once."""
        while self._left:
            place = self._left.popleft()
            if place not in self._refused and self._begins(place):
                return
        if not self._going:
            self._end(_telling(list(self._refused.values())))

    def _begins(self, place: Place) -> bool:
        """Whether its answer is to be waited for, or is there already."""
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
                self._end(sock)
                return True
        except OSError as error:
            sock.close()
            self._refused[place] = error
            return False
        readiness = self._going[sock] = Readiness(sock)
        readiness.on_writable(functools.partial(self._settled, sock, place))
        return True

    def _bind(self, sock: socket.socket, family: socket.AddressFamily) -> None:
        if self._source_ip is not None or self._source_port is not None:
            loopback = "::1" if family == socket.AF_INET6 else "127.0.0.1"
            sock.bind((self._source_ip or loopback, self._source_port or 0))

    def _settled(self, sock: socket.socket, place: Place) -> None:
        self._going.pop(sock).stop()
        code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if not code:
            self._end(sock)
            return
        sock.close()
        self._refused[place] = OSError(code, os.strerror(code))
        self._next()
        self._set_timer()

    def _set_timer(self) -> None:
        if self._outcome is None:
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
        self._outcome = outcome
        for timer in self._timers:
            timer.cancel()
        if self._waiting is not None:
            self._waiting.resume()


def _alternating(places: list[Place]) -> list[Place]:
    """The first family and the others in turn, each address once."""
    rows: dict[bool, list[Place]] = {True: [], False: []}
    for place in dict.fromkeys(places):
        rows[place[0] == places[0][0]].append(place)
    first, others = rows[True], rows[False]
    shared = min(len(first), len(others))
    pairs = [place for pair in zip(first, others) for place in pair]  # noqa: B905 (3.10)
    return pairs + first[shared:] + others[shared:]


def _is_connected_to(sock: socket.socket, address: tuple[Any, ...]) -> bool:
    """Begin to connect; whether that is done already. Raises `OSError`.

    On one machine the kernel is done before `connect` returns, although that says otherwise: a look
    saves two turns of the loop.
    """
    try:
        sock.connect(address)
    except BlockingIOError:
        try:
            sock.getpeername()
        except OSError:
            return False
    return True


def _telling(errors: list[OSError]) -> OSError:
    """The one to raise."""
    for error in errors:
        if error.errno not in _OUT_OF_REACH:
            return error
    return errors[0] if errors else OSError(errno.EADDRNOTAVAIL, "the name has no address")
