"""A listener that owns its comms: it runs their handlers, and ends them when it is closed.

Derive from `ServingListener` what accepts comms over another transport; the listeners of this
package do.

A close is in steps. Nothing more is accepted. The reads of every comm end, as if the comm had been
closed, so that ``async for message in comm`` is over after the message that is being worked on;
writes go on, so that the answer to it can be sent. Where `Calls` read, they go on reading, refuse
what is new, and close the comm once what runs for the peer has returned. A handler that has
returned has its comm closed with ``GOING_AWAY``. Those that are left after the grace are cancelled,
and their comms closed with the same code.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import logging
import os
import warnings
import weakref
from collections.abc import Collection
from contextvars import ContextVar
from threading import get_ident
from typing import Any

from .arguments import expect_seconds
from .close_codes import CloseCode
from .errors import CommClosedError
from .interfaces import Comm, Handler, Listener
from .leaving import is_failure
from .limits import Limits
from .transport.wakeup import begin_later
from .words import words_of

__all__ = ["ServingListener", "StreamListener"]

logger = logging.getLogger("sealwire.comm")

_CLOSING = "the listener is closing"

# The handler that a task belongs to: its own task, or one that it has made. Weak, since a task
# holds its context, and would hold itself.
_handler_of: ContextVar[weakref.ref[asyncio.Task[Any]] | None] = ContextVar("handler", default=None)


def _handler() -> asyncio.Task[Any] | None:
    """Return the task of the handler that runs here, if any does."""
    known = _handler_of.get()
    return None if known is None else known()


class ServingListener(Listener):
    """Base class of listeners that run a handler for each comm.

    A subclass implements `start`, which calls `serving_begun`, and `stop`, which calls `may_stop`
    and `serving_over`, and passes each comm, greeted, to `attend` in a task of its own.

    Parameters
    ----------
    handler : callable
        Called with each comm.
    limits : Limits
        Bounds for the listener and each comm.

    Attributes
    ----------
    cancel_on_disconnect : bool
        Whether a handler is cancelled when its peer is gone. False, unless passed to `listen`.
    awaited : bool
        False while nothing was bound by a listener of `listen`: dropping it then warns.
    """

    cancel_on_disconnect = False
    awaited = True

    def __init__(self, handler: Handler, limits: Limits) -> None:
        self._handler = handler
        self._limits = limits
        self._attended: dict[Comm, asyncio.Task[Any]] = {}  # until the comm has been closed
        self._running: set[asyncio.Task[Any]] = set()  # those whose handler has not returned
        self._started = False
        self._loop: asyncio.AbstractEventLoop | None = None  # that it was started in
        self._thread = self._pid = 0  # of that loop
        self._leaving: asyncio.Task[None] | None = None  # the close in progress, or done
        self._deadline = 0.0  # of the grace
        self._spared: set[asyncio.Task[Any]] = set()  # handlers that have asked for the close
        self._fewer = asyncio.Event()  # handlers to wait for
        self._over = asyncio.Event()

    def serving_begun(self) -> None:
        """Note that the listener starts: to be called by `start`, before it can fail."""
        self.awaited = self._started = True
        self._loop = asyncio.get_running_loop()
        self._thread, self._pid = get_ident(), os.getpid()
        self._leaving = None
        self._spared.clear()
        self._over = asyncio.Event()

    def forked(self) -> bool:
        """Whether it was started by the process that has forked this one."""
        return self._pid != os.getpid()

    def may_stop(self) -> asyncio.Future[None]:
        """Return what `stop` returns, a future that is done: to be called by it before all else.

        Raises `RuntimeError` while the event loop that it was started in runs in another thread.
        """
        loop = self._loop or asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        done.set_result(None)
        elsewhere = self._loop is not None and get_ident() != self._thread
        if elsewhere and loop.is_running() and not self.forked():
            raise RuntimeError(
                f"cannot stop {self} in this thread: its event loop runs in another one; use "
                f"loop.call_soon_threadsafe(listener.stop) with that one"
            )
        return done

    def serving_over(self) -> None:
        """Note that nothing more is accepted: to be called by `stop`."""
        self.awaited = True
        self._over.set()

    def end_reading(self, comm: Any, code: int, reason: str) -> None:
        """Let the reads of `comm` end as if we had closed it so, while writes go on.

        Where it is not overridden, reads go on until the grace is over.
        """

    def end_of(self, comm: Any) -> asyncio.Future[Any]:
        """Return a future that is done once the peer of `comm` is gone, or we have closed it."""
        ended: asyncio.Future[Any] = asyncio.ensure_future(comm.wait_closed())
        return ended

    def tasks(self) -> Collection[asyncio.Task[Any]]:
        """Tasks of all comms, those that are not open yet included."""
        return self._attended.values()

    async def attend(self, comm: Comm) -> None:
        """Run the handler of a comm, then close the comm.

        Errors of the handler are logged, and the peer gets ``HANDLER_FAILED``. A cancelled call
        aborts the comm, unless the listener is being closed.
        """
        if self._leaving is not None:  # it was pending when the close began
            await comm.close(CloseCode.GOING_AWAY, _CLOSING)
            return
        code, reason = CloseCode.NORMAL, ""
        ended = self._begin(comm)
        try:
            try:
                result = self._handler(comm)
                if inspect.isawaitable(result):
                    await result
            except CommClosedError as error:
                if not comm.closed():  # the error of another comm, not reported elsewhere
                    why = words_of(error)
                    code, reason = CloseCode.HANDLER_FAILED, "its handler lost another comm"
                    logger.info("handler of the comm with %s ended: %s", comm.peer_address, why)
            except BaseException as error:
                if not is_failure(error, self._attended[comm]):  # nobody waits for the handler
                    if self._leaving is None or not isinstance(error, asyncio.CancelledError):
                        comm.abort()
                    raise
                code, reason = (
                    CloseCode.HANDLER_FAILED,
                    f"its handler raised {type(error).__name__}",
                )
                logger.exception("handler of the comm with %s failed", comm.peer_address)
            finally:
                if ended is not None:
                    ended.cancel()
                self._returned(comm)
                if self._leaving is not None and code == CloseCode.NORMAL:
                    await comm.close(CloseCode.GOING_AWAY, _CLOSING)
            await comm.close(code, reason)
        finally:
            self._attended.pop(comm, None)

    def _begin(self, comm: Comm) -> asyncio.Future[Any] | None:
        task = asyncio.current_task()
        assert task is not None
        self._attended[comm] = task
        self._running.add(task)
        _handler_of.set(weakref.ref(task))
        if not self.cancel_on_disconnect:
            return None
        ended = self.end_of(comm)
        ended.add_done_callback(functools.partial(_disconnected, comm, task))
        return ended

    def _returned(self, comm: Comm) -> None:
        task = self._attended[comm]
        self._running.discard(task)
        if self._leaving is not None:
            self._spared.discard(task)
            self._fewer.set()

    # The listener's interface

    @property
    def comms(self) -> tuple[Comm, ...]:
        """The open comms, see `Listener.comms`."""
        return tuple(comm for comm in self._attended if not comm.closed())

    async def close(self, grace: float = 0.0) -> None:
        """Stop accepting, let the handlers finish, and end their comms.

        From now on the reads of every comm end, as after a clean end of the comm: ``async for
        message in comm`` stops after the message that is being worked on, messages that were not
        read are dropped, and writes go on. `Calls` are closed with the same grace, see
        `Calls.close`. As soon as a handler has returned, its comm is closed with
        ``CloseCode.GOING_AWAY``. After `grace` seconds the other handlers are cancelled and their
        comms closed with the same code, as `Comm.close` does.

        A handler may call it, or a task of its own: it is neither cancelled nor waited for.

        Parameters
        ----------
        grace : float, default 0
            Seconds for the handlers to finish.

        Notes
        -----
        Concurrent calls wait for the same close; the shortest grace counts. Closing what is closed
        does nothing. If a call is cancelled, the close goes on without it: `wait_closed` waits for
        it, and another call can shorten the grace. After `Limits.close_timeout`, a handler that was
        cancelled but goes on loses its comm, with a warning.
        """
        instead = "write 0 to cancel handlers at once"
        seconds = expect_seconds("close()", "grace", grace, instead, zero=True)
        loop = self._expect_loop("close")
        deadline = loop.time() + seconds
        ours = _handler()
        if ours is not None and ours in self._running:
            self._spared.add(ours)
        if self._leaving is None or self._leaving.cancelled():
            self._deadline = deadline
            self._leaving = begin_later(loop, self._leave())
        else:
            self._deadline = min(deadline, self._deadline)
            self._fewer.set()
        await asyncio.shield(self._leaving)

    async def wait_closed(self) -> None:
        """Wait until it has stopped and its last comm has ended, see `Listener.wait_closed`."""
        self._expect_loop("wait for")
        if _handler() in self._running:
            raise RuntimeError(
                f"cannot wait for {self} to close in a handler of its own, which it would wait "
                f"for: wait elsewhere, or call its close()"
            )
        await self._over.wait()
        while tasks := set(self.tasks()):
            await asyncio.wait(tasks)
        if self._leaving is not None:
            await asyncio.shield(self._leaving)

    async def serve_forever(self, *, grace: float = 0.0) -> None:
        """Start if need be, and return when closed, see `Listener.serve_forever`."""
        instead = "write 0 to cancel handlers at once"
        expect_seconds("serve_forever()", "grace", grace, instead, zero=True)
        if not self._started:
            await self.start()
        try:
            await self.wait_closed()
        except asyncio.CancelledError:
            await self.close(grace)
            raise

    # Closing

    def _expect_loop(self, what: str) -> asyncio.AbstractEventLoop:
        """Return the running loop. Raises `RuntimeError` if it is not the listener's."""
        loop = asyncio.get_running_loop()
        if self._loop is not None and loop is not self._loop:
            raise RuntimeError(
                f"cannot {what} {self} in this event loop: it was started in another one; use "
                f"asyncio.run_coroutine_threadsafe with that one"
            )
        return loop

    async def _leave(self) -> None:
        """Close: the steps are those at the top of this file."""
        try:
            self.stop()
            for comm in list(self._attended):
                leave = comm._leave or functools.partial(self.end_reading, comm)
                leave(CloseCode.GOING_AWAY, _CLOSING)
            await self._grace()
            for task in self._running - self._spared:
                task.cancel()
            await self._insist()
        except asyncio.CancelledError:
            for comm in list(self._attended):
                comm.abort()
            raise

    async def _grace(self) -> None:
        """Wait until the grace is over, or all handlers have returned that do not wait for us."""
        loop = asyncio.get_running_loop()
        while len(self._running) > len(self._spared):
            left = self._deadline - loop.time()
            if left <= 0:
                return
            self._fewer.clear()
            try:
                await asyncio.wait_for(self._fewer.wait(), left)
            except asyncio.TimeoutError:
                return

    async def _insist(self) -> None:
        """Wait for cancelled handlers, pending connections and closing comms.

        A handler that goes on although it was cancelled loses its comm and is not waited for.
        """
        tasks = set(self.tasks()) - self._spared
        seconds = self._limits.close_timeout + self._limits.stop_timeout
        if tasks:
            _, tasks = await asyncio.wait(tasks, timeout=seconds)
        stubborn = tasks & self._running
        for comm, task in list(self._attended.items()):
            if task in stubborn:
                comm.abort()
                logger.warning(
                    "handler of the comm with %s goes on %g s after it was cancelled; let it end "
                    "with asyncio.CancelledError",
                    comm.peer_address,
                    seconds,
                )
        if tasks - stubborn:  # peers that take what is still sent to them, slowly
            await asyncio.wait(tasks - stubborn)

    def __del__(self) -> None:
        if not self.awaited:
            warnings.warn(
                f"listen() on {self.listen_address} was never awaited: nothing was bound; write "
                f"await listen(…), or async with listen(…)",
                RuntimeWarning,
                stacklevel=2,
                source=self,
            )


