"""`FrameClient` makes streams to addresses, over TLS if asked, and greets who is there.

A numeric address has nothing to look up or to race, and is dialled directly. For a name Tornado's
client tries IPv4 and IPv6 side by side; its winner's socket is taken over as `IOStream.start_tls`
takes it, so that of Tornado's streams nothing is used but that they connect.
"""

from __future__ import annotations

import asyncio
import datetime
import logging
import os
import socket
import ssl
from collections.abc import Callable, Sequence
from typing import Any

from tornado.iostream import IOStream, StreamClosedError
from tornado.tcpclient import TCPClient
from tornado.util import TimeoutError as TornadoTimeoutError

from ..addressing import Address
from ..arguments import expect_secure
from ..errors import CommClosedError
from ..limits import DEFAULT_LIMITS, Limits
from ..tls_errors import NamingFiles
from .greeting import exchange_hellos
from .inquiry import Language, inquire
from .readiness import Readiness
from .sockets import numeric_address, tune
from .stream import FrameStream, State
from .wakeup import Wakeup

__all__ = ["FrameClient"]

logger = logging.getLogger("sealwire.comm")

_ANYHOW = (socket.AF_UNSPEC, None, None)  # any family, source address and port


class FrameClient(TCPClient):
    """A Tornado `TCPClient` whose streams carry frames.

    Parameters
    ----------
    limits
        For every stream that is not given others.
    resolver
        As for `TCPClient`.
    """

    def __init__(self, limits: Limits = DEFAULT_LIMITS, resolver: Any = None) -> None:
        super().__init__(resolver)
        self.limits = limits

    async def connect(  # type: ignore[override]
        self,
        host: str,
        port: int,
        af: socket.AddressFamily = socket.AF_UNSPEC,
        ssl_options: ssl.SSLContext | None = None,
        max_buffer_size: int | None = None,
        source_ip: str | None = None,
        source_port: int | None = None,
        timeout: float | datetime.timedelta | None = None,
        *,
        server_hostname: str | None = None,
    ) -> FrameStream:
        """A stream that has exchanged hellos.

        The parameters are those of `TCPClient.connect`, but that `ssl_options` is a context that
        demands a certificate of the peer, as `Security.get_connection_args` gives; that the name
        sent to the server (SNI) is `server_hostname`, none by default; and that `limits` bound what
        is received, not `max_buffer_size`, which is taken for compatibility. `timeout` is for all
        of it; without one `Limits.handshake_timeout` bounds TLS and hello.

        Raises `CommClosedError`, for TLS and hello that are refused its `HandshakeError` and
        `HelloError`; `socket.gaierror` for an address of another family than `af`; `TypeError` and
        `ValueError` for contexts that do not do; `tornado.util.TimeoutError`. Nothing is left open
        by an error or by cancelling.
        """
        if ssl_options is not None:
            instead = "pass the ssl_context of security.get_connection_args(role)"
            expect_secure(f"{host}:{port}", ssl_options, "client", instead)
        _expect_family(host, port, af)
        address = Address("tcp" if ssl_options is None else "tls", host, port)
        seconds = timeout.total_seconds() if isinstance(timeout, datetime.timedelta) else timeout
        connecting = self._greeted(
            address, ssl_options, server_hostname, (af, source_ip, source_port)
        )
        if seconds is None:
            return await connecting
        try:
            return await asyncio.wait_for(connecting, seconds)
        except asyncio.TimeoutError:
            raise TornadoTimeoutError(
                f"cannot connect to {address}: nothing came of it within {seconds:g} s; check that "
                f"the address is right and the other side not overloaded"
            ) from None

    async def _greeted(
        self,
        address: Address,
        context: ssl.SSLContext | None,
        server_hostname: str | None,
        how: tuple[socket.AddressFamily, str | None, int | None],
    ) -> FrameStream:
        stream = await self.dial(address, context=context, server_hostname=server_hostname, how=how)
        try:
            with NamingFiles(context):  # TLS 1.3 tells a client only now what the server made of it
                await exchange_hellos(stream)
        except BaseException:
            stream.close()
            raise
        return stream

    async def dial(
        self,
        address: Address,
        limits: Limits | None = None,
        *,
        context: ssl.SSLContext | None = None,
        server_hostname: str | None = None,
        how: tuple[socket.AddressFamily, str | None, int | None] = _ANYHOW,
        connected: Callable[[FrameStream], object] | None = None,
    ) -> FrameStream:
        """A connected stream, over TLS if there is a `context`; the hello is the caller's.

        Its deadline for the hello is running. `how` is address family, source address and port;
        `connected` is called with the stream before TLS begins.
        Raises `HandshakeError` if either side refuses, and another `CommClosedError` if nothing
        answers. Nothing is left open by an error or by cancelling.
        """
        limits = limits or self.limits
        peer = str(address)
        stream = None
        try:
            sock = await self._socket(address.host or "localhost", address.port, *how)
            first = State.HELLO if context is None else State.HANDSHAKE
            stream = FrameStream(sock, limits, peer, first)
            stream.tell = _log_end
            tune(sock, limits.keepalive_timeout)
            stream.set_deadline(limits.handshake_timeout)
            if connected is not None:
                connected(stream)
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

    async def inquire(
        self, address: Address, openings: Sequence[bytes], seconds: float
    ) -> Language:
        """What an address answers to one of the `openings`; see `inquiry.inquire`."""
        sock = await self._socket(address.host or "localhost", address.port, *_ANYHOW)
        return await inquire(sock, openings, seconds)

    async def _socket(
        self,
        host: str,
        port: int,
        af: socket.AddressFamily,
        source_ip: str | None,
        source_port: int | None,
    ) -> socket.socket:
        """A connected socket."""
        numeric = numeric_address(host, port)
        if numeric is None or source_ip is not None or source_port is not None:
            race = _Race(self.resolver)
            return await race.winner(host, port, af, source_ip, source_port)
        family, address = numeric
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            await _reach(sock, address)
        except BaseException:
            sock.close()
            raise
        return sock


