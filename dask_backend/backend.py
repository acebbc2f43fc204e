"""distributed's ``tcp`` and ``tls`` backends on our transport, under the class names users know.

On the wire they are stock. Differences a user meets: the first message is read without any
deserialiser, so a stranger can run nothing; handshake and hello have a deadline on both sides; a
refusal that TLS 1.3 tells a client only afterwards ends `connect` at once, with its cause.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import logging
import ssl
import weakref
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NoReturn

import dask
from dask.utils import parse_bytes
from distributed.comm import tcp as stock
from distributed.comm.addressing import parse_host_port, unparse_host_port
from distributed.comm.core import (
    BaseListener,
    Comm,
    CommClosedError,
    Connector,
    FatalCommClosedError,
)
from distributed.comm.utils import ensure_concrete_host

from sealwire.comm import ListenerStats, errors
from sealwire.comm.addressing import Address
from sealwire.comm.arguments import Side, expect_known, expect_secure, tell_lacks
from sealwire.comm.tls_errors import NamingFiles, tell_refused
from sealwire.comm.transport.client import FrameClient
from sealwire.comm.transport.pending import dropped
from sealwire.comm.transport.server import FrameServer
from sealwire.comm.transport.stream import FrameStream
from sealwire.comm.wire import hello

from . import codec
from .guard import refuse_plain
from .protection import unprotected
from .settings import DECIDED, apply_gil_policy, limits
from .sizes import is_small

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

logger = logging.getLogger("sealwire.dask_backend")


def _reraise(error: errors.CommClosedError, where: str) -> NoReturn:
    """Raise distributed's own error for ours; its `connect` retries by the class."""
    known = CommClosedError if error.retryable else FatalCommClosedError
    raise known(f"{where}: {error}") from error


class TCP(Comm):
    """A comm over a plain socket; the interface is `distributed.comm.core.Comm`.

    `write` returns once the message is queued, as in stock: the frames of large objects must not
    change until they are sent. A cancelled read closes the comm, as Dask's connection pool expects;
    a cancelled write has sent nothing or queued its whole message.
    """

    max_shard_size: ClassVar[int] = parse_bytes(dask.config.get("distributed.comm.shard"))
    closed_traffic: ClassVar[dict[str, int]] = {"bytes_in": 0, "bytes_out": 0}

    def __init__(
        self, stream: FrameStream, local_addr: str, peer_addr: str, deserialize: bool = True
    ) -> None:
        super().__init__(deserialize=deserialize)
        self.stream = stream
        self._local_addr = local_addr
        self._peer_addr = peer_addr
        self._closed = False
        self._greeted = False
        self.offered: dict[str, Any] | None = None  # the peer's hello, if it was looked at already
        name = f"<{type(self).__name__} local={local_addr} remote={peer_addr}>"
        self._finalizer = weakref.finalize(self, _drop, stream, name)
        self._finalizer.atexit = False
        stream.when_closed(functools.partial(_closed, stream, self._finalizer))

    async def read(self, deserializers: Any = None) -> Any:
        stream = self.stream
        try:
            while not stream.inbox:
                await stream.arrival()
            frames = stream.take_frames()
            if not self._greeted:
                return self._read_hello(frames)
        except errors.CommClosedError as error:
            self._closed = True
            _reraise(error, f"in {self!r}")
        except BaseException:
            # Dask's connection pool would hand out a comm whose cancelled reader left the reply to
            # the next caller.
            self.abort()
            raise
        try:
            message = codec.decode_short(
                frames,
                deserialize=self.deserialize,
                deserializers=deserializers,
                peer=stream.peer,
            )
            if message is not codec.NOT_SHORT:
                return message
            return await codec.decode(
                frames,
                deserialize=self.deserialize,
                deserializers=deserializers,
                allow_offload=self.allow_offload,
                peer=stream.peer,
            )
        except errors.DecodeError as error:
            stream.fail(error, error.__cause__)
            self._closed = True
            _reraise(error, f"in {self!r}")
        except EOFError as error:
            self.abort()
            raise CommClosedError(
                f"in {self!r}: a message of {len(frames)} frames is cut short; "
                f"check that both sides run the same version of distributed"
            ) from error

    def _read_hello(self, frames: list[Any]) -> dict[str, Any]:
        offered, self.offered = self.offered, None
        if offered is None:
            try:
                offered = hello.decode(frames, self.stream.peer)
            except errors.CommClosedError as error:
                self.stream.fail(error)
                raise
        self._greeted = True
        self.stream.established()
        return offered

    async def write(self, msg: Any, serializers: Any = None, on_error: str = "message") -> int:
        if self._closed:
            raise CommClosedError(f"in {self!r}: it is closed")
        small = is_small(msg)
        frames = codec.encode_short(msg) if small else None
        if frames is None:
            frames = await codec.encode(
                msg,
                serializers=serializers,
                on_error=on_error,
                context={
                    "sender": self.local_info,
                    "recipient": self.remote_info,
                    **self.handshake_options,
                },
                allow_offload=self.allow_offload and not small,
                shard_size=self.max_shard_size,
            )
        try:
            if len(frames) == 1:
                size, _ = self.stream.write(frames)
            else:
                size, _ = self.stream.write(*codec.arranged(frames))
        except errors.MessageTooLarge as error:  # nothing was sent
            _reraise(error, f"in {self!r}")
        except errors.CommClosedError as error:
            self._closed = True
            _reraise(error, f"in {self!r}")
        except BaseException:  # who knows how much of the message is out
            self.abort()
            raise
        return size

    async def close(self) -> None:
        self._closed = True
        self._finalizer.detach()
        await self.stream.finish()

    def abort(self) -> None:
        self._closed = True
        self._finalizer.detach()
        self.stream.close()

    def closed(self) -> bool:
        """Whether nothing more can be read or written."""
        return self._closed or self.stream.exhausted()

    @property
    def local_address(self) -> str:
        return self._local_addr

    @property
    def peer_address(self) -> str:
        return self._peer_addr

    @property
    def extra_info(self) -> dict[str, Any]:
        return self.stream.tls_facts


