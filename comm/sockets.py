"""Options of a TCP socket (sent at once, watched for a dead peer); addresses without a resolver;
what a listener must know when descriptors run out."""

from __future__ import annotations

import errno
import logging
import select
import socket
import sys
from typing import Any

try:
    import resource
except ImportError:  # Windows has no such limits
    resource = None  # type: ignore[assignment]

__all__ = [
    "STARVED",
    "AddressInfo",
    "descriptor_limit",
    "has_caller",
    "numeric_addresses",
    "tune",
]

logger = logging.getLogger("sealwire.comm")

AddressInfo = tuple[int, tuple[Any, ...]]
"""A socket family and an address for it, as Tornado's resolvers give them."""

STARVED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
"""What `accept` says when the system has nothing left for another connection."""

_PROBES = 10
_TCP_CLOSE = 7  # first byte of Linux's struct tcp_info


def tune(sock: socket.socket, keepalive_timeout: float) -> None:
    """Send small messages at once, and give up on a silent peer after `keepalive_timeout` seconds.

    Idle connections are probed, and sent bytes must be acknowledged within the time. Where a system
    lacks an option the connection goes on without; a socket that is gone already raises nothing.
    """
    interval = max(1, round(keepalive_timeout / (2 * _PROBES)))
    idle = max(1, round(keepalive_timeout) - interval * _PROBES)
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in (
            ("TCP_KEEPALIVE" if sys.platform == "darwin" else "TCP_KEEPIDLE", idle),
            ("TCP_KEEPINTVL", interval),
            ("TCP_KEEPCNT", _PROBES),
            ("TCP_USER_TIMEOUT", round(keepalive_timeout * 1000)),
        ):
            option = getattr(socket, name, None)
            if option is not None:
                sock.setsockopt(socket.IPPROTO_TCP, option, value)
    except OSError as error:
        logger.debug("cannot set TCP options: %s", error)


def given_up(sock: socket.socket) -> bool:
    """Whether the kernel has dropped the connection: it was reset, or its peer was silent too long.

    False where the peer has closed in order, or where the system does not say.
    """
    try:
        return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == _TCP_CLOSE
    except (AttributeError, OSError):
        return False


def numeric_addresses(
    host: str, port: int, family: int = socket.AF_UNSPEC
) -> list[AddressInfo] | None:
    """The address of a numeric host, found without blocking; None if `host` is a name."""
    try:
        found = socket.getaddrinfo(
            host,
            port,
            family,
            socket.SOCK_STREAM,
            flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
        )
    except socket.gaierror:
        return None
    return [(int(entry[0]), tuple(entry[4])) for entry in found]


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
