"""What the service gives, and has itself: certificates as text, and when they end."""

from __future__ import annotations

import datetime
from dataclasses import dataclass, field

from sealwire.security.x509.templates import now

__all__ = ["Given", "Own", "Trust", "lasting"]


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
    """The service's own certificate and key as PEM text, and when to ask for another."""

    certificate: str
    key: str = field(repr=False)
    der: bytes = field(repr=False)
    until: datetime.datetime
    authority: bytes = field(repr=False)  # the CA's certificate, as DER
