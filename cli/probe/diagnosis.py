"""The diagnosis of `sealwire probe`, with blocking sockets, one step after another.

Resolve, connect, TLS, hello: what a process of a cluster does, in the same contexts and with the
same errors, but without retries. If a step fails, further connections find out what really listens.
"""

from __future__ import annotations

import queue
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from sealwire.cli.probe.connections import Endpoint, Reply
from sealwire.cli.probe.deadline import Deadline
from sealwire.comm import Address, CommClosedError, HandshakeError
from sealwire.comm.tls_details import is_eof
from sealwire.comm.tls_errors import NamingFiles, explain, tell_refused
from sealwire.comm.wire import hello

__all__ = ["Diagnosis", "Outcome", "Step", "examine"]

_CHECK = "check the address and the port"
_HTTP = "a web server (HTTP) listens there: perhaps it is the dashboard's port"
_HTTPS = "a web server over TLS (HTTPS) listens there"
_STOCK = "Dask on distributed's own backend"
_NOT_TLS = {
    "HTTP_REQUEST",
    "PACKET_LENGTH_TOO_LONG",
    "RECORD_LAYER_FAILURE",
    "UNKNOWN_PROTOCOL",
    "WRONG_VERSION_NUMBER",
    "NOT_SSL_RECORD_OR_VERSION_NUMBER_IS_WRONG",
}


class Outcome(Enum):
    """The result; the value is the exit code."""

    OK = 0
    UNREACHABLE = 1
    HERE = 3  # our own certificates or configuration
    STRANGE = 4  # something else than was asked for listens there
    REFUSED = 5  # TLS or a certificate, by either side


@dataclass(frozen=True)
class Step:
    """One step: its name, how long it took, and its result."""

    name: str
    seconds: float
    detail: str


@dataclass
class Diagnosis:
    """What was found out about an address, as far as it went."""

    address: str
    outcome: Outcome = Outcome.OK
    words: str = ""
    steps: list[Step] = field(default_factory=list)
    protocol: str | None = None
    cipher: str | None = None
    peer_certificate: bytes | None = None  # DER
    hello: dict[str, Any] | None = None
    backend: str | None = None  # who has answered, in words


class _Found(Exception):
    """The diagnosis is complete."""

    def __init__(self, outcome: Outcome, words: str) -> None:
        super().__init__(words)
        self.outcome = outcome


def examine(target: Address, context: ssl.SSLContext | None, timeout: float) -> Diagnosis:
    """Diagnose what listens at an address; over TLS if there is a context.

    `timeout` is for each step, in seconds. Every failure is part of the result.
    """
    return _Examination(target, context, timeout).run()


def _resolved(target: Address, timeout: float) -> list[tuple[Any, ...]]:
    """Return the socket addresses of a name; a timeout is needed, since the resolver has none."""
    found: queue.Queue[list[tuple[Any, ...]] | OSError] = queue.Queue()

    def ask() -> None:
        try:
            host, kind = target.host or "localhost", socket.SOCK_STREAM
            found.put(list(socket.getaddrinfo(host, target.port, type=kind)))
        except (OSError, UnicodeError) as error:  # UnicodeError: not encodable as a host name
            found.put(error if isinstance(error, OSError) else OSError(0, str(error)))

    threading.Thread(target=ask, daemon=True).start()
    try:
        answer = found.get(timeout=timeout)
    except queue.Empty:
        raise TimeoutError("timed out") from None
    if isinstance(answer, OSError):
        raise answer
    return answer


def _backend(offered: dict[str, Any]) -> str:
    if hello.EXTENSION in offered:
        return "sealwire comm"
    return "Dask on sealwire's backend" if hello.BACKEND in offered else _STOCK


def _opening(reply: Reply) -> str:
    return f"its first bytes are {reply.first[:24]!r}; {_CHECK}"


