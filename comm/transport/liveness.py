"""Whether a peer that owes acknowledgements is still there, as the kernel's counters tell.

`TCP_USER_TIMEOUT` would do it alone, but Linux gives up by it also on a peer that acknowledges and
merely takes nothing: one whose event loop a task has held for half a minute, or whose reader is
slow. So one timer of each loop looks at its streams a few times within the time allowed, and ends
those whose kernel has sent again, or asked for room again, and got nothing acknowledged since.
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
_LOOKS = 4  # within the time allowed
_UNANSWERED = 2  # probes for room; one may be on its way


class Watched(Protocol):
    """What a stream has for this."""

    socket: socket.socket

    def lost(self, error: OSError) -> None:
        """The peer is gone."""


class Liveness:
    """The watch of one loop. Its timer runs while there is a stream to look at."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        # Of each stream the time allowed; if it is waiting, since when, and what was acknowledged.
        self._streams: dict[Watched, tuple[float, float, int | None]] = {}
        self._shortest = 0.0  # time allowed to any of them
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, stream: Watched, seconds: float) -> None:
        """Look after it until `forget`."""
        self._streams[stream] = (seconds, 0.0, None)
        if self._timer is None or seconds < self._shortest:
            self._set(seconds)

    def forget(self, stream: Watched) -> None:
        """It is closed, or was never watched."""
        self._streams.pop(stream, None)

    def _set(self, shortest: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._shortest = shortest
        self._timer = self._loop.call_later(shortest / _LOOKS, self._look)

    def _look(self) -> None:
        self._timer = None
        now = self._loop.time()
        for stream, (seconds, since, before) in list(self._streams.items()):
            acknowledged = _waiting(stream.socket)
            if acknowledged is None or acknowledged != before:
                self._streams[stream] = (seconds, now, acknowledged)
            elif now - since >= seconds:
                self.forget(stream)
                stream.lost(OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT)))
        if self._streams:
            self._set(min(seconds for seconds, _, _ in self._streams.values()))


def _waiting(sock: socket.socket | Any) -> int | None:
    """Bytes that the peer has ever acknowledged, if it owes an acknowledgement; else None."""
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO.size)
        retransmits, probes, unacked, acknowledged = _INFO.unpack(info)
    except (AttributeError, OSError, struct.error):
        return None
    return acknowledged if (unacked and retransmits) or probes >= _UNANSWERED else None


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
