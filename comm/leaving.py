"""What a ``with`` block closes at its end, and which errors of blocks and handlers are failures."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Any, TypeVar

from .close_codes import CloseCode

__all__ = ["Leaving", "SyncLeaving", "end_for", "is_failure"]

_L = TypeVar("_L", bound="Leaving")
_S = TypeVar("_S", bound="SyncLeaving")

_ENDS = (KeyboardInterrupt, SystemExit, GeneratorExit)


def end_for(error: BaseException | None) -> tuple[int, str]:
    """Return the code and the reason to close with after a block that has raised `error`.

    A cancellation, or the end of the process or the event loop, is nobody's fault.
    """
    if error is not None and not isinstance(error, (asyncio.CancelledError, *_ENDS)):
        return CloseCode.HANDLER_FAILED, f"its user raised {type(error).__name__}"
    return CloseCode.NORMAL, ""


def is_failure(error: BaseException, task: asyncio.Task[Any] | None) -> bool:
    """Whether a handler that `task` ran, and that raised `error`, has failed.

    If not, the task was cancelled, or the process or the event loop ends. A handler can raise
    `CancelledError` without being cancelled, since whoever awaits a cancelled task gets it. Python
    3.10 does not tell the two apart: there it counts as a cancellation.
    """
    if isinstance(error, asyncio.CancelledError):
        cancelling = getattr(task, "cancelling", None)
        return cancelling is not None and not cancelling()
    if isinstance(error, GeneratorExit):  # raised by it, unless its coroutine is being closed
        return task is not None and asyncio.current_task(task.get_loop()) is task
    return not isinstance(error, _ENDS)


class Leaving:
    """What ``async with`` closes, with the code ``HANDLER_FAILED`` if its block raises."""

    async def close(self, code: int = CloseCode.NORMAL, reason: str = "") -> None:
        """Close, and tell the peer why."""
        raise NotImplementedError

    async def __aenter__(self: _L) -> _L:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close(*end_for(error))


class SyncLeaving:
    """The same for ``with``."""

    def close(self, code: int = CloseCode.NORMAL, reason: str = "") -> None:
        """Close, and tell the peer why."""
        raise NotImplementedError

    def __enter__(self: _S) -> _S:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close(*end_for(error))
