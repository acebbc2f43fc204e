"""`dial` makes a stream to an address, over TLS if asked; the hello is the caller's.

With `readiness`, `stream` and `server`, the only importers of Tornado.
"""

from __future__ import annotations

import asyncio
import functools
import os
import socket
import ssl
from typing import Any

from tornado.iostream import IOStream, StreamClosedError
from tornado.tcpclient import TCPClient

from ..addressing import Address
from ..errors import CommClosedError
from ..limits import Limits
from ..tls_errors import NamingFiles
from .readiness import Readiness
from .sockets import numeric_address, tune
from .stream import FrameStream, log_end
from .wakeup import Wakeup

__all__ = ["dial"]


class _FrameClient(TCPClient):
    """Tornado's client, with IPv4 and IPv6 tried side by side, making `FrameStream`s."""

    def __init__(self, limits: Limits, peer: str) -> None:
        super().__init__()
        self.streams: list[FrameStream] = []
        self._make = functools.partial(FrameStream, limits=limits, peer=peer)

    def _create_stream(
        self,
        max_buffer_size: int | None,
        af: socket.AddressFamily,
        addr: tuple[Any, ...],
        source_ip: str | None = None,
        source_port: int | None = None,
    ) -> tuple[IOStream, asyncio.Future[IOStream]]:
        stream = self._make(socket.socket(af, socket.SOCK_STREAM))
        self.streams.append(stream)
        return stream, stream.connect(addr)  # type: ignore[return-value]


async def _connect(host: str, port: int, limits: Limits, peer: str) -> FrameStream:
    """A connected stream. With a numeric address there is nothing to look up or to race."""
    numeric = numeric_address(host, port)
    if numeric is not None:
        family, address = numeric
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            await _reach(sock, address)
            return FrameStream(sock, limits, peer)
        except BaseException:
            sock.close()
            raise
    client = _FrameClient(limits, peer)
    stream = None
    try:
        stream = await client.connect(host, port)
        assert isinstance(stream, FrameStream)
        return stream
    finally:
        for other in client.streams:  # the slower ones, or all of them
            if other is not stream:
                other.close()


async def _reach(sock: socket.socket, address: tuple[Any, ...]) -> None:
    """Connect a socket that does not block. Raises `OSError`; cancelling leaves it half way.

    On one machine the kernel is done before `connect` returns, although that says otherwise: a look
    saves two turns of the loop.
    """
    try:
        sock.connect(address)
    except BlockingIOError:
        try:
            sock.getpeername()
            return
        except OSError:
            pass
    else:
        return
    readiness = Readiness(sock)
    connected = Wakeup()
    readiness.on_writable(connected.resume)
    try:
        await connected
    finally:
        readiness.stop()
    code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if code:
        raise OSError(code, os.strerror(code))


async def dial(
    address: Address,
    limits: Limits,
    *,
    context: ssl.SSLContext | None = None,
    server_hostname: str | None = None,
) -> FrameStream:
    """A connected stream, over TLS if there is a `context`.

    Its deadline for the hello is running. Raises `HandshakeError` if either side refuses, and
    another `CommClosedError` if nothing answers. Nothing is left open by an error or by cancelling.
    """
    peer = str(address)
    stream = None
    try:
        stream = await _connect(address.host or "localhost", address.port, limits, peer)
        stream.tell = log_end
        tune(stream.socket, limits.keepalive_timeout)
        stream.set_deadline(limits.handshake_timeout)
        if context is None:
            stream.open()
        else:
            with NamingFiles(context):
                await stream.secure(context, server_side=False, server_hostname=server_hostname)
        dialled, stream = stream, None
    except CommClosedError:
        raise
    except OSError as error:
        cause = getattr(error, "real_error", None) or error
        raise CommClosedError(f"{_why(cause)}; {_remedy(cause)}", peer=peer) from cause
    finally:
        if stream is not None:
            stream.close()
    return dialled


def _why(error: BaseException) -> str:
    if isinstance(error, socket.gaierror):
        return f"the host name does not resolve ({error.strerror})"
    if isinstance(error, StreamClosedError):
        return "the connection was closed at once"
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).lower()


def _remedy(error: BaseException) -> str:
    if isinstance(error, socket.gaierror):
        return "check the host name"
    if isinstance(error, ConnectionRefusedError):
        return "check that a listener runs on that port"
    return "check the address and the network between"
