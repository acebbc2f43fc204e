"""The backends for ``tcp://`` and ``tls://``: streams plus hello plus codec."""

from __future__ import annotations

import asyncio
import errno
import logging
import ssl
import sys
from collections.abc import Awaitable, Callable, Mapping
from threading import get_ident
from typing import Any, Literal

from . import codec
from .addressing import Address, concrete_host, format_address
from .arguments import Side, expect_known, expect_seconds, expect_secure, log_lacks
from .close_codes import CloseCode, expect_reason, expect_sendable
from .errors import CommClosedError, DecodeError, EncryptionRequired
from .interfaces import Backend, Comm, Connector, Handler, Listener
from .limits import Limits
from .listener_log import ListenerStats
from .serving import StreamListener
from .tls_errors import NamingFiles, tell_refused
from .transport.client import FrameClient
from .transport.greeting import exchange_hellos
from .transport.server import FrameServer
from .transport.stream import FrameStream
from .transport.writing import drain_within
from .wire import closing

__all__ = [
    "TCP",
    "TLS",
    "TCPBackend",
    "TCPConnector",
    "TCPListener",
    "TLSBackend",
    "TLSConnector",
    "TLSListener",
]

logger = logging.getLogger("sealwire.comm")

_EXTRA = ("server_hostname",)


class TCP(Comm):
    """A comm over a plain socket; made from greeted streams by `connect` and by listeners."""

    scheme = "tcp"

    def __init__(self, stream: FrameStream) -> None:
        self._stream = stream
        self._loop = asyncio.get_running_loop()
        self._thread = get_ident()

    def __del__(self) -> None:
        """Close the socket of a comm that was garbage collected while open, from any thread."""
        # Its own: a subclass that wraps a comm may pass on the attributes of what it wraps.
        stream: FrameStream | None = vars(self).get("_stream")
        if stream is None or stream.closed() or sys.is_finalizing():
            return
        logger.warning(
            "comm %s -> %s was dropped without being closed; close it when it is done",
            self.local_address,
            stream.peer,
        )
        stream.drop()

    async def read(self) -> Any:
        """Read the next message, see `Comm.read`."""
        if get_ident() != self._thread:  # asyncio.get_running_loop may cost a system call
            raise self._elsewhere()
        stream = self._stream
        while not stream.inbox:
            try:
                await stream.arrival()
            except RuntimeError:  # of asyncio, in another loop than the comm's
                if not self._loop.is_running():
                    raise self._elsewhere() from None
                raise
        frames = stream.take_frames()
        if frames == closing.USUAL and stream.agreement.closing:
            raise stream.peer_closed(closing.NORMALLY)
        try:
            return codec.decode(frames, stream.peer)
        except DecodeError as error:  # so also for the unusual end: the codec lacks its type
            said = closing.decode(frames) if stream.agreement.closing else None
            if said is None:
                stream.fail(error, error.__cause__)
                raise
        raise stream.peer_closed(said)

    async def write(self, message: Any, *, timeout: float | None = None) -> int:
        """Send a message, see `Comm.write`."""
        if get_ident() != self._thread or not self._loop.is_running():
            raise self._elsewhere()
        if timeout is not None:
            expect_seconds("write()", "timeout", timeout, "leave it out to wait for ever")
        stream = self._stream
        agreed = stream.agreement
        # Not named: the traceback of a cancellation would keep views of the caller's memory.
        size, leave = stream.write(codec.encode(message, agreed.buffers, agreed.arrays))
        if leave is not None:
            if timeout is None:
                await stream.drain(leave)
            else:
                await drain_within(stream, leave, timeout)
        return size

    def write_nowait(self, message: Any) -> bool:
        """Send a message without waiting, see `Comm.write_nowait`."""
        if get_ident() != self._thread or not self._loop.is_running():
            raise self._elsewhere()
        stream = self._stream
        agreed = stream.agreement
        _, leave = stream.write(codec.encode(message, agreed.buffers, agreed.arrays))
        return leave is None or stream.bytes_queued <= stream.limits.write_ahead

    async def drain(self, *, timeout: float | None = None) -> None:
        """Wait until nothing is queued, see `Comm.drain`."""
        if get_ident() != self._thread or not self._loop.is_running():
            raise self._elsewhere()
        if timeout is None:
            await self._stream.drain()
        else:
            expect_seconds("drain()", "timeout", timeout, "leave it out to wait for ever")
            await drain_within(self._stream, 0, timeout)

    async def wait_closed(self) -> CommClosedError:
        """Wait for the end and return it, see `Comm.wait_closed`."""
        if get_ident() != self._thread or not self._loop.is_running():
            raise self._elsewhere()
        await self._stream.end()
        return self._stream.failure()

    @property
    def queued(self) -> int:
        """Bytes that the kernel has not taken yet."""
        return self._stream.bytes_queued

    @property
    def limits(self) -> Limits:
        """The bounds of this comm."""
        return self._stream.limits

    async def close(self, code: int = CloseCode.NORMAL, reason: str = "") -> None:
        """Send what is queued and why, then close, see `Comm.close`."""
        if get_ident() != self._thread or not self._loop.is_running():
            raise self._elsewhere()
        await self._stream.finish(expect_sendable(code), expect_reason(reason))

    def _elsewhere(self) -> RuntimeError:
        return RuntimeError(
            f"cannot use the comm with {self._stream.peer} outside the event loop that it was "
            f"opened in; use asyncio.run_coroutine_threadsafe(…, loop), or sealwire.comm.sync"
        )

    def abort(self) -> None:
        """Close at once and drop what is queued."""
        if get_ident() != self._thread and self._loop.is_running():
            raise self._elsewhere()
        self._stream.close()

    def closed(self) -> bool:
        """Whether either side has closed, see `Comm.closed`."""
        return self._stream.closed()

    @property
    def closed_by(self) -> Literal["us", "peer", "lost"] | None:
        """Who closed the comm, see `Comm.closed_by`."""
        if not self._stream.closed():
            return None
        return self._stream.failure().closed_by

    @property
    def local_address(self) -> str:
        """Address of our end, with its scheme."""
        return format_address(self.scheme, *self._stream.local_host_port)

    @property
    def peer_address(self) -> str:
        """Address of the other end, with its scheme."""
        return self._stream.peer

    @property
    def extra_info(self) -> Mapping[str, Any]:
        """Facts about the connection, see `Comm.extra_info`."""
        return self._stream.tls_facts


