"""Background checks of files: a caller waits for one for a moment at most.

Looking at a file may take any time: a network file system hangs, a CRL with a million entries takes
seconds to load. So the work is done in a thread that lives for one run of it, one run at a time. On
a local disk the run completes within the moment, and the caller uses its result; otherwise the
previous one. After one caller has waited in vain, none waits again for the same run. The thread is
a daemon: a hanging file system keeps no process from exiting.
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

#: Seconds. Checking four unchanged files takes 0.2 ms with its thread, and building contexts from
#: new ones 5 ms; so this leaves room for a busy machine, and a caller that waits in vain for a
#: hanging file system loses no more than this, once.
PATIENCE = 0.05


class _Run:
    """One run of the work. `slow` once a caller has waited for it in vain."""

    def __init__(self) -> None:
        self.done = threading.Event()
        self.slow = False


class Background:
    """Runs `work` in a thread while `is_due` returns true. Thread-safe and fork-safe."""

    def __init__(self, work: Callable[[], object], is_due: Callable[[], bool]) -> None:
        self._work = work
        self._is_due = is_due
        self.forget()
        _all.add(self)

    def forget(self) -> None:
        """Reset: in a forked child the thread is gone, and may have held the lock."""
        self._lock = threading.Lock()
        self._run: _Run | None = None

    def look(self, patience: float) -> None:
        """Run the work if it is due, and wait for it for `patience` seconds."""
        deadline = time.monotonic() + patience
        while self._is_due():
            run, own = self._started()
            if run.slow or not run.done.wait(max(0.0, deadline - time.monotonic())):
                run.slow = True
                return
            if own:
                return  # a run that began earlier may have seen the previous files

    def begin(self) -> None:
        """Run the work if it is due, and wait for nothing."""
        if self._is_due():
            self._started()

    def _started(self) -> tuple[_Run, bool]:
        """Return the current run, and whether the caller has started it."""
        with self._lock:
            if self._run is not None and not self._run.done.is_set():
                return self._run, False
            run = self._run = _Run()
        thread = threading.Thread(target=self._do, args=(run,), name="sealwire-look", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # no thread can be started: better later than never
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
