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
UNIX = "unix"  # ours over a local socket, beside tcp
OURS = (STANDALONE, STANDALONE + UVLOOP, DASK, DASK + UVLOOP)
# After a slash, the interpreter's switch interval in all processes of a cluster.
INTERVALS = (DASK + "/200us", DASK + "/untouched")
LIBRARIES = {"grpcio": "grpc", "pyzmq": "zmq"}  # implementation: what it imports

MESSAGE = 100  # bytes of a small message
NONE = (None, None)
NOT_SLOWER = 0.95  # what every ratio to stock must reach, if nothing more is asked


@dataclass(frozen=True)
class Bar:
    """What one figure of a case must be. `must` and `aim` are for tcp and tls."""

    figure: str = "value"
    against: str | None = STOCK  # None: the figure itself is judged
    must: tuple[float | None, float | None] = (NOT_SLOWER, NOT_SLOWER)
    aim: tuple[float | None, float | None] = NONE
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
    "sender_rss": Figure("MiB extra", more=False, digits=1),
    "receiver_rss": Figure("MiB extra", more=False, digits=1),
    "fetch_idle": Figure("MB/s", digits=1),
    "fetch_busy": Figure("MB/s", digits=1),
    "gather": Figure("MB/s", digits=1),
    "scatter": Figure("MB/s", digits=1),
    "shuffle": Figure("MB/s", digits=1),
    **{
        name: Figure("s", more=False, digits=2)
        for name in (
            "start",
            "tasks",
            "chain",
            "submits",
            "rechunk",
            "matrix",
            "fed",
            "words",
            "gather64",
            "exchange",
        )
    },
    "sender_hold": Figure("ms", more=False, digits=1),
    "receiver_hold": Figure("ms", more=False, digits=1),
}


@dataclass(frozen=True)
class Case:
    """One kind of work.

    `kind` is a function of `peers/work.py`, `options` its arguments, `value` the figure that stands
    for the case. The processes of a pair share one CPU unless `free`; they are new for this case if
    `fresh`. `busy_client` and `busy_server` are Python threads that compute meanwhile; with
    `beside`, their undisturbed speed is taken before there is a comm. `hold` watches both loops.
    A `costly` case has one round in the quick set.
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
    beside: bool = False
    hold: bool = False
    quick: bool = True
    costly: bool = False


def payload(
    name: str,
    size: int,
    must: tuple[float, float],
    aim: tuple[float, float],
    flight: int = 1,
    **more: Any,
) -> Case:
    """A case of large payloads, one way, each acknowledged with a few bytes.

    `flight` of them are on their way at a time.
    """
    kind = "payload" if flight == 1 else "pipelined"
    return Case(
        name=f"{kind}-{name.lower().replace(' ', '')}",
        title=f"{name} payloads, each acknowledged"
        + (f", {flight} in flight" if flight > 1 else ""),
        kind="payload",
        value="throughput",
        ours=(STANDALONE, DASK),
        others=(SOCKETS, UNIX, *LIBRARIES),
        options={"size": size, "flight": flight},
        bars=(Bar(must=must, aim=aim, ours=(STANDALONE,)), Bar(ours=(DASK,)))
        if size < 16 * MiB
        else (Bar(must=must, aim=aim), Bar(figure="cpu")),
        **more,
    )


def plain(name: str, size: int, flight: int) -> Case:
    """As `payload`, of bytes that stand in the message itself, as a program's own messages do."""
    return Case(
        name=f"bytes-{name.lower().replace(' ', '')}",
        title=f"messages with {name} of bytes, each acknowledged, {flight} in flight",
        kind="payload",
        value="throughput",
        ours=(STANDALONE, DASK),
        options={"size": size, "flight": flight, "plain": True},
        bars=(Bar(must=(1.2, 1.2), aim=(1.5, 1.5), ours=(STANDALONE,)), Bar(ours=(DASK,))),
    )


def busy(
    name: str, title: str, must: tuple[float, float], aim: tuple[float, float], **more: Any
) -> Case:
    """8 MiB payloads beside Python threads that compute; the machine's other CPU is free.

    The threads hold the GIL of one side, so that process fills a CPU by itself.
    """
    keep = (Bar(figure="keep", against=None, must=(0.6, 0.6)),) if name == "receiver-busy" else ()
    return Case(
        name=name,
        title=f"8 MiB payloads, {title}",
        kind="payload",
        value="throughput",
        ours=(STANDALONE, DASK),
        others=(SOCKETS, *LIBRARIES),
        options={"size": 8 * MiB},
        bars=(Bar(must=must, aim=aim), *keep),
        free=True,
        **more,
    )


