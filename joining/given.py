"""What the service gives, what those who asked keep of it, and what it has itself: as text."""

from __future__ import annotations

import datetime
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from sealwire.security.x509.templates import now

__all__ = ["Given", "Joined", "Lists", "Own", "Trust", "lasting"]


def lasting(seconds: float) -> str:
    """Return how long something lasts, for people."""
    seconds = max(0.0, seconds)
    return f"{seconds:.0f} s" if seconds < 600 else f"{seconds / 3600:.1f} h"


@dataclass(frozen=True)
class Trust:
    """The CAs and their revocation lists, as PEM text, and which key of the CA signs now."""

    cas: str
    crl: str
    signer: str


@dataclass(frozen=True)
class Given:
    """What a process is given: its certificate as PEM text, and what to trust."""

    certificate: str
    trust: Trust
    role: str
    lifetime: float
    until: datetime.datetime

    @property
    def left(self) -> float:
        """Seconds that it is still valid: less than its lifetime near the CA's end, or later on."""
        return max(0.0, min(self.lifetime, (self.until - now()).total_seconds()))

    @property
    def is_fresh(self) -> bool:
        """Whether most of its lifetime is left."""
        return (self.until - now()).total_seconds() > self.lifetime / 2


@dataclass(frozen=True)
class Own:
    """The service's own certificate and key as PEM text, and when it is valid."""

    certificate: str
    key: str = field(repr=False)
    der: bytes = field(repr=False)
    since: datetime.datetime
    until: datetime.datetime
    authority: bytes = field(repr=False)  # the CA's certificate, as DER

    def lasts(self, left: datetime.timedelta) -> bool:
        """Whether it is valid for so long; one that a clock ahead has made may not be yet."""
        return self.since <= now() < self.until - left


@dataclass(frozen=True)
class Joined:
    """What a process has been given, as PEM text; the repr omits the key.

    Attributes
    ----------
    role : str
    certificate, key : str
    cas, crl : str
        The CAs to trust, and their revocation lists; "" if there is none.
    lifetime : float
        Seconds from when it was asked for.
    signer : str
        Which key of the CA has signed it.
    """

    role: str
    certificate: str
    key: str = field(repr=False)
    cas: str
    crl: str
    lifetime: float
    signer: str = ""

    def with_lists(self, cas: str, crl: str) -> Joined:
        """Return the same with other CAs and revocation lists."""
        return replace(self, cas=cas, crl=crl)

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError(f"cannot pickle what a {self.role} was given: it holds a private key")


class Lists(NamedTuple):
    """The CAs to trust and their revocation lists, and which key of the CA signs now."""

    cas: str
    crl: str
    signer: str
