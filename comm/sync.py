"""Comms and calls for scripts without an event loop.

::

    from sealwire.comm import sync

    with sync.connect(address) as comm:
        comm.write({"op": "put"})
        reply = comm.read(timeout=5)

    with sync.Calls(sync.connect(address)) as calls:
        print(calls.call("add", 1, 2, timeout=5))

One event loop, in a daemon thread, serves all of a process; any thread may use its comms, but none
that runs an event loop, which they would block. After a fork the child has a loop of its own, and
refuses the comms that it has inherited.

There is no `listen`: a listener serves many peers at once, which is what an event loop is for. A
script that is to be called by others dials, and gives `Calls` its handlers; they run in threads.

A `read` that is interrupted, by its timeout or by Ctrl-C, goes on: the next one gets its message.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import inspect
import os
import threading
from collections.abc import Callable, Coroutine, Iterator, Mapping
from typing import Any, TypeVar

from . import api, interfaces
from .calls import calls
from .calls.caller import expect_seconds
from .close_codes import CloseCode
from .errors import CommBusy, CommClosedError
from .leaving import SyncLeaving

__all__ = ["Calls", "Comm", "connect"]

_T = TypeVar("_T")


class _Background:
    """The event loop in its thread."""

    def __init__(self) -> None:
        self.inherited = False
        self.loop = asyncio.new_event_loop()
        started = threading.Event()
        self.loop.call_soon(started.set)
        threading.Thread(target=self._run, name="sealwire.comm.sync", daemon=True).start()
        started.wait()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()

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
    done, _ = concurrent.futures.wait([future], timeout)
    if not done:
        raise TimeoutError(f"{what} timed out: nothing came of it within {timeout:g} s")
    return future.result()


_background: _Background | None = None
_lock = threading.Lock()


def _current() -> _Background:
    global _background
    with _lock:
        if _background is None:
            _background = _Background()
        return _background


def _forget() -> None:
    """In a forked child: the thread is not here, the lock may be held for ever."""
    global _background, _lock
    if _background is not None:
        _background.inherited = True
    _background, _lock = None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def connect(address: str, *, timeout: float = 30.0, **connect_args: Any) -> Comm:
    """Connect to a listener, as `sealwire.comm.connect` with the same arguments.

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
            future.add_done_callback(_abort)
        raise


def _abort(future: concurrent.futures.Future[interfaces.Comm]) -> None:
    if not future.cancelled() and future.exception() is None:
        comm = future.result()
        comm.abort()


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

        Raises `TimeoutError` after `timeout` seconds, without losing a message, and `CommBusy`
        if another thread is reading.
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

        Raises `TimeoutError` if the peer has not taken it after `timeout` seconds; it is sent all
        the same, and buffers in it must not be changed.
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
        What the peer may call. Functions run in threads, coroutine functions in the background.
    **bounds
        Those of `sealwire.comm.Calls`.
    """

    def __init__(
        self, comm: Comm, handlers: Mapping[str, Callable[..., Any]] | None = None, **bounds: int
    ) -> None:
        if not isinstance(comm, Comm):
            raise TypeError(f"cannot make calls over {comm!r}: need a Comm of sync.connect")
        self._background = comm._background
        self._name = comm._name
        threaded = {name: _threaded(handler) for name, handler in dict(handlers or {}).items()}

        async def make() -> calls.Calls:
            return calls.Calls(comm._comm, threaded, **bounds)

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


def _threaded(handler: Callable[..., Any]) -> Callable[..., Any]:
    """Return `handler` run in a thread, where it may block, unless it is a coroutine function."""
    if not callable(handler) or inspect.iscoroutinefunction(handler):
        return handler
    return functools.partial(asyncio.to_thread, handler)