class StreamListener(ServingListener):
    """One whose comms have a ``_stream``, which a `FrameServer` accepts."""

    _server: Any = None
    _stopped: Any = None

    def release(self) -> None:
        """Give up what it has beside its sockets; called by `stop` if it was running."""

    def begins(self) -> bool:
        """Whether `start` has something to do; if so, note that it begins.

        Raises `RuntimeError` if it accepts in another event loop, where it could not be stopped.
        """
        if self._server is not None and self._loop is not None:
            if self._loop is asyncio.get_running_loop():
                return False
            if not self._loop.is_closed() and not self.forked():
                raise RuntimeError(
                    f"cannot start {self} in this event loop: it was started in another one; stop "
                    f"it there, or listen with another listener"
                )
        self.serving_begun()
        return True

    def end_reading(self, comm: Any, code: int, reason: str) -> None:
        """See `ServingListener.end_reading`."""
        comm._stream.end_reading(code, reason)

    def end_of(self, comm: Any) -> asyncio.Future[None]:
        """See `ServingListener.end_of`."""
        ended: asyncio.Future[None] = comm._stream.end()
        return ended

    def tasks(self) -> Collection[asyncio.Task[Any]]:
        """Tasks of all connections, pending ones included."""
        server = self._server or self._stopped
        tasks: Collection[asyncio.Task[Any]] = server.tasks if server is not None else ()
        return tasks


def _disconnected(comm: Comm, task: asyncio.Task[Any], ended: asyncio.Future[Any]) -> None:
    """Cancel the handler of a comm that has not been closed by itself."""
    if not ended.cancelled() and comm.closed_by != "us":
        task.cancel()
