"""Ctrl-C and SIGTERM, turned into one exception that cannot interrupt a clean-up.

The first signal raises `Interrupted` in the main thread. Later ones do nothing: by then the
clean-up runs, whose waits are bounded. Inside `held()` even the first one is deferred to the end of
the block, so that no child process is lost right after it was started.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

WATCHED = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)


class Interrupted(KeyboardInterrupt):
    """The process was asked to end. `exit_code` is the shell's: 128 and the signal's number."""

    def __init__(self, signum: int) -> None:
        super().__init__(f"interrupted by {signal.Signals(signum).name}")
        self.exit_code = 128 + signum


class Signals:
    """A context manager, for the main thread, in which signals raise `Interrupted`.

    Once when they arrive, and again at the end of the context if the exception was swallowed.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._holding = False
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Signals:
        for signum in WATCHED:
            self._previous[signum] = signal.signal(signum, self._handle)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for signum, handler in self._previous.items():
            signal.signal(signum, handler)
        if self.received is not None and kind is None:
            raise Interrupted(self.received)

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        if self.received is None:
            self.received = signum
            if not self._holding:
                raise Interrupted(signum)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Defer a first signal to the end of the block. Not to be nested."""
        before = self.received
        self._holding = True
        try:
            yield
        finally:
            self._holding = False
        if before is None and self.received is not None:
            raise Interrupted(self.received)
