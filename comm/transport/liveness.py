"""Liveness checks: whether a peer that owes acknowledgements is still there, by kernel counters.

`TCP_USER_TIMEOUT` alone would do, but with it Linux also gives up on a peer that acknowledges and
merely has a zero window: one whose event loop was blocked for half a minute, or whose reader is
slow. So one timer per loop checks its streams a few times within the timeout, and closes those
whose kernel has retransmitted or probed the window without any new acknowledgement.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import struct
import weakref
from typing import Any, Protocol

__all__ = ["Liveness", "liveness_of"]

_INFO = struct.Struct("=2xBB20xI92xQ")  # retransmits, probes, unacked, bytes_acked of tcp_info
_CHECKS = 4  # per timeout
_UNANSWERED = 2  # window probes; one may still be in flight


class Watched(Protocol):
    """What a stream provides for its liveness check."""

    socket: socket.socket

    def lost(self, error: OSError) -> None:
        """Close the stream: the peer is gone."""


class Liveness:
    """The liveness checks of one loop. Its timer runs while there are streams."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        # For each stream the timeout; while it waits, since when, and what was acknowledged then.
        self._streams: dict[Watched, tuple[float, float, int | None]] = {}
        self._shortest = 0.0  # the shortest timeout among them
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, stream: Watched, seconds: float) -> None:
        """Check `stream` until `forget`; close it after `seconds` without acknowledgements."""
        self._streams[stream] = (seconds, 0.0, None)
        if self._timer is None or seconds < self._shortest:
            self._set(seconds)

    def forget(self, stream: Watched) -> None:
        """Stop checking `stream`; does nothing for an unknown one."""
        self._streams.pop(stream, None)

    def _set(self, shortest: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._shortest = shortest
        self._timer = self._loop.call_later(shortest / _CHECKS, self._check)

    def _check(self) -> None:
        self._timer = None
        now = self._loop.time()
        for stream, (seconds, since, before) in list(self._streams.items()):
            acknowledged = _acknowledged_if_due(stream.socket)
            if acknowledged is None or acknowledged != before:
                self._streams[stream] = (seconds, now, acknowledged)
            elif now - since >= seconds:
                self.forget(stream)
                stream.lost(OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT)))
        if self._streams:
            self._set(min(seconds for seconds, _, _ in self._streams.values()))


def _acknowledged_if_due(sock: socket.socket | Any) -> int | None:
    """Total bytes the peer has acknowledged, if an acknowledgement is due; else None."""
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO.size)
        retransmits, probes, unacked, acknowledged = _INFO.unpack(info)
    except (AttributeError, OSError, struct.error):
        return None
    return acknowledged if (unacked and retransmits) or probes >= _UNANSWERED else None


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
