"""Request and reply over one comm: many calls at once, in both directions.

`Calls` owns the comm: it is the only one that reads from it, until the comm ends. What the peer
calls is run by `handlers`; `errors` are the errors of a call, `envelopes` what
travels. A deadline travels as the seconds that remain, so the clocks of the two sides need not
agree, and is kept by both. Giving up a call, by cancellation or its deadline, cancels its handler.

A call costs a future. A message that is no part of a call ends
the comm with the code ``PROTOCOL_ERROR``.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from ..close_codes import CloseCode
from ..errors import CommBusy, CommClosedError
from ..interfaces import Comm
from ..leaving import Leaving
from ..transport.wakeup import begin_later, resume
from ..words import repr_of, words_of
from .arguments import expect_end, expect_handlers, expect_seconds
from .caller import Caller
from .envelopes import (
    CANCEL,
    NOTIFICATION,
    PING,
    PONG,
    REFUSAL,
    REQUEST,
    RESPONSE,
    Violation,
    number_of,
    shown,
)
from .errors import CallError, CallTimeout, lost, refused, revive
from .handlers import Handling

__all__ = ["Calls"]

logger = logging.getLogger("sealwire.comm")

_LOOK = 0.1  # seconds between two looks at whether a comm that is not read any more has ended


class Calls(Caller, Leaving):
    """Calls in both directions over a comm, which is read by nobody else from then on.

    Closed by `close`, by leaving ``async with``, or with the comm. Must be made in a running loop,
    the comm's. The counterpart in Dask is `distributed.core.rpc` with the handlers of a
    `distributed.core.Server`.

    Parameters
    ----------
    comm : Comm
        An open one; it is read by nobody else from then on, and closed with the calls.
    handlers : mapping of str to callable, optional
        What the peer may call: functions, which must return at once, and coroutine functions. They
        are called with the arguments of the call. What they return, or raise, is the reply; it
        must not be changed before it was sent. An error of a class that is not registered
        (`register_error`) is logged here as well, with its traceback.
    max_pending : int, default 1024
        Calls of ours that may await replies at once; further ones wait.
    max_running : int, default 128
        Coroutine functions that run at once for the peer. One that waits for a call of its own to
        the peer counts, so handlers that call each other in both directions can stand still until
        their deadlines, each side waiting for the other. After 10 seconds a warning says so.
    max_waiting : int, default 1024
        Requests of the peer that may wait for that; further ones are refused as ``"overloaded"``.
    ping_interval : float, optional
        Seconds between two pings; the comm is aborted if one has no answer for as long. Without it
        a peer whose process is stopped goes unnoticed; one whose machine has gone does not.

    Attributes
    ----------
    comm : Comm

    Raises
    ------
    TypeError, ValueError
        For a comm or handlers that are none, a bound below 1, and a `ping_interval` that is no
        positive number of seconds.
    CommBusy
        If other `Calls` read from the comm.
    RuntimeError
        Without a running event loop.

    Examples
    --------
    ::

        async def serve(comm):  # the handler of a listener
            async with Calls(comm, {"add": lambda a, b: a + b}) as calls:
                await calls.serve()

        async with Calls(await connect(address)) as calls:
            print(await calls.call("add", 1, 2, timeout=5))
    """

    def __init__(
        self,
        comm: Comm,
        handlers: Mapping[str, Callable[..., Any]] | None = None,
        *,
        max_pending: int = 1024,
        max_running: int = 128,
        max_waiting: int = 1024,
        ping_interval: float | None = None,
    ) -> None:
        bounds = {
            "max_pending": max_pending,
            "max_running": max_running,
            "max_waiting": max_waiting,
        }
        handlers = expect_handlers(handlers)
        _check(comm, bounds)
        pause = None
        if ping_interval is not None:
            pause = expect_seconds(ping_interval, "ping_interval", "no pings")
        super().__init__(comm, max_pending)
        self._handling = Handling(
            comm, self._outlet, handlers, max_running, max_waiting, self._pending
        )
        self._arrived: deque[tuple[asyncio.Future[Any], Any]] = deque()
        self._goodbye: tuple[int, str] | None = None  # of the listener, once it closes
        self._leaving: asyncio.Task[None] | None = None  # and what closes for it
        self._reader = begin_later(self._loop, self._read())
        self._pinging: asyncio.Task[None] | None = None
        if pause is not None:
            self._pinging = begin_later(self._loop, self._keep_pinging(pause))
        comm._leave = self._leave

    # Reading

    async def _read(self) -> None:
        comm = self.comm
        read, take = comm.read, self._take
        try:
            while True:
                take(await read())
        except CommClosedError as error:
            if error.closed_by == "us" and not comm.closed():
                await self._outlast(error)
            self._end(error)
        except Violation as error:
            logger.warning("comm with %s closed: got %s, which is no call", self._peer, error)
            reason = f"got {error}, which is no call"
            closing = self._loop.create_task(comm.close(CloseCode.PROTOCOL_ERROR, reason))
            await asyncio.sleep(0)  # it has begun
            failure = await _why_closed(comm)
            failure.clean = False
            self._end(failure)
            await closing
        except Exception as error:  # somebody else reads from it, or it is none of ours
            busy = isinstance(error, CommBusy)
            logger.error("comm with %s closed: %s", self._peer, words_of(error), exc_info=not busy)
            comm.abort()
            failure = await _why_closed(comm)
            failure.clean = False
            self._end(failure)
        finally:
            if self._failure is None:  # cancelled, or the process ends
                comm.abort()
                if not self._loop.is_closed():  # else nobody waits
                    self._end(await _why_closed(comm))

    async def _outlast(self, end: CommClosedError) -> None:
        """Let what runs finish, and close, although nothing can be read any more.

        So it is where the comm wraps that of a listener, which ends its reads when it is closing.
        """
        self._goodbye = end.code, end.reason
        self._lose(end)
        stopping = self._loop.create_task(self._handling.stop(math.inf))
        try:
            while not (stopping.done() or self.comm.closed()):  # of which no read tells us
                await asyncio.wait([stopping], timeout=_LOOK)
            await self.comm.close(end.code, end.reason)
        except BaseException:
            self._handling.end()
            self.comm.abort()
            raise
        finally:
            stopping.cancel()

    def _take(self, message: Any) -> None:
        """Act on a message. Raises `Violation` if it is no part of a call."""
        if type(message) is not list or not message or type(message[0]) is not int:
            first = message[0] if type(message) is list and message else message
            raise Violation(f"a message that is or begins with {shown(first)}")
        kind = message[0]
        if kind == RESPONSE:
            if len(message) != 4 or type(message[1]) is not int:
                raise Violation(f"a response of {len(message)} parts")
            _, number, error, result = message
            future = self._pending.pop(number, None)
            if future is not None and not future.done():  # else the call was given up
                if error is None:
                    if not self._arrived:
                        self._loop.call_soon(self._deliver)
                    self._arrived.append((future, result))
                else:
                    future.set_exception(revive(error))
            if self._turns.waiting:
                self._turns.next()
        elif kind == REQUEST:
            self._handling.request(message)
        elif kind == NOTIFICATION:
            self._handling.notification(message)
        else:
            self._take_other(kind, number_of(message), message)

    def _deliver(self) -> None:
        """Resume the callers whose results have arrived: in one go, which costs less than each."""
        arrived = self._arrived
        try:
            while arrived:
                resume(*arrived.popleft())
        finally:
            if arrived:  # one of them ends the event loop
                self._loop.call_soon(self._deliver)

    def _take_other(self, kind: int, number: int, message: list[Any]) -> None:
        if kind == CANCEL:
            self._handling.cancel(number)
        elif kind == PING:
            self._handling.answer([PONG, number])
        elif kind == PONG:
            ping = self._pings.pop(number, None)
            if ping is not None and not ping.done():
                ping.set_result(None)
        elif kind == REFUSAL and len(message) == 4:
            error = refused(message[2], message[3], self._peer)
            future = self._pending.pop(number, None)
            if future is not None and not future.done():
                future.set_exception(error)
            self._turns.next()
        else:
            raise Violation(f"a message of type {kind} and {len(message)} parts")

    async def _keep_pinging(self, interval: float) -> None:
        """Ping until there is no answer for as long as the pause between two pings."""
        try:
            while True:
                await asyncio.sleep(interval)
                await self.ping(timeout=interval)
        except CallTimeout:
            logger.warning(
                "comm with %s closed: no answer to a ping for %g s; see whether that process is "
                "stopped or overloaded",
                self._peer,
                interval,
            )
            self.comm.abort()
        except CallError:  # the comm has ended
            pass

    # The end

    def _end(self, failure: CommClosedError) -> None:
        """Tell everybody who waits that the comm has ended."""
        self._lose(failure)
        self._handling.end()

    def _lose(self, failure: CommClosedError) -> None:
        """Give up our own calls, and make no more: no reply will be read."""
        self._failure = failure
        self._max_pending = 0
        self.comm._leave = None  # breaks the reference cycle
        if self._pinging is not None:
            self._pinging.cancel()
        for pending in (self._pending, self._pings):
            for future in pending.values():
                if not future.done():
                    future.set_exception(lost(self._peer, failure, sent=True))
            pending.clear()
        self._deadlines.end()
        self._turns.end()

    async def wait_closed(self) -> None:
        """Wait until the comm has ended; `failure` says how. A cancelled wait changes nothing.

        Raises `RuntimeError` in another thread or event loop than the comm's.
        """
        self._expect_here()
        await asyncio.wait([self._reader])

    async def serve(self) -> None:
        """Wait until the comm has ended; handlers run with or without it.

        Raises
        ------
        CommClosedError
            If it ended otherwise than because one side closed it and nothing was wrong.
        RuntimeError
            In another thread or event loop than the comm's.

        Notes
        -----
        A cancelled wait leaves the comm open and what runs running.
        """
        await self.wait_closed()
        assert self._failure is not None
        if not self._failure.clean:
            raise self._failure.again()

    async def close(
        self, code: int = CloseCode.NORMAL, reason: str = "", *, grace: float | None = None
    ) -> None:
        """Refuse further calls of the peer, let those that run finish, then close the comm.

        `Listener.close` does so for the comms of its handlers, with ``CloseCode.GOING_AWAY``.

        Parameters
        ----------
        code, reason : optional
            As for `Comm.close`.
        grace : float, optional
            Seconds until handlers that still run are cancelled; at once without it. Our own calls
            go on meanwhile; those that are pending then are lost.

        Raises
        ------
        TypeError, ValueError
            As `Comm.close`, and for a grace that is no number of seconds from 0 on; nothing was
            closed or refused.

        Notes
        -----
        A call that is cancelled within the grace leaves the comm open and what runs running; calls
        of the peer stay refused, and another `close` goes on from there. Cancelled later, it drops
        what is left, as `Comm.close` does. A handler that goes on although it was cancelled is
        waited for another second.
        """
        self._expect_here()
        seconds = expect_end(code, reason, grace)
        await self._handling.stop(seconds)
        if self._goodbye is not None and code == CloseCode.NORMAL:
            code, reason = self._goodbye
        await self.comm.close(code, reason)
        await self.wait_closed()

    def _leave(self, code: int, reason: str) -> None:
        """Close since the listener is closing, which ends the grace by cancelling its handler."""
        self._goodbye = code, reason
        self._leaving = begin_later(self._loop, self.close(code, reason, grace=math.inf))

    @property
    def failure(self) -> CommClosedError | None:
        """Why the comm has ended, None before that; the error of a clean end, too."""
        return self._failure

    def closed(self) -> bool:
        """Whether the comm has ended, or begun to: nothing more can be called.

        Returns
        -------
        bool
        """
        return self._failure is not None or self.comm.closed()

    @property
    def pending(self) -> int:
        """How many of our calls await replies."""
        return len(self._pending)

    @property
    def running(self) -> int:
        """How many handlers run in tasks for the peer."""
        return len(self._handling.running)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} pending={self.pending} running={self.running} {self.comm}>"


async def _why_closed(comm: Comm) -> CommClosedError:
    try:
        await comm.read()
    except CommClosedError as error:
        return error
    except Exception:  # of a comm that is none of ours
        logger.exception("comm with %s does not say why it is closed", comm.peer_address)
    return CommClosedError(f"comm with {comm.peer_address} closed by us; connect again")


def _check(comm: Any, bounds: Mapping[str, Any]) -> None:
    if not isinstance(comm, Comm):
        raise TypeError(
            f"cannot make calls over {repr_of(comm)}: need a Comm; await connect(…) gives one"
        )
    if comm._leave is not None:
        raise CommBusy(f"cannot make calls over {comm!r}: other Calls read from it; use those")
    for name, value in bounds.items():
        if type(value) is not int or value < 1:
            raise ValueError(f"bad {name} {repr_of(value)}: need an int of at least 1")
