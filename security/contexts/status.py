"""What the TLS contexts of this process are made of now, for those who watch it from outside.

Each `reloading.Watch` is known here by a weak reference, so that nothing here keeps a key alive.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple, Protocol

__all__ = ["Kind", "Status", "failed", "failures", "outdated", "statuses", "watched", "watches"]

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
    outdated : bool
        Whether the files have other content by now, which cannot be used.
    """

    role: str | None
    not_after: Mapping[Kind, float]
    loaded: float
    outdated: bool = False


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
    """Count an attempt to use new content of files that has failed."""
    global _failures
    with _lock:
        _failures += 1


def failures() -> int:
    """Return how many attempts to use new content of files have failed in this process."""
    return _failures


def outdated() -> list[str]:
    """Return the roles whose files have content that cannot be used, as far as that is known.

    Nothing is read on account of this.
    """
    known = [watch.in_use() for watch in watches()]
    return sorted({each.role or "" for each in known if each.outdated})


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
