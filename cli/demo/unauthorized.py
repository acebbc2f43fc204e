"""Connections that must be refused, made with nothing but sockets and `ssl`.

None of our own code runs on this side, so the outcome is the listener's doing. A valid certificate
is tried the same way and must be accepted: it shows that the others are refused for what they are.
"""

from __future__ import annotations

import socket
import ssl
import struct
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from functools import partial
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from sealwire.cli.demo.identities import IdentityFiles, write_identity

if TYPE_CHECKING:
    from sealwire.security.ca.authority import Authority

TIMEOUT = 10.0  # seconds for a listener to answer or to close
PLAIN, FOREIGN, EXPIRED, FRIEND = VISITORS = (
    "plain tcp client",
    "certificate of another CA",
    "expired certificate",
    "valid certificate",
)
ALERT = b"\x15"  # first byte of a TLS alert record (RFC 8446, 5.1); its last is what it says
ALERTS = {10: "unexpected message", 40: "handshake failure", 70: "protocol version"}
# What it means for who is refused; OpenSSL's names for alerts, without those of versions.
MEANINGS = {
    "unknown ca": "its CA is not known",
    "certificate expired": "its certificate has expired",
    "certificate revoked": "its certificate is revoked",
    "bad certificate": "its certificate is not accepted",
    "certificate unknown": "its certificate is not accepted",
    "certificate required": "it has shown no certificate",
}


@dataclass(frozen=True)
class Attempt:
    """One attempt: by which of VISITORS, to which listener, its outcome, and details."""

    visitor: str
    address: str
    outcome: Literal["refused", "let in", "unclear"]
    words: str


def hello() -> bytes:
    """Return a valid hello on the wire, as a plain Dask peer sends it first."""
    import msgpack

    hello = {"compression": None, "python": list(sys.version_info[:3]), "pickle-protocol": 5}
    frame: bytes = msgpack.packb(hello)
    return struct.pack("<QQQ", 16 + len(frame), 1, len(frame)) + frame


def connected(address: str) -> socket.socket:
    """Return a TCP connection to `address`. Raises OSError: failing here is not a refusal."""
    host, _, port = address.partition("://")[2].rpartition(":")
    return socket.create_connection((host.strip("[]"), int(port)), timeout=TIMEOUT)


def try_plain(visitor: str, address: str) -> Attempt:
    """Send a hello without TLS. The listener must close, at most after a TLS alert."""
    answer = b""
    with connected(address) as plain:
        try:
            plain.sendall(hello())
            while answer[:1] in (b"", ALERT) and (received := plain.recv(4096)):
                answer += received
            end = "connection closed"
        except TimeoutError:
            return Attempt(visitor, address, "unclear", f"not closed within {TIMEOUT:.0f} s")
        except ConnectionError as error:  # closed with our hello unread
            end = str(error.strerror).lower()
    if not answer:
        return Attempt(visitor, address, "refused", f"{end} without a byte")
    if answer[:1] == ALERT:
        said = ALERTS.get(answer[6], f"number {answer[6]}") if len(answer) > 6 else "cut short"
        return Attempt(visitor, address, "refused", f"{end} after a TLS alert ({said})")
    return Attempt(visitor, address, "let in", f"was answered with {len(answer)} bytes")


def try_tls(visitor: str, address: str, identity: IdentityFiles) -> Attempt:
    """Do a TLS handshake with `identity` and wait for the listener's hello.

    A refusal is an alert: during the handshake, or with TLS 1.3 at the first read.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(identity.ca)
    context.load_cert_chain(identity.certificate, identity.key)
    with connected(address) as plain:
        try:
            with context.wrap_socket(plain) as secure:
                answer = secure.recv(4096)
        except ssl.SSLError as error:
            by_alert = "ALERT" in (error.reason or "")
            return Attempt(visitor, address, "refused" if by_alert else "unclear", said_by(error))
        except OSError as error:
            return Attempt(visitor, address, "unclear", f"no answer: {error}")
    if answer:
        return Attempt(visitor, address, "let in", f"was sent a hello of {len(answer)} bytes")
    return Attempt(visitor, address, "unclear", "connection closed without an alert")


def said_by(error: ssl.SSLError) -> str:
    """Return what a TLS error means for the peer that gets it, and the alert, if there is one."""
    words = (error.reason or str(error) or type(error).__name__).replace("_", " ").lower()
    _, alert, said = words.rpartition("alert ")
    if not alert:
        return words
    return f"{MEANINGS.get(said, 'it is refused')} (alert {said})"


def try_all(
    folder: Path, authority: Authority, friend: IdentityFiles, addresses: Iterable[str]
) -> tuple[Attempt, ...]:
    """Attempt three unauthorized connections and one by `friend` to each of `addresses`.

    `authority` is the CA the listeners trust. Certificates for the attempts are written to
    `folder`. An unreachable address yields attempts of unclear outcome.
    """
    from sealwire.security.ca.authority import Authority

    half_an_hour_ago = datetime.now(timezone.utc) - timedelta(minutes=30)
    late = authority.issue("client", not_before=half_an_hour_ago, days=1 / (24 * 60))
    other = Authority.create("another CA")
    foreign = write_identity(folder, "foreign", friend.ca, other.issue("client"))
    expired = write_identity(folder, "expired", friend.ca, late)
    visits: dict[str, Callable[[str, str], Attempt]] = {
        PLAIN: try_plain,
        FOREIGN: partial(try_tls, identity=foreign),
        EXPIRED: partial(try_tls, identity=expired),
        FRIEND: partial(try_tls, identity=friend),
    }
    attempts = []
    for address, (visitor, visit) in product(addresses, visits.items()):
        try:
            attempts.append(visit(visitor, address))
        except OSError as error:
            attempts.append(Attempt(visitor, address, "unclear", f"cannot connect: {error}"))
    return tuple(attempts)
