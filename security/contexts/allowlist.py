"""The allow-list: which peers to accept, beyond having a certificate of our CA.

The sockets of `verified.py` check it right after the handshake. A name that is not printable
matches no pattern: what follows a null byte in a name is not what a person reads.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from ..errors import ConfigError, PeerNotAllowed
from ..parameters import AUTHORITY
from ..pem import shown

__all__ = ["AllowedPeers", "listed", "parse_patterns"]

_PIN = "sha256:"
_HEX = re.compile(r"[0-9a-f]{64}")
_SHOWN = 8  # most names and patterns in an error
_WIDTH = 100  # most characters of each
_OTHER_PORT = (  # who is on no list by itself had better not be told to put the CA there
    "it is `sealwire certs serve`, and no process of the cluster: check the address and the port, "
    "which is 8786 for a scheduler unless it was told another"
)


def parse_patterns(field: str, value: object) -> tuple[str, ...]:
    """Parse the patterns of one role, from a text or a list.

    Raises `ConfigError` for an empty list, which would admit nobody, and for an invalid pin.
    """
    given = [value] if isinstance(value, str) else value
    if not isinstance(given, (list, tuple, set, frozenset)) or not all(
        isinstance(pattern, str) for pattern in given
    ):
        raise ConfigError(f"cannot use {field}: expected a list of patterns, got {shown(value)}")
    patterns = tuple(str(pattern).strip() for pattern in given)
    if not all(pattern.isprintable() for pattern in patterns):
        raise ConfigError(
            f"cannot use {field}: a pattern is one line of printable text, got {shown(value)}"
        )
    if not patterns or not all(patterns):
        raise ConfigError(
            f"cannot use {field}: an empty {'pattern' if patterns else 'list'} admits nobody; "
            "leave it out to admit everyone with a certificate of the CA"
        )
    return tuple(_pin(field, p) if p.lower().startswith(_PIN) else p for p in patterns)


def _pin(field: str, pattern: str) -> str:
    digits = pattern[len(_PIN) :].replace(":", "").lower()
    if not _HEX.fullmatch(digits):
        raise ConfigError(
            f"cannot use {field}: {pattern!r} is not a fingerprint; "
            "write sha256: and 64 hexadecimal digits, with or without colons"
        )
    return _PIN + digits


class AllowedPeers(NamedTuple):
    """Patterns, one of which a peer's certificate must match; `Security` documents their syntax."""

    patterns: tuple[str, ...]

    def check(self, certificate: Mapping[str, Any] | None, der: bytes | None) -> None:
        """Raise `PeerNotAllowed` unless the certificate, in both of `ssl`'s forms, matches."""
        names = list(_names(certificate or {}))
        fingerprint = _PIN + hashlib.sha256(der or b"").hexdigest()
        for pattern in self.patterns:
            if pattern.startswith(_PIN):
                if der and pattern == fingerprint:
                    return
            elif any(_matches(pattern, kind, name) for kind, name in names):
                return
        pinned = any(pattern.startswith(_PIN) for pattern in self.patterns)
        own = listed(f"{kind}={name}" if kind == "CN" else f"{kind} {name}" for kind, name in names)
        shown = f"its names ({own or 'none'}){f' and {fingerprint}' if pinned else ''}"
        raise PeerNotAllowed(
            f"{shown} match none of the allowed peers ({listed(self.patterns)})",
            told=f"{shown} match none of the peers that are allowed here",
            remedy=_OTHER_PORT if names[:1] == [("CN", AUTHORITY)] else "",
        )


def _names(certificate: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    """Kind and text of each name: CN of the subject; DNS, IP and URI of subjectAltName."""
    for rdn in certificate.get("subject", ()):
        for key, value in rdn:
            if key == "commonName":
                yield "CN", value
    for kind, value in certificate.get("subjectAltName", ()):
        if kind == "IP Address":
            try:
                yield "IP", str(ipaddress.ip_address(value.strip()))
            except ValueError:
                continue
        elif kind in ("DNS", "URI"):
            yield kind, value


def _matches(pattern: str, kind: str, name: str) -> bool:
    if not name.isprintable():
        return False
    if kind in ("DNS", "IP"):  # case-insensitive, other names are not
        pattern, name = pattern.lower(), name.lower()
    return fnmatchcase(name, pattern)


def listed(names: Iterable[str]) -> str:
    """Return some names on one line, for an error; safe for any content of a certificate."""
    chosen = list(names)
    texts = [
        "".join(c if c.isprintable() else "?" for c in name[:_WIDTH]) + "…" * (len(name) > _WIDTH)
        for name in chosen[:_SHOWN]
    ]
    more = len(chosen) - len(texts)
    return ", ".join(texts) + (f" and {more} more" if more else "")
