"""Liveness checks: whether a peer that owes acknowledgements is still there, by kernel counters.

`TCP_USER_TIMEOUT` alone would do, but with it Linux also gives up on a peer that acknowledges and
merely has a zero window: one whose event loop was blocked for half a minute, or whose reader is
slow. So one timer per loop checks its streams, and closes those whose peer has not been heard for
the timeout while the kernel has retransmitted or probed without an answer. The kernel keeps these
times, so a blocked event loop of ours does not count against a peer.
"""

from __future__ import annotations

import asyncio
import errno
import functools
import math
import os
import socket
import struct
import weakref
from typing import Any, NamedTuple, Protocol

from .sockets import allow_round_trips, reset

__all__ = ["Liveness", "liveness_of"]

# Of tcp_info: retransmits, probes, unacked, last_data_recv, last_ack_recv, rtt.
_INFO = struct.Struct("=2xBB20xI24xII8xI")
_UNANSWERED = 2  # window or keep-alive probes; one may still be in flight
_STEP = 0.1  # of the timeout: an acknowledgement must be due at two checks this far apart
_SOON = 1.0  # seconds until the first check, at most
_TICK = 0.01  # seconds; about the resolution of the kernel's times
_SLACK = 0.05, 0.5  # how much before the timeout to act: a part of it, seconds at most


class Watched(Protocol):
    """What a stream provides for its liveness check."""

    socket: socket.socket

    def lost(self, error: OSError) -> None:
        """Close the stream: the peer is gone."""


class Liveness:
    """The liveness checks of one loop. Its timer runs while there are streams."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        # For each stream the timeout, when it is checked, and whether it owed anything before.
        self._streams: dict[Watched, tuple[float, float, bool]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0  # when the timer is due

    def watch(self, stream: Watched, seconds: float) -> None:
        """Check `stream` until `forget`; close it once its peer was silent for `seconds`."""
        when = self._loop.time() + _first_check(seconds)
        self._streams[stream] = (seconds, when, False)
        if self._timer is None or when < self._due:
            self._set(when)

    def forget(self, stream: Watched) -> None:
        """Stop checking `stream`; does nothing for an unknown one."""
        self._streams.pop(stream, None)

    def _set(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._due = when
        self._timer = self._loop.call_at(when, self._check)

    def _check(self) -> None:
        self._timer = None
        now = self._loop.time()
        then = math.inf
        for stream, (seconds, due, suspected) in list(self._streams.items()):
            if stream not in self._streams:  # closed by the end of another one
                continue
            if due > now + _TICK:
                then = min(then, due)
                continue
            heard = _heard(stream.socket)
            if heard is None:
                continue
            allow_round_trips(stream.socket, heard.round_trip, seconds)
            left = _deadline(seconds) - heard.silent
            step = _STEP * seconds
            if left <= 0 and heard.owes and suspected:
                self.forget(stream)
                reset(stream.socket)  # only our side may be deaf: the other must not see an end
                stream.lost(OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT)))
                continue
            # One that has just been sent something after a long silence gets a step to answer.
            suspects = heard.owes and left <= step
            if left > step:
                pause = left - step
            elif suspects and left > 0:
                pause = left
            else:
                pause = step
            due = now + max(pause, _TICK)
            self._streams[stream] = (seconds, due, suspects)
            then = min(then, due)
        if then < math.inf:
            self._set(then)


class _Heard(NamedTuple):
    """What the kernel knows of a peer: times in seconds; whether an acknowledgement is due."""

    silent: float
    owes: bool
    round_trip: float


@functools.cache
def _first_check(seconds: float) -> float:
    # Soon, for `allow_round_trips`; but most streams of a server that is busy end before it.
    return min(_SOON, _deadline(seconds) - _STEP * seconds)


def _deadline(seconds: float) -> float:
    part, most = _SLACK
    return seconds - min(part * seconds, most)


def _heard(sock: socket.socket | Any) -> _Heard | None:
    """Ask the kernel; None where it does not say."""
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO.size)
        retransmits, probes, unacked, data, acknowledged, round_trip = _INFO.unpack(info)
    except (AttributeError, OSError, struct.error):
        return None
    owes = bool(unacked and retransmits) or probes >= _UNANSWERED
    return _Heard(min(data, acknowledged) / 1e3, owes, round_trip / 1e6)


# Weak references: the streams alone keep it alive, so a loop that ends with open streams is freed.
_known: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, weakref.ref[Liveness]] = (
    weakref.WeakKeyDictionary()
)


def liveness_of(loop: asyncio.AbstractEventLoop) -> Liveness:
    """Return the liveness checks of `loop`, the same object as long as it has streams."""
    known = _known.get(loop)
    found = known() if known is not None else None
    if found is None:
        found = Liveness(loop)
        _known[loop] = weakref.ref(found)
    return found
