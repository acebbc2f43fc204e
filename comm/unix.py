"""The backend for ``unix://``: comms between processes of one machine and, by default, one user.

``unix:///run/user/1000/x.sock`` is a socket in the file system, ``unix://@name`` one of Linux
without a file. The kernel says which process is at the other end; both sides check its user.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any

from .addressing import Address
from .arguments import expect_known
from .errors import EncryptionRequired
from .interfaces import Backend, Comm, Connector, Handler, Listener
from .limits import Limits
from .tcp import TCP, TCPListener, greeted
from .transport.local import (
    LocalServer,
    LocalStream,
    bound,
    credentials,
    dialled,
    expect_user,
    facts,
    socket_name,
    unbind,
)
from .transport.stream import FrameStream
from .words import repr_of

__all__ = ["Unix", "UnixBackend", "UnixConnector", "UnixListener"]

_OURS = "ours"
_OPTIONS = ("allow_plain", "allowed_uids")


class Unix(TCP):
    """A comm over a local socket; made by `connect` and by listeners."""

    scheme = "unix"


class Users:
    """Which users may be at the other end: the argument ``allowed_uids``."""

    def __init__(self, address: Address, given: Any) -> None:
        self._given = given
        if given is None or given == _OURS:
            return
        numbers = isinstance(given, Collection) and not isinstance(given, (str, bytes))
        if not numbers or not all(type(uid) is int for uid in given):
            raise TypeError(
                f"cannot use {address}: allowed_uids is {repr_of(given)}, need a collection of "
                f"user ids, or None for every user; leave it out for our own"
            )

    def check(self, stream: FrameStream) -> None:
        """Raise `CommClosedError` if the peer's user is none of them."""
        if self._given is None:
            return
        allowed = (os.geteuid(),) if self._given == _OURS else self._given
        expect_user(stream, allowed, "run both as one user, or pass allowed_uids")


def refuse_plain(address: Address, args: Mapping[str, Any]) -> None:
    """Raise for what a scheme that does not encrypt cannot do."""
    allowed = args.get("allow_plain", False)
    if not isinstance(allowed, bool):
        raise TypeError(f"cannot use {address}: allow_plain is {repr_of(allowed)}, need a bool")
    if args.get("require_encryption") and not allowed:
        raise EncryptionRequired(
            f"refusing {address}: encryption is required and {address.scheme} is plain; pass "
            f"allow_plain=True if nobody else can read what this machine's kernel carries",
            peer=str(address),
        )
    if args.get("ssl_context") is not None and not allowed:
        raise TypeError(
            f"cannot use {address} with an ssl_context: {address.scheme} is plain and would not "
            f"use it; leave ssl_context out, or pass allow_plain=True"
        )
    known = ("server_hostname",) if allowed else ()
    expect_known("extra_conn_args", args.get("extra_conn_args") or {}, known)


class UnixConnector(Connector):
    """Dials ``unix://``."""

    async def connect(self, address: Address, limits: Limits, **connection_args: Any) -> Comm:
        """Open a comm, see `Connector.connect`."""
        refuse_plain(address, connection_args)
        users = Users(address, connection_args.get("allowed_uids", _OURS))
        sock = dialled(address.host)
        peer = credentials(sock)
        stream = LocalStream(sock, limits, str(address), (f"{address.host}#{os.getpid()}", 0))
        stream.tls_facts = facts(peer)
        return await opened(stream, limits, Unix, users.check)


async def opened(
    stream: FrameStream,
    limits: Limits,
    comm_class: type[TCP],
    check: Callable[[FrameStream], None],
) -> Comm:
    """Return the comm of a connected stream, after its hello."""
    try:
        check(stream)
        stream.set_deadline(limits.handshake_timeout)
        stream.open()
    except BaseException:
        stream.close()
        raise
    return await greeted(comm_class, stream)


class UnixListener(TCPListener):
    """Accepts on ``unix://``."""

    comm_class: type[TCP] = Unix

    def __init__(
        self, address: Address, handler: Handler, limits: Limits, **connection_args: Any
    ) -> None:
        self._mode = connection_args.get("mode", 0o600)
        if type(self._mode) is not int or not 0 <= self._mode <= 0o777:
            raise ValueError(
                f"cannot listen on {address}: mode is {repr_of(self._mode)}, need permissions such "
                f"as 0o600 or 0o660"
            )
        self._users = Users(address, connection_args.get("allowed_uids", _OURS))
        self._expect_name(address.host)
        self._file: tuple[int, int] | None = None
        super().__init__(address, handler, limits, **connection_args)

    def _expect_name(self, name: str) -> None:
        """Raise `AddressError` for a name that cannot be bound."""
        socket_name(name)

    def _prepare(self, connection_args: Mapping[str, Any]) -> None:
        refuse_plain(self._address, connection_args)

    async def start(self) -> None:
        """Bind and begin to accept. Raises `OSError` if the address cannot be bound."""
        if not self.begins():
            return
        address = self._address
        try:
            sock, self._file = bound(address.host, self._mode, int(self._limits.backlog))
        except OSError as error:
            why = (error.strerror or str(error)).lower()
            raise OSError(
                error.errno, f"cannot listen on {address}: {why}; choose another path"
            ) from error
        self._begin_accepting(address.host, self._users.check).add_sockets([sock])

    def _begin_accepting(self, name: str, check: Callable[[FrameStream], None]) -> LocalServer:
        server = LocalServer(self._address.scheme, name, self._limits, check)
        server.handle_stream = partial(_serve, self)  # type: ignore[method-assign]
        self._server = server
        return server

    def release(self) -> None:
        """Remove the socket's file."""
        if not self.forked():
            unbind(self._address.host, self._file)


def _serve(listener: UnixListener, stream: FrameStream, _: Any) -> Any:
    return listener.attend(listener.comm_class(stream))


class UnixBackend(Backend):
    """The backend for ``unix://``."""

    host_port = False
    connect_arguments = _OPTIONS
    listen_arguments = (*_OPTIONS, "mode")

    def connector(self) -> Connector:
        """Return a connector for ``unix://``."""
        if not hasattr(socket, "AF_UNIX"):
            raise OSError("unix:// needs a system that has AF_UNIX sockets; use tcp://127.0.0.1")
        return UnixConnector()

    def listener(
        self, address: Address, handler: Handler, limits: Limits, **connection_args: Any
    ) -> Listener:
        """Return a listener for ``unix://``, see `Backend.listener`."""
        return UnixListener(address, handler, limits, **connection_args)