class TLS(TCP):
    """A comm over TLS, both sides authenticated."""


stock.TCP.register(TCP)  # who asks distributed's class whether a comm is one is told so
stock.TLS.register(TLS)


def _closed(stream: FrameStream, finalizer: weakref.finalize[..., TCP]) -> None:
    finalizer.detach()  # the stream's error leads to the comm: kept, neither would be collected
    TCP.closed_traffic["bytes_in"] += stream.bytes_in
    TCP.closed_traffic["bytes_out"] += stream.bytes_out


def _drop(stream: FrameStream, comm: str) -> None:
    if not stream.closed():
        logger.warning("%s was dropped without being closed", comm)
        stream.drop()


def _expect_context(address: str, connection_args: Mapping[str, Any], side: Side) -> ssl.SSLContext:
    context = expect_secure(
        address,
        connection_args.get("ssl_context"),
        side,
        "give the Security a CA file, and a certificate and key for this role",
    )
    tell_refused(context)
    return context


# What distributed and our `Security` pass to either call, whatever the scheme: the same arguments
# may serve for several, so an ssl_context is no mistake for tcp:// here.
_KNOWN = frozenset((
    "ssl_context", "require_encryption", "extra_conn_args", "server_hostname",
    "handshake_overrides", DECIDED,
    # Arguments that another release of distributed may have for its own classes.
    *inspect.signature(stock.BaseTCPConnector.connect).parameters,
    *inspect.signature(stock.BaseTCPListener.__init__).parameters,
))  # fmt: skip


_SILENCE = 2.0  # seconds without a hello after which the log says what may be wrong


def _hint_at_tls(stream: FrameStream) -> None:
    """A TLS server waits for us to begin, and Dask's timeout will not tell why it has passed."""
    logger.warning(
        "connected to %s, which has said nothing for %g s; check that it speaks the same scheme "
        "(a tls:// listener is silent to tcp://) and is not overloaded",
        stream.peer,
        _SILENCE,
    )


class TCPConnector(Connector):
    """Dials ``tcp://``."""

    client: ClassVar[FrameClient] = FrameClient()
    prefix = "tcp://"
    comm_class: type[TCP] = TCP

    async def connect(self, address: str, deserialize: bool = True, **connection_args: Any) -> TCP:
        """A comm whose peer has sent its hello: the caller's timeout covers the wait for it.

        Raises `CommClosedError`, or `FatalCommClosedError` where another attempt cannot help.
        """
        host, port = parse_host_port(address)
        target = Address(self.prefix[:-3], host, port)
        apply_gil_policy()
        expect_known(f"connect() to {self.prefix}{address}", connection_args, _KNOWN)
        dial_args = self._dial_args(address, connection_args)
        try:
            stream = await self.client.dial(target, limits(), **dial_args)
            hint = asyncio.get_running_loop().call_later(_SILENCE, _hint_at_tls, stream)
            try:
                # TLS 1.3 tells a client only now what the server made of its certificate.
                with NamingFiles(dial_args.get("context")):
                    while not stream.inbox:
                        await stream.arrival()
                    offered = hello.decode(stream.inbox[0][0], stream.peer)
                local = self.prefix + unparse_host_port(*stream.local_host_port)
                comm = self.comm_class(stream, local, self.prefix + address, deserialize)
                comm.offered = offered
                return comm
            except BaseException:
                stream.close()
                raise
            finally:
                hint.cancel()
        except errors.CommClosedError as error:
            _reraise(error, f"cannot connect to {target}")

    def _dial_args(self, address: str, connection_args: Mapping[str, Any]) -> dict[str, Any]:
        refuse_plain(self.prefix + address, connection_args)
        return {}


class TLSConnector(TCPConnector):
    """Dials ``tls://``. A ``server_hostname``, also in ``extra_conn_args``, is sent as SNI."""

    prefix = "tls://"
    comm_class = TLS

    def _dial_args(self, address: str, connection_args: Mapping[str, Any]) -> dict[str, Any]:
        extra = connection_args.get("extra_conn_args") or {}
        hostname = connection_args.get("server_hostname") or extra.get("server_hostname")
        context = _expect_context(self.prefix + address, connection_args, "client")
        return {"context": context, "server_hostname": hostname}


