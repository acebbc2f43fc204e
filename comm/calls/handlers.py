"""The side of a call that runs it: handlers, how many run at once, deadlines, cancellation.

A plain function runs at once, within the event that delivered the request; a coroutine function
runs in a task. At most `max_running` tasks run; further requests wait in a line, also while the
peer does not take our replies, and are refused once the line is full. So a peer makes us keep at
most `max_running + max_waiting` requests, and never keeps us from reading: what it sends may be
the replies that our handlers wait for.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sized
from typing import Any, NamedTuple

from ..errors import EncodeError, MessageTooLarge, quoted
from ..interfaces import Comm
from ..leaving import is_failure
from ..words import words_of
from .envelopes import (
    FAR,
    MOST,
    REFUSAL,
    RESPONSE,
    BadRequest,
    Violation,
    check,
    number_of,
)
from .errors import RefusalKind, at_argument, describe, is_expected
from .outlet import Outlet

__all__ = ["Handling"]

logger = logging.getLogger("sealwire.comm")

_MOST_UNREAD = 10_000  # short answers that may be queued for a peer that takes none
# Results that are not awaited; hasattr is slower, if there is no such attribute.
_VALUES = frozenset({type(None), bool, int, float, str, bytes, bytearray, list, tuple, dict})
_STANDSTILL = 10.0  # seconds without progress until it is told
_LAST_GRACE = 1.0  # seconds for a handler to end that was cancelled


class _Running:
    """A handler in a task; `number` is None for that of a notification."""

    __slots__ = ("method", "number", "started", "task", "timer", "why")

    def __init__(self, number: int | None, method: str) -> None:
        self.number = number
        self.method = method
        self.started = False
        self.task: asyncio.Task[Any] | None = None
        self.timer: asyncio.TimerHandle | None = None
        self.why = ""  # we have cancelled it: because of "peer", "deadline", "stop"

    def cancel(self, why: str) -> None:
        if not self.why:
            self.why = why
            if self.started and self.task is not None:
                self.task.cancel()


class _Request(NamedTuple):
    """What waits in the line; `deadline` is in the loop's time."""

    number: int | None
    method: str
    args: list[Any]
    kwargs: dict[str, Any] | None
    deadline: float | None


