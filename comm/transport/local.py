"""Streams between processes of one machine: sockets of the family AF_UNIX, and pairs of them.

What differs from TCP: a socket has no port, no options and no counters to tune or ask; the kernel
knows the process at the other end; what was sent is in the peer's buffer at once, so that an end
in order loses nothing and has nothing to wait for; and the kernel ends what a dead process leaves.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
import struct
import sys
import time
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import AddressError, CommClosedError
from ..kinds import ErrorKind
from ..limits import Limits
from .channel import Channel, plain
from .connection import State
from .goodbye import until_sent
from .greeting import exchange_hellos
from .server import FrameServer
from .stream import FrameStream

try:
    import fcntl
except ImportError:  # Windows has no such locks
    fcntl = None  # type: ignore[assignment]

__all__ = [
    "Credentials",
    "LocalServer",
    "LocalStream",
    "bound",
    "credentials",
    "dialled",
    "expect_user",
    "facts",
    "socket_name",
    "unbind",
]

_LONGEST = 107 if sys.platform == "linux" else 103  # bytes of sun_path, less the final zero


class Credentials(NamedTuple):
    """Which process is at the other end: as it was when it connected or began to listen."""

    pid: int
    uid: int
    gid: int


_UCRED = struct.Struct("3i")


def credentials(sock: socket.socket) -> Credentials | None:
    """Ask the kernel who the peer is; None where it does not say."""
    option = getattr(socket, "SO_PEERCRED", None)
    if option is None:
        return None
    try:
        return Credentials(*_UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, option, _UCRED.size)))
    except OSError:
        return None


class LocalStream(FrameStream):
    """A `FrameStream` over a local socket.

    Parameters
    ----------
    sock, limits, peer
        As for `FrameStream`.
    local : tuple
        What to take for host and port of our end, which has neither.
    """

    def __init__(
        self, sock: socket.socket, limits: Limits, peer: str, local: tuple[str, int]
    ) -> None:
        super().__init__(sock, limits, peer, State.HELLO)
        self._local = local

    def open(self) -> None:
        """Start receiving."""
        self._begin(plain(self.socket))

    def _begin(self, channel: Channel) -> None:
        self.local_host_port = self._local
        self._sender.begin(channel)
        self.readiness.on_readable(self._receiver.receive)
        self._receiver.begin(channel)

    async def _say_goodbye(self) -> None:
        # What the kernel has taken is in the peer's buffer, and stays there.
        if await until_sent(self._sender, self.socket, self.peer, self.limits.close_timeout):
            self._sender.send_eof()


class LocalServer(FrameServer):
    """A `FrameServer` of local sockets.

    Parameters
    ----------
    scheme, name : str
        The address of the listener.
    limits : Limits
        Bounds for the server and every stream.
    check : callable
        Raises `CommClosedError` for the peer of a stream that is to be refused; called before its
        hello is read.
    """

    def __init__(
        self, scheme: str, name: str, limits: Limits, check: Callable[[FrameStream], None]
    ) -> None:
        super().__init__(None, limits)
        self.scheme = scheme
        self._name = name
        self._check = check
        self._accepted = 0

    @property
    def address(self) -> tuple[str, int]:
        """Its name, in the place of a host."""
        return self._name, 0

    def add_sockets(self, sockets: Iterable[socket.socket]) -> None:
        """Begin to accept on listening sockets; `stop` closes them."""
        self._acceptor.add(sockets)

    def admit_as(self, sock: socket.socket, name: str) -> None:
        """Serve a socket that is connected already, whose peer has this name."""
        self._admit(sock, (name,))

    def next_peer(self) -> str:
        """Return a name for the next one who connects."""
        self._accepted += 1
        return f"{self._name}#{self._accepted}"

    def _stream_of(self, accepted: socket.socket, address: tuple[Any, ...]) -> FrameStream:
        peer = None
        if isinstance(address, tuple):  # of `admit_as`; a path, if a peer has bound its socket
            (name,) = address
        else:
            peer = credentials(accepted)
            name = f"{self._name}#{peer.pid}" if peer is not None else self.next_peer()
        stream = LocalStream(accepted, self._limits, f"{self.scheme}://{name}", self.address)
        stream.tls_facts = facts(peer)
        return stream

    async def greet(self, stream: FrameStream) -> None:
        """Check the peer, then exchange hellos."""
        self._check(stream)
        await exchange_hellos(stream)


def facts(peer: Credentials | None) -> dict[str, Any]:
    """Return what `Comm.extra_info` says of the process at the other end."""
    return {} if peer is None else {f"peer_{name}": getattr(peer, name) for name in peer._fields}


def expect_user(stream: FrameStream, allowed: Collection[int], remedy: str) -> None:
    """Raise `CommClosedError` if the peer's user is none of those `allowed`.

    A system that does not say who it is leaves the protection to the mode of the socket's file.
    """
    uid = stream.tls_facts.get("peer_uid")
    if uid is None or uid in allowed:
        return
    error = CommClosedError(
        f"connection with {stream.peer} refused: its process {stream.tls_facts['peer_pid']} runs "
        f"as user {uid}, allowed is {', '.join(map(str, allowed)) or 'none'}; {remedy}",
        peer=stream.peer,
    )
    error.kind = "other-user"
    error.retryable = False
    raise error


# Names of sockets


def socket_name(name: str) -> bytes:
    """Return what to bind or connect to: a path, or for ``@name`` a name without a file.

    Raises `AddressError` for a name that cannot be one.
    """
    encoded = os.fsencode(name)
    if name.startswith("@"):
        if sys.platform != "linux":
            raise AddressError(f"bad address unix://{name}: only Linux has names without a file")
        encoded = b"\0" + encoded[1:]
    elif not os.path.isabs(name):
        raise AddressError(
            f"bad address unix://{name}: need an absolute path or @name; write "
            f"unix://{os.path.abspath(name) if name else '/run/user/1000/name.sock'}"
        )
    if len(encoded) > _LONGEST:
        raise AddressError(
            f"bad address unix://{name}: it has {len(encoded)} bytes, the name of a socket may "
            f"have {_LONGEST}; choose a shorter path"
        )
    if len(encoded) < 2:
        raise AddressError(f"bad address unix://{name}: no name; write unix://@name")
    return encoded


def bound(name: str, mode: int, backlog: int) -> tuple[socket.socket, tuple[int, int] | None]:
    """Return a listening socket, and the identity of its file, if it has one.

    A file that a listener has left behind is replaced; that of a live one is not, nor any other.
    Raises `OSError`, `AddressError`.
    """
    encoded = socket_name(name)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        if encoded.startswith(b"\0"):
            sock.bind(encoded)
            sock.listen(backlog)
            return sock, None
        with _locked(os.path.dirname(name)):
            _remove_stale(name)
            sock.bind(encoded)
            found = os.lstat(name)
            identity = found.st_dev, found.st_ino
            try:
                os.chmod(name, mode)  # nobody can connect before it listens
                sock.listen(backlog)
            except OSError:
                unbind(name, identity)
                raise
        return sock, identity
    except BaseException:
        sock.close()
        raise


@contextlib.contextmanager
def _locked(folder: str) -> Any:
    """Keep two that start at once from replacing each other's file, where the system can."""
    descriptor = None
    if fcntl is not None:
        with contextlib.suppress(OSError):  # one that may be written, but not read; or none
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    if descriptor is None:
        yield
        return
    try:
        for _ in range(_TRIES):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:  # by another listener, for a moment; or by anybody, for long
                time.sleep(_PAUSE)
            except OSError:  # some file systems have no locks
                break
        yield
    finally:
        os.close(descriptor)


