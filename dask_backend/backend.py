"""distributed's ``tcp`` and ``tls`` backends on our transport, under the familiar class names.

On the wire they are stock. The differences for users: the first message is decoded without any
deserialiser, so an unauthenticated peer can run no code; handshake and hello have a deadline on
both sides; a refusal that TLS 1.3 reports to a client only afterwards ends `connect` at once, with
its cause.
"""

from __future__ import annotations

import functools
import logging
import ssl
import sys
from collections.abc import Mapping
from typing import Any, ClassVar

import dask
from dask.utils import parse_bytes
from distributed.comm import tcp as stock
from distributed.comm.core import Comm, CommClosedError

from sealwire.comm import errors
from sealwire.comm.arguments import Side, expect_secure, log_lacks
from sealwire.comm.tls_errors import tell_refused
from sealwire.comm.transport.stream import FrameStream
from sealwire.comm.wire import hello

from . import codec, membership
from .connectors import FrameConnector, reraise
from .guard import refuse_plain
from .listeners import FrameListener
from .protection import unprotected
from .settings import ROLE
from .sizes import is_small
from .startup import tell_context, tell_unprotected

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


class TCP(Comm):
    """A comm over a plain socket; the interface is ``distributed.comm.Comm``.

    Parameters
    ----------
    stream : FrameStream
        Owned by the comm.
    local_addr, peer_addr : str
        Addresses of both ends, with their scheme.
    deserialize : bool, default True
        Whether `read` deserialises, or leaves `Serialized` objects.
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
        self.offered: dict[str, Any] | None = None  # the peer's hello, if it was read already
        stream.when_closed(functools.partial(_closed, stream))

    def __del__(self) -> None:
        """Close the socket of a comm that was garbage collected while open, from any thread."""
        # Its own: a subclass that wraps a comm may pass on the attributes of what it wraps.
        stream: FrameStream | None = vars(self).get("stream")
        if stream is not None and not stream.closed() and not sys.is_finalizing():
            name = f"<{type(self).__name__} local={self._local_addr} remote={self._peer_addr}>"
            logger.warning("%s was dropped without being closed", name)
            stream.drop()

    async def read(self, deserializers: Any = None) -> Any:
        """Read the next message; the first one is the peer's hello.

        Parameters
        ----------
        deserializers : optional
            Names of distributed's serialisation families to accept; all by default.

        Returns
        -------
        object

        Raises
        ------
        CommClosedError
            If the comm is closed, or closes before a message is complete.
        Exception
            Whatever a deserialiser raises.

        Notes
        -----
        A cancelled read closes the comm: Dask's connection pool would hand it out with the pending
        reply to the next caller.
        """
        stream = self.stream
        try:
            while not stream.inbox:
                await stream.arrival()
            frames = stream.take_frames()
            if not self._greeted:
                return self._read_hello(frames)
        except errors.CommClosedError as error:
            self._closed = True
            reraise(error, f"in {self!r}")
        except BaseException:
            # Dask's connection pool would otherwise reuse a comm whose cancelled reader left its
            # reply to the next caller.
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
            reraise(error, f"in {self!r}")
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
        """Serialise and queue a message; it returns before the message is sent, as in stock.

        Parameters
        ----------
        msg : object
            Frames of large objects in it must not change until they are sent.
        serializers : optional
            Names of distributed's serialisation families to use; the default ones if omitted.
        on_error : {"message", "raise"}
            What distributed does with an object that cannot be serialised.

        Returns
        -------
        int
            Size of the message on the wire in bytes.

        Raises
        ------
        CommClosedError
            If the comm is closed, or the message exceeds a limit.
        Exception
            Whatever a serialiser raises, with ``on_error="raise"``.

        Notes
        -----
        A cancelled write has either sent nothing or queued the whole message.
        """
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
            reraise(error, f"in {self!r}")
        except errors.CommClosedError as error:
            self._closed = True
            reraise(error, f"in {self!r}")
        except BaseException:  # an unknown part of the message may be queued
            self.abort()
            raise
        return size

    async def close(self) -> None:
        """Send what is queued, then close. A cancelled close drops what is still queued."""
        self._closed = True
        await self.stream.finish()

    def abort(self) -> None:
        """Close at once and drop what is queued."""
        self._closed = True
        self.stream.close()

    def closed(self) -> bool:
        """Whether the comm is closed and every message that arrived has been read.

        distributed asks between messages, so this is False while there are unread ones.
        """
        return self._closed or self.stream.exhausted()

    @property
    def local_address(self) -> str:
        """Address of our end, with its scheme."""
        return self._local_addr

    @property
    def peer_address(self) -> str:
        """Address of the other end, with its scheme."""
        return self._peer_addr

    @property
    def extra_info(self) -> dict[str, Any]:
        """``peercert``, ``cipher`` and ``protocol`` of a TLS connection; empty for a plain one."""
        return self.stream.tls_facts


class TLS(TCP):
    """A comm over TLS; both sides are authenticated. Otherwise as `TCP`."""


def _closed(stream: FrameStream) -> None:
    TCP.closed_traffic["bytes_in"] += stream.bytes_in
    TCP.closed_traffic["bytes_out"] += stream.bytes_out


def _expect_context(address: str, connection_args: Mapping[str, Any], side: Side) -> ssl.SSLContext:
    context = connection_args.get("ssl_context")
    if context is None:
        role = connection_args.get(ROLE)
        whose = f"role {role} has" if role else "its role has"
        only = membership.joined_as()
        if only and role:
            raise TypeError(
                f"cannot use {address}: this process joined with a token, as a {only} alone, and "
                f"has no certificate as a {role}; start another one, with a token for a {role}"
            )
        field = f"tls.{role or '{client,scheduler,worker}'}.cert"
        raise TypeError(
            f"cannot use {address}: {whose} no certificate or no CA, so there is no ssl_context; "
            f"set distributed.comm.{field} and distributed.comm.tls.ca-file, or "
            f"{field.replace('.', '_')} and tls_ca_file of the Security"
        )
    instead = "give the Security a CA file, and a certificate and key for this role"
    expected = expect_secure(address, context, side, instead)
    tell_refused(expected)
    return expected


class TCPConnector(FrameConnector):
    """Dials ``tcp://``, as ``distributed.comm.tcp.TCPConnector``.

    An `ssl_context` is ignored: Dask passes the same arguments for all addresses.
    """

    prefix = "tcp://"
    comm_class: type[TCP] = TCP

    def _dial_args(self, address: str, connection_args: Mapping[str, Any]) -> dict[str, Any]:
        refuse_plain(self.prefix + address, connection_args, listens=False)
        return {}


class TLSConnector(TCPConnector):
    """Dials ``tls://``, as ``distributed.comm.tcp.TLSConnector``.

    It needs an `ssl_context` that requires a peer certificate and TLS 1.2 or later. A
    ``server_hostname``, also in ``extra_conn_args``, is sent as SNI.
    """

    prefix = "tls://"
    comm_class = TLS

    def _dial_args(self, address: str, connection_args: Mapping[str, Any]) -> dict[str, Any]:
        extra = connection_args.get("extra_conn_args") or {}
        hostname = connection_args.get("server_hostname") or extra.get("server_hostname")
        context = _expect_context(self.prefix + address, connection_args, "client")
        where = self.prefix + address
        if tell_context(context, f"connects to {where}"):
            tell_unprotected(context, where)
        return {"context": context, "server_hostname": hostname}


class TCPListener(FrameListener):
    """Accepts on ``tcp://``, as ``distributed.comm.tcp.TCPListener``."""

    prefix = "tcp://"
    comm_class: type[TCP] = TCP

    def _prepare(self, address: str, connection_args: Mapping[str, Any]) -> ssl.SSLContext | None:
        refuse_plain(self.prefix + address, connection_args, listens=True)
        return None


class TLSListener(TCPListener):
    """Accepts on ``tls://``, as ``distributed.comm.tcp.TLSListener``.

    It needs an `ssl_context` that requires a peer certificate and TLS 1.2 or later.
    """

    prefix = "tls://"
    comm_class = TLS

    def _prepare(self, address: str, connection_args: Mapping[str, Any]) -> ssl.SSLContext | None:
        context = _expect_context(self.prefix + address, connection_args, "server")
        context.num_tickets = 0  # resuming a session skips the verification of the certificate
        return context

    async def start(self) -> None:
        """Bind and begin to accept. Raises `OSError` if the address cannot be bound."""
        await super().start()
        if self._context is not None:
            where = self.listen_address
            tell_context(self._context, f"listens on {where}")
            log_lacks(where, self._context, unprotected(self._context))


class TCPBackend(stock.BaseTCPBackend):
    """The backend for ``tcp://``; distributed handles the addresses."""

    refuses_plain = True

    _connector_class = TCPConnector
    _listener_class = TCPListener


class TLSBackend(stock.BaseTCPBackend):
    """The backend for ``tls://``; distributed handles the addresses."""

    _connector_class = TLSConnector
    _listener_class = TLSListener
