"""What is final is said, and tried again slowly: Dask's own loops do neither.

A worker that cannot join its scheduler dials nine times a second for ever, whatever the cause, and
its log has nothing of it. Each attempt is a handshake for a scheduler that may have a thousand such
workers to refuse.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import random
import time
from collections.abc import Callable
from typing import Any

from distributed.comm.core import CommClosedError, FatalCommClosedError

__all__ = ["forget", "is_final", "patient", "tell"]

logger = logging.getLogger("sealwire.dask_backend")

_PERIOD = 60.0  # seconds between two lines on the same cause at the same address
_MOST = 1000  # causes that are kept
_FIRST_PAUSE = 0.5  # seconds
_LONGEST_PAUSE = 30.0

_told: dict[tuple[str, str], float] = {}  # address and cause -> when, the oldest first
_pauses: dict[str, float] = {}  # address -> the next pause


def forget() -> None:
    """Let go of what was told, and begin with short pauses."""
    _told.clear()
    _pauses.clear()


def is_final(error: BaseException) -> bool:
    """Whether another attempt ends as this one did, unless somebody changes something."""
    return isinstance(error, FatalCommClosedError) and not getattr(
        error.__cause__, "retryable", False
    )


def tell(address: str, cause: str, words: str) -> None:
    """Log a final refusal as a warning, once a minute for each address and cause."""
    now = time.monotonic()
    key = address, cause
    if now - _told.get(key, -_PERIOD) < _PERIOD:
        return
    _told.pop(key, None)
    _told[key] = now
    while len(_told) > _MOST:
        del _told[next(iter(_told))]
    logger.warning("%s", words)


def patient(original: Callable[..., Any]) -> Callable[..., Any]:
    """`connect`, as a worker calls it until it has joined: a final refusal returns after a pause.

    The pause grows up to half a minute, and is forgotten as soon as something else happens, such
    as a scheduler that is gone: then its worker dials as often as before, and says what for.
    """

    @functools.wraps(original)
    async def connect(addr: str, *args: Any, **kwargs: Any) -> Any:
        try:
            comm = await original(addr, *args, **kwargs)
        except OSError as error:
            if not is_final(error):
                _pauses.pop(addr, None)
                tell(addr, "passing", _words(addr, error))
                raise
            longest = _pauses.get(addr, _FIRST_PAUSE)
            if len(_pauses) < _MOST:
                _pauses[addr] = min(2 * longest, _LONGEST_PAUSE)
            await asyncio.sleep(random.uniform(longest / 2, longest))
            raise
        _pauses.pop(addr, None)
        return comm

    return connect


def _words(address: str, error: OSError) -> str:
    """Return why an attempt failed that was not final; the last cause is what it is raised from."""
    cause = str(error.__cause__ if isinstance(error.__cause__, CommClosedError) else error)
    why = cause.removeprefix(f"cannot connect to {address}: ")
    return f"cannot connect to {address} yet: {why}"
