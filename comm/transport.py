"""Streams come from here: `dial` makes one to an address, `FrameServer` accepts them.

Both end with TLS done, if there is any; what follows, beginning with the hello, is the caller's.
With `stream`, the only importers of Tornado.
"""

from __future__ import annotations

import asyncio
import errno
import functools
import logging
import socket
import ssl
from collections.abc import Awaitable, Callable
from typing import Any

from tornado.iostream import IOStream, StreamClosedError
from tornado.netutil import Resolver, bind_sockets
from tornado.tcpclient import TCPClient
from tornado.tcpserver import TCPServer

from .addressing import Address, format_address
from .errors import CommClosedError
from .limits import Limits
from .sockets import AddressInfo, numeric_addresses
from .stream import FrameStream

__all__ = ["FrameServer", "dial", "serve"]

_STOP_GRACE = 0.5

logger = logging.getLogger("sealwire.comm")


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
        stream = await client.connect(address.host or "localhost", address.port)
        assert isinstance(stream, FrameStream)
        stream.set_deadline(limits.handshake_timeout)
        if context is None:
            stream.open()
        else:
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


class FrameServer(TCPServer):
    """Accepts on bound sockets; hands over each stream once TLS is done.

    Parameters
    ----------
    scheme
        Of the addresses in errors.
    greet
        Called with a new stream; returns when its hello is done. Until then the stream counts as
        pending: it has a deadline, and `stop` drops it. A `CommClosedError` from it is logged in
        one line; anything else with its traceback. Either closes the stream.
    attend
        Called with what `greet` returned; its errors are its own business.
    context
        For TLS.
    """

    def __init__(
        self,
        scheme: str,
        limits: Limits,
        greet: Callable[[FrameStream], Awaitable[Any]],
        attend: Callable[[Any], Awaitable[None]],
        context: ssl.SSLContext | None = None,
    ) -> None:
        super().__init__()
        self._scheme = scheme
        self._limits = limits
        self._greet = greet
        self._attend = attend
        self._context = context
        self._pending: set[FrameStream] = set()
        self._accepting = True
        self.address: tuple[str, int] = ("", 0)

    async def handle_stream(self, stream: IOStream, address: tuple[Any, ...]) -> None:
        """Called by Tornado with each accepted connection."""
        peer = format_address(self._scheme, *address[:2])
        framed = FrameStream(stream.socket, self._limits, peer)
        if not self._accepting:
            framed.close()
            return
        self._pending.add(framed)
        framed.set_deadline(self._limits.handshake_timeout)
        try:
            if self._context is None:
                framed.open()
            else:
                await framed.secure(self._context, server_side=True)
            greeted = await self._greet(framed)
        except CommClosedError as error:
            logger.info("listener on %s: %s", self._own_address(), error)
            framed.close()
            return
        except Exception:
            logger.exception("listener on %s: cannot greet %s", self._own_address(), peer)
            framed.close()
            return
        except BaseException:
            framed.close()
            raise
        finally:
            self._pending.discard(framed)
        await self._attend(greeted)

    def _own_address(self) -> str:
        return format_address(self._scheme, *self.address)

    def stop(self) -> None:
        """Stop accepting. Streams whose hello is under way have half a second to finish it."""
        self._accepting = False
        super().stop()
        for framed in self._pending:
            framed.set_deadline(min(_STOP_GRACE, self._limits.handshake_timeout))

    def drop_pending(self) -> None:
        """Close the streams whose hello is not done."""
        for framed in list(self._pending):
            framed.close()


def serve(server: FrameServer, host: str, port: int, backlog: int) -> None:
    """Bind `server` to every address of `host` and begin to accept; sets `server.address`.

    An empty host means every interface, port 0 any free one. Raises `OSError`.
    """
    attempts = 5 if port == 0 else 1  # a free port may be taken for the other family meanwhile
    for attempt in range(attempts):
        try:
            sockets = bind_sockets(port, host or None, backlog=backlog)
            break
        except OSError as error:
            if error.errno != errno.EADDRINUSE or attempt == attempts - 1:
                raise
    # Where both families are bound, the IPv4 address is the one more peers can use.
    chosen = min(sockets, key=lambda sock: sock.family != socket.AF_INET)
    server.address = chosen.getsockname()[:2]
    server.add_sockets(sockets)
