"""Tells those who do not read that a connection has ended, and how.

While receiving is not paused, an end is noticed by itself, however much is unread. While it is
paused (`Limits.read_ahead`), nothing of the socket is waited for, and the kernel is asked a few
times a second whether the peer's end has arrived behind what is unread.
"""

from __future__ import annotations

import asyncio
import math
import select
import socket

from .receiver import Receiver

__all__ = ["EndWatch", "has_ended", "receive_rest"]

_PERIOD = 0.2  # seconds between two questions to the kernel
_REST = 500  # receives in a row, each of a small TLS record perhaps: some milliseconds
_MOST = 32 << 20  # bytes

# The peer's end of stream, a reset, an error. Without POLLRDHUP (outside Linux) an end in order is
# noticed when the reader catches up.
_ENDS = getattr(select, "POLLRDHUP", 0)


def has_ended(sock: socket.socket) -> bool:
    """Whether the peer has sent end of stream, or the connection is broken; unread data or not."""
    if not hasattr(select, "poll"):
        return False
    poll = select.poll()
    poll.register(sock, _ENDS)  # errors are told unasked
    return bool(poll.poll(0))


def receive_rest(receiver: Receiver, *, all_of_it: bool) -> None:
    """Receive what has arrived on a connection whose sending side has failed.

    With `all_of_it`, also what is more than one receive takes, or than the reader wants now: a
    closing message would be the last of it. The kernel's buffer holds no more than `_MOST`; a peer
    that only stopped receiving, as over a Unix socket, could go on sending.
    """
    wanted = receiver.read_ahead
    if all_of_it:
        receiver.read_ahead = math.inf
        receiver.receive_all()
    start = receiver.bytes_in
    for _ in range(_REST if all_of_it else 1):
        before = receiver.bytes_in
        receiver.receive(in_event=False)  # does nothing while it is paused
        if receiver.bytes_in == before or before - start > _MOST:
            break
    receiver.read_ahead = wanted


class EndWatch:
    """Those who wait for the end of one connection; it refers to no connection.

    Parameters
    ----------
    sock
        The connected socket.
    receiver
        Asked to receive the rest once the peer has ended.
    """

    def __init__(
        self, sock: socket.socket, receiver: Receiver, loop: asyncio.AbstractEventLoop
    ) -> None:
        self._socket = sock
        self._receiver = receiver
        self._loop = loop
        self._waiting: list[asyncio.Future[None]] = []
        self._timer: asyncio.TimerHandle | None = None
        self.look_beyond()

    def add(self, future: asyncio.Future[None]) -> None:
        """Set `future` at the end; a cancelled one is forgotten."""
        self._waiting = [known for known in self._waiting if not known.done()]
        self._waiting.append(future)

    def look_beyond(self) -> None:
        """Begin to ask the kernel; called when receiving is paused."""
        if self._timer is None and self._receiver.paused:
            self._timer = self._loop.call_later(_PERIOD, self._ask)

    def _ask(self) -> None:
        self._timer = None
        if self._receiver.paused:
            if has_ended(self._socket):
                self._receiver.receive_all()
            else:
                self.look_beyond()

    def tell(self) -> None:
        """Wake up all who wait: the connection has ended."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for future in self._waiting:
            if not future.done():
                future.set_result(None)
        self._waiting.clear()
