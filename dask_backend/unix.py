"""``unix://`` for clusters on one machine: ``LocalCluster(protocol="unix")``.

distributed takes addresses apart into host and port, in many places. So these have both, and the
port is but a number: ``unix://127.0.0.1:8786`` is the socket ``@sealwire-1000-8786`` of the user
1000, a name without a file, as only Linux has them. So nothing is left behind by a worker that is
killed. Any user of the machine could take such a name: both sides ask the kernel for the other
one's user, and accept none but their own.
"""

from __future__ import annotations

import errno
import os
import random
import socket
import ssl
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import dask
from distributed.comm import tcp as stock

from sealwire.comm.addressing import Address
from sealwire.comm.limits import Limits
from sealwire.comm.transport.client import Dialling, FrameClient
from sealwire.comm.transport.local import (
    LocalServer,
    LocalStream,
    bound,
    credentials,
    dialled,
    expect_user,
    facts,
)
from sealwire.comm.transport.stream import FrameStream
from sealwire.security import ConfigError
from sealwire.security.quoting import shown

from .backend import TCP, TCPConnector, TCPListener
from .guard import refuse_plain
from .settings import apply_gil_policy, limits

__all__ = [
    "Unix",
    "UnixBackend",
    "UnixConnector",
    "UnixListener",
    "available",
    "plain_allowed",
]

_ATTEMPTS = 100  # to find a free number
_FREE = range(20_000, 60_000)


def available() -> bool:
    """Whether this system has what it takes."""
    return sys.platform == "linux"


def _name(port: int) -> str:
    return f"@sealwire-{os.geteuid()}-{port}"


def _expect_us(stream: FrameStream) -> None:
    expect_user(stream, (os.geteuid(),), "run both as one user")


_ALLOW = "sealwire.unix.allow-plain"


def plain_allowed() -> bool:
    """Whether this machine is configured to count as safe. Raises `ConfigError`."""
    allowed = dask.config.get(_ALLOW, None)
    if allowed is not None and not isinstance(allowed, bool):
        raise ConfigError(f"bad setting {_ALLOW}: got {shown(allowed)}; write true or false")
    return bool(allowed)


def _refuse_plain(address: str, connection_args: Mapping[str, Any], *, listens: bool) -> None:
    """Raise where encryption is required, unless this machine is configured to count as safe."""
    if not plain_allowed():
        refuse_plain(f"unix://{address}", connection_args, listens=listens)


class Unix(TCP):
    """A comm over a local socket."""

    prefix = "unix://"


class _Dialling(Dialling):
    """A connection attempt, which is over at once."""

    async def connected_socket(self) -> socket.socket:
        """Return a connected socket, which belongs to the caller. Raises `CommClosedError`."""
        return dialled(_name(self._address.port))

    def _begun(self, sock: socket.socket) -> FrameStream:
        peer = credentials(sock)
        host = self._address.host
        stream = LocalStream(sock, self._limits, str(self._address), (host, os.getpid()))
        stream.tls_facts = facts(peer)
        try:
            _expect_us(stream)
            stream.set_deadline(self._limits.handshake_timeout)
            if self._when_connected is not None:
                self._when_connected(stream)
            stream.open()
        except BaseException:
            stream.close()
            raise
        return stream


class _Client(FrameClient):
    def dialling(
        self,
        address: Address,
        limits: Limits | None = None,
        *,
        context: ssl.SSLContext | None = None,
        server_hostname: str | None = None,
        how: Any = None,
        outlives: bool = False,
    ) -> Dialling:
        """Begin an attempt; see `FrameClient.dialling`."""
        return _Dialling(self.resolver, address, limits or self.limits, None, None, how, outlives)


class UnixConnector(TCPConnector):
    """Dials ``unix://``."""

    client = _Client()
    prefix = "unix://"
    comm_class = Unix

    def _dial_args(self, address: str, connection_args: Mapping[str, Any]) -> dict[str, Any]:
        _refuse_plain(address, connection_args, listens=False)
        return {}


class _Server(LocalServer):
    """Leaves the hello to distributed's listeners, which exchange it themselves."""

    def __init__(self, host: str, port: int, limits: Limits) -> None:
        super().__init__("unix", _name(port), limits, _expect_us)
        self._host_port = host, port

    @property
    def address(self) -> tuple[str, int]:
        return self._host_port

    def _own_address(self) -> str:
        host, port = self._host_port
        return f"unix://{host}:{port}"

    def _stream_of(self, accepted: socket.socket, address: Any) -> FrameStream:
        peer = credentials(accepted)
        number = peer.pid if peer is not None else 0
        host = self._host_port[0]
        stream = LocalStream(accepted, self._limits, f"unix://{host}:{number}", self._host_port)
        stream.tls_facts = facts(peer)
        return stream

    async def greet(self, stream: FrameStream) -> None:
        """Check the peer; `FrameListener` exchanges the hellos."""
        _expect_us(stream)


class UnixListener(TCPListener):
    """Accepts on ``unix://``."""

    prefix = "unix://"
    comm_class = Unix

    def _prepare(self, address: str, connection_args: Mapping[str, Any]) -> None:
        _refuse_plain(address, connection_args, listens=True)

    async def start(self) -> None:
        """Bind and begin to accept. Raises `OSError` if the number is taken."""
        chosen = limits()
        apply_gil_policy()
        host = self.ip if self.ip not in ("", "0.0.0.0", "::") else "127.0.0.1"
        ports: Sequence[int] = [self.port] if self.port else random.sample(_FREE, _ATTEMPTS)
        for port in ports:
            try:
                sock, _ = bound(_name(port), 0o600, int(chosen.backlog))
                break
            except OSError as error:
                if error.errno != errno.EADDRINUSE or port == ports[-1]:
                    raise OSError(
                        error.errno,
                        f"cannot listen on unix://{host}:{port}: {str(error.strerror).lower()}; "
                        f"choose another port",
                    ) from error
        server = _Server(host, port, chosen)
        server.handle_stream = self._handle_stream  # type: ignore[method-assign]
        server.add_sockets([sock])
        self.tcp_server = server


class UnixBackend(stock.BaseTCPBackend):
    """The backend for ``unix://``; distributed handles the addresses as those of ``tcp://``."""

    refuses_plain = True

    _connector_class = UnixConnector
    _listener_class = UnixListener
