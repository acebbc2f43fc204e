"""Looks at files, away from the event loop: who needs one waits a moment for it and no longer.

To look at a file may take any time: a network file system hangs, a list of a million revocations
takes seconds to load. So the work is done in a thread that lives as long as one run of it, one run
at a time. On a local disk it is done before the moment is over, and the caller goes on with what
it brought; else with what there was before. Where one has waited in vain nobody waits again for
the same run. The thread is a daemon: a file system that hangs keeps no process from ending.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from collections.abc import Callable

__all__ = ["PATIENCE", "Background"]

logger = logging.getLogger("sealwire.security")

#: Seconds. A look at four unchanged files takes 0.2 ms with its thread, and one that finds new
#: ones and builds contexts of them 5 ms; so a busy machine has room, and who waits in vain for a
#: file system that hangs loses no more than this, once.
PATIENCE = 0.05


class _Run:
    """One run of the work. `slow` once somebody has waited for it in vain."""

    def __init__(self) -> None:
        self.done = threading.Event()
        self.slow = False


class Background:
    """Does `work` in a thread while `is_due` says so. Safe for several threads, and for `fork`."""

    def __init__(self, work: Callable[[], object], is_due: Callable[[], bool]) -> None:
        self._work = work
        self._is_due = is_due
        self.forget()
        _all.add(self)

    def forget(self) -> None:
        """Start afresh: in a forked child the thread is gone, and may have held the lock."""
        self._lock = threading.Lock()
        self._run: _Run | None = None

    def look(self) -> None:
        """Have the work done if it is due: in time for the caller, if that takes but a moment."""
        deadline = time.monotonic() + PATIENCE
        while self._is_due():
            run, own = self._started()
            if run.slow or not run.done.wait(max(0.0, deadline - time.monotonic())):
                run.slow = True
                return
            if own:
                return  # one that was under way before may have seen the files of before

    def _started(self) -> tuple[_Run, bool]:
        """The run that is under way; whether it is the caller's own, begun just now."""
        with self._lock:
            if self._run is not None and not self._run.done.is_set():
                return self._run, False
            run = self._run = _Run()
        thread = threading.Thread(target=self._do, args=(run,), name="sealwire-look", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # no thread is to be had: better late than never
            self._do(run)
        return run, True

    def _do(self, run: _Run) -> None:
        try:
            self._work()
        except Exception:
            logger.exception("cannot look whether files of certificates have changed")
        finally:
            run.done.set()


_all: weakref.WeakSet[Background] = weakref.WeakSet()


def _forget_all() -> None:
    for each in list(_all):
        each.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all)
