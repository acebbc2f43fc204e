"""What the reports of all processes say together: rows of processes and links, who is who.

Pure functions over what was received; no socket, no clock.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from .judging import ORDER, Fault, State, faults_of_link, faults_of_process, worst
from .received import Certificate, Link, Report

__all__ = ["MOST_ROWS", "LinkRow", "Member", "ProcessRow", "Survey", "as_dict", "survey"]

#: rows of each table, unless more are asked for
MOST_ROWS = 300

_DAY = 86400
_NO_REPORT = "on distributed's own backend: it reports nothing of its links"


class Member(NamedTuple):
    """A process as the scheduler knows it.

    `heard` is how many seconds ago it was, None for the scheduler; `report` what it sent, None if
    that was nothing, and in words why it cannot be read.
    """

    role: str
    address: str
    name: str
    heard: float | None
    report: Report | str | None


@dataclass
class ProcessRow:
    """A process, with what is wrong with it and its links.

    `shares` names the member whose process it is in, by which is told what is of all the process:
    the links, those that it has dialled and that broke, and the files that it cannot use.
    """

    member: Member
    faults: list[Fault] = field(default_factory=list)
    state: State = "ok"
    links: int = 0
    told: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    shares: str = ""

    @property
    def report(self) -> Report:
        """What it reports; an empty one if that is nothing."""
        known = self.member.report
        return known if isinstance(known, Report) else Report()

    @property
    def broken(self) -> Mapping[str, int]:
        """How many links broke within the hour, by kind of error."""
        report = self.report
        return (
            report.broken
            if self.shares
            else Counter(report.broken) + Counter(report.broken_dialled)
        )

    @property
    def backend(self) -> str:
        """Whose backend it is on, with the version."""
        known = self.member.report
        if isinstance(known, Report):
            return f"sealwire {known.version}".rstrip()
        return "distributed" if known is None else "unknown"


class LinkRow(NamedTuple):
    """One end of a link: of which process, to whom, and what is wrong with it."""

    process: str
    other: str
    link: Link
    faults: Sequence[Fault]
    state: State


@dataclass
class Survey:
    """All of a cluster, the worst first. `edges` are pairs of names, and their worst state."""

    now: float
    processes: list[ProcessRow] = field(default_factory=list)
    links: list[LinkRow] = field(default_factory=list)
    edges: dict[tuple[str, str], State] = field(default_factory=dict)
    others: list[str] = field(default_factory=list)  # clients


def survey(members: Iterable[Member], *, now: float, known: Mapping[str, str]) -> Survey:
    """Put together what the members report.

    Parameters
    ----------
    members : iterable of Member
        The scheduler first.
    now : float
        Seconds since the epoch.
    known : mapping of str to str
        Names of the far ends of the scheduler's links, by their addresses: clients and workers.
    """
    members = list(members)
    made = Survey(now)
    names = {member.address: member.name for member in members}
    who = {**_diallers(members, names), **known, **names}
    seen: dict[str, str] = {}
    for member in members:
        row = ProcessRow(member)
        made.processes.append(row)
        if isinstance(member.report, Report):
            first = seen.setdefault(member.report.process or member.name, member.name)
            row.shares = first if first != member.name else ""
        row.faults = _faults(row, len(members) - 1, now)
        if isinstance(member.report, Report) and not row.shares:
            _add_links(made, row, member.report, who)
        row.state = worst(row.faults)
    made.processes.sort(key=lambda row: (ORDER.index(row.state), row.member.role != "scheduler"))
    made.links.sort(key=lambda row: ORDER.index(row.state))
    own = set(names.values())
    made.others = sorted({name for name in known.values() if name not in own})
    return made


def _diallers(members: Sequence[Member], names: Mapping[str, str]) -> dict[str, str]:
    """Return whose the addresses are from which links were dialled."""
    return {
        link.local: member.name
        for member in members
        if isinstance(member.report, Report)
        for link in member.report.links
        if link.local not in names
    }


def _faults(row: ProcessRow, workers: int, now: float) -> list[Fault]:
    report, heard = row.member.report, row.member.heard
    if report is None:
        return [Fault("stock", _NO_REPORT)]
    if isinstance(report, str):
        return [Fault("warn", report)]
    outdated = () if row.shares else report.outdated
    return faults_of_process(
        report, broken=row.broken, outdated=outdated, heard=heard, members=workers, now=now
    )


def _add_links(made: Survey, row: ProcessRow, report: Report, who: Mapping[str, str]) -> None:
    name = row.member.name
    faulty = 0
    row.links, row.told = report.open, len(report.links)
    for link in report.links:
        faults = faults_of_link(link, made.now)
        state = worst(faults) if faults else "ok"
        other = who.get(link.peer, "")
        made.links.append(LinkRow(name, other, link, faults, state))
        row.bytes_in += link.bytes_in or 0
        row.bytes_out += link.bytes_out or 0
        faulty += bool(faults)
        if other and other != name:
            pair = (name, other) if name < other else (other, name)
            if faults:
                before = made.edges.get(pair, "ok")
                made.edges[pair] = min(before, state, key=ORDER.index)
            else:
                made.edges.setdefault(pair, "ok")
    if faulty:
        states = worst(fault for each in made.links[-len(report.links) :] for fault in each.faults)
        row.faults.append(Fault(states, f"{faulty} of its links with a fault"))


# As plain values


def as_dict(made: Survey, *, find: str = "", most: int = MOST_ROWS) -> dict[str, Any]:
    """Return it as JSON has it: at most that many rows, of those in which a text occurs.

    What is left out is counted: by `most`, and by the processes themselves.
    """
    wanted = find.casefold()
    processes = [row for row in made.processes if _has(wanted, _process_texts(row))]
    links = [row for row in made.links if _has(wanted, _link_texts(row))]
    states = Counter(row.state for row in made.processes)
    refused: Counter[str] = Counter()
    for row in made.processes:
        refused.update(row.report.refused)
    ends = [(each.end, each) for row in made.processes for each in row.report.certificates]
    first = min(ends, key=lambda each: each[0], default=None)
    return {
        "version": 1,
        "time": int(made.now),
        "find": find,
        "summary": {
            "processes": len(made.processes),
            "states": {state: states[state] for state in ORDER},
            "clients": len(made.others),
            "links": sum(row.links for row in made.processes),
            "links_told": len(made.links),
            "links_with_a_fault": sum(bool(row.faults) for row in made.links),
            "refused_within_the_hour": dict(refused.most_common()),
            "first_to_end": _certificate(first[1], made.now) if first else None,
        },
        "processes": [_process(row, made.now) for row in processes[:most]],
        "processes_left_out": max(len(processes) - most, 0),
        "links": [_link(row, made.now) for row in links[:most]],
        "links_left_out": max(len(links) - most, 0),
    }


def _has(wanted: str, texts: Iterable[str | None]) -> bool:
    return not wanted or any(wanted in text.casefold() for text in texts if text)


def _process_texts(row: ProcessRow) -> Iterable[str | None]:
    yield from (row.member.name, row.member.address, row.backend)
    yield from (each.name for each in row.report.certificates)
    yield from (fault.words for fault in row.faults)


def _link_texts(row: LinkRow) -> Iterable[str | None]:
    link = row.link
    yield from (row.process, row.other, link.peer, link.local, link.identity, link.protocol)
    yield from (fault.words for fault in row.faults)


def _days(end: int, now: float) -> float:
    """Return the days left, rounded down: what has expired is below 0 at once."""
    return math.floor((end - now) / _DAY * 1e6) / 1e6


def _certificate(each: Certificate, now: float) -> dict[str, Any]:
    return {"kind": each.kind, "name": each.name, "end": each.end, "days": _days(each.end, now)}


def _process(row: ProcessRow, now: float) -> dict[str, Any]:
    report, heard = row.report, row.member.heard
    return {
        "name": row.member.name,
        "role": row.member.role,
        "address": row.member.address,
        "state": row.state,
        "faults": [fault.words for fault in row.faults],
        "backend": row.backend,
        "pid": report.pid,
        "heard": round(heard, 1) if heard is not None else None,
        "in_the_process_of": row.shares,
        "links": row.links,
        "links_told": row.told,
        "bytes_in": row.bytes_in,
        "bytes_out": row.bytes_out,
        "certificates": [_certificate(each, now) for each in report.certificates],
        "certificates_left_out": report.held - len(report.certificates),
        "pending": report.pending,
        "refused": dict(report.refused),
        "refused_ever": report.refused_ever,
        "broken": dict(row.broken),
    }


def _link(row: LinkRow, now: float) -> dict[str, Any]:
    link = row.link
    return {
        "process": row.process,
        "other": row.other,
        "state": row.state,
        "faults": [fault.words for fault in row.faults],
        "local": link.local,
        "peer": link.peer,
        "identity": link.identity,
        "protocol": link.protocol,
        "cipher": link.cipher,
        "backend": link.backend,
        "age": link.age,
        "bytes_in": link.bytes_in,
        "bytes_out": link.bytes_out,
        "round_trip_us": link.round_trip,
        "days": _days(link.until, now) if link.until is not None else None,
    }
