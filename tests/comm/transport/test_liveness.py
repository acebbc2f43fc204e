"""`Liveness` by a table: what the kernel says when, and whether that ends a stream.

The clock and the kernel's answers are made up; tests/network and tests/hostile have real ones.
"""

from __future__ import annotations

import asyncio
import errno
import heapq
import socket
import struct
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from sealwire.comm.transport import sockets
from sealwire.comm.transport.liveness import Liveness

linux = pytest.mark.skipif(not hasattr(socket, "TCP_INFO"), reason="the kernel tells nothing")


class Kernel(NamedTuple):
    """What it knows of a peer at a time: seconds of silence, and what is owed."""

    silent: float
    unacked: int = 0
    retransmits: int = 0
    probes: int = 0

    def packed(self) -> bytes:
        info = bytearray(104)
        struct.pack_into("BB", info, 2, self.retransmits, self.probes)
        struct.pack_into("I", info, 24, self.unacked)
        # Data came long ago; what counts is the later of both.
        struct.pack_into(
            "II", info, 52, round(self.silent * 1000) + 5000, round(self.silent * 1000)
        )
        return bytes(info)


class Clock:
    """A loop that has timers, and nothing else."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.timers: list[Any] = []
        self.looks: list[float] = []

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, callback: Callable[[], object]) -> asyncio.TimerHandle:
        timer = asyncio.TimerHandle(when, callback, (), self)  # type: ignore[arg-type]
        heapq.heappush(self.timers, timer)
        return timer

    def get_debug(self) -> bool:
        return False

    def _timer_handle_cancelled(self, timer: object) -> None:
        pass

    def run(self, until: float, *, held: tuple[float, float] = (0, 0)) -> None:
        """Run timers that are due before `until`; none while the loop is held."""
        begin, end = 1000 + held[0], 1000 + held[1]
        while self.timers and self.timers[0].when() <= 1000 + until:
            timer = heapq.heappop(self.timers)
            if timer.cancelled():
                continue
            self.now = max(self.now, timer.when())
            if begin < self.now < end:
                self.now = end
            self.looks.append(self.now - 1000)
            assert len(self.looks) < 10_000
            timer._run()


class Stream:
    """Its socket answers by a function of the time."""

    def __init__(self, clock: Clock, kernel: Callable[[float], Kernel]) -> None:
        self.clock = clock
        self.kernel = kernel
        self.ended: float | None = None
        self.socket: Any = self
        self.options: list[tuple[int, Any]] = []

    def getsockopt(self, *_: int) -> bytes:
        return self.kernel(self.clock.now - 1000).packed()[:72]

    def setsockopt(self, _: int, name: int, value: Any) -> None:
        self.options.append((name, value))

    def lost(self, error: OSError) -> None:
        assert error.errno == errno.ETIMEDOUT
        assert self.ended is None
        self.ended = self.clock.now - 1000


def gone_at(when: float, **owing: int) -> Callable[[float], Kernel]:
    """Answers each second until then, and owes from half a second afterwards."""

    def kernel(now: float) -> Kernel:
        if now < when:
            return Kernel(now % 1)
        return Kernel(now - when + when % 1, **(owing if now > when + 0.5 else {}))

    return kernel


SENT_AGAIN = {"unacked": 3, "retransmits": 2}
PROBED = {"probes": 2}


@linux
@pytest.mark.parametrize("seconds", [3.0, 30.0, 300.0])
@pytest.mark.parametrize("owing", [SENT_AGAIN, PROBED], ids=["sent again", "probed"])
@pytest.mark.parametrize("when", [0.0, 0.3, 7.0, 29.0, 100.0, 1000.0])
def test_a_peer_that_is_gone_is_noticed_in_time(
    when: float, owing: dict[str, int], seconds: float
) -> None:
    clock = Clock()
    stream = Stream(clock, gone_at(when, **owing))
    Liveness(clock).watch(stream, seconds)  # type: ignore[arg-type]
    clock.run(when + 2 * seconds)
    assert stream.ended is not None
    assert 0.9 * seconds - 1 <= stream.ended - when <= seconds
    assert stream.options[-1] == (socket.SO_LINGER, sockets._AT_ONCE), "the other side is told"


STAYS: dict[str, Callable[[float], Kernel]] = {
    "answers": lambda now: Kernel(now % 5, 1, 1),
    "owes nothing": lambda now: Kernel(now),
    "has something on its way": lambda now: Kernel(now, unacked=9),
    "was asked once": lambda now: Kernel(now, probes=1),
    "was away for 29 of 30 seconds": lambda now: Kernel(now % 29, 1, 9),
    "answers seldom, and one probe was lost": lambda now: Kernel(
        now % 64, probes=2 * (now % 64 > 60)
    ),
}


@linux
@pytest.mark.parametrize("name", STAYS)
def test_one_that_is_there_stays(name: str) -> None:
    clock = Clock()
    stream = Stream(clock, STAYS[name])
    Liveness(clock).watch(stream, 30.0)  # type: ignore[arg-type]
    clock.run(1000)
    assert stream.ended is None
    assert len(clock.looks) < 1000 / 2, "looks cost time"


@linux
@pytest.mark.parametrize("held", [(5.0, 25.0), (20.0, 100.0), (28.0, 200.0)])
def test_a_loop_that_was_held_blames_nobody(held: tuple[float, float]) -> None:
    """What arrived meanwhile the kernel has heard, though nobody here has."""
    clock = Clock()
    stream = Stream(clock, lambda now: Kernel(now % 3, 1, 1))
    Liveness(clock).watch(stream, 30.0)  # type: ignore[arg-type]
    clock.run(400, held=held)
    assert stream.ended is None


@linux
def test_each_stream_has_its_own_time() -> None:
    clock = Clock()
    liveness = Liveness(clock)  # type: ignore[arg-type]
    streams = {s: Stream(clock, gone_at(10.0, **SENT_AGAIN)) for s in (60.0, 5.0, 30.0)}
    forgotten = Stream(clock, gone_at(10.0, **SENT_AGAIN))
    for seconds, stream in streams.items():
        liveness.watch(stream, seconds)
    liveness.watch(forgotten, 5.0)
    liveness.forget(forgotten)
    clock.run(200)
    for seconds, stream in streams.items():
        assert stream.ended is not None
        assert 0.8 * seconds <= stream.ended - 10 <= seconds
    assert forgotten.ended is None
    assert not [timer for timer in clock.timers if not timer.cancelled()]


@linux
@pytest.mark.parametrize(
    ("round_trip", "seconds", "bound"),
    [(0.2, 30, None), (0.8, 30, None), (0.9, 30, 2700), (2.2, 30, 6600), (60, 30, 120_000)],
)
def test_a_slow_path_is_given_the_time_it_takes(
    round_trip: float, seconds: float, bound: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else everything would be sent twice."""
    monkeypatch.setattr(sockets, "_bounded", True)
    monkeypatch.setattr(sockets, "_retries", lambda: 15)
    clock = Clock()
    stream = Stream(clock, lambda now: Kernel(0))
    sockets.allow_round_trips(stream.socket, round_trip, seconds)
    assert stream.options == ([] if bound is None else [(sockets._RTO_MAX_MS, bound)])
