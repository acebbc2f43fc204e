"""Which protocol a silent address speaks, found out by speaking others to it.

If a TLS listener is dialled in plain text, or a web server over TLS, both sides wait for each other
until a timeout that does not tell the cause. So another connection tries.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket
import ssl
from collections.abc import Sequence
from typing import Literal

from .readiness import Readiness
from .wakeup import resume

__all__ = ["HTTP_REQUEST", "LINE", "Language", "client_hello", "inquire"]

Language = Literal["tls", "http", ""]

HTTP_REQUEST = b"GET /sealwire HTTP/1.0\r\n\r\n"  # by which our own listeners know it
LINE = b"\r\n\r\n"  # the end of a request, whatever its beginning was to a web server

_ENOUGH = 16  # bytes


@functools.cache
def client_hello() -> bytes:
    """Return a ClientHello. No certificate is shown, and the handshake goes no further."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    outgoing = ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), outgoing).do_handshake()
    return outgoing.read()


async def inquire(sock: socket.socket, openings: Sequence[bytes], seconds: float) -> Language:
    """Return what answers one of the `openings`, sent one after the other, `seconds` apart.

    The socket is connected, and does not block; it is closed. Raises `OSError`.
    """
    with sock:
        for opening in openings:
            sock.send(opening)
            first = await _first_bytes(sock, seconds)
            if first is not None:
                return _language(first)
    return ""


async def _first_bytes(sock: socket.socket, seconds: float) -> bytes | None:
    """Return what arrives in time: None for nothing, no bytes if the peer has closed."""
    readiness = Readiness(sock)
    arrived: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    readiness.on_readable(functools.partial(resume, arrived))
    try:
        await asyncio.wait_for(arrived, seconds)
    except asyncio.TimeoutError:
        return None
    finally:
        readiness.stop()
    return sock.recv(_ENOUGH)


def _language(first: bytes) -> Language:
    if first[:1] in (b"\x15", b"\x16") and first[1:2] == b"\x03":
        return "tls"
    return "http" if first[:5] in (b"HTTP/", b"<!DOC", b"<html") else ""
