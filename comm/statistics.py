"""What the comms and listeners of this process have done, in numbers, read when somebody asks.

Nothing here is called for a message. Streams and listeners count in attributes of their own, and
are known here by weak references; `snapshot` adds them up. A stream that ends, or is dropped, adds
its numbers to those of the process, so that no sum ever decreases.

Event loops of several threads may begin and end streams while another thread takes a snapshot, and
a finalizer can run within any of them. A forked child begins with nothing: what its parent has
counted is the parent's.
"""

from __future__ import annotations

import bisect
import os
import threading
import weakref
from collections import Counter
from collections.abc import Iterable, Mapping, Sized
from typing import Any, Literal, NamedTuple, Protocol

from .kinds import ErrorKind

__all__ = [
    "CommKind",
    "Counted",
    "Histogram",
    "ListenerCounts",
    "Statistics",
    "began",
    "broken_dialled",
    "ended",
    "greeted",
    "held",
    "listening",
    "snapshot",
]

Direction = Literal["in", "out"]
Side = Literal["client", "server"]
Traffic = tuple[int, int, int, int, int]
"""Payload bytes received and sent; messages read and written, but for hellos; bytes queued."""

BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

SCHEMES = ("tcp", "tls", "unix", "mem")
TLS_VERSIONS = ("", "TLSv1.2", "TLSv1.3")
OTHER = "other"


class CommKind(NamedTuple):
    """What open comms are counted by.

    Attributes
    ----------
    scheme : str
        Of the address: one of `SCHEMES`, or `OTHER`.
    tls_version : str
        One of `TLS_VERSIONS`, empty if it is plain, or `OTHER`.
    direction : {"in", "out"}
        Whether the peer has dialled, or we have.
    """

    scheme: str
    tls_version: str
    direction: Direction


class Histogram(NamedTuple):
    """How long something took, how often.

    Attributes
    ----------
    bounds : tuple of float
        Seconds; the upper bound of each bucket but the last, which has none.
    counts : tuple of int
        How many are in each bucket: not cumulative, and one more than `bounds`.
    total : float
        Seconds, of all together.
    """

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    total: float


class Statistics(NamedTuple):
    """The numbers of a process since it began, or was forked.

    Attributes
    ----------
    comms : dict of CommKind to int
        Those that are open now.
    bytes_in, bytes_out : int
        Payload, without the overhead of TLS, of all connections.
    messages_in, messages_out : int
        Those read and written, without hellos; what says why a comm is closed is one, too.
    send_queue : int
        Bytes that are written and not with the kernel yet.
    accepted, greeted, pending, refused, starved
        Those of `ListenerStats`, of all listeners together.
    broken : dict of ErrorKind to int
        Comms that ended with an error, whoever has dialled, by `CommError.kind`.
    handshakes : dict of {"client", "server"} to Histogram
        From the connected socket to the peer's hello, where there was one.
    holds : Histogram
        How late the event loop came to a timer while it did I/O: how long something has held it.
    """

    comms: Mapping[CommKind, int]
    bytes_in: int
    bytes_out: int
    messages_in: int
    messages_out: int
    send_queue: int
    accepted: int
    greeted: int
    pending: int
    refused: Mapping[ErrorKind, int]
    starved: int
    broken: Mapping[ErrorKind, int]
    handshakes: Mapping[Side, Histogram]
    holds: Histogram


class Counted(Protocol):
    """What a stream tells of itself."""

    peer: str
    accepted: bool
    tls_facts: dict[str, Any]

    def is_open(self) -> bool:
        """Whether messages can be written."""

    def traffic(self) -> Traffic:
        """Return what it has carried, and what is queued."""

    def leave_to_parent(self) -> None:
        """End it in a forked child, without a trace in the connection."""


class Pending(Protocol):
    """What a listener's log tells besides its counters."""

    pending: Sized


class ListenerCounts:
    """The counters of one listener. They outlive it, so that it may end at any time."""

    __slots__ = ("accepted", "greeted", "refused", "starved")

    def __init__(self) -> None:
        self.accepted = 0
        self.greeted = 0
        self.starved = 0
        self.refused: Counter[ErrorKind] = Counter()

    def add(self, other: ListenerCounts) -> None:
        """Add the counters of another one."""
        self.accepted += other.accepted
        self.greeted += other.greeted
        self.starved += other.starved
        self.refused.update(dict(other.refused))


class _Durations:
    """A histogram in the making."""

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS) + 1)
        self.total = 0.0

    def add(self, seconds: float) -> None:
        if seconds < 0.0:
            seconds = 0.0
        self.counts[bisect.bisect_left(BOUNDS, seconds)] += 1
        self.total += seconds

    def copy(self) -> Histogram:
        return Histogram(BOUNDS, tuple(self.counts), self.total)


