"""Socket options, numeric addresses, and the kernel's view of connections and descriptors."""

from __future__ import annotations

import errno
import functools
import logging
import math
import select
import socket
import struct
import sys
from pathlib import Path
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
    "allow_round_trips",
    "bytes_received",
    "descriptor_limit",
    "given_up",
    "has_caller",
    "host_and_port",
    "is_dead",
    "is_silent",
    "numeric_address",
    "outlive",
    "reset",
    "round_trip",
    "tune",
    "unacknowledged",
    "unread",
]

logger = logging.getLogger("sealwire.comm")

STARVED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
"""What `accept` says when the system has nothing left for another connection."""

INHERITED = sys.platform == "linux"
"""Whether an accepted socket has the options of the listening one: then that one is tuned."""

_LONGEST = 60_000.0  # seconds; Linux rejects more for the idle time
_TCP_CLOSE = 7  # tcpi_state, the first byte of Linux's struct tcp_info
_RTT = slice(68, 72)  # tcpi_rtt, in microseconds
_SILENCE = struct.Struct("=52xII")  # tcpi_last_data_recv, tcpi_last_ack_recv, in ms
_INFO_SIZE = 136  # bytes of tcp_info up to tcpi_bytes_received, since Linux 4.1

# TCP_RTO_MAX_MS, since Linux 6.15, bounds the retransmission timeout.
_RTO_MAX_MS = 44
_RTO_MIN, _RTO_MAX = 0.2, 120.0  # seconds; the kernel's own bounds
_RETRIES = Path("/proc/sys/net/ipv4/tcp_retries2")
_bounded = sys.platform == "linux"


def tune(sock: socket.socket, keepalive_timeout: float) -> None:
    """Disable Nagle's algorithm and enable keep-alive probes for `keepalive_timeout` seconds.

    Keep-alive covers idle connections; `liveness` checks that sent bytes are acknowledged. Call it
    before the socket connects or listens. Options that a system lacks are skipped; a socket that is
    disconnected already raises nothing.
    """
    try:
        for level, option, value in _options(keepalive_timeout):
            sock.setsockopt(level, option, value)
    except OSError as error:
        logger.debug("cannot set TCP options: %s", error)
    if _bounded:
        _bound_pauses(sock, _longest_pause(keepalive_timeout, _retries()))


@functools.cache
def _options(keepalive_timeout: float) -> list[tuple[int, int, int]]:
    # The silence of a peer is counted from its last answer, so the idle time is short. Further
    # probes follow quickly, so that a network that is back in time is noticed. The total is below
    # the timeout because the kernel's timers fire late.
    seconds = min(keepalive_timeout, _LONGEST)
    idle = max(1, round(seconds / 15))
    interval = max(1, round(seconds / 30))
    probes = max(2, int((0.97 * seconds - idle) / interval))
    options = [
        (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    ]
    for name, value in (
        ("TCP_KEEPALIVE" if sys.platform == "darwin" else "TCP_KEEPIDLE", idle),
        ("TCP_KEEPINTVL", interval),
        ("TCP_KEEPCNT", probes),
    ):
        option = getattr(socket, name, None)
        if option is not None:
            options.append((socket.IPPROTO_TCP, option, value))
    return options


def allow_round_trips(sock: socket.socket, seconds: float, keepalive_timeout: float) -> None:
    """Raise the bound of `_bound_pauses` for a path whose round trip takes `seconds`.

    Otherwise, everything would be sent twice on a path slower than the bound.
    """
    needed = 3 * seconds
    if needed > 1.0 and needed > _longest_pause(keepalive_timeout, _retries()):
        _bound_pauses(sock, min(needed, _RTO_MAX))


def _bound_pauses(sock: socket.socket, seconds: float) -> None:
    """Bound the retransmission timeout, which the kernel doubles each time, up to two minutes.

    Without a bound, what was lost in an outage of half a minute may be sent again only half a
    minute after its end.
    """
    global _bounded
    if not _bounded:
        return
    try:
        sock.setsockopt(socket.IPPROTO_TCP, _RTO_MAX_MS, round(seconds * 1000))
    except OSError as error:
        if error.errno != errno.ENOPROTOOPT:
            logger.debug("cannot bound the retransmission timeout: %s", error)
            return
        _bounded = False
        logger.debug(
            "this kernel cannot bound the retransmission timeout (TCP_RTO_MAX_MS, since Linux "
            "6.15): after an outage of the network, work may resume as much later again"
        )


@functools.cache
def _longest_pause(keepalive_timeout: float, retries: int) -> float:
    """Return the bound for the retransmission timeout: a twelfth of the timeout, at least 1 s.

    It is larger where the kernel, which gives up after a number of retransmissions, would
    otherwise do so before `keepalive_timeout`.
    """
    pause = max(1.0, keepalive_timeout / 12)
    while pause < _RTO_MAX and _gives_up_after(pause, retries) < 1.05 * keepalive_timeout:
        pause *= 1.1
    return min(pause, _RTO_MAX)


def _gives_up_after(pause: float, retries: int) -> float:
    """Return after how many seconds Linux gives up, by its sysctl ``tcp_retries2``."""
    doublings = int(math.log2(pause / _RTO_MIN))
    if retries <= doublings:
        return ((2 << retries) - 1) * _RTO_MIN
    return ((2 << doublings) - 1) * _RTO_MIN + (retries - doublings) * pause


@functools.cache
def _retries() -> int:
    try:
        return int(_RETRIES.read_text())
    except (OSError, ValueError):
        return 15


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


def round_trip(sock: socket.socket) -> float | None:
    """Return the kernel's estimate of the round trip, in seconds.

    None where it has none: of a local socket, and on systems that do not tell.
    """
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _RTT.stop)
    except (AttributeError, OSError):
        return None
    if sys.platform != "linux" or len(info) < _RTT.stop:
        return None
    return int.from_bytes(info[_RTT], sys.byteorder) / 1e6 or None


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


