"""`dial` makes a stream to an address, over TLS if asked; the hello is the caller's.

With `stream` and `server`, the only importers of Tornado.
"""

from __future__ import annotations

import asyncio
import functools
import socket
import ssl
from typing import Any

from tornado.iostream import IOStream, StreamClosedError
from tornado.netutil import Resolver
from tornado.tcpclient import TCPClient

from .addressing import Address
from .errors import CommClosedError
from .limits import Limits
from .refusals import naming_files
from .sockets import AddressInfo, numeric_addresses
from .stream import FrameStream

__all__ = ["dial"]


class _NumericFirst(Resolver):
    """Addresses at once for a numeric host, from the loop's threads for a name."""

    @classmethod
    def configurable_base(cls) -> type[Resolver]:
        return _NumericFirst

    @classmethod
    def configurable_default(cls) -> type[Resolver]:
        return _NumericFirst

    async def resolve(
        self, host: str, port: int, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[AddressInfo]:
        numeric = numeric_addresses(host, port, family)
        if numeric is not None:
            return numeric
        found = await asyncio.get_running_loop().getaddrinfo(
            host, port, family=family, type=socket.SOCK_STREAM
        )
        return [(int(entry[0]), tuple(entry[4])) for entry in found]


class _FrameClient(TCPClient):
    """Tornado's client, with IPv4 and IPv6 tried side by side, making `FrameStream`s."""

    def __init__(self, limits: Limits, peer: str) -> None:
        super().__init__(resolver=_NumericFirst())
        self.streams: list[FrameStream] = []
        self._make = functools.partial(FrameStream, limits=limits, peer=peer)

    async def reach(self, host: str, port: int) -> FrameStream:
        """A connected stream. With one numeric address there is nothing to look up or to race."""
        numeric = numeric_addresses(host, port)
        if numeric is None or len(numeric) > 1:
            stream: IOStream = await self.connect(host, port)
        else:
            family, where = numeric[0]
            stream, connected = self._create_stream(None, socket.AddressFamily(family), where)
            await connected
        assert isinstance(stream, FrameStream)
        return stream

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
    client = _FrameClient(limits, peer)
    stream = None
    try:
        stream = await client.reach(address.host or "localhost", address.port)
        stream.set_deadline(limits.handshake_timeout)
        if context is None:
            stream.open()
        else:
            with naming_files(context):
                await stream.secure(context, server_side=False, server_hostname=server_hostname)
    except CommClosedError:
        raise
    except OSError as error:
        cause = getattr(error, "real_error", None) or error
        raise CommClosedError(f"{_why(cause)}; {_remedy(cause)}", peer=peer) from cause
    else:
        dialled, stream = stream, None
        client.streams.remove(dialled)
        return dialled
    finally:
        for other in client.streams:  # the slower ones, or all of them
            other.close()


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
