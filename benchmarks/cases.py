"""What is measured, as data: every case with what it must reach and what it aims at.

A *case* is one kind of work with its numbers. It is done by each *implementation* over each *link*,
by a pair of processes. A *bar* says which figure of a case is judged, against whom, and how much is
enough.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

KiB, MiB, GiB = 1 << 10, 1 << 20, 1 << 30

LINKS = ("tcp", "tls")
STOCK = "stock"
STANDALONE = "standalone"
DASK = "dask"
UVLOOP = "+uvloop"  # after an implementation's name: both of its processes run on uvloop
SOCKETS = "sockets"
OURS = (STANDALONE, STANDALONE + UVLOOP, DASK, DASK + UVLOOP)
LIBRARIES = {"grpcio": "grpc", "pyzmq": "zmq"}  # implementation: what it imports

MESSAGE = 100  # bytes of a small message
NOT_SLOWER = 0.95  # what every ratio to stock must reach, if nothing more is asked


@dataclass(frozen=True)
class Bar:
    """What one figure of a case must be. `must` and `aim` are for tcp and tls."""

    figure: str = "value"
    against: str | None = STOCK  # None: the figure itself is judged
    must: tuple[float | None, float | None] = (NOT_SLOWER, NOT_SLOWER)
    aim: tuple[float | None, float | None] = (None, None)
    ours: tuple[str, ...] | None = None  # if the bar is not for all of ours

    def of(self, link: str) -> tuple[float | None, float | None]:
        """Must and aim on a link."""
        index = LINKS.index(link)
        return self.must[index], self.aim[index]


@dataclass(frozen=True)
class Figure:
    """How a figure reads: its unit, and whether more of it is better."""

    unit: str
    more: bool = True
    digits: int = 0


FIGURES = {
    "trips": Figure("trips/s"),
    "messages": Figure("msgs/s"),
    "batches": Figure("batches/s"),
    "connections": Figure("conns/s"),
    "throughput": Figure("MB/s", digits=1),
    "keep": Figure("of its speed", digits=3),
    "p50": Figure("ms", more=False, digits=3),
    "p99": Figure("ms", more=False, digits=3),
    "cpu": Figure("CPU s/GB", more=False, digits=2),
    "sender_rss": Figure("MiB over payload", more=False, digits=1),
    "receiver_rss": Figure("MiB over payload", more=False, digits=1),
    "sender_hold": Figure("ms", more=False, digits=1),
    "receiver_hold": Figure("ms", more=False, digits=1),
}


@dataclass(frozen=True)
class Case:
    """One kind of work.

    `kind` is a function of `peers/work.py`, `options` its arguments, `value` the figure that stands
    for the case. The processes of a pair share one CPU unless `free`; they are new for this case if
    `fresh`. `busy_client` and `busy_server` are Python threads that compute meanwhile.
    """

    name: str
    title: str
    kind: str
    value: str
    ours: tuple[str, ...]
    bars: tuple[Bar, ...] = (Bar(),)
    others: tuple[str, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)
    free: bool = False
    fresh: bool = False
    busy_client: int = 0
    busy_server: int = 0
    quick: bool = True
    seconds: float = 1.0  # share of the usual time


def payload(
    name: str, size: int, must: tuple[float, float], aim: tuple[float, float], **more: Any
) -> Case:
    """A case of large payloads, one way, each acknowledged with a few bytes."""
    return Case(
        name=f"payload-{name.lower().replace(' ', '')}",
        title=f"{name} payloads, each acknowledged",
        kind="payload",
        value="throughput",
        ours=(STANDALONE, DASK),
        others=(SOCKETS, *LIBRARIES),
        options={"size": size},
        bars=(Bar(must=must, aim=aim, ours=(STANDALONE,)), Bar(ours=(DASK,)))
        if size < 16 * MiB
        else (Bar(must=must, aim=aim),),
        **more,
    )


CASES = (
    Case(
        name="round-trip",
        title=f"round trip of {MESSAGE} B, standalone",
        kind="round_trip",
        value="trips",
        ours=(STANDALONE,),
        others=(SOCKETS, *LIBRARIES),
        bars=(Bar(must=(3.0, 4.0), aim=(4.5, 6.0)),),
    ),
    Case(
        name="round-trip-uvloop",
        title="the same, ours on uvloop",
        kind="round_trip",
        value="trips",
        ours=(STANDALONE + UVLOOP,),
        others=(SOCKETS,),
        bars=(
            Bar(must=(6.0, 7.0)),
            Bar(against=SOCKETS, must=(None, None), aim=(1.0, 1.0)),
        ),
    ),
    Case(
        name="round-trip-dask",
        title=f"round trip of {MESSAGE} B, Dask backend",
        kind="round_trip",
        value="trips",
        ours=(DASK,),
        bars=(Bar(must=(1.8, 2.2), aim=(3.0, 3.5)),),
    ),
    Case(
        name="concurrent",
        title="16 comms ping-pong at once",
        kind="round_trip",
        value="trips",
        ours=(STANDALONE,),
        options={"comms": 16},
        bars=(Bar(must=(4.0, 4.0), aim=(6.0, 6.0)),),
    ),
    Case(
        name="flood",
        title="one-way flood of small messages",
        kind="flood",
        value="messages",
        ours=(STANDALONE,),
        others=(SOCKETS, *LIBRARIES),
        bars=(Bar(must=(8.0, 6.0), aim=(14.0, 9.0)),),
    ),
    Case(
        name="batch",
        title="batch of 20 reports to a scheduler, acknowledged",
        kind="batch",
        value="batches",
        ours=(DASK,),
        options={"of": "reports"},
        bars=(Bar(must=(2.5, 2.5), aim=(5.0, 5.0)),),
    ),
    Case(
        name="batch-tasks",
        title="batch of 20 tasks to a worker, acknowledged",
        kind="batch",
        value="batches",
        ours=(DASK,),
        options={"of": "tasks"},
        bars=(Bar(must=(2.5, 2.5), aim=(5.0, 5.0)),),
    ),
    payload("64 KiB", 64 * KiB, (3.0, 2.0), (5.0, 3.0)),
    payload("1 MiB", MiB, (1.6, 1.5), (2.2, 2.0)),
    payload("16 MiB", 16 * MiB, (1.0, 1.1), (1.2, 1.4)),
    payload("256 MiB", 256 * MiB, (1.0, 1.1), (1.2, 1.4)),
    payload("1 GiB", GiB, (NOT_SLOWER, NOT_SLOWER), (1.2, 1.4), quick=False),
)

BY_NAME = {case.name: case for case in CASES}
