"""Warnings about certificates that expire soon: one log line per day for each.

Checked where contexts are built and used, at most once an hour; there is no timer. Dates are parsed
from DER here, since `ssl` does not expose those of a certificate that is merely loaded.
"""

from __future__ import annotations

import datetime
import hashlib
import logging
import math
import ssl
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ..pem import Block, Source, certificates, revocation_lists

__all__ = ["DEFAULT_WARNING", "Deadline", "Expiry", "deadlines", "end_of"]

logger = logging.getLogger("sealwire.security")

_DAY = 86400.0

#: Seconds before the end from which on to warn.
DEFAULT_WARNING = 30 * _DAY

_CHECK_INTERVAL = 3600.0  # seconds between two checks
_REPEAT = _DAY - _CHECK_INTERVAL / 2  # seconds until the same warning is repeated

_warned: dict[str, float] = {}  # fingerprint -> time of the last warning, by time.time()


@dataclass(frozen=True)
class Deadline:
    """The end of validity of a certificate or CRL, its description, and what to do."""

    what: str
    fingerprint: str
    end: float  # seconds since the epoch
    remedy: str
    at_most: float = math.inf  # no warning earlier than this many seconds before


def deadlines(trust: Source, certificate: Source, crl: Source | None) -> Iterator[Deadline]:
    """Yield the deadlines of the CAs, of a certificate with its intermediates, and of the CRLs.

    Raises `PEMError` if a source cannot be read.
    """
    renew = (
        "make a new one and start again with it"
        if certificate.in_memory
        else ("renew it and replace the file: running processes take the new one")
    )
    yield from _of(trust, certificates(trust), (
        "certificates signed by it end with it: add a new CA to the old, "
        "renew them, then take the old one out"
    ))  # fmt: skip
    yield from _of(certificate, certificates(certificate), renew)
    if crl is not None:
        after = "put a fresh one there: without it everyone whom its CA has signed is refused"
        yield from _of(crl, revocation_lists(crl), after, at_most=_DAY)


def _of(
    source: Source, found: list[Block], remedy: str, at_most: float = math.inf
) -> Iterator[Deadline]:
    for number, block in enumerate(found, 1):
        lines = [ssl.PEM_HEADER, *block.text.splitlines()[1:-1], ssl.PEM_FOOTER]
        try:
            der = ssl.PEM_cert_to_DER_cert("\n".join(lines))
        except ValueError:
            continue
        end = end_of(der)
        if end is not None:
            kind = "CRL" if block.is_revocation_list else "certificate"
            what = f"{kind} {number} in {source}" if len(found) > 1 else f"the {kind} in {source}"
            yield Deadline(what, hashlib.sha256(der).hexdigest(), end, remedy, at_most)


class Expiry:
    """Warns of deadlines from `warning` seconds before they pass; infinity disables it."""

    def __init__(self, deadlines: Iterable[Deadline], warning: float) -> None:
        self._deadlines = list(deadlines)
        self._warning = warning
        self._due = -math.inf if warning != math.inf else math.inf

    def look(self) -> None:
        """Warn of what is due, if the last check was an hour ago."""
        if time.monotonic() >= self._due:
            self._due = time.monotonic() + _CHECK_INTERVAL
            self.warn(time.time())

    def warn(self, now: float) -> None:
        """Warn of each deadline that is near at `now`, unless that was done within a day."""
        for deadline in self._deadlines:
            left = deadline.end - now
            last = _warned.get(deadline.fingerprint, -math.inf)
            if left <= min(self._warning, deadline.at_most) and now - last >= _REPEAT:
                _warned[deadline.fingerprint] = now
                logger.warning(
                    "%s %s; %s", deadline.what, _when(deadline.end, left), deadline.remedy
                )


def _when(end: float, left: float) -> str:
    date = datetime.datetime.fromtimestamp(end, datetime.timezone.utc)
    if left < 0:
        return f"has expired on {date:%Y-%m-%d %H:%M} UTC"
    amount = f"{left / _DAY:.0f} days" if left >= 2 * _DAY else f"{left / 3600:.0f} hours"
    return f"expires on {date:%Y-%m-%d %H:%M} UTC, {amount} from now"


def end_of(der: bytes) -> float | None:
    """Return the end of a certificate (notAfter) or CRL (nextUpdate), in seconds since the epoch.

    None if it has no such date, or is neither.
    """
    try:
        _, signed, _ = _element(der, _element(der, 0)[1].start)
        times = []
        for tag, content in _children(der, signed):
            if tag in _TIMES:  # thisUpdate and nextUpdate are direct members of a CRL
                times.append((tag, content))
            elif tag == 0x30 and not times:
                inner = list(_children(der, content))
                if len(inner) == 2 and all(kind in _TIMES for kind, _ in inner):  # a validity
                    times = inner
        if len(times) < 2:
            return None
        tag, content = times[1]
        return _seconds(tag, der[content.start : content.stop].decode("ascii"))
    except (ValueError, IndexError):
        return None


_TIMES = (0x17, 0x18)  # UTCTime, GeneralizedTime


def _element(der: bytes, at: int) -> tuple[int, range, int]:
    """Tag and content of the element at an offset, and the offset of the next one."""
    length, start = der[at + 1], at + 2
    if length >= 0x80:
        size = length & 0x7F
        length, start = int.from_bytes(der[start : start + size], "big"), start + size
    if start + length > len(der):
        raise ValueError("cut short")
    return der[at], range(start, start + length), start + length


def _children(der: bytes, content: range) -> Iterable[tuple[int, range]]:
    at = content.start
    while at < content.stop:
        tag, inner, at = _element(der, at)
        yield tag, inner


def _seconds(tag: int, text: str) -> float:
    if tag == 0x17:  # two-digit years: 1950 to 2049
        text = ("19" if text >= "50" else "20") + text
    moment = datetime.datetime.strptime(text, "%Y%m%d%H%M%SZ")
    return moment.replace(tzinfo=datetime.timezone.utc).timestamp()
