"""When a reconnecting client tries again, and after which errors it gives up.

Attempts are made after a random pause below a bound that doubles from `backoff` to `backoff_cap`
("full jitter"), so that the clients of a server that was restarted do not all come at once. The
bound is `backoff` again once a session has lasted longer than the bound before it.

An error that is not `retryable`, such as `HandshakeError`, is final before the first session: the
address or the certificates are wrong. They were right if there has been one; then something else
may answer while the server is replaced, and only an answer that stays so for `patience` is final.
"""

from __future__ import annotations

import asyncio
import logging
import random

from ..close_codes import CloseCode
from ..errors import CommError
from ..words import words_of
from .errors import CallRefused, CallTimeout

__all__ = ["POISON", "Attempts", "again", "given_up", "left_of", "may_pass"]

logger = logging.getLogger("sealwire.comm")

#: Close codes after which a call may be the reason: it is not sent again.
POISON = frozenset(
    {
        CloseCode.PROTOCOL_ERROR,
        CloseCode.UNKNOWN_TYPE,
        CloseCode.BAD_MESSAGE,
        CloseCode.TOO_LARGE,
    }
)
_TRANSIENT = frozenset({"overloaded", "stopping"})


def may_pass(error: CallTimeout | CallRefused | CommError) -> bool:
    """Whether a greeting that has failed with `error` may succeed in another session."""
    if isinstance(error, CallRefused):
        return error.kind in _TRANSIENT
    return isinstance(error, CallTimeout) or error.retryable


def given_up(address: str, error: BaseException) -> Exception:
    """Log why a client gives up; return what those who wait for a session are to raise."""
    why = words_of(error) or type(error).__name__
    logger.error("no session with %s, and none will be tried: %s", address, why)
    if isinstance(error, Exception):
        return error
    told = RuntimeError(f"no session with {address}: on_connect raised {why}")  # not they
    told.__cause__ = error
    return told


def left_of(deadline: float | None, loop: asyncio.AbstractEventLoop) -> float | None:
    """Return the seconds until a deadline, which may have passed, for another wait."""
    return None if deadline is None else max(1e-6, deadline - loop.time())


def again(error: Exception) -> Exception:
    """Return `error` for another caller: raising the same one twice mixes tracebacks."""
    return error.again() if isinstance(error, CommError) else error


class Attempts:
    """The attempts of one client to connect; times are in seconds."""

    def __init__(self, address: str, backoff: float, backoff_cap: float, patience: float) -> None:
        self._address = address
        self._backoff = self._bound = backoff
        self._cap = max(backoff, backoff_cap)
        self._patience = patience
        self._loop = asyncio.get_running_loop()
        self._began = self._loop.time()  # the present attempt
        self._known = False  # whether there has been a session
        self._doubted: float | None = None  # since when the answers are none of our server

    def succeeded(self) -> None:
        """Note that there is a session."""
        self._known, self._doubted = True, None

    def ended(self) -> None:
        """Note that it has ended."""
        if self._loop.time() - self._began > self._bound:
            self._bound = self._backoff

    def failed(self, error: CommError) -> bool:
        """Note that an attempt has failed; return whether it was the last one."""
        if error.retryable:
            self._doubted = None
            return False
        if not self._known:
            return True
        now = self._loop.time()
        if self._doubted is None:
            self._doubted = now
            logger.warning(
                "no session with %s any more: %s; trying again for %g s",
                self._address,
                error,
                self._patience,
            )
        return now - self._doubted >= self._patience

    async def pause(self) -> None:
        """Wait until the next attempt may be made."""
        await asyncio.sleep(random.uniform(0, self._bound))
        self._bound = min(self._cap, 2 * self._bound)
        self._began = self._loop.time()
