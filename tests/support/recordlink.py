"""A TLS connection whose receiving end is a real socket, and whose peer is made of memory.

What the peer's OpenSSL has encrypted is at hand as bytes, to be cut, damaged or kept back before it
is put on the socket.
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import functools
import select
import socket
import ssl
import struct
import termios
import time
from typing import Any, ClassVar

from sealwire.comm.transport import openssl
from support import certs
from support.handshakes import foreign_context

SET_MAX_SEND_FRAGMENT = 52  # SSL_CTRL_…, of ssl.h

PATIENCE = 30.0  # seconds, for what the kernel does at once on a machine with nothing else to do

CA = certs.root()


@functools.cache
def contexts(version: ssl.TLSVersion) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Of a server and a client that trust each other."""
    made = (
        foreign_context("server", certs.leaf(CA), [CA], version=version),
        foreign_context("client", certs.leaf(CA), [CA], version=version),
    )
    for context in made:  # as ours are; older CPythons set it
        context.options &= ~getattr(ssl, "OP_IGNORE_UNEXPECTED_EOF", 0)
    return made


def connected() -> tuple[socket.socket, socket.socket]:
    """Two ends of a TCP connection."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        near = socket.create_connection(server.getsockname())
        far, _ = server.accept()
    for end in (near, far):
        end.setblocking(False)
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # nothing is held back
        for buffer in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            end.setsockopt(socket.SOL_SOCKET, buffer, 1 << 20)
    return near, far


def unread(sock: socket.socket) -> int:
    """Bytes that have arrived."""
    number = array.array("i", [0])
    fcntl.ioctl(sock, termios.FIONREAD, number)
    return number[0]


def await_event(sock: socket.socket, event: int) -> None:
    """Wait for an event of `select.poll`."""
    poll = select.poll()
    poll.register(sock, event)
    assert poll.poll(PATIENCE * 1000), "nothing has happened"


class RecordLink:
    """The handshake is done, and what the server had to say after it has been read.

    Attributes
    ----------
    near : ssl.SSLSocket
        Who receives; its `_sslobj` as `tls`.
    peer : ssl.SSLObject
        Who sends, once its `outgoing` is put on the socket `far`.
    """

    open: ClassVar[list[RecordLink]] = []  # for `close_all`

    def __init__(self, version: ssl.TLSVersion, server_side: bool = False) -> None:
        self.open.append(self)
        near, self.far = connected()
        server, client = contexts(version)
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.peer: ssl.SSLObject = (client if server_side else server).wrap_bio(
            self.incoming,
            self.outgoing,
            server_side=not server_side,
            server_hostname="peer" if server_side else None,
        )
        self.near: ssl.SSLSocket = (server if server_side else client).wrap_socket(
            near,
            server_side=server_side,
            server_hostname=None if server_side else "peer",
            do_handshake_on_connect=False,
            suppress_ragged_eofs=False,
        )
        self.tls: Any = self.near._sslobj  # type: ignore[attr-defined]
        openssl.bound(self.tls, 100 * 1024)  # as a handshake of ours does
        late = time.monotonic() + PATIENCE
        pending = [self.near.do_handshake, self.peer.do_handshake]
        while pending:
            assert time.monotonic() < late, "the handshake does not end"
            step = pending.pop(0)
            try:
                step()
            except ssl.SSLWantReadError:
                pending.append(step)
            self.exchange()
        self.tls.write(b"ready")
        while not self._is_ready():  # so it has taken whatever was said before
            assert time.monotonic() < late, "the peer hears nothing"
            self.exchange()
        while unread(self.near):  # tickets
            with contextlib.suppress(ssl.SSLWantReadError):
                self.tls.read(1)

    def _is_ready(self) -> bool:
        try:
            return self.peer.read(100) == b"ready"
        except ssl.SSLWantReadError:
            return False

    def exchange(self) -> None:
        """Carry what both ends have said."""
        if self.outgoing.pending:
            self.put(self.outgoing.read())
        with contextlib.suppress(BlockingIOError):
            self.incoming.write(self.far.recv(1 << 20))

    def fragments_of(self, size: int) -> None:
        """Records of the peer have that much at most from now on, at least 512 bytes."""
        control = openssl.library().SSL_ctrl
        assert control(self.pointer, SET_MAX_SEND_FRAGMENT, size, None) == 1

    @property
    def pointer(self) -> int:
        """Of the peer, for what `ssl` cannot do."""
        return openssl.pointer(self.peer._sslobj)  # type: ignore[attr-defined]

    def encrypted(self, data: bytes | memoryview) -> bytes:
        """Records of the peer's with `data`, and what else it had to say."""
        if data:
            assert self.peer.write(data) == len(data)
        return self.outgoing.read()

    def put(self, data: bytes) -> None:
        """On the socket, which must have room for it, and wait until it has arrived."""
        expected = unread(self.near) + len(data)
        assert self.far.send(data) == len(data)
        late = time.monotonic() + PATIENCE
        while unread(self.near) < expected:
            assert time.monotonic() < late, "it does not arrive"

    def hear(self) -> bytes:
        """What the receiving end has sent, of one call."""
        await_event(self.far, select.POLLIN)
        return self.far.recv(1 << 20)

    def hear_all(self) -> bytes:
        """What it has sent until its end."""
        heard = b""
        with contextlib.suppress(ConnectionResetError):
            while more := self.hear():
                heard += more
        return heard

    def end(self) -> None:
        """Close the peer's end of the connection, without a word of TLS."""
        self.far.close()
        await_event(self.near, select.POLLRDHUP)

    def say(self, data: bytes) -> None:
        """Have it sent by the peer."""
        self.put(self.encrypted(data))

    def reset(self) -> None:
        """End the connection as a process that crashes may."""
        self.far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.far.close()
        await_event(self.near, select.POLLHUP)

    def close(self) -> None:
        """Close both ends."""
        self.near.close()
        self.far.close()

    @classmethod
    def close_all(cls) -> None:
        """Close what a test has left open."""
        while cls.open:
            cls.open.pop().close()
