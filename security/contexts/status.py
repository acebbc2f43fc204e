"""What the TLS contexts of this process are made of now, for those who watch it from outside.

Each `reloading.Watch` is known here by a weak reference, so that nothing here keeps a key alive.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple, Protocol

__all__ = ["Kind", "Status", "failed", "failures", "statuses", "watched", "watches"]

Kind = Literal["leaf", "ca", "crl"]


class Status(NamedTuple):
    """What the handshakes of one role use now.

    Attributes
    ----------
    role : str or None
        Client, scheduler or worker; None if unknown.
    not_after : dict of {"leaf", "ca", "crl"} to float
        Seconds since the epoch: the end of the first of each kind that will end. A certificate of
        a chain above the leaf counts as a CA's.
    loaded : float
        Seconds since the epoch: since when this content is in use.
    """

    role: str | None
    not_after: Mapping[Kind, float]
    loaded: float


class Watched(Protocol):
    """What a `Watch` tells."""

    def look(self) -> None:
        """Have the files checked, if that is due, and wait for it for a moment."""

    def in_use(self) -> Status:
        """Return what is in use now."""

    def renew_locks(self) -> None:
        """Replace the locks, in a forked child."""


_watches: dict[int, weakref.ref[Watched]] = {}
_lock = threading.Lock()
_failures = 0


def watched(watch: Watched) -> None:
    """Know of a watch as long as it lives."""
    number = id(watch)
    _watches[number] = weakref.ref(watch, lambda _: _watches.pop(number, None))


def watches() -> Iterable[Watched]:
    """Return those that are alive, whatever other threads do meanwhile."""
    known = [known() for known in list(_watches.values())]
    return [watch for watch in known if watch is not None]


def failed() -> None:
    """Count that new content of files cannot be used."""
    global _failures
    with _lock:
        _failures += 1


def failures() -> int:
    """Return how often files of this process had new content that could not be used."""
    return _failures


def statuses() -> list[Status]:
    """Return the status of each watch, after a check of its files where one is due.

    Waits for a moment at most: a file system that hangs delays nobody.
    """
    found = []
    for watch in watches():
        watch.look()
        found.append(watch.in_use())
    return found


def _in_child() -> None:
    global _lock, _failures
    _lock = threading.Lock()
    _failures = 0
    for watch in watches():
        watch.renew_locks()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
