"""Comms and calls for scripts without an event loop.

::

    from sealwire.comm import sync

    with sync.connect(address) as comm:
        comm.write({"op": "put"})
        reply = comm.read(timeout=5)

    with sync.Calls(sync.connect(address)) as calls:
        print(calls.call("add", 1, 2, timeout=5))

One event loop, in a daemon thread, serves all of a process; any thread may use its comms, but none
that runs an event loop, which they would block. It ends with the interpreter, whose last finalizers
are refused it. After a fork the child has a loop of its own, and refuses the comms that it has
inherited.

There is no `listen`: a listener serves many peers at once, which is what an event loop is for. A
script that is to be called by others dials, and gives `Calls` its handlers; they run in threads.

A `read` that is interrupted, by its timeout or by Ctrl-C, goes on: the next one gets its message.
Whatever else is interrupted is cancelled, with the effects that its counterpart in `sealwire.comm`
describes: a message is still sent whole, and a call cancels its handler.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import inspect
import logging
import os
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from . import api, interfaces
from .calls import calls
from .calls.arguments import expect_handlers, expect_seconds
from .close_codes import CloseCode
from .errors import CommBusy, CommClosedError
from .leaving import SyncLeaving
from .words import repr_of

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["Calls", "Comm", "connect"]

logger = logging.getLogger("sealwire.comm")

_T = TypeVar("_T")
_THREADS = 128  # for handlers, at most: as many as run at once for one peer


class _Background:
    """The event loop in its thread."""

    def __init__(self) -> None:
        self.inherited = False
        self.loop = asyncio.new_event_loop()
        # asyncio's own has few, and all may wait for what another handler is to do.
        threads = concurrent.futures.ThreadPoolExecutor(_THREADS, "sealwire.comm.sync handler")
        self.loop.set_default_executor(threads)
        started = threading.Event()
        self.loop.call_soon(started.set)
        threading.Thread(target=self._run, name="sealwire.comm.sync", daemon=True).start()
        started.wait()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        while True:
            try:
                self.loop.run_forever()
                self.loop.close()
                return
            except (SystemExit, KeyboardInterrupt):  # of a task: it is not this thread's to end
                logger.warning("a task of sealwire.comm.sync has ended itself", exc_info=True)

    def end(self) -> None:
        """End the loop, which nobody uses."""
        self.loop.call_soon_threadsafe(self.loop.stop)

    def start(self, what: str, coroutine: Coroutine[Any, Any, _T]) -> concurrent.futures.Future[_T]:
        """Run `coroutine` there; `what` is used, for the error if it must not be here."""
        try:
            self.expect_usable(what)
        except BaseException:
            coroutine.close()
            raise
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop)

    def expect_usable(self, what: str) -> None:
        if self.inherited:
            raise RuntimeError(
                f"cannot use {what}: it was opened by the process that has forked this one; "
                f"connect again here"
            )
        if sys.is_finalizing() or not self.loop.is_running():
            raise RuntimeError(
                f"cannot use {what}: its event loop has ended, as it does with the interpreter; "
                f"close it before"
            )
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return
        raise RuntimeError(
            f"cannot use {what} of sealwire.comm.sync in a running event loop, which it would "
            f"block; use sealwire.comm with await, or another thread"
        )

    def do(self, what: str, coroutine: Coroutine[Any, Any, _T], timeout: float | None) -> _T:
        """Run `coroutine` there and return its result; cancel it if that is not waited for."""
        future = self.start(what, coroutine)
        try:
            return _result(future, what, timeout)
        finally:
            future.cancel()  # if it has not ended


def _result(future: concurrent.futures.Future[_T], what: str, timeout: float | None) -> _T:
    most = threading.TIMEOUT_MAX  # beyond it is an OverflowError
    done, _ = concurrent.futures.wait([future], timeout if timeout is None else min(timeout, most))
    if not done:
        raise TimeoutError(f"{what} timed out: nothing came of it within {timeout:g} s")
    return future.result()


_background: _Background | None = None
# Reentrant: a finalizer may connect within any line of the thread that has it.
_lock = threading.RLock()


def _current() -> _Background:
    global _background
    known = _background
    if known is not None and known.loop.is_running():
        return known
    made = _Background()  # without the lock: a finalizer in its thread would wait for ever
    with _lock:
        known = _background
        if known is None or not known.loop.is_running():
            _background = known = made
    if known is not made:
        made.end()
    return known


def _forget() -> None:
    """In a forked child: the thread is not here, the lock may be held for ever."""
    global _background, _lock
    if _background is not None:
        _background.inherited = True
    _background, _lock = None, threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def connect(
    address: str, *, timeout: float = 30.0, **connect_args: Unpack[api.ConnectOptions]
) -> Comm:
    """Connect to a listener, as `sealwire.comm.connect` with the same arguments.

    Parameters
    ----------
    address, timeout, **connect_args
        As for `sealwire.comm.connect`.

    Returns
    -------
    Comm
        Open; close it, or use it in a ``with`` block.

    Raises
    ------
    RuntimeError
        In a thread that runs an event loop.
    TypeError, ValueError, CommError
        As from `sealwire.comm.connect`.
    """
    background = _current()
    background.expect_usable("connect")

    async def opened() -> interfaces.Comm:
        return await api.connect(address, timeout=timeout, **connect_args)

    future = background.start("connect", opened())
    try:
        return Comm(background, future.result())
    except BaseException:  # Ctrl-C
        if not future.cancel():
            background.loop.call_soon_threadsafe(_abort, future)
        raise


def _abort(future: concurrent.futures.Future[interfaces.Comm]) -> None:
    """Abort the comm of a dial that has ended, in the event loop."""
    if future.exception() is None:
        future.result().abort()


class Comm(SyncLeaving):
    """A comm, see `sealwire.comm.Comm`, whose methods block.

    Made by `connect`. ``for message in comm`` and ``with comm`` do what ``async for`` and ``async
    with`` do there.
    """

    def __init__(self, background: _Background, comm: interfaces.Comm) -> None:
        self._background = background
        self._comm = comm
        self._name = f"the comm with {comm.peer_address}"
        self._reading: concurrent.futures.Future[Any] | None = None
        self._reader = threading.Lock()

    def read(self, timeout: float | None = None) -> Any:
        """Read the next message, see `sealwire.comm.Comm.read`.

        Raises `TimeoutError` after `timeout` seconds, without losing a message, `CommBusy` if
        another thread is reading, and what is raised there; None means no timeout.
        """
        seconds = None if timeout is None else expect_seconds(timeout)
        self._background.expect_usable(self._name)
        if not self._reader.acquire(blocking=False):
            raise CommBusy(
                f"cannot read from {self._comm.peer_address}: another thread is reading; use one "
                f"reader a comm"
            )
        try:
            if self._reading is None:
                self._reading = self._background.start(self._name, _read(self._comm))
            result = _result(self._reading, f"reading from {self._comm.peer_address}", seconds)
        except TimeoutError:
            raise
        except Exception:
            self._reading = None
            raise
        finally:
            self._reader.release()
        self._reading = None
        return result

    def write(self, message: Any, timeout: float | None = None) -> int:
        """Send a message, see `sealwire.comm.Comm.write`.

        Returns the size of the message on the wire in bytes. Raises `TimeoutError` if the peer has
        not taken it after `timeout` seconds; it is sent all the same, and buffers in it must not
        be changed. Else raises as there.
        """
        seconds = None if timeout is None else expect_seconds(timeout)
        return self._background.do(self._name, self._comm.write(message), seconds)

    def close(self, code: int = CloseCode.NORMAL, reason: str = "") -> None:
        """Send what was written, say why, then close, see `sealwire.comm.Comm.close`."""
        self._background.do(self._name, self._comm.close(code, reason), None)

    def abort(self) -> None:
        """Close at once and drop what is queued."""

        async def abort() -> None:
            self._comm.abort()

        self._background.do(self._name, abort(), None)

    def closed(self) -> bool:
        """Whether either side has closed or begun to."""
        return self._comm.closed()

    @property
    def local_address(self) -> str:
        """Address of our end, with its scheme."""
        return self._comm.local_address

    @property
    def peer_address(self) -> str:
        """Address of the other end, with its scheme."""
        return self._comm.peer_address

    @property
    def extra_info(self) -> Mapping[str, Any]:
        """Facts about the connection, see `sealwire.comm.Comm.extra_info`."""
        return self._comm.extra_info

    def __iter__(self) -> Iterator[Any]:
        while True:
            try:
                message = self.read()
            except CommClosedError as error:
                if error.clean:
                    return
                raise
            yield message

    def __repr__(self) -> str:
        return f"<sync {self._comm!r}>"


async def _read(comm: interfaces.Comm) -> Any:
    return await comm.read()


class Calls(SyncLeaving):
    """Calls over a comm of `connect`, see `sealwire.comm.Calls`; its methods block.

    Parameters
    ----------
    comm : Comm
    handlers : mapping of str to callable, optional
        What the peer may call. Functions run in threads, up to 128 at once, so that one may end
        before another that was called first; coroutine functions run in the background. One that
        raises `SystemExit` or `KeyboardInterrupt` has failed; it ends nothing here.
    max_pending, max_running, max_waiting, ping_interval : optional
        As for `sealwire.comm.Calls`.
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
        if not isinstance(comm, Comm):
            raise TypeError(f"cannot make calls over {repr_of(comm)}: need a Comm of sync.connect")
        if comm._reading is not None:
            raise CommBusy(
                f"cannot make calls over {comm!r}: a read of it has begun and goes on; make them "
                f"before reading"
            )
        self._background = comm._background
        self._name = comm._name
        threaded = {name: _threaded(handler) for name, handler in expect_handlers(handlers).items()}

        async def make() -> calls.Calls:
            made = calls.Calls(
                comm._comm,
                threaded,
                max_pending=max_pending,
                max_running=max_running,
                max_waiting=max_waiting,
                ping_interval=ping_interval,
            )
            made._handling.may_end_process = False
            return made

        self._calls = self._background.do(self._name, make(), None)

    def call(self, method: str, /, *args: Any, timeout: float | None = None, **kwargs: Any) -> Any:
        """Call a method of the other side, see `sealwire.comm.Calls.call`."""
        called = self._calls.call(method, *args, timeout=timeout, **kwargs)
        return self._background.do(self._name, called, None)

    def notify(self, method: str, /, *args: Any, **kwargs: Any) -> None:
        """Call a method without a reply, see `sealwire.comm.Calls.notify`."""
        self._background.do(self._name, self._calls.notify(method, *args, **kwargs), None)

    def ping(self, timeout: float | None = None) -> float:
        """Return the seconds of a round trip, see `sealwire.comm.Calls.ping`."""
        return self._background.do(self._name, self._calls.ping(timeout), None)

    def serve(self) -> None:
        """Wait until the comm has ended, see `sealwire.comm.Calls.serve`."""
        self._background.do(self._name, self._calls.serve(), None)

    def close(
        self, code: int = CloseCode.NORMAL, reason: str = "", *, grace: float | None = None
    ) -> None:
        """Close the comm, see `sealwire.comm.Calls.close`."""
        closing = self._calls.close(code, reason, grace=grace)
        self._background.do(self._name, closing, None)

    def closed(self) -> bool:
        """Whether the comm has ended, or begun to."""
        return self._calls.closed()

    def __repr__(self) -> str:
        return f"<sync {self._calls!r}>"


def _threaded(handler: Callable[..., Any]) -> Callable[..., Any]:
    """Return `handler` run in a thread, where it may block, unless it is a coroutine function."""
    if inspect.iscoroutinefunction(handler):
        return handler

    async def run(*args: Any, **kwargs: Any) -> Any:
        result = await asyncio.to_thread(handler, *args, **kwargs)
        return await result if inspect.isawaitable(result) else result

    return run
