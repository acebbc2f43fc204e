"""Bookkeeping of pending connections: accepted, with TLS handshake or hello not completed.

Any unauthenticated peer can open them, so they are bounded in number and time, and the oldest give
way to newer ones. There is no socket and no timer here: `Pending` tells which connections to drop
and when to ask again; the caller acts on it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from ..errors import CommClosedError
from ..kinds import ErrorKind

__all__ = ["Pending", "dropped", "too_late"]

_LATE = 0.5  # seconds; a timer is only that late if something has blocked the event loop

T = TypeVar("T")


class Pending(Generic[T]):
    """Connections in the order in which they were added, all with the same timeout.

    Parameters
    ----------
    seconds
        The timeout.
    clock
        Returns the current time in seconds.
    """

    def __init__(self, seconds: float, clock: Callable[[], float]) -> None:
        self._seconds = seconds
        self._clock = clock
        self._deadlines: dict[T, float] = {}  # the oldest first

    def __len__(self) -> int:
        return len(self._deadlines)

    def __contains__(self, connection: T) -> bool:
        return connection in self._deadlines

    def __iter__(self) -> Iterator[T]:
        """Iterate over a copy, oldest first, so that connections may be removed meanwhile."""
        return iter(list(self._deadlines))

    def add(self, connection: T) -> float:
        """Start the timeout of a connection; return when it expires."""
        deadline = self._deadlines[connection] = self._clock() + self._seconds
        return deadline

    def remove(self, connection: T) -> bool:
        """Forget a connection, whatever became of it. Returns whether it was pending."""
        return self._deadlines.pop(connection, None) is not None

    def surplus(self, most: int) -> list[T]:
        """Return the connections to drop before adding one, so that at most `most` are pending."""
        return list(self)[: max(0, len(self._deadlines) + 1 - most)]

    def late(self, planned: float) -> tuple[list[T], float | None]:
        """Return the connections whose timeout has expired, and when to ask next, if at all.

        `planned` is when this call was due. If it is much later, something has blocked the event
        loop, and what the peers have sent meanwhile has not been read: the timeout is extended a
        little.
        """
        now = self._clock()
        if now - planned > _LATE:
            return [], now + min(now - planned, self._seconds / 4)
        late: list[T] = []
        for connection, deadline in self._deadlines.items():
            if deadline > now:
                return late, deadline
            late.append(connection)
        return late, None


def too_late(peer: str, stage: str, seconds: float) -> CommClosedError:
    """Return the error of a connection whose `stage` was not completed in time, on either side."""
    return dropped(
        peer,
        "timeout",
        f"no {stage} within {seconds:g} s",
        "check that the other side speaks the same protocol and is not overloaded",
    )


def dropped(peer: str, kind: ErrorKind, why: str, remedy: str) -> CommClosedError:
    """Return the error of a pending connection that we have dropped."""
    error = CommClosedError(f"connection with {peer} dropped: {why}; {remedy}", peer=peer)
    error.kind = kind
    return error