class _Race(TCPClient):
    """One use of Tornado's client, which leaves no attempt of it behind."""

    def __init__(self, resolver: Any) -> None:
        super().__init__(resolver)
        self._attempts: list[IOStream] = []

    def _create_stream(
        self, *args: Any, **kwargs: Any
    ) -> tuple[IOStream, asyncio.Future[IOStream]]:
        stream, connected = super()._create_stream(*args, **kwargs)
        self._attempts.append(stream)
        return stream, connected

    async def winner(
        self,
        host: str,
        port: int,
        af: socket.AddressFamily,
        source_ip: str | None,
        source_port: int | None,
    ) -> socket.socket:
        """The socket that was connected first."""
        try:
            stream = await self.connect(
                host, port, af, source_ip=source_ip, source_port=source_port
            )
            self._attempts.remove(stream)
        finally:
            for attempt in self._attempts:  # the slower ones, or all of them
                attempt.close()
        sock = stream.socket
        stream.io_loop.remove_handler(sock)
        stream.socket = None  # type: ignore[assignment]
        return sock


def _log_end(kind: str, words: Callable[[], str]) -> None:
    """Tell of a stream that no listener watches."""
    logger.info("%s", words())


def _expect_family(host: str, port: int, af: socket.AddressFamily) -> None:
    """Raise `socket.gaierror`, as a resolver would, for a numeric host of another family."""
    numeric = numeric_address(host, port)
    if numeric is not None and af not in (socket.AF_UNSPEC, numeric[0]):
        # macOS and Windows have no number for it, or do not tell it from an unknown name.
        code = getattr(socket, "EAI_ADDRFAMILY", socket.EAI_NONAME)
        raise socket.gaierror(
            code,
            f"cannot connect to {host}: it is an address of {numeric[0].name}, and "
            f"{socket.AddressFamily(af).name} was asked for; pass af=socket.AF_UNSPEC",
        )


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
