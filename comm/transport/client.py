"""`FrameClient` opens streams to addresses, over TLS if asked, and exchanges hellos.

It is a `TCPClient` by its interface and its resolver. `Race` connects: Tornado's own race is only
between IPv4 and IPv6, and waits indefinitely for an address that does not answer.
"""

from __future__ import annotations

import asyncio
import datetime
import errno
import functools
import logging
import socket
import ssl
from collections.abc import Callable, Sequence
from typing import Any

from tornado.netutil import Resolver
from tornado.tcpclient import TCPClient
from tornado.util import TimeoutError as TornadoTimeoutError

from ..addressing import Address
from ..arguments import expect_name, expect_secure
from ..errors import CommClosedError
from ..kinds import ErrorKind
from ..limits import DEFAULT_LIMITS, Limits
from ..tls_errors import NamingFiles
from .connection import State
from .greeting import exchange_hellos
from .inquiry import Language, inquire
from .race import Race
from .sockets import numeric_address, tune
from .stream import FrameStream

__all__ = ["Dialling", "FrameClient"]

logger = logging.getLogger("sealwire.comm")

_ANYHOW = (socket.AF_UNSPEC, None, None)  # any family, source address and port


class FrameClient(TCPClient):
    """A Tornado `TCPClient` whose streams carry frames.

    Parameters
    ----------
    limits : Limits, optional
        Bounds for every stream.
    resolver : tornado.netutil.Resolver, optional
        As for `TCPClient`.
    """

    def __init__(self, limits: Limits = DEFAULT_LIMITS, resolver: Resolver | None = None) -> None:
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
        how: tuple[socket.AddressFamily, str | None, int | None] = _ANYHOW,
        connected: Callable[[FrameStream], object] | None = None,
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
        connected : callable, optional
            Called with the stream before TLS begins.

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
        dialling = self.dialling(
            address, limits, context=context, server_hostname=server_hostname, how=how
        )
        try:
            return await dialling.stream()
        except BaseException:
            dialling.close()
            raise

    async def inquire(
        self, address: Address, openings: Sequence[bytes], seconds: float
    ) -> Language:
        """Return what an address answers to one of the `openings`; see `inquiry.inquire`."""
        dialling = self.dialling(address)
        try:
            sock = await dialling.connected_socket()
        except BaseException:
            dialling.close()
            raise
        return await inquire(sock, openings, seconds)

    def dialling(
        self,
        address: Address,
        limits: Limits | None = None,
        *,
        context: ssl.SSLContext | None = None,
        server_hostname: str | None = None,
        how: tuple[socket.AddressFamily, str | None, int | None] = (socket.AF_UNSPEC, None, None),
        outlives: bool = False,
    ) -> Dialling:
        """Begin what `dial` does, in steps that can be awaited, cancelled and awaited again.

        Parameters
        ----------
        address, limits, context, server_hostname, how
            As for `dial`.
        outlives : bool, default False
            Whether a TLS handshake goes on when the call that waits for it is cancelled.
        """
        return Dialling(
            self.resolver, address, limits or self.limits, context, server_hostname, how, outlives
        )


class Dialling:
    """A connection attempt: name resolution, TCP, TLS. Made by `FrameClient.dialling`.

    Attributes
    ----------
    closed : bool
        Whether `close` was called.
    """

    def __init__(
        self,
        resolver: Any,
        address: Address,
        limits: Limits,
        context: ssl.SSLContext | None,
        server_hostname: str | None,
        how: tuple[socket.AddressFamily, str | None, int | None],
        outlives: bool,
    ) -> None:
        expect_name(str(address), context, server_hostname)
        self._resolver = resolver
        self._address = address
        self._limits = limits
        self._context = context
        self._server_hostname = server_hostname
        self._how = how
        self._outlives = outlives
        self._loop = asyncio.get_running_loop()
        self.closed = False
        self._when_connected: Callable[[FrameStream], object] | None = None
        self._race: Race | None = None
        self._stream: FrameStream | None = None
        self._secured = context is None

    async def stream(self) -> FrameStream:
        """Return the connected stream. Raises as `FrameClient.dial` does.

        A cancelled call may be repeated, and continues the attempt where it is then. After an
        error, or a cancelled call that is not repeated, `close` it.
        """
        try:
            if self._stream is None:
                self._stream = self._begun(await self.connected_socket())
            if self._context is not None and not self._secured:
                await self._secure(self._context, self._stream)
        except CommClosedError:
            raise
        except OSError as error:
            failed = CommClosedError(f"{_why(error)}; {_remedy(error)}", peer=str(self._address))
            failed.kind = _kind(error)
            failed.errno = error.errno
            raise failed from error
        return self._stream

    def when_connected(self, callback: Callable[[FrameStream], object]) -> None:
        """Call `callback` once TCP has connected, or now if it has; replaces an earlier one."""
        self._when_connected = callback
        if self._stream is not None:
            callback(self._stream)

    def close(self) -> None:
        """Close every socket of the attempt, that of a returned stream included."""
        self.closed = True
        if self._race is not None:
            self._race.close()
        if self._stream is not None:
            self._stream.close()

    def drop(self) -> None:
        """Close from any thread, for finalizers."""
        try:
            self._loop.call_soon_threadsafe(self.close)
        except RuntimeError:  # the loop is closed, and watches no socket any more
            if self._race is not None:
                self._race.abandon()
            if self._stream is not None:
                self._stream.drop()

    async def connected_socket(self) -> socket.socket:
        """Return a connected socket, which belongs to the caller. Raises `OSError`."""
        if self._race is None:
            host, port = self._address.host or "localhost", self._address.port
            family, source_ip, source_port = self._how
            numeric = numeric_address(host, port)
            try:
                places = [numeric] if numeric else await self._resolver.resolve(host, port, family)
            except UnicodeError:  # the resolver encodes it first
                raise socket.gaierror(socket.EAI_NONAME, "it is no host name") from None
            prepare = functools.partial(tune, keepalive_timeout=self._limits.keepalive_timeout)
            self._race = Race(places, prepare, source_ip, source_port)
        return await self._race.winner()

    def _begun(self, sock: socket.socket) -> FrameStream:
        first = State.HELLO if self._context is None else State.HANDSHAKE
        stream = FrameStream(sock, self._limits, str(self._address), first)
        stream.tell = _log_end
        stream.set_deadline(self._limits.handshake_timeout)
        if self._when_connected is not None:
            self._when_connected(stream)
        if self._context is None:
            stream.open()
        return stream

    async def _secure(self, context: ssl.SSLContext, stream: FrameStream) -> None:
        with NamingFiles(context):
            await stream.secure(
                context,
                server_side=False,
                server_hostname=self._server_hostname,
                outlives=self._outlives,
            )
        self._secured = True


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


def _kind(error: OSError) -> ErrorKind:
    if isinstance(error, socket.gaierror):
        return "unresolved"
    if isinstance(error, ConnectionRefusedError):
        return "refused"
    return "timeout" if isinstance(error, TimeoutError) else "unreachable"


def _why(error: BaseException) -> str:
    if isinstance(error, socket.gaierror):
        return f"the host name does not resolve ({error.strerror})"
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).lower()


def _remedy(error: BaseException) -> str:
    if isinstance(error, socket.gaierror):
        return "check the host name"
    if isinstance(error, ConnectionRefusedError):
        return "check that a listener runs on that port"
    if getattr(error, "errno", None) == errno.EINVAL:
        return "name the interface of a link-local address, as in [fe80::1%eth0]"
    return "check the address and the network between"
