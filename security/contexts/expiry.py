"""Warnings about certificates that expire soon: one log line per day for each.

Checked where contexts are built and used, at most once an hour; there is no timer. What soon is
depends on the lifetime of a certificate, unless it is configured: one that lives for a day, and is
renewed in time by its tool, must not be warned of all its life.
"""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import logging
import math
import ssl
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ..der import lifetime_of
from ..pem import Block, Source, certificates, revocation_lists
from .status import Kind
from .trust import chosen

__all__ = [
    "DEFAULT_WARNING",
    "LISTS_WARNING",
    "Deadline",
    "Expiry",
    "deadlines",
    "in_words",
    "soon",
]

logger = logging.getLogger("sealwire.security")

_DAY = 86400.0

#: Seconds before the end from which on to warn, of what lives at least three times as long.
DEFAULT_WARNING = 30 * _DAY
#: The same for revocation lists, which many CAs make anew every few days.
LISTS_WARNING = _DAY
_SHARE = 3  # of its lifetime one such part is enough to renew it in

_CHECK_INTERVAL = 3600.0  # seconds between two checks
_REPEAT = _DAY - _CHECK_INTERVAL / 2  # seconds until the same warning is repeated

_warned: dict[str, float] = {}  # fingerprint -> time of the last warning, by time.time()


@dataclass(frozen=True)
class Deadline:
    """The end of validity of a certificate or CRL, its description, and what to do.

    `field` is the one of `Security` that it is from, and `der` the certificate; of a CRL it is
    empty.
    """

    what: str
    fingerprint: str
    end: float  # seconds since the epoch
    remedy: str
    at_most: float = math.inf  # no warning earlier than this many seconds before
    start: float = -math.inf  # seconds since the epoch
    kind: Kind = "leaf"
    field: str = ""
    der: bytes = dataclasses.field(default=b"", repr=False)


def soon(start: float, end: float) -> float:
    """How many seconds before its end what lives that long is warned of."""
    return min(DEFAULT_WARNING, max(end - start, 0.0) / _SHARE)


def deadlines(trust: Source, certificate: Source, crl: Source | None) -> Iterator[Deadline]:
    """Yield the deadlines of the CAs, of a certificate with its intermediates, and of the CRLs.

    Raises `PEMError` if a source cannot be read.
    """
    renew = (
        "make a new one and start again with it"
        if certificate.in_memory
        else ("renew it and replace the file: running processes take the new one")
    )
    found = chosen(trust)
    trusted = {each.number: each.block for each in found if not each.why_not}
    yield from _of("ca", trust, trusted, len(found), (
        "certificates signed by it end with it: add a new CA to the old, "
        "renew them, then take the old one out"
    ))  # fmt: skip
    chain = dict(enumerate(certificates(certificate), 1))
    yield from _of("leaf", certificate, chain, len(chain), renew)
    if crl is not None:
        after = "put a fresh one there: without it everyone whom its CA has signed is refused"
        lists = dict(enumerate(revocation_lists(crl), 1))
        yield from _of("crl", crl, lists, len(lists), after, at_most=LISTS_WARNING)


def _of(
    first: Kind,
    source: Source,
    found: dict[int, Block],
    count: int,
    remedy: str,
    at_most: float = math.inf,
) -> Iterator[Deadline]:
    for number, block in found.items():
        kind: Kind = "ca" if first == "leaf" and number > 1 else first
        lines = [ssl.PEM_HEADER, *block.text.splitlines()[1:-1], ssl.PEM_FOOTER]
        try:
            der = ssl.PEM_cert_to_DER_cert("\n".join(lines))
        except ValueError:
            continue
        lifetime = lifetime_of(der)
        if lifetime is not None:
            start, end = lifetime
            name = "CRL" if block.is_revocation_list else "certificate"
            what = f"{name} {number} in {source}" if count > 1 else f"the {name} in {source}"
            digest = hashlib.sha256(der).hexdigest()
            kept = b"" if block.is_revocation_list else der
            yield Deadline(what, digest, end, remedy, at_most, start, kind, source.field, kept)


class Expiry:
    """Warns of deadlines from `warning` seconds before they pass; infinity disables it.

    None leaves it to the lifetime of each, as `soon` has it. `deadlines` are all of them.
    """

    def __init__(self, deadlines: Iterable[Deadline], warning: float | None) -> None:
        self.deadlines = tuple(deadlines)
        self._warning = warning
        self._due = -math.inf if warning != math.inf else math.inf

    def look(self) -> None:
        """Warn of what is due, if the last check was an hour ago."""
        if time.monotonic() >= self._due:
            self._due = time.monotonic() + _CHECK_INTERVAL
            self.warn(time.time())

    def first(self) -> dict[Kind, float]:
        """Return for each kind when the first of it ends, in seconds since the epoch."""
        found: dict[Kind, float] = {}
        for deadline in self.deadlines:
            found[deadline.kind] = min(deadline.end, found.get(deadline.kind, math.inf))
        return found

    def is_over(self) -> bool:
        """Whether any of them has passed, so that what the files have now may be better."""
        now = time.time()
        return any(deadline.end < now for deadline in self.deadlines)

    def warn(self, now: float) -> None:
        """Warn of each deadline that is near at `now`, unless that was done within a day."""
        for deadline in self.deadlines:
            left = deadline.end - now
            last = _warned.get(deadline.fingerprint, -math.inf)
            warning = self._warning
            if warning is None:
                warning = soon(deadline.start, deadline.end)
            if left <= min(warning, deadline.at_most) and now - last >= _REPEAT:
                _warned[deadline.fingerprint] = now
                logger.warning(
                    "%s %s; %s", deadline.what, _when(deadline.end, left), deadline.remedy
                )


def _when(end: float, left: float) -> str:
    date = datetime.datetime.fromtimestamp(end, datetime.timezone.utc)
    if left < 0:
        return f"has expired on {date:%Y-%m-%d %H:%M} UTC"
    return f"expires on {date:%Y-%m-%d %H:%M} UTC, {in_words(left)} from now"


def in_words(left: float) -> str:
    """Return seconds until an end in the largest unit of which there are two: ``12 hours``."""
    for length, unit in ((_DAY, "days"), (3600.0, "hours"), (60.0, "minutes")):
        if left >= 2 * length:
            return f"{left / length:.0f} {unit}"
    return f"{left:.0f} seconds"
