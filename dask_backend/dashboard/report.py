"""What a process says of itself: links, certificates, whom it has refused. Plain values, bounded.

A worker's report travels to its scheduler with each heartbeat, among distributed's metrics, of
which a scheduler without this package takes no notice. So it is small: with the names of the keys
left out, and of many links only some, those with a fault first. How many were left out is said.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import ssl
import threading
import time
import weakref
from collections import Counter
from collections.abc import Generator, Iterable, Sequence
from typing import Any, NamedTuple

from distributed.comm.core import Comm

from sealwire.comm import ListenerStats, statistics
from sealwire.comm.transport.sockets import round_trip
from sealwire.security import PEMError, subjects
from sealwire.security.contexts import status
from sealwire.security.contexts.expiry import Deadline
from sealwire.security.contexts.reloading import FollowingContext

from ..backend import TCP
from ..links import subject
from ..protection import unprotected_comm
from ..startup import own_version
from .hour import LastHour

__all__ = [
    "LINK",
    "MOST_BYTES",
    "MOST_LINKS",
    "NAME",
    "VERSION",
    "metric",
    "paced_report",
    "report",
    "sample",
]

#: what a scheduler calls its extension, and a worker the report in its metrics
NAME = "sealwire"

#: the format; one that a scheduler does not know is said to be of another version
VERSION = 1

#: the parts of a link, in their order
LINK = (
    "local",
    "peer",
    "protocol",
    "cipher",
    "identity",
    "backend",
    "age",
    "bytes_in",
    "bytes_out",
    "round_trip",
    "since",
    "until",
    "lacks",
)

MOST_LINKS = 24
"""Most links in a worker's report."""

MOST_BYTES = 6144
"""Bytes after which a worker's report takes no further link."""

_MOST_CERTIFICATES = 8
_LONGEST = 200  # characters of one text
_LOOK = 5.0  # seconds until files are looked at again, if no handshake has done so
_ATTEMPTS = 3  # to look at the comms while other threads open some
_SLICE = 0.002  # seconds that a paced report takes of the event loop at a time


class _Held:
    """What a context holds, as it was read last."""

    def __init__(self, deadlines: Sequence[Deadline], rows: list[Any]) -> None:
        self.deadlines = deadlines
        self.rows = rows
        self.due = 0.0


_hours: weakref.WeakKeyDictionary[Any, LastHour] = weakref.WeakKeyDictionary()
_held: weakref.WeakKeyDictionary[ssl.SSLContext, _Held] = weakref.WeakKeyDictionary()
_token = (0, "")  # the process, and what names it


class _Dialled:
    """How many of a process's own links broke: whichever of its servers has dialled them."""

    def __init__(self, process: str) -> None:
        self.process = process
        self._hour = LastHour()
        self._lock = threading.Lock()  # servers may be in several threads

    def grown(self) -> dict[str, int]:
        """Return those of the last hour, by kind."""
        with self._lock:
            ever: dict[str, int] = dict(statistics.broken_dialled().items())
            return self._hour.grown(ever, time.monotonic())


_dialled = _Dialled("")


def metric(worker: Any) -> dict[str, Any]:
    """Return what a worker's heartbeat tells."""
    return report(worker)


def report(
    server: Any, *, most_links: int = MOST_LINKS, most_bytes: int = MOST_BYTES
) -> dict[str, Any]:
    """Return what a scheduler or worker of this process reports.

    Parameters
    ----------
    server : distributed.Server
    most_links : int
        How many links to describe, those with a fault first.
    most_bytes : int
        After how many bytes, about, to leave further ones out.
    """
    steps = _describing(server, most_links, most_bytes)
    while True:
        try:
            next(steps)
        except StopIteration as done:
            return _report(server, *done.value)


async def paced_report(server: Any, *, most_links: int, most_bytes: int) -> dict[str, Any]:
    """Return the same, but give the event loop back every few milliseconds.

    The scheduler of a thousand workers has thousands of links, which take a tenth of a second.
    """
    steps = _describing(server, most_links, most_bytes)
    while True:
        ends = time.perf_counter() + _SLICE
        try:
            next(steps)
            while time.perf_counter() < ends:
                next(steps)
        except StopIteration as done:
            return _report(server, *done.value)
        await asyncio.sleep(0)


def sample(server: Any) -> None:
    """Note how far the counters are, so that a later report knows the last hour's."""
    _counted(server)
    _broken_dialled()


def _broken_dialled() -> dict[str, int]:
    global _dialled
    if _dialled.process != (process := _process()):
        _dialled = _Dialled(process)
    return _dialled.grown()


class _Counted(NamedTuple):
    """What a server's listeners have counted: ever, and within the last hour."""

    stats: list[ListenerStats]
    ever: Counter[str]
    grown: dict[str, int]


def _counted(server: Any) -> _Counted:
    stats = [listener.stats for listener in _listeners(server)]
    hour = _hours.get(server)
    if hour is None:
        hour = _hours[server] = LastHour()
    ever: Counter[str] = Counter()
    for name in ("refused", "broken"):
        for each in stats:
            ever.update({f"{name} {kind}": n for kind, n in getattr(each, name).items()})
    return _Counted(stats, ever, hour.grown(ever, time.monotonic()))


def _report(server: Any, links: list[list[Any]], opened: int) -> dict[str, Any]:
    stats, ever, grown = _counted(server)
    certificates = _certificates(_contexts(server))
    return {
        "version": VERSION,
        "process": _process(),
        "pid": os.getpid(),
        "sealwire": own_version(),
        "links": links,
        "open": opened,
        "certificates": certificates[:_MOST_CERTIFICATES],
        "held": len(certificates),
        "outdated": status.outdated(),
        "accepted": sum(each.accepted for each in stats),
        "pending": sum(each.pending for each in stats),
        "refused": _part(grown, "refused "),
        "broken": _part(grown, "broken "),
        "broken_dialled": _broken_dialled(),
        "refused_ever": sum(n for name, n in ever.items() if name.startswith("refused ")),
    }


