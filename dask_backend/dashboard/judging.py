"""What is wrong with a process or a link, in words, and how much it matters."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

from sealwire.security.contexts.expiry import DEFAULT_WARNING, in_words, soon

from .received import Certificate, Link, Report

__all__ = ["ORDER", "Fault", "State", "faults_of_link", "faults_of_process", "worst"]

State = Literal["bad", "warn", "stock", "ok"]

#: the worst first
ORDER: tuple[State, ...] = ("bad", "warn", "stock", "ok")

_DAY = 86400
_SILENT = 30.0  # seconds without a heartbeat, at least
_MISSED = 3  # heartbeats


class Fault(NamedTuple):
    """What is wrong: "bad" is broken or open to strangers, "warn" is to be looked at."""

    state: State
    words: str


def worst(faults: Iterable[Fault]) -> State:
    """Return the worst state among them, "ok" if there is none."""
    found = {fault.state for fault in faults}
    return next((state for state in ORDER if state in found), "ok")


def faults_of_link(link: Link, now: float) -> Sequence[Fault]:
    """Return what is wrong with one end of a link."""
    until = link.until
    if not link.lacks and (until is None or until - now > DEFAULT_WARNING):
        return ()  # as with nearly all
    faults = [Fault("bad", words) for words in link.lacks]
    if until is not None:
        start = link.since if link.since is not None else until
        faults += _end("the peer's certificate", start, until, now)
    return faults


def faults_of_process(
    report: Report,
    *,
    broken: Mapping[str, int],
    outdated: Sequence[str],
    heard: float | None,
    members: int,
    now: float,
) -> list[Fault]:
    """Return what is wrong with a process, besides its links.

    `broken` are the links that broke within the hour, by kind, and `outdated` the roles whose
    files cannot be used. `heard` is how many seconds ago it was heard of, None for the scheduler
    itself, and `members` how many workers there are, of which distributed lets heartbeats depend.
    """
    faults = []
    if heard is not None and heard > max(_SILENT, _MISSED * (members / 200 + 1)):
        faults.append(Fault("warn", f"no heartbeat for {heard:.0f} s"))
    for each in report.certificates:
        faults += _end(_named(each), each.start, each.end, now, crl=each.kind == "CRL")
    if outdated:
        roles = ", ".join(outdated)
        words = f"changed certificate files cannot be used ({roles}); its log says why"
        faults.append(Fault("warn", words))
    refused = _words(report.refused, without="probe")
    if refused:
        faults.append(Fault("warn", f"refused within the hour: {refused}"))
    if broken:
        faults.append(Fault("warn", f"links broken within the hour: {_words(broken)}"))
    return faults


def _words(counts: Mapping[str, int], without: str = "") -> str:
    return ", ".join(f"{kind} {n}" for kind, n in sorted(counts.items()) if kind != without)


def _named(certificate: Certificate) -> str:
    if certificate.kind == "CRL":
        return "its CRL"
    whose = "its own certificate" if certificate.kind == "own" else "the CA"
    return f"{whose} {certificate.name}".rstrip()


def _end(what: str, start: int, end: int, now: float, *, crl: bool = False) -> list[Fault]:
    left = end - now
    if left < 0:
        return [Fault("bad", f"{what} has expired on {_date(end)}")]
    near = soon(start, end)
    if left <= (min(near, _DAY) if crl else near):
        return [Fault("warn", f"{what} expires on {_date(end)}, in {in_words(left)}")]
    return []


def _date(seconds: int) -> str:
    try:
        date = datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc)
    except (ValueError, OverflowError, OSError):  # beyond the year 9999
        return "a day far away"
    return f"{date:%Y-%m-%d %H:%M} UTC"