class _Server(FrameServer):
    """Leaves the hello to distributed's listeners, which have their own."""

    async def greet(self, stream: FrameStream) -> None:
        """Nothing: see `TCPListener._handle_stream`."""


class TCPListener(BaseListener):
    """Accepts on ``tcp://``."""

    prefix = "tcp://"
    comm_class: type[TCP] = TCP

    def __init__(
        self,
        address: str,
        comm_handler: Callable[[TCP], Any],
        deserialize: bool = True,
        allow_offload: bool = True,
        default_host: str | None = None,
        default_port: int = 0,
        **connection_args: Any,
    ) -> None:
        super().__init__()
        self.ip, self.port = parse_host_port(address, default_port)
        self.default_host = default_host
        self.comm_handler = comm_handler
        self.deserialize = deserialize
        self.allow_offload = allow_offload
        self.tcp_server: FrameServer | None = None
        self._stopped: FrameServer | None = None
        expect_known(f"listen() on {self.prefix}{address}", connection_args, _KNOWN)
        self._context = self._prepare(address, connection_args)
        self._overrides = connection_args.get("handshake_overrides")

    def _prepare(self, address: str, connection_args: Mapping[str, Any]) -> ssl.SSLContext | None:
        refuse_plain(self.prefix + address, connection_args)
        return None

    async def start(self) -> None:
        chosen = limits()
        apply_gil_policy()
        server = _Server(self._context, chosen)
        server.handle_stream = self._handle_stream  # type: ignore[method-assign]
        server.listen(self.port, self.ip)
        self.tcp_server = server

    async def _handle_stream(self, stream: FrameStream, address: tuple[Any, ...]) -> None:
        """Greet who has connected, then hand its comm to the handler."""
        if self.tcp_server is None:
            why, remedy = "we stopped listening", "dial another address"
            raise dropped(stream.peer, "stopped", why, remedy)
        await self._attend(await self._greet(stream))

    async def _greet(self, stream: FrameStream) -> TCP:
        local = self.prefix + unparse_host_port(*stream.local_host_port)
        comm = self.comm_class(stream, local, stream.peer, self.deserialize)
        comm.allow_offload = self.allow_offload
        try:
            await self.on_connection(comm, self._overrides)
        except CommClosedError as error:
            if isinstance(error.__cause__, errors.HandshakeError):
                raise error.__cause__ from error  # the end of the stream may have come before it
            raise stream.failure() from error
        except (ValueError, TypeError, KeyError) as error:
            raise errors.HelloError(
                f"bad hello from {stream.peer}: {error}; install the same version of distributed "
                f"on both sides",
                peer=stream.peer,
            ) from error
        return comm

    async def _attend(self, comm: TCP) -> None:
        try:
            result = self.comm_handler(comm)
            if inspect.isawaitable(result):
                await result
        except Exception as error:
            if not isinstance(error, CommClosedError):
                logger.exception("handler of %r failed", comm)
            comm.abort()

    def stop(self) -> None:
        """Stop accepting; open comms go on.

        Connections whose hello is under way have `Limits.stop_timeout` to finish it.
        """
        server, self.tcp_server = self.tcp_server, None
        if server is not None:
            self._stopped = server
            server.stop()

    def abort_handshaking_comms(self) -> None:
        """Drop the connections whose hello is not done, at once."""
        super().abort_handshaking_comms()
        if self._stopped is not None:
            self._stopped.drop_pending()

    @property
    def stats(self) -> ListenerStats:
        """What the listener has counted since it started."""
        server = self.tcp_server or self._stopped
        return server.stats if server is not None else ListenerStats()

    def get_host_port(self) -> tuple[str, int]:
        """The bound address."""
        if self.tcp_server is None:
            raise ValueError(
                f"no address of the listener on {self.prefix}{self.ip}: it is not running; start it"
            )
        return self.tcp_server.address

    @property
    def listen_address(self) -> str:
        return self.prefix + unparse_host_port(*self.get_host_port())

    @property
    def contact_address(self) -> str:
        host, port = self.get_host_port()
        host = ensure_concrete_host(host, default_host=self.default_host)
        return self.prefix + unparse_host_port(host, port)


class TLSListener(TCPListener):
    """Accepts on ``tls://``."""

    prefix = "tls://"
    comm_class = TLS

    def _prepare(self, address: str, connection_args: Mapping[str, Any]) -> ssl.SSLContext | None:
        context = _expect_context(self.prefix + address, connection_args, "server")
        context.num_tickets = 0  # a resumed session skips the check of the certificate
        return context

    async def start(self) -> None:
        await super().start()
        if self._context is not None:
            tell_lacks(self.listen_address, self._context, unprotected(self._context))


class TCPBackend(stock.BaseTCPBackend):
    """The backend for ``tcp://``; addresses are handled by distributed."""

    refuses_plain = True

    _connector_class = TCPConnector
    _listener_class = TCPListener


class TLSBackend(stock.BaseTCPBackend):
    """The backend for ``tls://``; addresses are handled by distributed."""

    _connector_class = TLSConnector
    _listener_class = TLSListener
