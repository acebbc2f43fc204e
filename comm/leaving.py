"""What a ``with`` block closes at its end: an error of the block is the reason."""

from __future__ import annotations

from types import TracebackType
from typing import TypeVar

from .close_codes import CloseCode

__all__ = ["Leaving", "SyncLeaving", "end_for"]

_L = TypeVar("_L", bound="Leaving")
_S = TypeVar("_S", bound="SyncLeaving")


def end_for(error: BaseException | None) -> tuple[int, str]:
    """Return the code and the reason to close with after a block that has raised `error`.

    An error that is no `Exception`, such as a cancellation, is nobody's fault.
    """
    if isinstance(error, Exception):
        return CloseCode.HANDLER_FAILED, f"its user raised {type(error).__name__}"
    return CloseCode.NORMAL, ""


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