class TLS(TCP):
    """A comm over TLS; both sides are authenticated."""

    scheme = "tls"


def _expect_plain(address: Address, connection_args: Mapping[str, Any]) -> None:
    """Raise for what a scheme that does not encrypt cannot do."""
    if connection_args.get("require_encryption"):
        raise EncryptionRequired(
            f"refusing {address}: encryption is required and {address.scheme} is plain; "
            f"use {address._replace(scheme='tls')}",
            peer=str(address),
        )
    if connection_args.get("ssl_context") is not None:
        raise TypeError(
            f"cannot use {address} with an ssl_context: {address.scheme} is plain and would not "
            f"use it; use {address._replace(scheme='tls')}, or leave ssl_context out"
        )


def _context(address: Address, connection_args: Mapping[str, Any], side: Side) -> ssl.SSLContext:
    method = "get_listen_args" if side == "server" else "get_connection_args"
    context = expect_secure(
        str(address),
        connection_args.get("ssl_context"),
        side,
        f"pass **security.{method}(role) of a Security with a CA, certificate and key",
    )
    tell_refused(context)
    return context


def _server_hostname(connection_args: Mapping[str, Any]) -> str | None:
    extra = connection_args.get("extra_conn_args") or {}
    expect_known("extra_conn_args", extra, _EXTRA)
    hostname: str | None = connection_args.get("server_hostname")
    return extra.get("server_hostname") if hostname is None else hostname


class TCPConnector(Connector):
    """Dials ``tcp://``."""

    client = FrameClient()

    async def connect(self, address: Address, limits: Limits, **connection_args: Any) -> Comm:
        """Open a comm, see `Connector.connect`; an `ssl_context` is an error."""
        _expect_plain(address, connection_args)
        _server_hostname(connection_args)
        return await greeted(TCP, await self.client.dial(address, limits))


class TLSConnector(Connector):
    """Dials ``tls://``; a ``server_hostname`` among the arguments is sent as SNI."""

    client = FrameClient()

    async def connect(self, address: Address, limits: Limits, **connection_args: Any) -> Comm:
        """Open a comm, see `Connector.connect`."""
        context = _context(address, connection_args, "client")
        hostname = _server_hostname(connection_args)
        stream = await self.client.dial(address, limits, context=context, server_hostname=hostname)
        with NamingFiles(context):  # in TLS 1.3 a client learns only here that it was refused
            return await greeted(TLS, stream)


