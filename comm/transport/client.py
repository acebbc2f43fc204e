"""`FrameClient` opens streams to addresses, over TLS if asked, and exchanges hellos.

A numeric address needs no resolver and no race, and is dialled directly. For a name, Tornado's
client tries IPv4 and IPv6 side by side; the winner's socket is detached as `IOStream.start_tls`
does it, so that Tornado's streams serve for connecting only.
"""

from __future__ import annotations

import asyncio
import datetime
import logging
import os
import socket
import ssl
from collections.abc import Callable
from typing import Any

from tornado.iostream import IOStream, StreamClosedError
from tornado.tcpclient import TCPClient
from tornado.util import TimeoutError as TornadoTimeoutError

from ..addressing import Address
from ..arguments import expect_secure
from ..errors import CommClosedError
from ..limits import DEFAULT_LIMITS, Limits
from ..tls_errors import NamingFiles
from .connection import State
from .greeting import exchange_hellos
from .readiness import Readiness
from .sockets import numeric_address, tune
from .stream import FrameStream
from .wakeup import Wakeup

__all__ = ["FrameClient"]

logger = logging.getLogger("sealwire.comm")


class FrameClient(TCPClient):
    """A Tornado `TCPClient` whose streams carry frames.

    Parameters
    ----------
    limits : Limits, optional
        Bounds for every stream.
    resolver : tornado.netutil.Resolver, optional
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
        """Open a stream and exchange hellos.

        The parameters are those of `tornado.tcpclient.TCPClient.connect`, with these differences.

        Parameters
        ----------
        ssl_options : ssl.SSLContext, optional
            A context that requires a peer certificate, as from ``Security.get_connection_args``;
            without one the stream is plain.
        max_buffer_size : int, optional
            Ignored: `limits` bound what is received.
        timeout : float or datetime.timedelta, optional
            For everything; by default `Limits.handshake_timeout` bounds TLS and hello.
        server_hostname : str, optional
            The name to send to the server (SNI); none by default.

        Returns
        -------
        FrameStream

        Raises
        ------
        CommClosedError
            If the connection fails; `HandshakeError` or `HelloError` if TLS or hello is refused.
        socket.gaierror
            For an address of another family than `af`.
        TypeError, ValueError
            For an unsuitable context.
        tornado.util.TimeoutError
            If `timeout` expires.

        Notes
        -----
        Neither an error nor a cancelled call leaves a socket open.
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
            with NamingFiles(context):  # in TLS 1.3 a client learns only here that it was refused
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
        how: tuple[socket.AddressFamily, str | None, int | None] = (socket.AF_UNSPEC, None, None),
    ) -> FrameStream:
        """Connect a stream, over TLS if there is a `context`; the caller exchanges the hellos.

        Parameters
        ----------
        address : Address
            Complete, with scheme and port.
        limits : Limits, optional
            Those of the client if omitted.
        context : ssl.SSLContext, optional
            For TLS.
        server_hostname : str, optional
            The name to send to the server (SNI).
        how : tuple
            Address family, source address and source port.

        Returns
        -------
        FrameStream
            Its deadline for the hello is running.

        Raises
        ------
        HandshakeError
            If either side refuses TLS.
        CommClosedError
            If the connection fails otherwise.

        Notes
        -----
        Neither an error nor a cancelled call leaves a socket open.
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

    async def _socket(
        self,
        host: str,
        port: int,
        af: socket.AddressFamily,
        source_ip: str | None,
        source_port: int | None,
    ) -> socket.socket:
        """Return a connected socket."""
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
    """A single use of Tornado's client that leaves no connection attempt behind."""

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
        """Return the socket that was connected first."""
        try:
            stream = await self.connect(
                host, port, af, source_ip=source_ip, source_port=source_port
            )
            self._attempts.remove(stream)
        finally:
            for attempt in self._attempts:  # the slower ones, or all after a failure
                attempt.close()
        sock = stream.socket
        stream.io_loop.remove_handler(sock)
        stream.socket = None  # type: ignore[assignment]
        return sock


def _log_end(kind: str, words: Callable[[], str]) -> None:
    """Log the error of a stream that belongs to no listener."""
    logger.info("%s", words())


def _expect_family(host: str, port: int, af: socket.AddressFamily) -> None:
    """Raise `socket.gaierror`, as a resolver would, for a numeric host of another family."""
    numeric = numeric_address(host, port)
    if numeric is not None and af not in (socket.AF_UNSPEC, numeric[0]):
        # macOS and Windows have no such code, or use it for unknown names too.
        code = getattr(socket, "EAI_ADDRFAMILY", socket.EAI_NONAME)
        raise socket.gaierror(
            code,
            f"cannot connect to {host}: it is an address of {numeric[0].name}, and "
            f"{socket.AddressFamily(af).name} was asked for; pass af=socket.AF_UNSPEC",
        )


async def _reach(sock: socket.socket, address: tuple[Any, ...]) -> None:
    """Connect a non-blocking socket. Raises `OSError`; a cancelled call leaves it half connected.

    On one machine the connection is complete before `connect` returns ``EINPROGRESS``; checking
    for that saves two iterations of the event loop.
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
