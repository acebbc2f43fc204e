"""How the bytes of one connection are sent and received, plain or over TLS.

What differs between the two is settled once, when the connection is open: a `Channel` is a row of
bound callables and constants. The loops of `receiver` and `sender` ask no question about it.

Over TLS the callables are those of OpenSSL's own object, since `ssl.SSLSocket` adds two calls to
each; it is the handshake's business that nothing is read or written before the peer is verified.
"""

from __future__ import annotations

import errno
import os
import socket
import ssl
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from ..wire.framing import Buffer
from .records import RECORD, Fill, filler
from .switch_interval import policy

__all__ = ["CLOSED", "RECORD", "SCRATCH", "Channel", "plain", "secure"]

SCRATCH = 68 * 1024
"""Room for one receive: 64 KiB and what stands before them. What lies there is copied once more."""

_BUDGET = 4 << 20  # bytes either direction moves before the loop gets a turn: some 2 ms
_TLS_BUDGET = 1 << 20


class Channel:
    """One connection's bytes.

    Attributes
    ----------
    socket : socket.socket
        Which it is about.
    receive : callable
        Takes a buffer of `SCRATCH` bytes; returns how many it has filled, 0 at the end.
    fill : callable
        Takes a memoryview, and a function that is told of bytes as they arrive in it; returns how
        many they are in all, and in the last receive.
    holds_gil : bool
        `fill` keeps the GIL while it receives; see `records`.
    full : int
        So many bytes in one receive mean that there may be more at once, room or not.
    send : callable
        Takes bytes, returns how many it has taken.
    send_several : callable or None
        The same for a list of them, where the system can.
    budget : int
        Bytes to move in either direction before the loop gets a turn.
    whole_records : bool
        Sends are best filled up to full records.
    pending : callable
        Bytes that have been received and no event will announce.
    say_goodbye : callable
        Tells the peer that nothing more will come.
    answer_goodbye : callable
        The same at the peer's end, where its protocol has an answer.
    """

    __slots__ = (
        "answer_goodbye",
        "budget",
        "fill",
        "full",
        "holds_gil",
        "pending",
        "receive",
        "say_goodbye",
        "send",
        "send_several",
        "socket",
        "whole_records",
    )

    socket: socket.socket
    receive: Callable[[bytearray], int]
    fill: Fill
    send: Callable[[Buffer], int]
    send_several: Callable[[Sequence[Buffer]], int] | None
    holds_gil: bool
    full: int
    budget: int
    whole_records: bool
    pending: Callable[[], int]
    say_goodbye: Callable[[], None]
    answer_goodbye: Callable[[], None]


def plain(sock: socket.socket) -> Channel:
    """Of a connected socket."""
    channel = Channel()
    channel.socket = sock
    channel.receive = sock.recv_into
    channel.fill = partial(_fill, sock.recv_into)
    channel.holds_gil = False
    channel.full = sys.maxsize
    channel.send = sock.send
    channel.send_several = getattr(sock, "sendmsg", None)
    channel.budget = _BUDGET
    channel.whole_records = False
    channel.pending = _nothing_pending
    channel.say_goodbye = partial(_shut, sock)
    channel.answer_goodbye = _no_answer
    return channel


def secure(sock: ssl.SSLSocket) -> Channel:
    """Of a socket whose handshake is done and whose peer is verified."""
    tls: Any = getattr(sock, "_sslobj", None) or sock
    channel = Channel()
    channel.socket = sock
    channel.receive = partial(tls.read, SCRATCH)
    held = filler(tls, sock) if policy().hold_tls else None
    channel.fill = held or partial(_fill_by_records, tls.read)
    channel.holds_gil = held is not None
    channel.full = RECORD
    channel.send = tls.write
    channel.send_several = None
    channel.budget = _TLS_BUDGET
    channel.whole_records = True
    channel.pending = tls.pending
    channel.say_goodbye = channel.answer_goodbye = partial(_close_notify, sock)
    return channel


def _fill(
    recv_into: Callable[[memoryview], int], target: memoryview, note: Callable[[int], object]
) -> tuple[int, int]:
    size = recv_into(target)
    note(size)
    return size, size


def _fill_by_records(
    read: Callable[[int, memoryview], int], target: memoryview, note: Callable[[int], object]
) -> tuple[int, int]:
    """Each read gives one record at most, so this is the inner loop of a large transfer."""
    room = len(target)
    filled = size = 0
    try:
        while filled < room:
            size = read(room - filled, target[filled:])
            filled += size
            if size < RECORD:
                break
    except ssl.SSLWantReadError:
        if not filled:
            raise
        size = 0
    finally:
        note(filled)
    return filled, size


def _shut(sock: socket.socket) -> None:
    try:
        socket.socket.shutdown(sock, socket.SHUT_WR)  # SSLSocket's own would drop its TLS
    except OSError:
        pass


def _close_notify(sock: ssl.SSLSocket) -> None:
    try:
        sock.unwrap()  # sends close_notify, then asks for the peer's
    except (OSError, ValueError):
        pass
    _shut(sock)


def _nothing_pending() -> int:
    return 0


def _no_answer() -> None:
    """TCP has none."""


def _not_connected(*_: Any) -> int:
    raise OSError(errno.EBADF, os.strerror(errno.EBADF))


def _closed() -> Channel:
    channel = Channel()
    channel.receive = channel.send = _not_connected
    channel.fill = _not_connected  # type: ignore[assignment]
    channel.send_several = None
    channel.holds_gil = False
    channel.full = channel.budget = 1
    channel.whole_records = False
    channel.pending = _nothing_pending
    channel.say_goodbye = channel.answer_goodbye = _no_answer
    return channel


CLOSED = _closed()
"""What a stream has before it is open, and after its end: no buffers of OpenSSL's are kept."""
