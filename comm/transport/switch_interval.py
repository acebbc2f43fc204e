"""The interpreter's switch interval, lowered while an event loop is doing I/O.

A loop that shares its process with a computing thread must reacquire the GIL after every system
call and every TLS record of 16 KiB, and each time waits for the switch interval: 5 ms by default.
This slows TLS down to a few MB/s and a round trip to 10 ms. What counts is the interval when the
*waiting* thread starts to wait, so it is lowered from the first event on until the loop has had no
I/O for a moment.

The price is paid where several threads run Python code at once: they too switch at the lower
interval. So the old interval is restored whenever the loop is idle or is shut down.

`configure` sets the policy of the process. Threads, loops and nested use are counted together: the
old interval is restored when the last loop becomes idle.
"""

from __future__ import annotations

import asyncio
import numbers
import os
import sys
import threading
import weakref
from collections.abc import AsyncGenerator
from typing import NamedTuple

from .. import statistics
from ..words import repr_of

__all__ = ["Guard", "Policy", "configure", "guard_of", "policy"]


class Policy(NamedTuple):
    """When the switch interval is lowered, and how far. Times in seconds."""

    interval: float | None = 50e-6
    """The interval while a loop is doing I/O; None leaves it alone. Below 50 us the granularity of
    the system's timers dominates on Linux: threads switch more often, and loops gain little."""

    linger: float = 5e-3
    """How long, up to twice this, a loop counts as busy after its last I/O. Long enough for the
    answer to a request; an idle comm costs nothing."""

    hold_tls: bool = True
    """Whether large frames are received over TLS with the GIL held, where possible; see
    `records`. Applies to connections opened from now on."""


_policy = Policy()
# The collector may free a loop, and so end its claim, anywhere below: in the thread that holds the
# lock, too. So the lock is reentrant, and each step leaves the set and the interval in order.
_lock = threading.RLock()
_holders: set[_Hold] = set()  # loops doing I/O
_saved = 0.0  # the interval to restore
_lowered = 0  # the interval we set, in microseconds; 0 once it is restored


def policy() -> Policy:
    """Return the current policy."""
    return _policy


def configure(
    interval: float | None = Policy().interval,
    linger: float = Policy().linger,
    hold_tls: bool = Policy().hold_tls,
) -> None:
    """Set how event loops of this process get the GIL from threads that compute while comms do I/O.

    A loop that shares its process with a computing thread waits for the switch interval (5 ms by
    default) whenever it needs the GIL. The interval is therefore lowered during I/O, and the GIL is
    not given up for each record received over TLS.

    Parameters
    ----------
    interval : float or None, default 50e-6
        Switch interval in seconds while a loop is doing I/O; None leaves it alone.
    linger : float, default 5e-3
        Seconds, up to twice this, that a loop counts as busy after its last I/O.
    hold_tls : bool, default True
        Receive large frames over TLS with the GIL held, 0.4 ms at a time, where this Python and
        its OpenSSL are known to allow it. ``Comm.extra_info["holds_gil"]`` tells whether
        a connection does.

    Raises
    ------
    TypeError
        For times that are no numbers, and for a `hold_tls` that is no bool.
    ValueError
        Unless `interval` is positive and at most one second, and `linger` positive and below an
        hour.

    Notes
    -----
    Takes effect with the next I/O of each comm, `hold_tls` with the next connection. See
    `sys.setswitchinterval`.
    """
    global _policy
    for name, value in (("interval", interval), ("linger", linger)):
        number = isinstance(value, numbers.Real) and not isinstance(value, bool)
        if not number and (value is not None or name == "linger"):
            raise TypeError(
                f"configure_gil() got {name}={repr_of(value)}: need a number of seconds"
            )
    if not isinstance(hold_tls, bool):
        raise TypeError(f"configure_gil() got hold_tls={repr_of(hold_tls)}: need True or False")
    if interval is not None and not 0 < interval <= 1:
        raise ValueError(
            f"bad switch interval {repr_of(interval)}: need seconds above 0 and at most 1, or "
            f"None; leave it out for {Policy().interval}"
        )
    if not 0 < linger < 3600:
        raise ValueError(
            f"bad linger {repr_of(linger)}: need seconds above 0 and below 3600; "
            f"leave it out for {Policy().linger}"
        )
    _policy = Policy(interval, linger, hold_tls)


def _microseconds() -> int:
    return round(sys.getswitchinterval() * 1e6)


class _Hold:
    """One loop's claim to the lower interval; separate from its guard, which it may outlive."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = weakref.ref(loop)

    def dead(self) -> bool:
        loop = self._loop()
        return loop is None or loop.is_closed()

    def take(self, interval: float) -> None:
        global _saved, _lowered
        with _lock:
            for hold in list(_holders):
                if hold.dead():
                    hold.release()
            alone = not _holders
            _holders.add(self)  # from here on no other's end restores the interval
            if alone or _microseconds() != _lowered:  # or somebody else has set it
                _saved = sys.getswitchinterval()
                sys.setswitchinterval(min(interval, _saved))
                _lowered = _microseconds()

    def release(self) -> None:
        global _lowered
        with _lock:
            _holders.discard(self)
            if not _holders:
                if _microseconds() == _lowered:  # else somebody else has set it, or it is restored
                    sys.setswitchinterval(_saved)
                _lowered = 0


def _after_fork() -> None:
    """Forget the loops, which run in the parent only."""
    global _lock
    _lock = threading.RLock()
    if _holders:
        _holders.clear()
        sys.setswitchinterval(_saved)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class Guard:
    """Lowers and restores the interval for one loop; not thread-safe.

    Attributes
    ----------
    active : bool
        Whether the loop counts as busy.
    recent : bool
        Whether there was I/O since the last check.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.active = False
        self.recent = False
        self._loop = weakref.ref(loop)
        self._hold = _Hold(loop)
        self._end: AsyncGenerator[None, None] | None = None
        self._over = False
        self._due = 0.0  # when the next check is
        weakref.finalize(loop, self._hold.release).atexit = False

    def touch(self) -> None:
        """Note that the loop is doing I/O."""
        self.recent = True
        if not self.active:
            self.begin()

    def begin(self) -> None:
        """Lower the interval for a loop that was idle."""
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
        self._wait(loop, linger)

    def _wait(self, loop: asyncio.AbstractEventLoop, linger: float) -> None:
        self._due = loop.time() + linger
        loop.call_later(linger, self._check)

    def _check(self) -> None:
        loop = self._loop()
        if loop is not None:
            statistics.held(loop.time() - self._due)
        if self.recent and self.active and loop is not None:
            self.recent = False
            self._wait(loop, _policy.linger)
        else:
            self.end()

    def end(self) -> None:
        """Restore the interval: the loop is idle or shut down."""
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
    """Return the guard of `loop`, always the same object."""
    found = _guards.get(loop)
    if found is None:
        found = _guards[loop] = Guard(loop)
    return found