def _part(counts: dict[str, int], prefix: str) -> dict[str, int]:
    return {name.removeprefix(prefix): n for name, n in counts.items() if name.startswith(prefix)}


def _process() -> str:
    """Return what names this process among all of a cluster, also after a fork."""
    global _token
    if _token[0] != os.getpid():
        _token = os.getpid(), secrets.token_hex(8)
    return _token[1]


def _listeners(server: Any) -> list[Any]:
    """Return those that count: ours."""
    listeners = getattr(server, "listeners", ())
    return [each for each in listeners if isinstance(getattr(each, "stats", None), ListenerStats)]


# Links


def _comms() -> list[Comm]:
    for _ in range(_ATTEMPTS - 1):
        try:
            return list(Comm._instances)
        except RuntimeError:  # another thread has opened one meanwhile
            pass
    return list(Comm._instances)


def _describing(
    server: Any, most_links: int, most_bytes: int
) -> Generator[None, None, tuple[list[list[Any]], int]]:
    """Describe the links that matter most: with a fault, to the scheduler, with much traffic.

    Returns them and how many there are, after many short steps.
    """
    scheduler = getattr(getattr(server, "scheduler", None), "address", "")
    known: dict[object, list[str]] = {}  # a process has few contexts
    ranked = []
    for comm in _comms():
        if not comm.closed() and not comm.peer_address.startswith("inproc://"):
            stream = comm.stream if isinstance(comm, TCP) else None
            traffic = stream.bytes_in + stream.bytes_out if stream else 0
            lacks = _lacks(comm, known)
            ranked.append((not lacks, comm.peer_address != scheduler, -traffic, comm, lacks))
        yield
    ranked.sort(key=lambda each: each[:3])
    links: list[list[Any]] = []
    size = 0
    for *_, comm, lacks in ranked[:most_links]:
        if comm.closed():  # since the first step
            continue
        link = _describe(comm, lacks)
        size += sum(len(part) + 2 if isinstance(part, str) else 5 for part in link)
        size += sum(len(words) + 2 for words in lacks)
        if size > most_bytes:
            break
        links.append(link)
        yield
    return links, len(ranked)


def _lacks(comm: Comm, known: dict[object, list[str]]) -> list[str]:
    socket = getattr(getattr(comm, "stream", None), "socket", None)
    key: object = getattr(socket, "context", None)
    if key is None:
        return [words[:_LONGEST] for words in unprotected_comm(comm)]
    if key not in known:
        known[key] = [words[:_LONGEST] for words in unprotected_comm(comm)]
    return known[key]


def _describe(comm: Comm, lacks: list[str]) -> list[Any]:
    extra = comm.extra_info
    cipher = extra.get("cipher")
    certificate = extra.get("peercert") or {}
    identity = subject(certificate)
    stream = comm.stream if isinstance(comm, TCP) else None
    socket = getattr(getattr(comm, "stream", None), "socket", None)
    seconds = round_trip(socket) if socket is not None else None
    return [
        comm.local_address[:_LONGEST],
        comm.peer_address[:_LONGEST],
        extra.get("protocol") or (cipher[1] if cipher else None),
        cipher[0] if cipher else None,
        identity[:_LONGEST] if identity is not None else None,
        _package(comm),
        int(time.monotonic() - stream.began) if stream else None,
        stream.bytes_in if stream else None,
        stream.bytes_out if stream else None,
        round(seconds * 1e6) if seconds is not None else None,
        _seconds(certificate.get("notBefore")),
        _seconds(certificate.get("notAfter")),
        lacks,
    ]


def _package(comm: Comm) -> str:
    return type(comm).__module__.partition(".")[0]


def _seconds(date: str | None) -> int | None:
    try:
        return int(ssl.cert_time_to_seconds(date)) if date else None
    except ValueError:
        return None


# Certificates


def _contexts(server: Any) -> list[FollowingContext]:
    """Return the contexts that a server dials and listens with."""
    given = [(getattr(server, "connection_args", None) or {}).get("ssl_context")]
    given += [getattr(each, "_context", None) for each in getattr(server, "listeners", ())]
    return [context for context in given if isinstance(context, FollowingContext)]


def _certificates(contexts: Iterable[FollowingContext]) -> list[list[Any]]:
    """Return kind, subject, start and end of what a process holds: its own first, then by end."""
    rows = {tuple(row) for context in contexts for row in _rows(context)}
    return [list(row) for row in sorted(rows, key=lambda row: (row[0] != "own", row[3]))]


def _rows(context: FollowingContext) -> list[Any]:
    known = _held.get(context)
    now = time.monotonic()
    if known is not None and now < known.due:
        return known.rows
    deadlines = context.deadlines
    if known is None or known.deadlines is not deadlines:  # replaced since
        known = _Held(deadlines, list(_read(deadlines)))
    known.due = now + _LOOK
    _held[context] = known
    return known.rows


def _read(deadlines: Sequence[Deadline]) -> Iterable[list[Any]]:
    own = False
    for each in deadlines:
        kind = "CRL" if not each.der else "CA"
        if each.der and each.field.endswith("_cert"):
            kind, own = "CA" if own else "own", True  # the first is its own, then those above
        name = ""
        try:
            name = subjects.subject(each.der) if each.der else ""
        except PEMError:  # its end was readable
            pass
        yield [kind, name[:_LONGEST], int(max(each.start, 0)), int(max(each.end, 0))]
