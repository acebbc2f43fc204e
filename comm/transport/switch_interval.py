"""The interpreter's switch interval, lowered while an event loop has I/O in hand.

A loop that shares its process with a computing thread must win the GIL back after every system call
and every TLS record of 16 KiB, and each time waits out the switch interval: 5 ms by default. That
holds TLS down to a few MB/s and a round trip to 10 ms. What counts is the interval in force when
the *waiting* thread begins to wait, so it is lowered from the first event on until the loop has
been without I/O for a moment.

The price is paid where several threads compute in Python at once: they too then take turns at the
lower interval. So an idle loop always gives the old interval back, as does one that is shut down.

`configure` sets the policy of the process. Threads, loops and nested use are counted together: the
interval that was in force comes back when the last loop falls idle.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import weakref
from collections.abc import AsyncGenerator
from typing import NamedTuple

__all__ = ["Guard", "Policy", "configure", "guard_of", "policy"]


class Policy(NamedTuple):
    """When the switch interval is lowered, and how far. Times in seconds."""

    interval: float | None = 10e-6
    """In force while a loop has I/O in hand. None: the interval is never touched. Below 50 us the
    granularity of the system's timers rules on Linux."""

    linger: float = 5e-3
    """How long after its last I/O a loop still counts as busy: up to twice this. Long enough for
    the answer to a request; a comm that is only kept open costs nothing."""

    hold_tls: bool = True
    """Whether large frames over TLS are received with the GIL held, where that can be had; see
    `records`. Of connections that are opened from now on."""


_policy = Policy()
_lock = threading.Lock()
_holders: set[_Hold] = set()  # loops with I/O in hand
_saved = 0.0  # what to restore
_lowered = 0  # what we set, in microseconds


def policy() -> Policy:
    """The policy in force."""
    return _policy


def configure(
    interval: float | None = Policy().interval,
    linger: float = Policy().linger,
    hold_tls: bool = Policy().hold_tls,
) -> None:
    """Set the policy of this process, for every comm in it, from its next I/O on.

    With `hold_tls`, large frames over TLS are received with the GIL held, half a millisecond at a
    time, where this Python and its OpenSSL are known to allow it; that counts for connections that
    are opened from now on. Raises `ValueError` for a time that is not positive, or an interval
    above one second.
    """
    global _policy
    if interval is not None and not 0 < interval <= 1:
        raise ValueError(
            f"bad switch interval {interval!r}: need seconds above 0 and at most 1, or None; "
            f"leave it out for {Policy().interval}"
        )
    if not 0 < linger < 3600:
        raise ValueError(
            f"bad linger {linger!r}: need seconds above 0 and below 3600; "
            f"leave it out for {Policy().linger}"
        )
    _policy = Policy(interval, linger, bool(hold_tls))


def _microseconds() -> int:
    return round(sys.getswitchinterval() * 1e6)


class _Hold:
    """What keeps the interval down for one loop; apart from its guard, so as to outlive it."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = weakref.ref(loop)

    def dead(self) -> bool:
        loop = self._loop()
        return loop is None or loop.is_closed()

    def take(self, interval: float) -> None:
        global _saved, _lowered
        with _lock:
            _holders.difference_update([hold for hold in _holders if hold.dead()])
            if not _holders or _microseconds() != _lowered:  # or somebody has set it since
                _saved = sys.getswitchinterval()
                sys.setswitchinterval(min(interval, _saved))
                _lowered = _microseconds()
            _holders.add(self)

    def release(self) -> None:
        with _lock:
            if self in _holders:
                _holders.remove(self)
                if not _holders and _microseconds() == _lowered:  # else it is somebody else's now
                    sys.setswitchinterval(_saved)


def _after_fork() -> None:
    """The loops stayed behind in the parent."""
    global _lock
    _lock = threading.Lock()
    if _holders:
        _holders.clear()
        sys.setswitchinterval(_saved)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class Guard:
    """What one loop has to do with the interval. Use it in the loop's thread only.

    Attributes
    ----------
    active : bool
        The loop counts as busy.
    recent : bool
        There was I/O since the last look.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.active = False
        self.recent = False
        self._loop = weakref.ref(loop)
        self._hold = _Hold(loop)
        self._end: AsyncGenerator[None, None] | None = None
        self._over = False
        weakref.finalize(loop, self._hold.release).atexit = False

    def touch(self) -> None:
        """The loop has I/O in hand."""
        self.recent = True
        if not self.active:
            self.begin()

    def begin(self) -> None:
        """It was idle, and has I/O in hand now."""
        loop = self._loop()
        interval, linger, _ = _policy
        if interval is None or loop is None or self._over:
            return
        if self._end is None:  # closed by loop.shutdown_asyncgens, which asyncio.run calls
            self._end = self._at_shutdown()
            try:
                self._end.__anext__().send(None)
            except StopIteration:
                pass
        self.active = True
        self._hold.take(interval)
        loop.call_later(linger, self._look)

    def _look(self) -> None:
        loop = self._loop()
        if self.recent and self.active and loop is not None:
            self.recent = False
            loop.call_later(_policy.linger, self._look)
        else:
            self.end()

    def end(self) -> None:
        """The loop is idle, or has nothing left to be busy with."""
        self.active = False
        self._hold.release()

    async def _at_shutdown(self) -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            self._over = True
            self.end()


_guards: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Guard] = weakref.WeakKeyDictionary()


def guard_of(loop: asyncio.AbstractEventLoop) -> Guard:
    """The guard of `loop`, always the same one."""
    found = _guards.get(loop)
    if found is None:
        found = _guards[loop] = Guard(loop)
    return found
