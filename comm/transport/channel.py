"""How the bytes of one connection are sent and received, plain or over TLS.

What differs between the two is decided once, when the connection is open: a `Channel` is a set of
bound callables and constants, so that the loops of `receiver` and `sender` need not distinguish.

Over TLS the callables are those of OpenSSL's own object, since `ssl.SSLSocket` adds two calls to
each; the handshake guarantees that nothing is read or written before the peer is verified.
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
from . import openssl
from .records import RECORD, Fill, filler
from .switch_interval import policy

__all__ = ["CLOSED", "RECORD", "SCRATCH", "Channel", "bare", "plain", "secure"]

SCRATCH = 68 * 1024
"""Room for one receive: 64 KiB and what stands before them. What lies there is copied once more."""

_BUDGET = 4 << 20  # bytes per direction before yielding to the event loop: some 2 ms
_TLS_BUDGET = 1 << 20
_IGNORE_EOF: int = getattr(ssl, "OP_IGNORE_UNEXPECTED_EOF", 0)  # of OpenSSL 3


class Channel:
    """The I/O functions of one connection.

    Attributes
    ----------
    socket : socket.socket
        The connected socket.
    receive : callable
        Takes a buffer of `SCRATCH` bytes; returns how many it has filled, 0 at end of file.
    fill : callable
        Takes a memoryview and a function to call with the number of bytes as they arrive; returns
        their total, and the number received last.
    holds_gil : bool
        Whether `fill` keeps the GIL while it receives; see `records`.
    full : int
        A receive of this many bytes means that more may be available at once.
    send : callable
        Takes bytes, returns how many were sent.
    send_several : callable or None
        The same for a list of buffers (gathering send), if the system supports it.
    authentic_end : bool
        Whether end of file (0 bytes) was sent by the peer itself, by close_notify. Over plain TCP
        anyone on the path can forge it, and the kernel sends it for a killed process; so over TLS
        with a context of others' that ignores the difference, as those of CPython 3.11.2 do.
    budget : int
        Bytes to move in either direction before yielding to the event loop.
    whole_records : bool
        Whether sends should be filled up to full TLS records.
    pending : callable
        Number of received bytes that no readiness event will announce.
    send_eof : callable
        Tells the peer that nothing more will be sent.
    answer_eof : callable
        Answers the peer's end of file, where the protocol has an answer (TLS).
    """

    __slots__ = (
        "answer_eof",
        "authentic_end",
        "budget",
        "fill",
        "full",
        "holds_gil",
        "pending",
        "receive",
        "send",
        "send_eof",
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
    authentic_end: bool
    budget: int
    whole_records: bool
    pending: Callable[[], int]
    send_eof: Callable[[], None]
    answer_eof: Callable[[], None]


def plain(sock: socket.socket) -> Channel:
    """Return the channel of a connected plain socket."""
    channel = Channel()
    channel.socket = sock
    channel.receive = sock.recv_into
    channel.fill = partial(_fill, sock.recv_into)
    channel.holds_gil = False
    channel.full = sys.maxsize
    channel.send = sock.send
    channel.send_several = getattr(sock, "sendmsg", None)
    channel.authentic_end = False
    channel.budget = _BUDGET
    channel.whole_records = False
    channel.pending = _nothing_pending
    channel.send_eof = partial(_shut, sock)
    channel.answer_eof = _no_answer
    return channel


def secure(sock: ssl.SSLSocket, pointer: int | None = None, options: int | None = None) -> Channel:
    """Return the channel of a socket whose handshake is done and whose peer is verified.

    `pointer` is that of `openssl.pointer`, if it is known already, and `options` are those that the
    context had when `sock` was made of it: the connection goes by these, whatever its context has
    now, or another that a callback for the server's name has put in its place.
    """
    options = sock.context.options if options is None else options
    tls: Any = getattr(sock, "_sslobj", None) or sock
    channel = Channel()
    channel.socket = sock
    read, channel.send = openssl.alone(tls.read), openssl.alone(tls.write)
    channel.receive = partial(read, SCRATCH)
    held = filler(tls, sock, pointer) if policy().hold_tls else None
    channel.fill = held or partial(_fill_by_records, read)
    channel.holds_gil = held is not None
    channel.full = RECORD
    channel.send_several = None
    channel.authentic_end = not options & _IGNORE_EOF
    channel.budget = _TLS_BUDGET
    channel.whole_records = True
    channel.pending = tls.pending
    channel.send_eof = channel.answer_eof = partial(_close_notify, sock)
    return channel


def bare(sock: socket.socket) -> Channel:
    """Of a connection that only awaits its end: bytes as they come, without TLS.

    After our close_notify OpenSSL takes data that arrives for an error.
    """
    channel = _closed()
    channel.socket = sock
    channel.receive = partial(socket.socket.recv_into, sock)
    channel.full = sys.maxsize
    channel.budget = _BUDGET
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
    """Fill `target`; each read yields at most one record: the inner loop of large transfers."""
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
        socket.socket.shutdown(sock, socket.SHUT_WR)  # SSLSocket.shutdown would discard its TLS
    except OSError:
        pass


def _close_notify(sock: ssl.SSLSocket) -> None:
    try:
        openssl.alone(sock.unwrap)()  # sends close_notify, then looks for the peer's
    except (OSError, ValueError):
        openssl.forgetter()()
    _shut(sock)


def _nothing_pending() -> int:
    return 0


def _no_answer() -> None:
    """TCP needs no answer."""


def _not_connected(*_: Any) -> int:
    raise OSError(errno.EBADF, os.strerror(errno.EBADF))


def _closed() -> Channel:
    channel = Channel()
    channel.receive = channel.send = _not_connected
    channel.fill = _not_connected  # type: ignore[assignment]
    channel.send_several = None
    channel.holds_gil = False
    channel.full = channel.budget = 1
    channel.authentic_end = False
    channel.whole_records = False
    channel.pending = _nothing_pending
    channel.send_eof = channel.answer_eof = _no_answer
    return channel


CLOSED = _closed()
"""What a stream has before it is open, and after its end: no buffers of OpenSSL's are kept."""
