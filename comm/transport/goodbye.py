"""The end of a connection that loses nothing.

A kernel whose process has closed a socket resets the connection when bytes arrive for it, and with
that drops what it has yet to send. So a peer that talks while we close would lose the last of what
we said. Whoever closes has the rest of the connection discarded (`Receiver.discard`) and waits here
until the peer's kernel has acknowledged everything. A connection at rest has nothing to lose and
is closed at once, which is every connection of a question and its answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from typing import Protocol

from ..errors import CommClosedError
from ..wire.outbox import Outbox
from .sockets import reset, unacknowledged, unread

__all__ = ["answer_plain", "is_calm", "until_acknowledged", "until_sent"]

logger = logging.getLogger("sealwire.comm")

# For peers without TLS, which need 8 bytes to recognise it: protocol_version and close_notify.
_ALERT = b"\x15\x03\x01\x00\x02\x02\x46" + b"\x15\x03\x01\x00\x02\x01\x00"
_FIRST_PAUSE = 0.0005  # seconds; each is twice as long as the one before
_LONGEST_PAUSE = 0.05
_UNTOLD = 1.0  # seconds to wait for the peer's end where the system does not say what it has
_END = 1  # our end of stream counts as a byte; a peer may let us wait for its acknowledgement


def is_calm(sock: socket.socket) -> bool:
    """Whether all that was sent has been acknowledged, and all that has arrived received."""
    return unacknowledged(sock) == 0 and unread(sock) == 0


class Sending(Protocol):
    """What is asked of the sending side of a connection."""

    outbox: Outbox

    @property
    def ended(self) -> bool:
        """Whether the connection is closed."""

    async def drain(self, leave: int = 0) -> None:
        """Wait until the kernel has what is queued."""


async def until_sent(sender: Sending, sock: socket.socket, peer: str, seconds: float) -> bool:
    """Wait until the kernel has what is queued in `sender`; return whether it has all of it.

    Gives up, with a warning, once the `peer` has taken nothing for `seconds`, and at once if the
    connection ends. A cancelled call changes nothing.
    """
    outbox = sender.outbox
    while outbox and not sender.ended:
        # The kernel takes more only when a third of its buffer is free again, which is megabytes.
        before = outbox.sent, unacknowledged(sock)
        try:
            await asyncio.wait_for(sender.drain(), seconds)
        except asyncio.TimeoutError:
            if before == (outbox.sent, unacknowledged(sock)):
                logger.warning(
                    "comm with %s closed with %d bytes unsent: it took nothing for %g s; "
                    "raise Limits.close_timeout if its event loop may be busy for longer",
                    peer,
                    outbox.queued - outbox.sent,
                    seconds,
                )
                return False
        except CommClosedError:
            return False
    return not sender.ended


async def until_acknowledged(
    sock: socket.socket, gone: asyncio.Future[None], seconds: float
) -> None:
    """Wait until all that was sent is acknowledged, or the connection is `gone`.

    Gives up once nothing was acknowledged for `seconds`: then the close of `sock` will reset the
    connection, so that the peer learns of it.
    """
    loop = asyncio.get_running_loop()
    pause = _FIRST_PAUSE
    before = left = unacknowledged(sock)
    since = loop.time()
    while left is None or left > _END:
        if loop.time() - since > (_UNTOLD if left is None else seconds):
            if left is not None:
                reset(sock)
            return
        await asyncio.wait([gone], timeout=pause)
        if gone.done():
            return
        pause = min(2 * pause, _LONGEST_PAUSE)
        left = unacknowledged(sock)
        if left != before:
            before, since = left, loop.time()


def answer_plain(sock: socket.socket) -> None:
    """Send a TLS alert to a peer that does not speak TLS.

    It is read from first, since the kernel resets a connection that is closed with unread bytes,
    and the alert would be lost.
    """
    with contextlib.suppress(OSError):
        for _ in range(16):
            if len(sock.recv(65536)) < 65536:
                break
        sock.send(_ALERT)
        sock.shutdown(socket.SHUT_WR)