_TRIES, _PAUSE = 20, 0.005  # seconds


def _remove_stale(name: str) -> None:
    """Remove a socket's file on which nobody listens. Raises `OSError` for any other file."""
    try:
        found = os.lstat(name)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise OSError(errno.EADDRINUSE, "a file that is no socket is in its place")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(name)
        except ConnectionRefusedError:
            os.unlink(name)
            return
        except OSError as error:
            if error.errno != errno.EAGAIN:  # its backlog is full
                raise
    raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))


def unbind(name: str, identity: tuple[int, int] | None) -> None:
    """Remove the file of a listening socket, if it is still that one."""
    if identity is None:
        return
    with contextlib.suppress(OSError):
        found = os.lstat(name)
        if (found.st_dev, found.st_ino) == identity:
            Path(name).unlink()


def dialled(name: str) -> socket.socket:
    """Return a connected socket. Raises `CommClosedError`, `AddressError`."""
    encoded = socket_name(name)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.connect(encoded)
    except OSError as error:
        sock.close()
        raise _failed(name, error) from error
    except BaseException:
        sock.close()
        raise
    return sock


_REMEDIES: dict[int, tuple[ErrorKind, str]] = {
    errno.ENOENT: ("unreachable", "check the path, and that a listener runs"),
    errno.ECONNREFUSED: ("refused", "check that a listener runs"),
    errno.EACCES: ("unreachable", "run as its user, or let the listener choose another mode"),
    errno.EAGAIN: ("refused", "its backlog is full; try again"),
}


def _failed(name: str, error: OSError) -> CommClosedError:
    kind, remedy = _REMEDIES.get(error.errno or 0, ("unreachable", "check the path"))
    why = (error.strerror or str(error)).lower()
    failed = CommClosedError(f"{why}; {remedy}", peer=f"unix://{name}")
    failed.kind = kind
    failed.errno = error.errno
    return failed
