"""The side of a call that makes it: numbers, deadlines, replies that are awaited.

What arrives is given to it by `calls.Calls`, which is the public class.
"""

from __future__ import annotations

import asyncio
import time
from threading import get_ident
from typing import Any

from ..errors import CommClosedError, EncodeError
from ..interfaces import Comm
from ..words import repr_of
from .arguments import expect_seconds
from .envelopes import CANCEL, FAR, NOTIFICATION, PING, REQUEST
from .errors import CallError, at_argument, late, lost
from .outlet import Deadlines, Outlet, Turns

__all__ = ["Caller"]

_NUMBERS = frozenset({int, float})
_SOON = 1e-6  # seconds that a request says are left, at least


class Caller:
    """The part of `Calls` that calls the peer."""

    def __init__(self, comm: Comm, max_pending: int) -> None:
        self.comm = comm
        self._loop = asyncio.get_running_loop()
        self._thread = get_ident()
        self._peer = comm.peer_address
        self._outlet = Outlet(comm)
        self._max_pending = max_pending
        self._number = 0
        self._pending: dict[int, asyncio.Future[Any]] = {}
        self._pings: dict[int, asyncio.Future[Any]] = {}
        self._deadlines = Deadlines(self._pending, self._expire)
        self._turns = Turns(self._is_full)
        self._outlet.when_drained(self._turns.next)
        self._failure: CommClosedError | None = None

    async def call(
        self, method: str, /, *args: Any, timeout: float | None = None, **kwargs: Any
    ) -> Any:
        """Call a method of the other side, and return what it returns.

        Parameters
        ----------
        method : str
            The name of one of its handlers.
        *args, **kwargs
            Its arguments, as for `Comm.write`. Buffers in them must not be changed until the call
            has ended, or for longer if it is given up. One named ``timeout`` goes by position.
        timeout : float, optional
            Seconds until the call is given up, here and there; without it, a call may take for
            ever.

        Returns
        -------
        object
            What the handler has returned, as from `Comm.read`.

        Raises
        ------
        CallRefused
            If the other side has not run it.
        CallTimeout
            If the deadline has passed.
        CallLost
            If the comm has ended.
        RemoteError
            If the handler raised; an error of a registered class arrives as such.
        EncodeError, MessageTooLarge
            If the arguments cannot be sent; nothing was.
        TypeError, ValueError
            For a method that is not text, and a timeout that is no positive number of seconds.
        RuntimeError
            In another thread or event loop than the comm's.

        Notes
        -----
        A cancelled call cancels its handler, as an expired one does, and drops a reply that is on
        its way; what the handler has done by then stays done. One that was still waiting because
        of `max_pending`, or because the peer does not read, was never sent.
        """
        loop, outlet, pending = self._loop, self._outlet, self._pending
        if get_ident() != self._thread or not loop.is_running():
            raise self._elsewhere()
        method = method if type(method) is str else _name(method)
        left = deadline = None
        if timeout is not None:
            usual = type(timeout) in _NUMBERS and 0 < timeout < FAR
            timeout = left = float(timeout) if usual else expect_seconds(timeout)
            deadline = loop.time() + left
        if self._turns.waiting or outlet.full or len(pending) >= self._max_pending:
            await self._turn(method, timeout, deadline)
            if deadline is not None:
                left = max(_SOON, deadline - loop.time())
        number = self._number = self._number + 1
        try:
            if not outlet.send([REQUEST, number, method, left, kwargs or None, *args]):
                outlet.fill()
        except EncodeError as error:
            at_argument(error, 5)
            raise
        except CommClosedError as failure:
            raise self._not_sent(method, failure) from None
        future = pending[number] = loop.create_future()
        if deadline is not None:
            self._deadlines.add(deadline, number, timeout or 0)
        try:
            return await future
        except BaseException as error:
            if isinstance(error, CallError):
                error.named(method)
            if pending.pop(number, None) is not None and loop.is_running():
                self._outlet.put([CANCEL, number])
                self._turns.next()
            raise

    async def notify(self, method: str, /, *args: Any, **kwargs: Any) -> None:
        """Call a method of the other side without a reply.

        Nobody learns whether it has arrived, was run or failed; the other side logs errors.

        Parameters
        ----------
        method, *args, **kwargs
            As for `call`. Buffers must not be changed before the comm's `Comm.drain`.

        Raises
        ------
        CallLost
            If the comm has ended before.
        EncodeError, MessageTooLarge, TypeError, RuntimeError
            As from `call`.

        Notes
        -----
        Returns once the message is queued, and waits only while the peer does not read. A call that
        is cancelled there has sent nothing.
        """
        self._expect_here()
        method = method if type(method) is str else _name(method)
        while self._outlet.full and self._failure is None:
            await self._outlet.drained()
        try:
            if not self._outlet.send([NOTIFICATION, method, kwargs or None, *args]):
                self._outlet.fill()
        except EncodeError as error:
            at_argument(error, 3)
            raise
        except CommClosedError as failure:
            raise self._not_sent(method, failure) from None

    async def ping(self, timeout: float | None = None) -> float:
        """Measure a round trip to the other side's event loop; no handler is waited for.

        Parameters
        ----------
        timeout : float, optional
            Seconds to wait for the answer; for ever without it.

        Returns
        -------
        float
            Seconds.

        Raises
        ------
        CallTimeout, CallLost, ValueError, RuntimeError
            As from `call`.

        Notes
        -----
        A cancelled ping changes nothing; its answer is dropped.
        """
        self._expect_here()
        self._expect_replies("ping")
        timer = None
        start = time.perf_counter()
        number = self._number = self._number + 1
        future = self._loop.create_future()
        if timeout is not None:
            timeout = expect_seconds(timeout)
            timer = self._loop.call_later(timeout, self._ping_late, number, timeout)
        self._pings[number] = future
        try:
            if not self._outlet.send([PING, number]):
                self._outlet.fill()
            await future
            return time.perf_counter() - start
        except CallError as error:
            error.named("ping")
            raise
        except CommClosedError as failure:
            raise self._not_sent("ping", failure) from None
        finally:
            self._pings.pop(number, None)
            if timer is not None:
                timer.cancel()

    def _expect_here(self) -> None:
        """Raise unless called in our event loop. Asking asyncio for it costs a system call."""
        if get_ident() != self._thread or not self._loop.is_running():
            raise self._elsewhere()

    def _elsewhere(self) -> RuntimeError:
        return RuntimeError(
            f"cannot call {self._peer} outside the event loop of its comm; use "
            f"asyncio.run_coroutine_threadsafe(calls.call(…), loop) in other threads"
        )

    async def _turn(self, method: str, timeout: float | None, deadline: float | None) -> None:
        """Wait until another call may be sent."""
        try:
            await self._turns.wait(deadline, lambda: late(self._peer, timeout or 0, sent=False))
        except CallError as error:
            error.named(method)
            raise
        self._expect_replies(method)

    def _expect_replies(self, method: str) -> None:
        """Raise `CallLost` once nothing is read any more."""
        if self._failure is not None:
            error = lost(self._peer, self._failure, sent=False)
            error.named(method)
            raise error

    def _is_full(self) -> bool:
        return self._outlet.full or len(self._pending) >= self._max_pending

    def _not_sent(self, method: str, failure: CommClosedError) -> Exception:
        """Return the error for a message that could not be sent."""
        if not self.comm.closed():
            return failure  # `MessageTooLarge`
        error = lost(self._peer, self._failure or failure, sent=False)
        error.named(method)
        return error

    def _expire(self, number: int, seconds: float) -> None:
        future = self._pending[number]
        if not future.done():
            future.set_exception(late(self._peer, seconds, sent=True))

    def _ping_late(self, number: int, seconds: float) -> None:
        future = self._pings[number]
        if not future.done():
            future.set_exception(late(self._peer, seconds, sent=True))


def _name(method: object) -> str:
    """Return the text of a subclass of str, such as an Enum's. Raises `TypeError`."""
    if isinstance(method, str):
        return str.__str__(method)
    raise TypeError(f"cannot call {repr_of(method)}: need the name of a method")
