"""The listeners' common part: how they accept.

`backend` defines for each scheme which comm it creates, and what its arguments must be.
"""

from __future__ import annotations

import inspect
import logging
import ssl
from collections.abc import Callable, Mapping
from typing import Any

from distributed.comm.addressing import parse_host_port, unparse_host_port
from distributed.comm.core import BaseListener, CommClosedError
from distributed.comm.utils import ensure_concrete_host

from sealwire.comm import ListenerStats, errors
from sealwire.comm.transport.pending import dropped
from sealwire.comm.transport.server import FrameServer
from sealwire.comm.transport.stream import FrameStream
from sealwire.comm.wire import hello

from .connectors import expect_spelled
from .settings import apply_gil_policy, limits

__all__ = ["FrameListener"]

logger = logging.getLogger("sealwire.dask_backend")


class _Server(FrameServer):
    """Leaves the hello to distributed's listeners, which exchange it themselves."""

    async def greet(self, stream: FrameStream) -> None:
        """Do nothing: `FrameListener._handle_stream` exchanges the hellos."""


def _refusal(stream: FrameStream, error: BaseException) -> errors.HandshakeError | None:
    """Return the peer's refusal, if it has sent one; the stream may have failed before it."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, errors.HandshakeError):
            return cause
        cause = cause.__cause__
    try:
        if stream.inbox:  # it said so and went while we were writing
            hello.decode(stream.inbox[0][0], stream.peer)
    except errors.HandshakeError as said:
        return said
    except errors.CommClosedError:
        pass
    return None


class FrameListener(BaseListener):
    """Accepts connections and makes comms of them.

    Parameters
    ----------
    address : str
        ``host:port``, without the scheme; port 0 means any free one.
    comm_handler : callable
        Function or coroutine function to call with each comm.
    deserialize : bool, default True
        Passed to the comms.
    allow_offload : bool, default True
        Whether large messages may be serialised in a thread.
    default_host, default_port : optional
        For an `address` without them.
    **connection_args
        Those of ``Security.get_listen_args``.

    Raises
    ------
    EncryptionRequired
        For a plain address where encryption is required.
    TypeError, ValueError
        For a misspelt argument or an unsuitable context.
    """

    prefix: str
    comm_class: type[Any]

    def __init__(
        self,
        address: str,
        comm_handler: Callable[[Any], Any],
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
        expect_spelled(f"listen() on {self.prefix}{address}", connection_args)
        self._context = self._prepare(address, connection_args)
        # With a word for who asks which backend a process has.
        self._overrides = {
            **(connection_args.get("handshake_overrides") or {}),
            hello.BACKEND: True,
        }

    def _prepare(self, address: str, connection_args: Mapping[str, Any]) -> ssl.SSLContext | None:
        """Return the context of the scheme, if any. Raises for what the scheme does not allow."""
        raise NotImplementedError

    async def start(self) -> None:
        """Bind and begin to accept. Raises `OSError` if the address cannot be bound."""
        chosen = limits()
        apply_gil_policy()
        server = _Server(self._context, chosen)
        server.handle_stream = self._handle_stream  # type: ignore[method-assign]
        try:
            server.listen(self.port, self.ip)
        except OSError as error:  # distributed looks at its class and number
            where = f"{self.prefix}{unparse_host_port(self.ip or '0.0.0.0', self.port)}"
            why = (error.strerror or str(error)).lower()
            said = f"cannot listen on {where}: {why}; choose another host or port"
            raise type(error)(error.errno, said) from error
        self.tcp_server = server

    async def _handle_stream(self, stream: FrameStream, address: tuple[Any, ...]) -> None:
        """Exchange hellos with the peer, then pass the comm to the handler."""
        if self.tcp_server is None:
            why, remedy = "we stopped listening", "dial another address"
            raise dropped(stream.peer, "stopped", why, remedy)
        await self._attend(await self._greet(stream))

    async def _greet(self, stream: FrameStream) -> Any:
        local = self.prefix + unparse_host_port(*stream.local_host_port)
        comm = self.comm_class(stream, local, stream.peer, self.deserialize)
        comm.allow_offload = self.allow_offload
        try:
            await self.on_connection(comm, self._overrides)
        except CommClosedError as error:
            raise (_refusal(stream, error) or stream.failure()) from error
        except (ValueError, TypeError, KeyError) as error:
            raise errors.HelloError(
                f"bad hello from {stream.peer}: {error}; install the same version of distributed "
                f"on both sides",
                peer=stream.peer,
            ) from error
        return comm

    async def _attend(self, comm: Any) -> None:
        try:
            result = self.comm_handler(comm)
            if inspect.isawaitable(result):
                await result
        except Exception as error:
            if not isinstance(error, CommClosedError):
                logger.exception("handler of %r failed", comm)
            comm.abort()

    def stop(self) -> None:
        """Stop accepting; open comms are not affected.

        Pending connections have `Limits.stop_timeout` to finish their hello.
        """
        server, self.tcp_server = self.tcp_server, None
        if server is not None:
            self._stopped = server
            server.stop()

    def abort_handshaking_comms(self) -> None:
        """Drop all pending connections at once."""
        super().abort_handshaking_comms()
        if self._stopped is not None:
            self._stopped.drop_pending()

    @property
    def stats(self) -> ListenerStats:
        """The listener's counters since it started."""
        server = self.tcp_server or self._stopped
        return server.stats if server is not None else ListenerStats()

    def get_host_port(self) -> tuple[str, int]:
        """Return the bound host and port. Raises `ValueError` if the listener is not running."""
        if self.tcp_server is None:
            raise ValueError(
                f"no address of the listener on {self.prefix}{self.ip}: it is not running; start it"
            )
        return self.tcp_server.address

    @property
    def listen_address(self) -> str:
        """The bound address, with the actual port."""
        return self.prefix + unparse_host_port(*self.get_host_port())

    @property
    def contact_address(self) -> str:
        """An address to dial: the bound one with a concrete host."""
        host, port = self.get_host_port()
        host = ensure_concrete_host(host, default_host=self.default_host)
        return self.prefix + unparse_host_port(host, port)
