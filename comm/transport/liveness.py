"""Whether a peer that owes acknowledgements is still there, as the kernel's counters tell.

`TCP_USER_TIMEOUT` would do it alone, but Linux gives up by it also on a peer that acknowledges and
merely takes nothing: one whose event loop a task has held for half a minute, or whose reader is
slow. So one timer of each loop looks at its streams, and ends those whose peer has not been heard
for the time allowed, while the kernel has sent again, or asked again, in vain. It is the kernel
that hears: what held our loop meanwhile does not count.
"""

from __future__ import annotations

import asyncio
import errno
import math
import os
import socket
import struct
import weakref
from typing import Any, NamedTuple, Protocol

from .sockets import allow_round_trips

__all__ = ["Liveness", "liveness_of"]

# Of tcp_info: retransmits, probes, unacked, last_data_recv, last_ack_recv, rtt.
_INFO = struct.Struct("=2xBB20xI24xII8xI")
_UNANSWERED = 2  # probes for room, or of whether the peer is there; one may be on its way
_STEP = 0.1  # of the time allowed: how long nothing may have come of what was sent again
_TICK = 0.01  # seconds; the kernel counts in such
_SLACK = 0.05, 0.5  # of the time allowed, seconds at most: to be done by its end


class Watched(Protocol):
    """What a stream has for this."""

    socket: socket.socket

    def lost(self, error: OSError) -> None:
        """The peer is gone."""


class Liveness:
    """The watch of one loop. Its timer runs while there is a stream to look at."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        # Of each stream the time allowed, and whether its peer owed something at the last look.
        self._streams: dict[Watched, tuple[float, bool]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0  # when the timer is

    def watch(self, stream: Watched, seconds: float) -> None:
        """Look after it until `forget`."""
        self._streams[stream] = (seconds, False)
        heard = _heard(stream.socket)
        if heard is not None:
            allow_round_trips(stream.socket, heard.round_trip, seconds)
        when = self._loop.time() + _enough(seconds) - _STEP * seconds
        if self._timer is None or when < self._due:
            self._set(when)

    def forget(self, stream: Watched) -> None:
        """It is closed, or was never watched."""
        self._streams.pop(stream, None)

    def _set(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._due = when
        self._timer = self._loop.call_at(when, self._look)

    def _look(self) -> None:
        self._timer = None
        now = self._loop.time()
        then = math.inf
        for stream, (seconds, suspected) in list(self._streams.items()):
            if stream not in self._streams:  # an end may have ended others
                continue
            heard = _heard(stream.socket)
            if heard is None:
                continue
            allow_round_trips(stream.socket, heard.round_trip, seconds)
            left = _enough(seconds) - heard.silent
            step = _STEP * seconds
            if left <= 0 and heard.owes and suspected:
                self.forget(stream)
                stream.lost(OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT)))
                continue
            # It owes now; whether it still does a step later is what counts.
            suspects = heard.owes and left <= step
            self._streams[stream] = (seconds, suspects)
            if left > step:
                pause = left - step
            elif suspects and left > 0:
                pause = left
            else:
                pause = step
            then = min(then, now + max(pause, _TICK))
        if then < math.inf:
            self._set(then)


class _Heard(NamedTuple):
    """What the kernel knows of a peer: times in seconds, and whether it owes an acknowledgement."""

    silent: float
    owes: bool
    round_trip: float


def _enough(seconds: float) -> float:
    part, most = _SLACK
    return seconds - min(part * seconds, most)


def _heard(sock: socket.socket | Any) -> _Heard | None:
    """None where the system does not say."""
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO.size)
        retransmits, probes, unacked, data, acknowledged, round_trip = _INFO.unpack(info)
    except (AttributeError, OSError, struct.error):
        return None
    owes = bool(unacked and retransmits) or probes >= _UNANSWERED
    return _Heard(min(data, acknowledged) / 1e3, owes, round_trip / 1e6)


# Kept alive by its streams alone: a loop that ends with streams open is collected with them.
_known: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, weakref.ref[Liveness]] = (
    weakref.WeakKeyDictionary()
)


def liveness_of(loop: asyncio.AbstractEventLoop) -> Liveness:
    """The watch of `loop`, the same one as long as it has streams."""
    known = _known.get(loop)
    found = known() if known is not None else None
    if found is None:
        found = Liveness(loop)
        _known[loop] = weakref.ref(found)
    return found
