"""A future that resumes its waiting task within the current event.

asyncio would resume it in the loop's next iteration, after another poll of all sockets.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import Context
from typing import Any

__all__ = ["Wakeup"]


_resolve = asyncio.Future.set_result


class Wakeup(asyncio.Future[None]):
    """A future for one waiter. `resume` runs the waiter at once; the rest is as usual."""

    _waiter: tuple[Callable[[Any], object], Context] | None = None

    def add_done_callback(
        self, fn: Callable[[Any], object], /, *, context: Context | None = None
    ) -> None:
        """Keep the first callback with a context, the waiting task's, for `resume`."""
        if self._waiter is None and context is not None and not self.done():
            self._waiter = fn, context
        else:
            super().add_done_callback(fn, context=context)

    def resume(self) -> None:
        """Resolve, and run the waiter before returning; no task may be running.

        Does nothing once it is done, so an event may call it again.
        """
        if self.done():
            return
        waiter, self._waiter = self._waiter, None
        _resolve(self, None)  # super() costs more than the rest
        if waiter is not None:
            fn, context = waiter
            context.run(fn, self)

    def _restore_callback(self) -> None:
        if self._waiter is not None:
            fn, context = self._waiter
            self._waiter = None
            super().add_done_callback(fn, context=context)

    def set_result(self, result: None) -> None:
        """Resolve; the waiter is resumed by the loop."""
        self._restore_callback()
        super().set_result(result)

    def set_exception(self, exception: type | BaseException, /) -> None:
        """Fail; the waiter is resumed by the loop."""
        self._restore_callback()
        super().set_exception(exception)

    def cancel(self, msg: Any | None = None) -> bool:
        """Cancel; the waiter is resumed by the loop."""
        self._restore_callback()
        return super().cancel(msg)
