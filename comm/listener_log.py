"""What a listener has seen: counters for operators, and at most so many lines of log a minute.

A peer that misbehaves is one line, at level INFO: it is the peer's trouble, and nobody is to be
woken by a port scan. What is too much for the log is counted and summed up in one line; a kind of
trouble that the log has not shown for a minute is shown all the same, so that a flood of one kind
hides no other. Who comes and goes without a byte, as the probes of orchestrators and load balancers
do every few seconds, is counted for an hour.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections import Counter, deque
from collections.abc import Callable, Mapping

__all__ = ["ListenerLog", "ListenerStats"]

_HOUR = 3600.0  # seconds for which those are counted who come and go without a byte
_PERIOD = 60.0  # seconds that a budget of lines is for, and between two words on our own trouble
_LONGEST = 1000  # characters of a line that a peer may have had a hand in

logger = logging.getLogger("sealwire.comm")


@dataclasses.dataclass(frozen=True)
class ListenerStats:
    """What a listener has counted since it started.

    Attributes
    ----------
    accepted : int
        Connections taken from the kernel.
    greeted : int
        Those that became comms: TLS and hello done.
    pending : int
        Those whose TLS handshake or hello is under way now.
    refused : dict of str to int
        Those that did not become comms, by `CommError.kind`: ``timeout``, ``crowded`` (dropped for
        a newer one), ``lost``, ``probe`` (came and went without a byte), ``expired``,
        ``other-ca``, ``no-certificate``, ``not-tls``…
    broken : dict of str to int
        Comms that ended with an error, by `CommError.kind`.
    starved : int
        Times that the system had no descriptor or memory for another connection.
    unlogged : int
        Lines left out of the log because there were too many.
    """

    accepted: int = 0
    greeted: int = 0
    pending: int = 0
    refused: Mapping[str, int] = dataclasses.field(default_factory=dict)
    broken: Mapping[str, int] = dataclasses.field(default_factory=dict)
    starved: int = 0
    unlogged: int = 0


class ListenerLog:
    """Counts and logs for one listener.

    Parameters
    ----------
    name
        Gives the listener's address, for the log.
    lines
        Lines a minute.
    """

    def __init__(self, name: Callable[[], str], lines: int) -> None:
        self._name = name
        self._lines = lines
        self._told: deque[float] = deque(maxlen=max(1, int(lines)))  # when
        self._told_of: dict[str, float] = {}  # when each kind was logged last
        self._held: Counter[str] = Counter()  # kinds left out of the log, not yet summed up
        self._summary: asyncio.TimerHandle | None = None
        self._knocks = 0  # of this hour
        self._hour: asyncio.TimerHandle | None = None
        self._complained_at = float("-inf")
        self.accepted = 0
        self.greeted = 0
        self._refused: Counter[str] = Counter()
        self._broken: Counter[str] = Counter()
        self._starved = 0
        self._unlogged = 0

    def stats(self, pending: int) -> ListenerStats:
        """A copy of the counters."""
        return ListenerStats(
            accepted=self.accepted,
            greeted=self.greeted,
            pending=pending,
            refused=dict(self._refused),
            broken=dict(self._broken),
            starved=self._starved,
            unlogged=self._unlogged,
        )

    def refused(self, kind: str, words: Callable[[], str]) -> None:
        """A connection did not become a comm. `words` are asked for only if they are logged."""
        self._refused[kind] += 1
        self._tell(kind, words)

    def knocked(self) -> None:
        """A connection was opened and closed without a byte, as probes do every few seconds."""
        self._refused["probe"] += 1
        self._knocks += 1
        if self._hour is None:
            self._hour = asyncio.get_running_loop().call_later(_HOUR, self._count_knocks)

    def broken(self, kind: str, words: Callable[[], str]) -> None:
        """A comm ended with an error."""
        self._broken[kind] += 1
        self._tell(kind, words)

    def starved(self, why: str) -> None:
        """The system has nothing left for another connection: our own trouble, so a warning."""
        self._starved += 1
        now = asyncio.get_running_loop().time()
        if now - self._complained_at >= _PERIOD:
            self._complained_at = now
            logger.warning(
                "listener on %s cannot accept: %s; allow the process more open files, or let "
                "fewer peers in",
                self._name(),
                why,
            )

    def close(self) -> None:
        """Sum up what is left."""
        if self._hour is not None:
            self._hour.cancel()
        if self._summary is not None:
            self._summary.cancel()
            self._sum_up()

    def _tell(self, kind: str, words: Callable[[], str]) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        full = len(self._told) == self._told.maxlen and now - self._told[0] < _PERIOD
        if full and now - self._told_of.get(kind, -_PERIOD) < _PERIOD:
            self._unlogged += 1
            self._held[kind] += 1
            if self._summary is None:
                self._summary = loop.call_later(_PERIOD, self._sum_up)
            return
        self._told.append(now)
        self._told_of[kind] = now
        logger.info("listener on %s: %s", self._name(), _one_line(words()))

    def _count_knocks(self) -> None:
        self._hour = None
        count, self._knocks = self._knocks, 0
        logger.info(
            "listener on %s: within an hour %d connection%s opened and closed without a byte, as "
            "probes of liveness do",
            self._name(),
            count,
            "s were" if count > 1 else " was",
        )

    def _sum_up(self) -> None:
        self._summary = None
        held, self._held = self._held, Counter()
        logger.info(
            "listener on %s: %d more like these (%s); at most %d lines a minute are logged, "
            "see Limits.max_log_lines",
            self._name(),
            sum(held.values()),
            ", ".join(f"{kind}: {count}" for kind, count in held.most_common()),
            self._lines,
        )


def _one_line(words: str) -> str:
    """No peer's bytes end the line, or mean something to a terminal, or fill the disk."""
    if len(words) > _LONGEST:
        words = f"{words[:_LONGEST]}… ({len(words)} characters)"
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in words)
