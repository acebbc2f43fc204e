"""`FrameClient` makes streams to addresses, over TLS if asked, and greets who is there.

It is a `TCPClient` by its interface and its resolver. Who connects is `race.py`: Tornado's own race
is between IPv4 and IPv6 alone, and waits for ever for the only address that does not answer.
"""

from __future__ import annotations

import asyncio
import datetime
import functools
import logging
import socket
import ssl
from collections.abc import Callable
from typing import Any

from tornado.tcpclient import TCPClient
from tornado.util import TimeoutError as TornadoTimeoutError

from ..addressing import Address
from ..arguments import expect_secure
from ..errors import CommClosedError
from ..limits import DEFAULT_LIMITS, Limits
from ..tls_errors import NamingFiles
from .greeting import exchange_hellos
from .race import Race
from .sockets import numeric_address, tune
from .stream import FrameStream, State

__all__ = ["Dialling", "FrameClient"]

logger = logging.getLogger("sealwire.comm")


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
        how: tuple[socket.AddressFamily, str | None, int | None] = (socket.AF_UNSPEC, None, None),
    ) -> FrameStream:
        """A connected stream, over TLS if there is a `context`; the hello is the caller's.

        Its deadline for the hello is running. `how` is address family, source address and port.
        Raises `HandshakeError` if either side refuses, and another `CommClosedError` if nothing
        answers. Nothing is left open by an error or by cancelling.
        """
        dialling = self.dialling(
            address, limits, context=context, server_hostname=server_hostname, how=how
        )
        try:
            return await dialling.stream()
        except BaseException:
            dialling.close()
            raise

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
        """What `dial` does, for who may want to cancel and come back: `outlives` says so."""
        return Dialling(
            self.resolver, address, limits or self.limits, context, server_hostname, how, outlives
        )


class Dialling:
    """One dial: name, TCP, TLS. Made by `FrameClient.dialling`.

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
        self._resolver = resolver
        self._address = address
        self._limits = limits
        self._context = context
        self._server_hostname = server_hostname
        self._how = how
        self._outlives = outlives
        self._loop = asyncio.get_running_loop()
        self.closed = False
        self._race: Race | None = None
        self._stream: FrameStream | None = None
        self._securing: asyncio.Future[None] | None = None

    async def stream(self) -> FrameStream:
        """The connected stream, as `FrameClient.dial` gives it.

        A cancelled call may be repeated, and finds how far the dial has come meanwhile, if it
        `outlives` that. Whoever does not come back must `close`, as after an error.
        """
        try:
            if self._stream is None:
                self._stream = self._begun(await self._socket())
            if self._context is not None:
                await self._secured(self._context, self._stream)
        except CommClosedError:
            raise
        except OSError as error:
            raise CommClosedError(
                f"{_why(error)}; {_remedy(error)}", peer=str(self._address)
            ) from error
        return self._stream

    def close(self) -> None:
        """Leave nothing open, also of a stream that was given out."""
        self.closed = True
        if self._race is not None:
            self._race.close()
        if self._securing is not None:
            self._securing.cancel()
        if self._stream is not None:
            self._stream.close()

    def drop(self) -> None:
        """Close from any thread, for finalizers: the collector runs where it likes."""
        try:
            self._loop.call_soon_threadsafe(self.close)
        except RuntimeError:  # the loop is closed; nothing watches the sockets any more
            if self._race is not None:
                self._race.abandon()
            if self._stream is not None:
                self._stream.drop()

    async def _socket(self) -> socket.socket:
        """A connected socket."""
        if self._race is None:
            host, port = self._address.host or "localhost", self._address.port
            family, source_ip, source_port = self._how
            numeric = numeric_address(host, port)
            places = [numeric] if numeric else await self._resolver.resolve(host, port, family)
            prepare = functools.partial(tune, keepalive_timeout=self._limits.keepalive_timeout)
            self._race = Race(places, prepare, source_ip, source_port)
        return await self._race.winner()

    def _begun(self, sock: socket.socket) -> FrameStream:
        first = State.HELLO if self._context is None else State.HANDSHAKE
        stream = FrameStream(sock, self._limits, str(self._address), first)
        stream.tell = _log_end
        stream.set_deadline(self._limits.handshake_timeout)
        if self._context is None:
            stream.open()
        return stream

    async def _secured(self, context: ssl.SSLContext, stream: FrameStream) -> None:
        with NamingFiles(context):
            if not self._outlives:
                await stream.secure(
                    context, server_side=False, server_hostname=self._server_hostname
                )
                return
            if self._securing is None:
                self._securing = asyncio.ensure_future(
                    stream.secure(context, server_side=False, server_hostname=self._server_hostname)
                )
                self._securing.add_done_callback(_seen)
            await asyncio.shield(self._securing)


def _seen(done: asyncio.Future[None]) -> None:
    """An error that nobody waits for any more is nobody's."""
    if not done.cancelled():
        done.exception()


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


def _why(error: BaseException) -> str:
    if isinstance(error, socket.gaierror):
        return f"the host name does not resolve ({error.strerror})"
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).lower()


def _remedy(error: BaseException) -> str:
    if isinstance(error, socket.gaierror):
        return "check the host name"
    if isinstance(error, ConnectionRefusedError):
        return "check that a listener runs on that port"
    return "check the address and the network between"