class _Examination:
    """One diagnosis. A step that ends it raises `_Found`."""

    def __init__(self, target: Address, context: ssl.SSLContext | None, timeout: float) -> None:
        self.target = target
        self.peer = str(target)
        self.context = context
        self.timeout = timeout
        self.found = Diagnosis(self.peer)
        self.endpoint = Endpoint(self.peer, (), timeout)

    def run(self) -> Diagnosis:
        try:
            sock = self.connect(self.resolve())
            with sock:
                if self.context is None:
                    self.greet_plain(sock)
                else:
                    self.greet_tls(sock, self.context)
        except _Found as found:
            self.found.outcome, self.found.words = found.outcome, str(found)
        return self.found

    @contextmanager
    def step(self, name: str) -> Iterator[list[str]]:
        """Time a step; items appended to the yielded list are its details."""
        detail: list[str] = []
        began = time.perf_counter()
        try:
            yield detail
        except (_Found, OSError):
            detail[:] = ["failed"]
            raise
        finally:
            spent = time.perf_counter() - began
            self.found.steps.append(Step(name, spent, ", ".join(detail)))

    # Steps

    def resolve(self) -> list[tuple[Any, ...]]:
        with self.step("resolve") as detail:
            try:
                places = _resolved(self.target, self.timeout)
            except TimeoutError as error:
                raise _Found(
                    Outcome.UNREACHABLE,
                    f"the host name {self.target.host} did not resolve within {self.timeout:g} s; "
                    "check this machine's DNS",
                ) from error
            except OSError as error:
                raise _Found(
                    Outcome.UNREACHABLE,
                    f"the host name {self.target.host} does not resolve ({error.strerror}); "
                    "check its spelling and this machine's DNS",
                ) from error
            detail += dict.fromkeys(str(place[4][0]) for place in places)
            return places

    def connect(self, places: list[tuple[Any, ...]]) -> socket.socket:
        with self.step("connect") as detail:
            until = time.monotonic() + self.timeout
            for number, place in enumerate(places):
                self.endpoint = Endpoint(self.peer, place, self.timeout)
                share = (until - time.monotonic()) / (len(places) - number)
                try:
                    sock = self.endpoint.dial(max(0.001, share))
                except OSError as error:
                    last = error
                else:
                    detail.append(f"from {sock.getsockname()[0]}")
                    return sock
            if isinstance(last, TimeoutError):
                why = (
                    f"no answer within {self.timeout:g} s; the host is down, or a firewall between "
                    "drops packets"
                )
            elif isinstance(last, ConnectionRefusedError):
                why = (
                    "connection refused; the host is up and nothing listens on that port: check "
                    "the port, and that the process runs"
                )
            else:
                why = f"{(last.strerror or str(last)).lower()}; check the address and the network"
            raise _Found(Outcome.UNREACHABLE, f"cannot connect to {self.peer}: {why}") from last

    def greet_tls(self, sock: socket.socket, context: ssl.SSLContext) -> None:
        tell_refused(context)
        try:
            with self.step("TLS") as detail, Deadline(sock, self.timeout):
                tls = context.wrap_socket(sock, server_hostname=None, suppress_ragged_eofs=False)
                self.found.protocol = tls.version()
                self.found.cipher = (tls.cipher() or ("?",))[0]
                self.found.peer_certificate = tls.getpeercert(binary_form=True)
                detail += [str(self.found.protocol), str(self.found.cipher)]
        except OSError as error:
            self.tls_failed(error)
        with tls, self.step("hello") as detail:
            reply = self.endpoint.exchange_hellos(tls)
            if reply.hello is not None:
                self.accept(reply.hello, detail)
                self.found.words = (
                    "it speaks our protocol; each side accepts the other's certificate"
                )
                if self.found.backend == _STOCK:
                    self.found.words += (
                        f"; it is {_STOCK}, where nothing under sealwire.tls holds, such as a "
                        "revocation list"
                    )
                return
            if reply.is_http:
                raise self.strange(_HTTPS)
            if reply.silent:
                if self.endpoint.send_empty_line(tls).is_http:
                    raise self.strange(_HTTPS)
                raise self.strange(
                    f"TLS is fine, but no hello came within {self.timeout:g} s; it is no Dask or "
                    "sealwire process, or one that hangs"
                )
            if isinstance(reply.error, HandshakeError):  # received instead of its hello
                raise self.refused(reply.error)
            if isinstance(reply.error, ssl.SSLError) and not is_eof(reply.error):
                raise self.refused(explain(reply.error, self.peer, handshaking=True))
            if reply.first:
                raise self.strange(f"it speaks TLS, but not our protocol: {_opening(reply)}")
            raise _Found(
                Outcome.REFUSED,
                f"{self.peer} closed the connection after the TLS handshake and before its hello; "
                "its log says why: our certificate may not be among its allowed peers "
                "(tls_allowed_peers), or it is no Dask or sealwire process",
            )

    def greet_plain(self, sock: socket.socket) -> None:
        with self.step("hello") as detail:
            reply = self.endpoint.exchange_hellos(sock)
            if reply.hello is not None:
                self.accept(reply.hello, detail)
                self.found.words = "it speaks our protocol, in plain text: nothing is protected"
                return
            if reply.is_tls or (not reply.first and self.endpoint.sniff_tls()[0]):
                raise self.strange(f"TLS is spoken there; use {self.target._replace(scheme='tls')}")
            if reply.is_http or (reply.silent and self.endpoint.send_empty_line(sock).is_http):
                raise self.strange(_HTTP)
            self.not_ours(reply)

    def accept(self, offered: dict[str, Any], detail: list[str]) -> None:
        if hello.JOINING in offered:
            raise self.strange(hello.IS_SERVICE)
        self.found.hello = offered
        version = offered.get("python")
        self.found.backend = _backend(offered)
        detail.append(self.found.backend)
        if isinstance(version, tuple):
            detail.append("python " + ".".join(map(str, version[:3])))

    # Failures

    def tls_failed(self, error: OSError) -> None:
        explained = explain(error, self.peer, handshaking=True)
        named = isinstance(explained, HandshakeError)
        if named and getattr(error, "reason", None) not in _NOT_TLS:
            # OpenSSL does not expose the certificate that we refused.
            _, self.found.peer_certificate = self.endpoint.sniff_tls()
            raise self.refused(explained) from error
        reply = self.endpoint.sniff_plain()
        if reply.hello is not None:
            raise self.strange(
                "a Dask or sealwire process speaks plain TCP there; "
                f"use {self.target._replace(scheme='tcp')}, or give it certificates"
            ) from error
        if reply.is_http:
            raise self.strange(_HTTP) from error
        if isinstance(error, TimeoutError):
            raise self.strange(
                f"it accepts connections, but has not answered a TLS ClientHello within "
                f"{self.timeout:g} s; it speaks another protocol, or hangs"
            ) from error
        if named:
            opening = _opening(reply) if reply.first else _CHECK
            raise self.strange(f"it does not speak TLS; {opening}") from error
        raise self.strange(
            f"it closes the connection when a TLS handshake begins; {_CHECK}, and its log"
        ) from error

    def not_ours(self, reply: Reply) -> None:
        if reply.silent:
            raise self.strange(
                f"it accepts connections, but says nothing within {self.timeout:g} s, neither a "
                f"hello nor TLS; {_CHECK}"
            )
        if not reply.first:
            raise self.strange(f"it closed the connection before its hello; {_CHECK}, and its log")
        raise self.strange(f"it does not speak our protocol: {_opening(reply)}")

    def strange(self, what: str) -> _Found:
        return _Found(Outcome.STRANGE, f"{self.peer} is not what it should be: {what}")

    def refused(self, error: CommClosedError) -> _Found:
        try:
            with NamingFiles(self.context):
                raise error
        except CommClosedError as named:
            return _Found(Outcome.REFUSED, str(named))
