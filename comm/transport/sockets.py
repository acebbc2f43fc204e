"""Socket options, numeric addresses, and the kernel's view of connections and descriptors."""

from __future__ import annotations

import errno
import logging
import select
import socket
import struct
import sys
from typing import Any

try:
    import fcntl
    import termios
except ImportError:  # Windows has no such requests
    fcntl = None  # type: ignore[assignment]

try:
    import resource
except ImportError:  # Windows has no such limits
    resource = None  # type: ignore[assignment]

__all__ = [
    "INHERITED",
    "STARVED",
    "bytes_received",
    "descriptor_limit",
    "given_up",
    "has_caller",
    "is_dead",
    "numeric_address",
    "reset",
    "tune",
    "unacknowledged",
    "unread",
]

logger = logging.getLogger("sealwire.comm")

STARVED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
"""What `accept` says when the system has nothing left for another connection."""

INHERITED = sys.platform == "linux"
"""Whether an accepted socket has the options of the listening one: then that one is tuned."""

_PROBES = 10
_LONGEST = 60_000.0  # seconds; Linux rejects more for the idle time
_TCP_CLOSE = 7  # tcpi_state, the first byte of Linux's struct tcp_info
_INFO_SIZE = 136  # bytes of tcp_info up to tcpi_bytes_received, since Linux 4.1


def tune(sock: socket.socket, keepalive_timeout: float) -> None:
    """Disable Nagle's algorithm and enable keep-alive probes for `keepalive_timeout` seconds.

    Keep-alive covers idle connections; `liveness` checks that sent bytes are acknowledged. Options
    that a system lacks are skipped; a socket that is disconnected already raises nothing.
    """
    seconds = min(keepalive_timeout, _LONGEST)
    interval = max(1, round(seconds / (2 * _PROBES)))
    probes = max(1, min(_PROBES, (round(seconds) - 1) // interval))
    idle = max(1, round(seconds) - interval * probes)
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in (
            ("TCP_KEEPALIVE" if sys.platform == "darwin" else "TCP_KEEPIDLE", idle),
            ("TCP_KEEPINTVL", interval),
            ("TCP_KEEPCNT", probes),
        ):
            option = getattr(socket, name, None)
            if option is not None:
                sock.setsockopt(socket.IPPROTO_TCP, option, value)
    except OSError as error:
        logger.debug("cannot set TCP options: %s", error)


def is_dead(sock: socket.socket) -> bool:
    """Whether the kernel has closed the connection for good, so that nothing more will arrive.

    What has arrived can still be received. False where the system does not tell.
    """
    try:
        return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == _TCP_CLOSE
    except (AttributeError, OSError):
        return False


def bytes_received(sock: socket.socket) -> int | None:
    """Total bytes received from the peer, read or not; None where the system does not tell."""
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO_SIZE)
    except (AttributeError, OSError):
        return None
    if sys.platform != "linux" or len(info) < _INFO_SIZE:
        return None
    return int.from_bytes(info[_INFO_SIZE - 8 :], sys.byteorder)


def given_up(sock: socket.socket) -> bool:
    """Whether the kernel has dropped the connection: it was reset, or timed out.

    False if the peer has closed in order, and where the system does not tell.
    """
    if not is_dead(sock):
        return False
    try:
        # EPIPE: reset after an orderly end. OpenSSL answers an end of file without close_notify by
        # an alert, and a peer that is gone answers that by a reset.
        return sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) != errno.EPIPE
    except OSError:
        return False


def unacknowledged(sock: socket.socket) -> int | None:
    """Bytes sent that the peer's kernel has not acknowledged, an end of stream counted as one.

    None where the system does not say.
    """
    return _ask(sock, "TIOCOUTQ")


def unread(sock: socket.socket) -> int | None:
    """Bytes that have arrived and were not received; None where the system does not say."""
    return _ask(sock, "FIONREAD")


def _ask(sock: socket.socket, request: str) -> int | None:
    if fcntl is None or sys.platform != "linux":  # elsewhere TIOCOUTQ is for terminals alone
        return None
    try:
        answer = fcntl.ioctl(sock.fileno(), getattr(termios, request), _NOTHING)
    except (OSError, ValueError):
        return None
    return int.from_bytes(answer, sys.byteorder)


_NOTHING = bytes(4)


def reset(sock: socket.socket) -> None:
    """Let the close of `sock` reset the connection: what is unsent is dropped, and the peer learns.

    Otherwise the kernel would go on sending what it has, and end as if that were all.
    """
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
    except OSError as error:
        logger.debug("cannot reset a connection: %s", error)


_AT_ONCE = struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)


def numeric_address(host: str, port: int) -> tuple[socket.AddressFamily, tuple[Any, ...]] | None:
    """Family and socket address for a numeric host; None for a name, which needs a resolver.

    A scoped address (``fe80::1%eth0``) counts as a name.
    """
    for family, rest in ((socket.AF_INET, ()), (socket.AF_INET6, (0, 0))):
        try:
            socket.inet_pton(family, host)
        except (OSError, ValueError):
            continue
        return family, (host, port, *rest)
    return None


def descriptor_limit() -> int | None:
    """How many file descriptors this process may open; None if there is no limit."""
    if resource is None:
        return None
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if soft == resource.RLIM_INFINITY else soft


def has_caller(listening: socket.socket) -> bool:
    """Whether a connection is waiting to be accepted.

    `accept` cannot tell without a free descriptor: it fails before looking at the queue.
    """
    if hasattr(select, "poll"):
        poll = select.poll()
        poll.register(listening, select.POLLIN)
        return bool(poll.poll(0))
    return bool(select.select([listening], [], [], 0)[0])
