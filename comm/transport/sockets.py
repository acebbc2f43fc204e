"""Options of TCP sockets, numeric addresses, and what the kernel tells.

It is asked about a connection, and about the descriptors that are left.
"""

from __future__ import annotations

import errno
import functools
import logging
import math
import select
import socket
import sys
from pathlib import Path
from typing import Any

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
    "numeric_address",
    "tune",
]

logger = logging.getLogger("sealwire.comm")

STARVED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
"""What `accept` says when the system has nothing left for another connection."""

INHERITED = sys.platform == "linux"
"""Whether an accepted socket has the options of the listening one: then that one is tuned."""

_LONGEST = 60_000.0  # seconds; beyond, Linux would refuse the idle time, and with it the rest
_TCP_CLOSE = 7  # first byte of Linux's struct tcp_info
_INFO_SIZE = 136  # of that, up to tcpi_bytes_received, since Linux 4.1

# TCP_RTO_MAX_MS, since Linux 6.15, bounds the time between two attempts to send the same bytes.
_RTO_MAX_MS = 44
_RTO_MIN, _RTO_MAX = 0.2, 120.0  # seconds; the kernel's own bounds
_RETRIES = Path("/proc/sys/net/ipv4/tcp_retries2")
_bounded = sys.platform == "linux"


def tune(sock: socket.socket, keepalive_timeout: float) -> None:
    """Send small messages at once, and give up on a silent peer after `keepalive_timeout` seconds.

    The kernel probes idle connections; that sent bytes are acknowledged is the business of
    `liveness`. To be called before connecting or listening. Where a system lacks an option the
    connection goes on without; a socket that is gone already raises nothing.
    """
    # A short idle time, since from its last answer on the peer's silence is counted; then often, so
    # that a network that is back just in time is not overlooked. The kernel's timers are late.
    seconds = min(keepalive_timeout, _LONGEST)
    idle = max(1, round(seconds / 15))
    interval = max(1, round(seconds / 30))
    probes = max(2, int((0.97 * seconds - idle) / interval))
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
    _bound_pauses(sock, _longest_pause(keepalive_timeout, _retries()))


def allow_round_trips(sock: socket.socket, seconds: float, keepalive_timeout: float) -> None:
    """Have a tuned socket wait for acknowledgements that take `seconds` and longer.

    Else a path that is slower than the bound for pauses would have everything sent twice.
    """
    needed = 3 * seconds
    if needed > 1.0 and needed > _longest_pause(keepalive_timeout, _retries()):
        _bound_pauses(sock, min(needed, _RTO_MAX))


def _bound_pauses(sock: socket.socket, seconds: float) -> None:
    """Send again at least every so many seconds, however long nothing was acknowledged.

    The kernel doubles the time each time, up to two minutes: what a network lost for half a minute
    would else be sent again up to half a minute after it is back.
    """
    global _bounded
    if not _bounded:
        return
    try:
        sock.setsockopt(socket.IPPROTO_TCP, _RTO_MAX_MS, round(seconds * 1000))
    except OSError as error:
        if error.errno != errno.ENOPROTOOPT:
            logger.debug("cannot bound the time between retransmissions: %s", error)
            return
        _bounded = False
        logger.debug(
            "this kernel cannot bound the time between retransmissions (TCP_RTO_MAX_MS, since "
            "Linux 6.15): after a network was away, work may go on as much later again"
        )


@functools.cache
def _longest_pause(keepalive_timeout: float, retries: int) -> float:
    """A twelfth of the time allowed, and at least a second, the kernel's own minimum.

    More where the kernel, which counts in pauses when it is to give up, would do so too early.
    """
    pause = max(1.0, keepalive_timeout / 12)
    while pause < _RTO_MAX and _gives_up_after(pause, retries) < 1.05 * keepalive_timeout:
        pause *= 1.1
    return min(pause, _RTO_MAX)


def _gives_up_after(pause: float, retries: int) -> float:
    """Seconds without an acknowledgement, as Linux reckons them of tcp_retries2."""
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
    """Whether nothing will arrive any more, since the kernel has closed the connection for good.

    What arrived before can still be received. False where the system does not say.
    """
    try:
        return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == _TCP_CLOSE
    except (AttributeError, OSError):
        return False


def bytes_received(sock: socket.socket) -> int | None:
    """What the peer has sent in all, read or not; None where the system does not say."""
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO_SIZE)
    except (AttributeError, OSError):
        return None
    if sys.platform != "linux" or len(info) < _INFO_SIZE:
        return None
    return int.from_bytes(info[_INFO_SIZE - 8 :], sys.byteorder)


def given_up(sock: socket.socket) -> bool:
    """Whether the kernel has dropped the connection: it was reset, or its peer was silent too long.

    False where the peer has closed in order, or where the system does not say.
    """
    if not is_dead(sock):
        return False
    try:
        # EPIPE: it was reset after an end in order. OpenSSL answers an end without close_notify by
        # an alert, and a peer that is gone answers that by a reset.
        return sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) != errno.EPIPE
    except OSError:
        return False


def numeric_address(host: str, port: int) -> tuple[socket.AddressFamily, tuple[Any, ...]] | None:
    """Family and address for a host that is an IP address; None for a name, which needs a resolver.

    One with a scope (``fe80::1%eth0``) counts as a name.
    """
    for family, rest in ((socket.AF_INET, ()), (socket.AF_INET6, (0, 0))):
        try:
            socket.inet_pton(family, host)
        except (OSError, ValueError):
            continue
        return family, (host, port, *rest)
    return None


def host_and_port(address: tuple[Any, ...]) -> tuple[str, int]:
    """Of a socket's address; a link-local host with its zone, ``fe80::1%eth0``.

    Without that nobody could dial it. Python leaves it out.
    """
    host, port = address[:2]
    if len(address) == 4 and address[3] and "%" not in host:
        try:
            host = f"{host}%{socket.if_indextoname(address[3])}"
        except OSError:  # the interface has gone; its number is a zone too
            host = f"{host}%{address[3]}"
    return host, port


def descriptor_limit() -> int | None:
    """How many descriptors this process may open, None if there is no limit to ask for."""
    if resource is None:
        return None
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if soft == resource.RLIM_INFINITY else soft


def has_caller(listening: socket.socket) -> bool:
    """Whether a connection waits to be accepted.

    Without a free descriptor `accept` itself cannot tell: it fails before it looks.
    """
    if hasattr(select, "poll"):
        poll = select.poll()
        poll.register(listening, select.POLLIN)
        return bool(poll.poll(0))
    return bool(select.select([listening], [], [], 0)[0])