CASES = (
    Case(
        name="round-trip",
        title=f"round trip of {MESSAGE} B",
        kind="round_trip",
        value="trips",
        ours=(STANDALONE, STANDALONE + UVLOOP, DASK),
        others=(SOCKETS, UNIX, *LIBRARIES),
        bars=(
            Bar(must=(3.0, 4.0), aim=(4.5, 6.0), ours=(STANDALONE,)),
            Bar(must=(6.0, 7.0), ours=(STANDALONE + UVLOOP,)),
            Bar(must=NONE, aim=(1.0, 1.0), against=SOCKETS, ours=(STANDALONE + UVLOOP,)),
            Bar(must=(1.8, 2.2), aim=(3.0, 3.5), ours=(DASK,)),
        ),
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
    Case(
        name="values",
        title="message of 10,000 texts and numbers, acknowledged",
        kind="batch",
        value="batches",
        ours=(STANDALONE, DASK),
        options={"of": "values"},
        bars=(Bar(must=(NOT_SLOWER, NOT_SLOWER), aim=(1.5, 1.5)),),
    ),
    payload("64 KiB", 64 * KiB, (3.0, 2.0), (5.0, 3.0)),
    payload("1 MiB", MiB, (1.6, 1.5), (2.2, 2.0)),
    payload("16 MiB", 16 * MiB, (1.0, 1.1), (1.2, 1.4)),
    payload("64 MiB", 64 * MiB, (1.0, 1.1), (1.2, 1.4), quick=False),
    payload("256 MiB", 256 * MiB, (1.0, 1.1), (1.2, 1.4), costly=True),
    payload("1 GiB", GiB, (NOT_SLOWER, NOT_SLOWER), (1.2, 1.4), quick=False),
    payload("64 KiB", 64 * KiB, (1.6, 1.5), (2.2, 2.0), flight=8),
    payload("1 MiB", MiB, (1.6, 1.5), (2.2, 2.0), flight=8),
    payload("16 MiB", 16 * MiB, (1.0, 1.1), (1.2, 1.4), flight=2),
    plain("1 MiB", MiB, 8),
    busy("receiver-busy", "receiver has 1 busy thread", (1.5, 30.0), (2.0, 50.0), busy_server=1),
    busy(
        "receiver-busy-4",
        "receiver has 4 busy threads",
        (1.5, 20.0),
        (2.0, 40.0),
        busy_server=4,
        costly=True,
    ),
    busy("sender-busy", "sender has 1 busy thread", (1.0, 1.2), (1.5, 2.0), busy_client=1),
    Case(
        name="server-busy",
        title=f"round trip of {MESSAGE} B, server has 1 busy thread",
        kind="round_trip",
        value="trips",
        ours=(STANDALONE, DASK),
        bars=(Bar(must=(3.0, 3.0), aim=(8.0, 8.0)),),
        free=True,
        busy_server=1,
    ),
    Case(
        name="beside-idle",
        title="4 busy threads beside a comm that was used and is idle",
        kind="idle",
        value="keep",
        ours=(STANDALONE, DASK),
        bars=(Bar(against=None, must=(0.95, 0.95), aim=(0.99, 0.99)),),
        free=True,
        fresh=True,
        beside=True,
        busy_server=4,
        costly=True,
    ),
    Case(
        name="beside-trickle",
        title="4 busy threads beside a comm with 10 round trips a second",
        kind="idle",
        value="keep",
        ours=(STANDALONE, DASK),
        options={"trickle": 10},
        bars=(Bar(against=None, must=(0.95, 0.95), aim=(0.99, 0.99)),),
        free=True,
        fresh=True,
        beside=True,
        busy_server=4,
        quick=False,
    ),
    Case(
        name="connections",
        title="new connection with hello and one round trip",
        kind="connections",
        value="connections",
        ours=(STANDALONE, DASK),
        bars=(Bar(must=(2.0, 1.4), aim=(3.5, 1.8)),),
    ),
    Case(
        name="memory",
        title="peak memory besides one 512 MiB payload",
        kind="payload",
        value="receiver_rss",
        ours=(STANDALONE, DASK),
        options={"size": 512 * MiB, "most": 1},
        bars=(
            Bar(figure="sender_rss", against=None, must=(8.0, 8.0), aim=(1.0, 1.0)),
            Bar(figure="receiver_rss", against=None, must=(16.0, 16.0), aim=(1.0, 1.0)),
        ),
        free=True,
        fresh=True,
        costly=True,
    ),
    Case(
        name="hold",
        title="longest hold of the event loop during a 1 GiB payload",
        kind="payload",
        value="receiver_hold",
        ours=(STANDALONE, DASK),
        options={"size": GiB, "most": 1},
        bars=(
            Bar(figure="sender_hold", against=None, must=(100.0, 100.0), aim=(20.0, 20.0)),
            Bar(figure="receiver_hold", against=None, must=(100.0, 100.0), aim=(20.0, 20.0)),
        ),
        free=True,
        fresh=True,
        hold=True,
        quick=False,
    ),
    Case(
        name="cluster",
        title="a Dask cluster: fetches of 32 MiB, idle and beside a task; many of 1 MiB; a shuffle",
        kind="cluster",
        value="fetch_busy",
        ours=(DASK,),
        options={"large": 32 * MiB, "many": 64, "rows": 200_000},
        bars=(
            Bar(figure="fetch_busy", must=(NOT_SLOWER, 20.0)),
            *(Bar(figure=name) for name in ("fetch_idle", "gather", "scatter", "shuffle")),
        ),
        free=True,
        quick=False,
    ),
)

WORKS = ("tasks", "chain", "submits", "rechunk", "matrix", "fed", "words", "gather64", "exchange")
CASES += (
    Case(
        name="workloads",
        title="what Dask users do, on a cluster of 2 workers",
        kind="cluster",
        value="tasks",
        ours=(DASK, *INTERVALS),
        options={"program": "workloads", "workers": 2, "works": WORKS},
        bars=tuple(Bar(figure=name, must=(0.97, 0.97)) for name in ("start", *WORKS)),
        free=True,
        quick=False,
    ),
    Case(
        name="workloads-16",
        title="the same on 16 workers, more than there are CPUs",
        kind="cluster",
        value="tasks",
        ours=(DASK,),
        options={"program": "workloads", "workers": 16, "works": ("tasks", "rechunk", "words")},
        bars=tuple(
            Bar(figure=name, must=(0.97, 0.97)) for name in ("start", "tasks", "rechunk", "words")
        ),
        free=True,
        quick=False,
    ),
)

BY_NAME = {case.name: case for case in CASES}
