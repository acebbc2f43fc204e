"""The connections of `sealwire probe`, at the level of bytes.

`exchange_hellos` does what a comm does. The two `sniff_…` methods find out what really listens: one
waits and then sends an HTTP request, one sends a ClientHello and verifies nothing. Neither presents
our certificate. Each has one deadline, from connecting to the last byte.
"""

from __future__ import annotations

import socket
import ssl
from collections import deque
from dataclasses import dataclass
from typing import Any

from sealwire.cli.probe.deadline import Deadline
from sealwire.comm import CommClosedError, Limits
from sealwire.comm.wire import hello
from sealwire.comm.wire.framing import Frame, Splitter, pack

__all__ = ["Endpoint", "Reply"]

_SNIFF = 1.0  # seconds to wait for a peer that speaks first
_MOST = 1 << 18  # most bytes of a TLS handshake to read


@dataclass
class Reply:
    """What was received until a hello was complete, the peer closed, or the deadline passed."""

    first: bytes = b""
    hello: dict[str, Any] | None = None
    error: Exception | None = None
    silent: bool = False

    @property
    def is_http(self) -> bool:
        """Whether it is the answer of a web server."""
        return self.first[:5] in (b"HTTP/", b"<!DOC", b"<html")

    @property
    def is_tls(self) -> bool:
        """Whether it is a TLS handshake or alert."""
        return self.first[:1] in (b"\x15", b"\x16") and self.first[1:2] == b"\x03"


@dataclass
class Endpoint:
    """A socket address to connect to; `place` is an item of `getaddrinfo`, `timeout` for each step.

    `peer` is the address for errors.
    """

    peer: str
    place: tuple[Any, ...]
    timeout: float

    def dial(self, seconds: float | None = None) -> socket.socket:
        """Return a new connection, within `seconds` or the step's time. Raises OSError."""
        family, kind, number, _, where = self.place
        sock = socket.socket(family, kind, number)
        sock.settimeout(self.timeout if seconds is None else seconds)
        try:
            sock.connect(where)
        except BaseException:
            sock.close()
            raise
        return sock

    def exchange_hellos(self, sock: socket.socket) -> Reply:
        """Send a hello and receive; errors are part of the result."""
        frame = hello.encode(hello.offer())
        data = pack([len(frame)], shared=1) + frame
        with Deadline(sock, self.timeout) as deadline:
            return self._ask(sock, deadline, data)

    def _ask(self, sock: socket.socket, deadline: Deadline, data: bytes) -> Reply:
        try:
            sock.settimeout(deadline.left())
            sock.sendall(data)
        except OSError as error:  # the reason may have been received
            reply = self._listen(sock, deadline)
            reply.error = reply.error or error
            return reply
        return self._listen(sock, deadline)

    def _listen(self, sock: socket.socket, deadline: Deadline) -> Reply:
        """Return the first message, or whatever came instead."""
        reply = Reply()
        messages: deque[tuple[list[Frame], int]] = deque()
        limits = Limits()
        splitter = Splitter(
            messages,
            lambda size: memoryview(bytearray(size)),
            max_size=limits.max_message_size,
            max_frames=limits.max_frames,
            max_hello_size=limits.max_hello_size,
            peer=self.peer,
        )
        try:
            while not messages:
                sock.settimeout(deadline.left())
                data = sock.recv(65536)
                if not data:
                    reply.silent = deadline.over
                    return reply
                reply.first = reply.first or data
                splitter.feed(bytearray(data), len(data))
            reply.hello = hello.decode(messages[0][0], self.peer, joining=True)
        except TimeoutError:
            reply.silent = True
        except (OSError, CommClosedError) as error:
            reply.silent = deadline.over and isinstance(error, OSError)
            reply.error = None if reply.silent else error
        return reply

    def send_empty_line(self, sock: socket.socket) -> Reply:
        """Return what follows an empty line: a web server waits for the end of our "request"."""
        try:
            with Deadline(sock, min(_SNIFF, self.timeout)) as deadline:
                return self._ask(sock, deadline, b"\r\n\r\n")
        except OSError as error:
            return Reply(error=error)

    def sniff_plain(self) -> Reply:
        """Whether it sends a hello first, as our listeners do, or answers HTTP."""
        try:
            with self.dial() as sock:
                with Deadline(sock, min(_SNIFF, self.timeout)) as deadline:
                    reply = self._listen(sock, deadline)
                if reply.silent and not reply.first:
                    with Deadline(sock, self.timeout) as deadline:
                        reply = self._ask(sock, deadline, b"GET / HTTP/1.0\r\n\r\n")
                return reply
        except OSError as error:
            return Reply(error=error)

    def sniff_tls(self) -> tuple[bool, bytes | None]:
        """Whether it answers a ClientHello, and its certificate in DER, only for display."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE  # safe: nothing is sent to a peer that accepts
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = context.wrap_bio(incoming, outgoing)
        first, received = b"", 0
        try:
            seconds = min(_SNIFF, self.timeout)
            with self.dial(seconds) as sock, Deadline(sock, seconds) as deadline:
                while received < _MOST:
                    try:
                        tls.do_handshake()
                        return True, tls.getpeercert(binary_form=True)
                    except ssl.SSLWantReadError:
                        sock.settimeout(deadline.left())
                        sock.sendall(outgoing.read())
                        data = sock.recv(65536)
                        first = first or data
                        received += len(data)
                        if not data:
                            break
                        incoming.write(data)
        except OSError:  # refused by an alert, or disconnected
            pass
        return Reply(first).is_tls, None
