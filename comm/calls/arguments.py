"""Validation of what `Calls` and `ReconnectingClient` are given, before anything is sent."""

from __future__ import annotations

import contextlib
import math
import numbers
from collections.abc import Callable, Collection, Mapping
from typing import Any

from ..arguments import expect_no_generator
from ..close_codes import expect_reason, expect_sendable
from ..words import repr_of

__all__ = ["expect_codes", "expect_end", "expect_greeting", "expect_handlers", "expect_seconds"]


def expect_seconds(timeout: Any, name: str = "timeout", none: str = "no deadline") -> float:
    """Return `timeout` if it is a deadline. Raises `ValueError`, which says what None means."""
    if type(timeout) in (int, float) and 0 < timeout < 1e300:  # the usual ones, without delay
        return float(timeout)
    if isinstance(timeout, numbers.Real) and not isinstance(timeout, bool):
        with contextlib.suppress(OverflowError, TypeError):  # NumPy's durations are Real
            if 0 < (seconds := float(timeout)) < math.inf:
                return seconds
    instead = f", or None for {none}" if none else ""
    raise ValueError(f"bad {name} {repr_of(timeout)}: need seconds above 0{instead}")


def expect_handlers(handlers: Any) -> dict[str, Callable[..., Any]]:
    """Return a copy of `handlers`, empty for None, if they are such. Raises `TypeError`."""
    if handlers is None:
        return {}
    if not isinstance(handlers, Mapping):
        raise TypeError(f"bad handlers {repr_of(handlers)}: need a mapping of names to functions")
    copied = dict(handlers)
    for name, handler in copied.items():
        if not isinstance(name, str) or not callable(handler):
            raise TypeError(
                f"bad handler {repr_of(name)}: {repr_of(handler)}, need a name and a function"
            )
        expect_no_generator(f"bad handler {repr_of(name)}", handler)
    return copied


def expect_greeting(on_connect: Any) -> None:
    """Raise `TypeError` for what cannot be called with `Calls`."""
    if not (on_connect is None or callable(on_connect)):
        raise TypeError(f"bad on_connect {repr_of(on_connect)}: need a function that takes Calls")
    expect_no_generator(f"bad on_connect {repr_of(on_connect)}", on_connect)


def expect_end(code: int, reason: str, grace: float | None) -> float | None:
    """Return the grace. Raises `TypeError` or `ValueError` for what `Calls.close` cannot do."""
    expect_sendable(code)
    expect_reason(reason)
    if grace is None:
        return None
    seconds = math.nan
    if isinstance(grace, numbers.Real) and not isinstance(grace, bool):
        try:
            seconds = float(grace)
        except OverflowError:
            seconds = math.inf if grace > 0 else -math.inf
        except TypeError:  # NumPy's durations are Real
            pass
    if not seconds >= 0:
        raise ValueError(f"bad grace {repr_of(grace)}: need seconds, or None to wait for nothing")
    return seconds


def expect_codes(codes: Collection[int]) -> frozenset[int]:
    """Return `codes` if they are close codes. Raises `TypeError`."""
    try:
        several: list[Any] = list(codes)
    except TypeError:
        several = [None]
    if any(isinstance(code, bool) or not isinstance(code, int) for code in several):
        raise TypeError(f"bad final_codes {repr_of(codes)}: need close codes")
    return frozenset(map(int, several))
