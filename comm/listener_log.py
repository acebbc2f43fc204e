"""A listener's counters for operators, and its rate-limited log.

A misbehaving peer is one line at level INFO: it is not our fault, and a port scan should wake
nobody. Lines beyond the rate are counted and summed up in one line. A kind of error that was not
logged within the last minute is always logged, so that a flood of one kind hides no other.
Connections that are opened and closed without a byte, as liveness probes do every few seconds, are
counted and logged once an hour.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sized

from . import statistics
from .kinds import ErrorKind

__all__ = ["ListenerLog", "ListenerStats"]

_HOUR = 3600.0  # seconds between two lines on liveness probes
_PERIOD = 60.0  # seconds: the period of the rate limit, and between two warnings of our own
_LONGEST = 1000  # characters of a line that may contain a peer's text

logger = logging.getLogger("sealwire.comm")


@dataclasses.dataclass(frozen=True)
class ListenerStats:
    """A listener's counters since it started.

    Attributes
    ----------
    accepted : int
        Connections accepted from the kernel.
    greeted : int
        Those that became comms: TLS handshake and hello completed.
    pending : int
        Those whose TLS handshake or hello is in progress now.
    refused : dict of ErrorKind to int
        Those that did not become comms, by `CommError.kind`: ``timeout``, ``crowded`` (dropped for
        a newer one), ``lost``, ``probe`` (came and went without a byte), ``expired``,
        ``other-ca``, ``no-certificate``, ``not-tls``…
    broken : dict of ErrorKind to int
        Comms that ended with an error, by `CommError.kind`.
    starved : int
        Times that the system had no file descriptor or memory for another connection.
    unlogged : int
        Lines omitted from the log because of its rate limit.
    """

    accepted: int = 0
    greeted: int = 0
    pending: int = 0
    refused: Mapping[ErrorKind, int] = dataclasses.field(default_factory=dict)
    broken: Mapping[ErrorKind, int] = dataclasses.field(default_factory=dict)
    starved: int = 0
    unlogged: int = 0


class ListenerLog:
    """Counters and log of one listener.

    Parameters
    ----------
    name
        Returns the listener's address, for the log.
    lines
        Most lines per minute.
    pending
        The listener's pending connections.

    Attributes
    ----------
    counts : ListenerCounts
        The counters that are also part of the process's `statistics`.
    """

    def __init__(self, name: Callable[[], str], lines: int, pending: Sized = ()) -> None:
        self.pending = pending
        self.counts = statistics.listening(self)
        self._name = name
        self._lines = lines
        self._logged_at: deque[float] = deque(maxlen=max(1, int(lines)))  # when
        self._last_logged: dict[ErrorKind, float] = {}  # when each kind was logged last
        self._suppressed: Counter[ErrorKind] = Counter()  # left out of the log, not yet summed up
        self._summary: asyncio.TimerHandle | None = None
        self._probes = 0  # since the last line on them
        self._hour: asyncio.TimerHandle | None = None
        self._warned_at = float("-inf")
        self._broken: Counter[ErrorKind] = Counter()
        self._unlogged = 0

    def stats(self) -> ListenerStats:
        """Return a snapshot of the counters."""
        return ListenerStats(
            accepted=self.counts.accepted,
            greeted=self.counts.greeted,
            pending=len(self.pending),
            refused=dict(self.counts.refused),
            broken=dict(self._broken),
            starved=self.counts.starved,
            unlogged=self._unlogged,
        )

    def refused(self, kind: ErrorKind, words: Callable[[], str]) -> None:
        """Count a connection that did not become a comm. `words` is called only if logged."""
        self.counts.refused[kind] += 1
        self._log(kind, words)

    def probed(self) -> None:
        """Count a connection that was opened and closed without a byte."""
        self.counts.refused["probe"] += 1
        self._probes += 1
        if self._hour is None:
            self._hour = asyncio.get_running_loop().call_later(_HOUR, self._log_probes)

    def broken(self, kind: ErrorKind, words: Callable[[], str]) -> None:
        """Count a comm that ended with an error."""
        self._broken[kind] += 1
        self._log(kind, words)

    def starved(self, why: str) -> None:
        """Count a failed accept for want of resources: our own problem, so a warning."""
        self.counts.starved += 1
        now = asyncio.get_running_loop().time()
        if now - self._warned_at >= _PERIOD:
            self._warned_at = now
            logger.warning(
                "listener on %s cannot accept: %s; allow the process more open files, or let "
                "fewer peers in",
                self._name(),
                why,
            )

    def close(self) -> None:
        """Log the summary that is due."""
        if self._hour is not None:
            self._hour.cancel()
        if self._summary is not None:
            self._summary.cancel()
            self._log_summary()

    def _log(self, kind: ErrorKind, words: Callable[[], str]) -> None:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:  # the collector ends what a closed loop has left
            return
        now = loop.time()
        full = len(self._logged_at) == self._logged_at.maxlen and now - self._logged_at[0] < _PERIOD
        if full and now - self._last_logged.get(kind, -_PERIOD) < _PERIOD:
            self._unlogged += 1
            self._suppressed[kind] += 1
            if self._summary is None:
                self._summary = loop.call_later(_PERIOD, self._log_summary)
            return
        self._logged_at.append(now)
        self._last_logged[kind] = now
        logger.info("listener on %s: %s", self._name(), _one_line(words()))

    def _log_probes(self) -> None:
        self._hour = None
        count, self._probes = self._probes, 0
        logger.info(
            "listener on %s: within an hour %d connection%s opened and closed without a byte, as "
            "liveness probes do",
            self._name(),
            count,
            "s were" if count > 1 else " was",
        )

    def _log_summary(self) -> None:
        self._summary = None
        suppressed, self._suppressed = self._suppressed, Counter()
        logger.info(
            "listener on %s: %d more like these (%s); at most %d lines a minute are logged, "
            "see Limits.max_log_lines",
            self._name(),
            sum(suppressed.values()),
            ", ".join(f"{kind}: {count}" for kind, count in suppressed.most_common()),
            self._lines,
        )


def _one_line(words: str) -> str:
    """`words` as one line of bounded length, without a peer's newlines and control characters."""
    if len(words) > _LONGEST:
        words = f"{words[:_LONGEST]}… ({len(words)} characters)"
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in words)
