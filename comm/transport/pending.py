"""Which connections are pending: accepted, and their TLS handshake or hello not done yet.

Anybody may have one, so they are bounded in number and in time, and give way to newer ones, the
oldest first. There is no socket and no timer here: a `Pending` says which connections are to go and
when to ask again, and its caller acts on it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from ..errors import CommClosedError

__all__ = ["Pending", "dropped", "too_late"]

_HELD = 0.5  # seconds by which a timer is late only if something has held the event loop

T = TypeVar("T")


class Pending(Generic[T]):
    """Connections in the order in which they were added, each with the same time allowed.

    Parameters
    ----------
    seconds
        The time.
    clock
        Gives the present one, in seconds.
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
        """The oldest first; of a copy, so that any may be removed meanwhile."""
        return iter(list(self._deadlines))

    def add(self, connection: T) -> float:
        """Its time begins; returns when that will be over."""
        deadline = self._deadlines[connection] = self._clock() + self._seconds
        return deadline

    def remove(self, connection: T) -> bool:
        """It is not pending any more, whatever became of it. Returns whether it was."""
        return self._deadlines.pop(connection, None) is not None

    def surplus(self, most: int) -> list[T]:
        """Those that must go before one more may come if there are to be no more than `most`."""
        return list(self)[: max(0, len(self._deadlines) + 1 - most)]

    def late(self, planned: float) -> tuple[list[T], float | None]:
        """Those whose time is over, and when to ask next, if there will be anything to ask for.

        `planned` is when this call was to be made. If it is much later, something has held the
        event loop, and what they have sent meanwhile has not been looked at: they are given a
        little more.
        """
        now = self._clock()
        if now - planned > _HELD:
            return [], now + min(now - planned, self._seconds / 4)
        late: list[T] = []
        for connection, deadline in self._deadlines.items():
            if deadline > now:
                return late, deadline
            late.append(connection)
        return late, None


def too_late(peer: str, stage: str, seconds: float) -> CommClosedError:
    """The error of a connection whose `stage` was not done in time, on either side."""
    return dropped(
        peer,
        "timeout",
        f"no {stage} within {seconds:g} s",
        "check that the other side speaks the same protocol and is not overloaded",
    )


def dropped(peer: str, kind: str, why: str, remedy: str) -> CommClosedError:
    """The error of a connection that we have dropped before it was a comm."""
    error = CommClosedError(f"connection with {peer} dropped: {why}; {remedy}", peer=peer)
    error.kind = kind
    return error
