"""The connections that `sealwire probe` makes, down to their bytes.

`exchange_hellos` does what a comm does. The two that sniff find out what is really there: one
listens and asks in HTTP, one sends a ClientHello and verifies nothing. Neither shows a certificate
of ours. Each has one deadline, from connecting to the last byte.
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

__all__ = ["Door", "Heard"]

_SNIFF = 1.0  # seconds to wait for who should speak at once
_MOST = 1 << 18  # bytes of a TLS handshake that we look at


@dataclass
class Heard:
    """What came until a hello was whole, the peer closed, or it was silent for too long."""

    first: bytes = b""
    hello: dict[str, Any] | None = None
    error: Exception | None = None
    silent: bool = False

    @property
    def is_http(self) -> bool:
        """Whether it is what a web server says."""
        return self.first[:5] in (b"HTTP/", b"<!DOC", b"<html")

    @property
    def is_tls(self) -> bool:
        """Whether it is a TLS handshake or alert."""
        return self.first[:1] in (b"\x15", b"\x16") and self.first[1:2] == b"\x03"


@dataclass
class Door:
    """A place that can be connected to; `place` is one of `getaddrinfo`, `timeout` for each step.

    `peer` is the address for errors.
    """

    peer: str
    place: tuple[Any, ...]
    timeout: float

    def dial(self, seconds: float | None = None) -> socket.socket:
        """A new connection, within `seconds` or the step's time. Raises OSError."""
        family, kind, number, _, where = self.place
        sock = socket.socket(family, kind, number)
        sock.settimeout(self.timeout if seconds is None else seconds)
        try:
            sock.connect(where)
        except BaseException:
            sock.close()
            raise
        return sock

    def exchange_hellos(self, sock: socket.socket) -> Heard:
        """Say hello and listen; errors are part of what is heard."""
        frame = hello.encode(hello.offer())
        data = pack([len(frame)], shared=1) + frame
        with Deadline(sock, self.timeout) as deadline:
            return self._ask(sock, deadline, data)

    def _ask(self, sock: socket.socket, deadline: Deadline, data: bytes) -> Heard:
        try:
            sock.settimeout(deadline.left())
            sock.sendall(data)
        except OSError as error:  # the reason may be there to be read
            heard = self._listen(sock, deadline)
            heard.error = heard.error or error
            return heard
        return self._listen(sock, deadline)

    def _listen(self, sock: socket.socket, deadline: Deadline) -> Heard:
        """The first message, or what came instead of it."""
        heard = Heard()
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
                    heard.silent = deadline.over
                    return heard
                heard.first = heard.first or data
                splitter.feed(bytearray(data), len(data))
            heard.hello = hello.decode(messages[0][0], self.peer)
        except TimeoutError:
            heard.silent = True
        except (OSError, CommClosedError) as error:
            heard.silent = deadline.over and isinstance(error, OSError)
            heard.error = None if heard.silent else error
        return heard

    def nudge(self, sock: socket.socket) -> Heard:
        """What comes after an empty line: a web server waits for the end of our "request"."""
        try:
            with Deadline(sock, min(_SNIFF, self.timeout)) as deadline:
                return self._ask(sock, deadline, b"\r\n\r\n")
        except OSError as error:
            return Heard(error=error)

    def sniff_plain(self) -> Heard:
        """Whether it speaks unasked, as our listeners do, or answers HTTP."""
        try:
            with self.dial() as sock:
                with Deadline(sock, min(_SNIFF, self.timeout)) as deadline:
                    heard = self._listen(sock, deadline)
                if heard.silent and not heard.first:
                    with Deadline(sock, self.timeout) as deadline:
                        heard = self._ask(sock, deadline, b"GET / HTTP/1.0\r\n\r\n")
                return heard
        except OSError as error:
            return Heard(error=error)

    def sniff_tls(self) -> tuple[bool, bytes | None]:
        """Whether it answers a ClientHello, and its certificate in DER, for people to look at."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE  # nothing is sent to whom it lets in
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
        except OSError:  # refused by an alert, or the connection is gone
            pass
        return Heard(first).is_tls, None