class Handling:
    """Runs what the peer of one comm calls.

    Attributes
    ----------
    running : dict
        The handlers in tasks, by the number of the call; of notifications, by a negative one.
    may_end_process : bool
        Whether `SystemExit` and `KeyboardInterrupt` of a handler in a task go on to the event loop,
        and are not its failure. True, unless the event loop is not the process's own.
    """

    def __init__(
        self,
        comm: Comm,
        outlet: Outlet,
        handlers: Mapping[str, Callable[..., Any]],
        max_running: int,
        max_waiting: int,
        pending: Sized = (),
    ) -> None:
        self._comm = comm
        self._pending = pending  # our own calls
        self._outlet = outlet
        # As text: a member of an Enum that is a str has another hash.
        self._handlers = {str.__str__(name): handler for name, handler in handlers.items()}
        self._max_running = max_running
        self._max_waiting = max_waiting
        self._loop = asyncio.get_running_loop()
        self.may_end_process = True
        self.running: dict[int, _Running] = {}
        self._waiting: dict[int, _Request] = {}
        self._stopping = False
        self._ended = False
        self._unread = 0  # answers queued since the peer last took everything
        self._notifications = itertools.count(-1, -1)
        self._resuming = False
        self._dropped = False
        self._look: asyncio.TimerHandle | None = None
        outlet.when_drained(self._resume)

    # From the peer

    def request(self, message: list[Any]) -> None:
        """Run what a REQUEST asks for, or line it up, or refuse it. Raises `Violation`."""
        try:
            _, number, method, seconds, kwargs, *args = message
        except ValueError:
            self.refuse(number_of(message), "bad-request", f"it has {len(message)} parts, need 5")
            return
        if type(number) is not int or not 0 <= number <= MOST:
            number_of(message)
        if number in self.running or number in self._waiting:
            raise Violation(f"call {number} a second time")
        plain = seconds is None or (type(seconds) is float and seconds > 0)
        if kwargs is not None or type(method) is not str or not plain:
            try:
                check(method, seconds, kwargs)
            except BadRequest as error:
                self.refuse(number, "bad-request", str(error))
                return
        busy = self._outlet.full or len(self.running) >= self._max_running  # `_is_busy`, inlined
        if busy or self._waiting or self._stopping:
            self._line_up(number, number, method, args, kwargs, seconds)
        else:
            self._start(number, number, method, args, kwargs, seconds)

    def notification(self, message: list[Any]) -> None:
        """Run what a NOTIFICATION asks for, or line it up, or drop it. Raises `Violation`."""
        try:
            if len(message) < 3:
                raise BadRequest(f"it has {len(message)} parts, need 3")
            _, method, kwargs, *args = message
            check(method, None, kwargs)
        except BadRequest as error:
            raise Violation(f"a bad notification: {error}") from None
        key = next(self._notifications)
        if self._waiting or self._stopping or self._is_busy():
            self._line_up(key, None, method, args, kwargs, None)
        else:
            self._start(key, None, method, args, kwargs, None)

    def cancel(self, number: int) -> None:
        """Cancel a call that the peer has given up, if it has not ended."""
        self._waiting.pop(number, None)
        running = self.running.get(number)
        if running is not None:
            running.cancel("peer")

    def answer(self, message: list[Any]) -> None:
        """Send a short message that the peer has asked for; end the comm if it takes too few."""
        if not self._outlet.full:
            self._unread = 0
        else:
            self._unread += 1
            if self._unread > _MOST_UNREAD and not self._comm.closed():
                logger.warning(
                    "comm with %s closed: it does not take the answers to its calls, %d are queued",
                    self._comm.peer_address,
                    self._unread,
                )
                self._comm.abort()
        self._outlet.put(message)

    def refuse(self, number: int, kind: RefusalKind, why: str) -> None:
        """Say that call `number` is not run."""
        self.answer([REFUSAL, number, kind, why[: self._comm.limits.max_message_size // 8]])

    # Running

    def _is_busy(self) -> bool:
        return self._outlet.full or len(self.running) >= self._max_running

    def _line_up(
        self, key: int, number: int | None, method: str, args: Any, kwargs: Any, seconds: Any
    ) -> None:
        if self._stopping:
            self._turn_away(number, method, "stopping", "the other side is stopping")
        elif len(self._waiting) < self._max_waiting:
            deadline = None if seconds is None else self._loop.time() + min(seconds, FAR)
            self._waiting[key] = _Request(number, method, args, kwargs, deadline)
            if self._look is None:
                self._look_later()
        else:
            count = len(self.running) + len(self._waiting)
            self._turn_away(number, method, "overloaded", f"{count} calls run or wait there")

    def _turn_away(self, number: int | None, method: str, kind: RefusalKind, why: str) -> None:
        if number is not None:
            self.refuse(number, kind, why)
        elif not self._dropped:
            self._dropped = True
            logger.warning(
                "notification %r from %s dropped: %s; further ones are not logged, use calls for "
                "what must arrive",
                quoted(method, 100),
                self._comm.peer_address,
                why,
            )

    def _start(
        self, key: int, number: int | None, method: str, args: Any, kwargs: Any, seconds: Any
    ) -> None:
        """Call the handler; reply, or make a task of what it returns."""
        handler = self._handlers.get(method)
        if handler is None:
            why = f"it has no method {quoted(method, 100)!r}"
            self._turn_away(number, method, "unknown-method", why)
            return
        try:
            result = handler(*args, **kwargs) if kwargs else handler(*args)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:
            trace = error.__traceback__
            if isinstance(error, TypeError) and (trace is None or trace.tb_next is None):
                self._turn_away(number, method, "bad-arguments", quoted(words_of(error), 1000))
            else:
                self._reply_error(number, method, error)
            return
        kind = type(result)
        if kind not in _VALUES and hasattr(kind, "__await__"):
            running = self.running[key] = _Running(number, method)
            if seconds is not None and seconds < FAR:
                running.timer = self._loop.call_later(seconds, running.cancel, "deadline")
            running.task = self._loop.create_task(self._run(key, running, result))
        elif number is not None:
            self._reply(number, method, result)

    async def _run(self, key: int, running: _Running, result: Any) -> None:
        """Await what a handler has returned, and reply."""
        number, method = running.number, running.method
        running.task = task = asyncio.current_task()
        try:
            if running.why:  # cancelled before it could begin
                _discard(result)
                raise asyncio.CancelledError
            running.started = True
            value = await result
            if number is not None:
                if self._outlet.full:
                    await self._outlet.drained()
                self._reply(number, method, value)
        except BaseException as error:
            if not (isinstance(error, asyncio.CancelledError) and running.why):
                if not (isinstance(error, asyncio.CancelledError) or self._fails(error, task)):
                    raise
                self._reply_error(number, method, error)
            elif running.why == "deadline" and number is not None:
                self._outlet.put([REFUSAL, number, "expired", ""])
        finally:
            del task  # the traceback of what it raises refers to this frame
            if running.timer is not None:
                running.timer.cancel()
            del self.running[key]
            if self._waiting:
                self._resume()

    def _fails(self, error: BaseException, task: asyncio.Task[Any] | None) -> bool:
        ends = isinstance(error, (KeyboardInterrupt, SystemExit))
        return (ends and not self.may_end_process) or is_failure(error, task)

    def _resume(self) -> None:
        """Start what waits in the line, as far as it may."""
        waiting = self._waiting
        while waiting and not self._resuming and not self._is_busy():
            key = next(iter(waiting))
            number, method, args, kwargs, deadline = waiting.pop(key)
            left = None if deadline is None else deadline - self._loop.time()
            self._resuming = True  # a task may end while it is made, and come back here
            try:
                if left is None or left > 0:
                    self._start(key, number, method, args, kwargs, left)
                elif number is not None:
                    self._outlet.put([REFUSAL, number, "expired", ""])
            finally:
                self._resuming = False

    def _look_later(self) -> None:
        now = frozenset(self.running)
        self._look = self._loop.call_later(_STANDSTILL, self._look_for_progress, now)

    def _look_for_progress(self, before: frozenset[int]) -> None:
        """Tell of requests that wait for handlers, all of which may wait for the peer."""
        if not self._waiting:
            self._look = None
            return
        stands = len(before) >= self._max_running and before == self.running.keys()
        if not stands or len(self._pending) < len(before):
            self._look_later()
            return
        logger.warning(  # once, since `_look` stays
            "calls from %s stand still: %d handlers have run for %g s, which is as many as may run "
            "at once (max_running), %d requests wait for them, and %d calls of ours to it have no "
            "reply; if handlers of both sides call each other, give these calls a timeout, and "
            "raise max_running",
            self._comm.peer_address,
            len(before),
            _STANDSTILL,
            len(self._waiting),
            len(self._pending),
        )

    # Replies

    def _reply(self, number: int, method: str, result: Any) -> None:
        """Send a result; one that cannot be sent becomes an error of the call."""
        outlet = self._outlet
        try:
            if not outlet.send([RESPONSE, number, None, result]):
                outlet.fill()
        except Exception as error:  # the code of a registered type may raise anything
            if isinstance(error, EncodeError):
                at_argument(error, None)
            self._reply_error(number, method, error)

    def _reply_error(self, number: int | None, method: str, error: BaseException) -> None:
        """Send an error of a handler; log it unless it is one that it promises."""
        if self._ended or self._comm.closed():
            return
        if isinstance(error, (EncodeError, MessageTooLarge)):  # of its result, or of another comm
            self._log("handler of %r, called by %s, failed: %s", method, words_of(error))
        elif not is_expected(error):
            self._log("handler of %r, called by %s, failed", method, exc_info=error)
        if number is None:
            return
        # Either text has 4 bytes a character, at most: both together are half of a message.
        described = describe(error, self._comm.limits.max_message_size // 16)
        try:
            self._outlet.put([RESPONSE, number, described, None])
        except Exception:  # its fields cannot be encoded, or are too large
            self._outlet.put([RESPONSE, number, [*described[:2], {}], None])

    def _log(self, text: str, method: str, *more: str, exc_info: Any = None) -> None:
        peer = self._comm.peer_address
        logger.error(text, quoted(method, 100), peer, *more, exc_info=exc_info)

    # The end

    async def stop(self, grace: float | None) -> None:
        """Refuse what is new or waits; let what runs finish within `grace`, then cancel it."""
        self._stopping = True
        waiting, self._waiting = self._waiting, {}
        for request in waiting.values():
            why = "the other side is stopping"
            self._turn_away(request.number, request.method, "stopping", why)
        own = asyncio.current_task()
        if grace is not None:
            await _finished(self.running.values(), own, None if grace == math.inf else grace)
        for running in self.running.values():
            if running.task is not own:
                running.cancel("stop")
        await _finished(self.running.values(), own, _LAST_GRACE)

    def end(self) -> None:
        """Cancel what runs: the comm has ended, nobody waits for it.

        A handler for which a reply has arrived just before gets it, since that comes first.
        """
        self._ended = self._stopping = True
        self._waiting.clear()
        if self._look is not None:
            self._look.cancel()
        self._loop.call_soon(self._cancel_all)

    def _cancel_all(self) -> None:
        for running in self.running.values():
            running.cancel("peer")


async def _finished(
    several: Iterable[_Running], own: asyncio.Task[Any] | None, seconds: float | None
) -> None:
    tasks = [each.task for each in several if each.task is not None and each.task is not own]
    if tasks:
        await asyncio.wait(tasks, timeout=seconds)


def _discard(result: Any) -> None:
    """Drop what a handler has returned, without a warning that nobody has awaited it."""
    give_up = getattr(result, "close", None) or getattr(result, "cancel", None)
    if give_up is not None:
        give_up()