async def greeted(comm_class: type[TCP], stream: FrameStream) -> Comm:
    """Return the comm of a stream that has yet to exchange hellos."""
    try:
        await exchange_hellos(stream)
        return comm_class(stream)
    except BaseException:
        stream.close()
        raise


class _CommServer(FrameServer):
    """Wraps greeted streams into comms."""

    def __init__(
        self,
        context: ssl.SSLContext | None,
        limits: Limits,
        comm_class: type[TCP],
        attend: Callable[[TCP], Awaitable[None]],
    ) -> None:
        super().__init__(context, limits)
        self._comm_class = comm_class
        self._attend = attend

    def handle_stream(  # type: ignore[override]
        self, stream: FrameStream, address: tuple[Any, ...]
    ) -> Awaitable[None]:
        return self._attend(self._comm_class(stream))  # not awaited here: a frame for each message


class TCPListener(StreamListener):
    """Accepts on ``tcp://``."""

    comm_class: type[TCP] = TCP

    def __init__(
        self, address: Address, handler: Handler, limits: Limits, **connection_args: Any
    ) -> None:
        super().__init__(handler, limits)
        self._address = address
        self._context = self._prepare(connection_args)
        self._server: FrameServer | None = None
        self._stopped: FrameServer | None = None

    def _prepare(self, connection_args: Mapping[str, Any]) -> ssl.SSLContext | None:
        _expect_plain(self._address, connection_args)
        return None

    async def start(self) -> None:
        """Bind and begin to accept. Raises `OSError` if the address cannot be bound."""
        if not self.begins():
            return
        address = self._address
        server = _CommServer(self._context, self._limits, self.comm_class, self.attend)
        try:
            server.listen(address.port, address.host)
        except (OSError, UnicodeError) as error:  # the latter for what no host name can be
            why = (getattr(error, "strerror", "") or str(error)).lower()
            said = f"cannot listen on {address}: {why}; choose another host or port"
            raise OSError(getattr(error, "errno", errno.EADDRNOTAVAIL), said) from error
        self._server = server

    def stop(self) -> asyncio.Future[None]:
        """Stop accepting, see `Listener.stop`."""
        done = self.may_stop()
        server = self._server
        if server is not None:
            self.release()
            self._address = self._address._replace(host=server.address[0], port=server.address[1])
            server.stop()
            self._server, self._stopped = None, server
        self.serving_over()
        return done

    @property
    def listen_address(self) -> str:
        """The bound address, with the actual port."""
        if self._server is None:
            return str(self._address)
        return format_address(self._address.scheme, *self._server.address)

    @property
    def contact_address(self) -> str:
        """An address to dial: the bound one with a concrete host."""
        host, port = self._server.address if self._server else self._address[1:]
        return format_address(self._address.scheme, concrete_host(host), port)

    @property
    def stats(self) -> ListenerStats:
        """The listener's counters since it started."""
        server = self._server or self._stopped
        return server.stats if server is not None else ListenerStats()

    def __repr__(self) -> str:
        state = "" if self._server else " stopped"
        return f"<{type(self).__name__}{state} {self.listen_address}>"


class TLSListener(TCPListener):
    """Accepts on ``tls://``."""

    comm_class = TLS

    def _prepare(self, connection_args: Mapping[str, Any]) -> ssl.SSLContext | None:
        return _context(self._address, connection_args, "server")

    async def start(self) -> None:
        """As `TCPListener.start`; log configured protections that the context lacks."""
        await super().start()
        lacks = getattr(self._context, "lacks", None)
        if lacks is not None:
            log_lacks(self.listen_address, self._context, lacks())


class TCPBackend(Backend):
    """The backend for ``tcp://``."""

    def connector(self) -> Connector:
        """Return a connector for ``tcp://``."""
        return TCPConnector()

    def listener(
        self, address: Address, handler: Handler, limits: Limits, **connection_args: Any
    ) -> Listener:
        """Return a listener for ``tcp://``, see `Backend.listener`."""
        return TCPListener(address, handler, limits, **connection_args)


class TLSBackend(Backend):
    """The backend for ``tls://``."""

    connect_arguments = _EXTRA

    def connector(self) -> Connector:
        """Return a connector for ``tls://``."""
        return TLSConnector()

    def listener(
        self, address: Address, handler: Handler, limits: Limits, **connection_args: Any
    ) -> Listener:
        """Return a listener for ``tls://``, see `Backend.listener`."""
        return TLSListener(address, handler, limits, **connection_args)