def is_silent(sock: socket.socket, seconds: float) -> bool:
    """Whether nothing was heard of the peer's kernel for so long.

    Idle peers are probed more often (`tune`). False where the system does not tell.
    """
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _SILENCE.size)
        silence: int = min(_SILENCE.unpack(info))
    except (AttributeError, OSError, struct.error):
        return False
    return silence > 1000 * seconds


def unacknowledged(sock: socket.socket) -> int | None:
    """Bytes sent that the peer's kernel has not acknowledged, an end of stream counted as one.

    None where the system does not say.
    """
    return None if _QUEUED is None else _ask(sock, _QUEUED)


def unread(sock: socket.socket) -> int | None:
    """Bytes that have arrived and were not received; None where the system does not say."""
    return None if _UNREAD is None else _ask(sock, _UNREAD)


def _ask(sock: socket.socket, request: int) -> int | None:
    try:
        answer = fcntl.ioctl(sock.fileno(), request, _NOTHING)
    except (OSError, ValueError):
        return None
    return int.from_bytes(answer, sys.byteorder)


_NOTHING = bytes(4)
_QUEUED: int | None = None
_UNREAD: int | None = None
if sys.platform == "linux":  # elsewhere TIOCOUTQ is for terminals alone
    _QUEUED, _UNREAD = termios.TIOCOUTQ, termios.FIONREAD


def reset(sock: socket.socket) -> None:
    """Let the close of `sock` reset the connection: what is unsent is dropped, and the peer learns.

    Otherwise the kernel would go on sending what it has, and end as if that were all.
    """
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
    except OSError as error:
        logger.debug("cannot reset a connection: %s", error)


def outlive(sock: socket.socket, seconds: float) -> None:
    """Let the kernel go on sending for `seconds` what `sock` has sent last, once it is closed.

    Linux gives up on a closed connection as soon as its pauses have grown to their bound, which is
    1.4 s after the beginning of an outage if that is a second (`_bound_pauses`).
    """
    if _USER_TIMEOUT is None:
        return
    try:
        sock.setsockopt(socket.IPPROTO_TCP, _USER_TIMEOUT, min(round(seconds * 1000), _MOST))
    except OSError as error:  # it is gone already
        logger.debug("cannot bound the end of a connection: %s", error)


_USER_TIMEOUT = getattr(socket, "TCP_USER_TIMEOUT", None)
_MOST = 2**31 - 1  # milliseconds
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


def host_and_port(address: tuple[Any, ...]) -> tuple[str, int]:
    """Return host and port of a socket's address; a link-local host has its zone.

    Python omits the zone (``%eth0`` in ``fe80::1%eth0``), without which it cannot be dialled.
    """
    host, port = address[:2]
    if len(address) == 4 and address[3] and "%" not in host:
        try:
            host = f"{host}%{socket.if_indextoname(address[3])}"
        except OSError:  # the interface has gone; its number is a zone too
            host = f"{host}%{address[3]}"
    return host, port


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
