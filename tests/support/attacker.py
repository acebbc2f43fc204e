"""The other side, without any of our code: sockets, `ssl`, `struct` and msgpack."""

from __future__ import annotations

import contextlib
import ctypes
import socket
import ssl
import struct
import time
from collections.abc import Iterable
from typing import Any

import msgpack

from support.target import HANG, identities

Context = ssl.SSLContext
Socket = socket.socket


def words(*numbers: int) -> bytes:
    return struct.pack(f"<{len(numbers)}Q", *numbers)


def message(*frames: bytes) -> bytes:
    """A message in one block."""
    lengths = words(*map(len, frames))
    body = b"".join(frames)
    return words(8 + len(lengths) + len(body), len(frames)) + lengths + body


def packed(value: Any) -> bytes:
    return message(msgpack.packb(value))


#: the first message of a peer of distributed
HELLO = packed({"compression": None, "python": [3, 11, 0], "pickle-protocol": 5})
#: the first message of a peer of ours
OUR_HELLO = packed(
    {
        "compression": None,
        "python": [3, 11, 0],
        "pickle-protocol": 5,
        "sealwire": {"version": 1, "arrays": False},
    }
)


def context(
    name: str | None = "client", version: ssl.TLSVersion | None = None, server: bool = False
) -> Context:
    """A TLS context that shows one of `target.identities`."""
    made = Context(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname = False
    made.verify_mode = ssl.CERT_REQUIRED
    made.load_verify_locations(identities()["ca"])
    if version is not None:
        made.minimum_version = made.maximum_version = version
    if name is not None:
        made.load_cert_chain(identities()[name])
    return made


def split(address: str) -> tuple[str, int]:
    host, _, port = address.partition("://")[2].rpartition(":")
    return host, int(port)


def dial(address: str, *, tls: Context | None = None, timeout: float = HANG) -> Socket:
    """A connection; with `tls` its handshake done."""
    sock = socket.create_connection(split(address), timeout=timeout)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if tls is None:
        return sock
    try:
        return tls.wrap_socket(sock)
    except BaseException:
        sock.close()
        raise


def enter(address: str, *, tls: Context | None = None, hello: bytes = HELLO) -> Socket:
    """A connection that is let in: TLS if its address says so, and the hellos exchanged."""
    if address.startswith("tls") and tls is None:
        tls = context()
    sock = dial(address, tls=tls)
    try:
        sock.sendall(hello)
        receive(sock)
    except BaseException:
        sock.close()
        raise
    return sock


def exactly(sock: Socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        piece = sock.recv(min(size - len(data), 1 << 20))
        if not piece:
            raise ConnectionError(f"closed after {len(data)} of {size} bytes")
        data += piece
    return bytes(data)


def receive(sock: Socket) -> list[bytes]:
    """The frames of one message."""
    _, number = struct.unpack("<QQ", exactly(sock, 16))
    lengths = struct.unpack(f"<{number}Q", exactly(sock, 8 * number))
    return [exactly(sock, length) for length in lengths]


def ask(sock: Socket, value: Any) -> Any:
    """Send a message and return what comes back."""
    sock.sendall(packed(value))
    return msgpack.unpackb(receive(sock)[0], strict_map_key=False)


def ping(sock: Socket) -> float:
    """Seconds for a message there and back."""
    start = time.perf_counter()
    answer = ask(sock, {"ping": 1})
    if answer != {"ping": 1}:
        raise AssertionError(answer)
    return time.perf_counter() - start


def visit(address: str, tls: Context | None = None) -> float:
    """Seconds to come in, have a message answered and leave."""
    start = time.perf_counter()
    with enter(address, tls=tls) as sock:
        ping(sock)
        return time.perf_counter() - start


def percentile(values: Iterable[float], part: float = 0.99) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


def ended(sock: Socket, within: float = HANG) -> bytes:
    """What still comes until the other side has closed. Raises TimeoutError."""
    sock.settimeout(within)
    data = b""
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        while piece := sock.recv(1 << 16):
            data += piece
    return data


def gone(sock: Socket) -> bool:
    """Whether the other side has closed; looks without waiting, drops what has come."""
    sock.settimeout(0)
    try:
        while sock.recv(1 << 16):
            pass
        return True
    except (BlockingIOError, ssl.SSLWantReadError):
        return False
    except OSError:
        return True


def reset(sock: Socket) -> None:
    """Close with a TCP reset."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def vanish(sock: Socket) -> None:
    """From now on this socket hears and acknowledges nothing, as if its machine had gone.

    By a packet filter on the socket that drops everything (Linux).
    """
    program = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))  # return 0
    filter_program = struct.pack("HP", 1, ctypes.addressof(program))
    sock.setsockopt(socket.SOL_SOCKET, 26, filter_program)  # SO_ATTACH_FILTER


class Shake:
    """A client's handshake over `sock`, flight by flight."""

    def __init__(self, sock: Socket, tls: Context) -> None:
        self._sock = sock
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._client = tls.wrap_bio(self._incoming, self._outgoing, server_side=False)
        self._step()

    def _step(self) -> None:
        with contextlib.suppress(ssl.SSLWantReadError):
            self._client.do_handshake()

    def send(self) -> None:
        """Send the next flight."""
        self._sock.sendall(self._outgoing.read())

    def receive(self) -> None:
        """Take what the server says until there is something to answer."""
        while not self._outgoing.pending:
            self._take()
            self._step()

    def say(self, data: bytes) -> None:
        """Add this to the last flight."""
        self._client.write(data)

    def hear(self) -> bytes:
        """What the server says once the handshake is done."""
        while True:
            try:
                return self._client.read(1 << 16)
            except ssl.SSLWantReadError:
                self._take()

    def _take(self) -> None:
        data = self._sock.recv(1 << 16)
        if not data:
            raise ConnectionError("closed in the middle of a handshake")
        self._incoming.write(data)


def shake_up_to(address: str, tls: Context, limit: int) -> tuple[Socket, int]:
    """Shake hands, but send no more than `limit` bytes; the socket, and how many were sent."""
    sock = dial(address)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = tls.wrap_bio(incoming, outgoing, server_side=False)
    sent = 0
    while True:
        with contextlib.suppress(ssl.SSLWantReadError):
            client.do_handshake()
        done = client.version() is not None and not outgoing.pending
        data = outgoing.read(limit - sent) if outgoing.pending else b""
        sock.sendall(data)
        sent += len(data)
        if sent >= limit or done:
            return sock, sent
        incoming.write(sock.recv(1 << 16))


def client_hello(tls: Context | None = None) -> bytes:
    """The first bytes of a TLS client."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = (tls or context()).wrap_bio(incoming, outgoing, server_side=False)
    with contextlib.suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()