class _Process:
    """The numbers of this process. The lock is held for moments, and may be taken twice."""

    def __init__(self) -> None:
        self.lock = threading.RLock()  # a finalizer may run while it is held
        self.streams: dict[int, weakref.ref[Counted]] = {}
        self.traffic: Traffic = (0, 0, 0, 0, 0)  # of streams that have ended
        self.broken: Counter[ErrorKind] = Counter()
        self.dialled: Counter[ErrorKind] = Counter()  # those of `broken` that no listener counts
        self.listeners: list[tuple[ListenerCounts, weakref.ref[Pending]]] = []
        self.sweep_at = 64  # listeners
        self.gone = ListenerCounts()  # of those that are no more
        self.handshakes: dict[Side, _Durations] = {"client": _Durations(), "server": _Durations()}
        self.holds = _Durations()

    def sweep(self) -> list[Pending]:
        """Add the counters of listeners that are no more to `gone`; return the others' logs."""
        logs, kept = [], []
        for counts, known in self.listeners:
            log = known()
            if log is None:
                self.gone.add(counts)
            else:
                logs.append(log)
                kept.append((counts, known))
        self.listeners = kept
        self.sweep_at = max(64, 2 * len(kept))
        return logs


_process = _Process()


def _in_child() -> None:
    """Begin anew. The open connections are our parent's: whoever counts them knows them all."""
    global _process
    inherited = list(_process.streams.values())
    _process = _Process()
    for known in inherited:
        stream = known()
        if stream is not None:
            stream.leave_to_parent()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)


def began(stream: Counted) -> None:
    """Count a stream from now on, until `ended`."""
    _process.streams[id(stream)] = weakref.ref(stream)


def ended(stream: Counted, broken: ErrorKind | None = None) -> None:
    """Keep the numbers of a stream, the first time; `broken` says why a comm has ended badly."""
    process = _process
    with process.lock:
        if process.streams.pop(id(stream), None) is None:  # twice, or it is our parent's
            return
        received, sent, read, written, _ = process.traffic
        a, b, c, d, _ = stream.traffic()
        process.traffic = (received + a, sent + b, read + c, written + d, 0)
        if broken is not None:
            process.broken[broken] += 1
            if not stream.accepted:
                process.dialled[broken] += 1


def broken_dialled() -> dict[ErrorKind, int]:
    """Return how many comms that this process has dialled have ended with an error, by its kind.

    Those that others have dialled are in the `stats` of the listeners, and all in `snapshot`.
    """
    with _process.lock:
        return dict(_process.dialled)


def greeted(stream: Counted, seconds: float) -> None:
    """Count a stream whose hello was done `seconds` after its socket was connected."""
    process = _process
    with process.lock:
        process.handshakes["server" if stream.accepted else "client"].add(seconds)


def held(seconds: float) -> None:
    """Count a timer of a busy event loop that was late by `seconds`."""
    process = _process
    with process.lock:
        process.holds.add(seconds)


def listening(log: Pending) -> ListenerCounts:
    """Return counters for a listener, which count in the sums; they are kept when it ends."""
    process = _process
    counts = ListenerCounts()
    with process.lock:
        if len(process.listeners) >= process.sweep_at:
            process.sweep()
        process.listeners.append((counts, weakref.ref(log)))
    return counts


def snapshot() -> Statistics:
    """Add everything up, from any thread.

    Returns
    -------
    Statistics
        Of one moment, but for what other threads count while it is taken.
    """
    process = _process
    with process.lock:
        # Held first: a stream that ends from here on is here, and what has ended is in `traffic`.
        known = [known() for known in list(process.streams.values())]
        streams = [stream for stream in known if stream is not None]
        rows = [process.traffic]
        alike: Counter[tuple[str, str | None, bool]] = Counter()
        for stream in streams:  # in one pass: of thousands none is in the processor's cache
            rows.append(stream.traffic())
            if stream.is_open():
                version = stream.tls_facts.get("protocol")
                alike[stream.peer.partition("://")[0], version, stream.accepted] += 1
        received, sent, read, written, queued = _sums(rows)
        logs = process.sweep()
        listeners = ListenerCounts()
        for counts in (process.gone, *(counts for counts, _ in process.listeners)):
            listeners.add(counts)
        comms: Counter[CommKind] = Counter()
        for each, number in alike.items():
            comms[_kind(*each)] += number
        return Statistics(
            comms=comms,
            bytes_in=received,
            bytes_out=sent,
            messages_in=read,
            messages_out=written,
            send_queue=queued,
            accepted=listeners.accepted,
            greeted=listeners.greeted,
            pending=sum(len(log.pending) for log in logs),
            refused=dict(listeners.refused),
            starved=listeners.starved,
            broken=dict(process.broken),
            handshakes={side: each.copy() for side, each in process.handshakes.items()},
            holds=process.holds.copy(),
        )


def _sums(rows: Iterable[Traffic]) -> Traffic:
    a, b, c, d, e = map(sum, zip(*rows, strict=True))
    return a, b, c, d, e


def _kind(scheme: str, version: str | None, accepted: bool) -> CommKind:
    version = version or ""
    return CommKind(
        scheme if scheme in SCHEMES else OTHER,
        version if version in TLS_VERSIONS else OTHER,
        "in" if accepted else "out",
    )
