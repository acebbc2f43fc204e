"""`sync` with odd values, odd handlers, and in odd moments of its process."""

from __future__ import annotations

import asyncio
import gc
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from sealwire.comm import CallError, CallRefused, Calls, Comm, CommBusy, RemoteError, listen, sync
from support import HANG
from support.links import echo


@contextmanager
def caller(
    handlers: dict[str, Callable[..., Any]], times: int | None = None
) -> Iterator[Callable[..., Any]]:
    """Calls one of the handlers of a `sync.Calls`, from a loop in a thread; or several `times`."""
    arrived: queue.SimpleQueue[Calls] = queue.SimpleQueue()

    async def serve(comm: Comm) -> None:
        async with Calls(comm) as calls:
            arrived.put(calls)
            await calls.serve()

    with listening(serve) as (address, loop), sync.Calls(sync.connect(address), handlers):
        calls = arrived.get(timeout=HANG)

        def call(method: str, *args: Any) -> Any:
            async def made() -> Any:
                several = (calls.call(method, *args, timeout=20) for _ in range(times or 1))
                results = await asyncio.gather(*several)
                return results if times else results[0]

            return asyncio.run_coroutine_threadsafe(made(), loop).result(HANG)

        yield call


@contextmanager
def listening(
    serve: Callable[[Comm], Any],
) -> Iterator[tuple[str, asyncio.AbstractEventLoop]]:
    """The address of a listener whose event loop runs in a thread."""
    ready: queue.SimpleQueue[tuple[str, asyncio.AbstractEventLoop]] = queue.SimpleQueue()

    async def main() -> None:
        async with listen("mem://", serve) as listener:
            ready.put((listener.contact_address, asyncio.get_running_loop()))
            await over.wait()
            await listener.close()

    over = asyncio.Event()
    thread = threading.Thread(target=asyncio.run, args=(main(),))
    thread.start()
    address, loop = ready.get(timeout=HANG)
    try:
        yield address, loop
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join(HANG)


def raising(error: type[BaseException]) -> Callable[[], None]:
    def handler() -> None:
        raise error(3)

    return handler


def raising_later(error: type[BaseException]) -> Callable[[], Any]:
    async def handler() -> None:
        await asyncio.sleep(0)
        raise error(3)

    return handler


def raising_within(error: type[BaseException]) -> Callable[[], Any]:
    """In a task of its own, which hands it to the event loop as well."""

    async def handler() -> None:
        await asyncio.ensure_future(raising_later(error)())

    return handler


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, GeneratorExit])
def test_a_handler_may_not_end_the_background(error: type[BaseException]) -> None:
    """Which serves all of the process; whoever called it is told."""
    handlers = {
        "now": raising(error),
        "later": raising_later(error),
        "within": raising_within(error),
        "echo": lambda value: value,
    }
    with caller(handlers) as call:
        for method in ("now", "later", "within"):
            with pytest.raises(RemoteError, match=error.__name__):
                call(method)
            assert call("echo", method) == method


def test_handlers_may_wait_for_each_other() -> None:
    """More of them than asyncio has threads for on any machine: here the last one ends them all."""
    together = threading.Barrier(40)

    def meet() -> int:
        return together.wait(20)

    with caller({"meet": meet}, 40) as call:
        assert sorted(call("meet")) == list(range(40))


class Callable_:
    async def __call__(self, value: int) -> int:
        await asyncio.sleep(0)
        return 2 * value


def test_a_function_may_return_what_is_awaited() -> None:
    handlers = {"object": Callable_(), "lambda": lambda value: Callable_()(value)}
    with caller(handlers) as call:
        assert [call(method, 4) for method in handlers] == [8, 8]
        with pytest.raises(CallError):
            call("object")
        with pytest.raises(CallRefused):
            call("nobody")


@pytest.mark.parametrize("handlers", [5, [("a", len)], {"a": 5}, {1: len}, "ab"], ids=repr)
def test_bad_handlers_leave_the_comm_as_it_is(handlers: Any) -> None:
    with caller({"echo": lambda value: value}) as call:
        assert call("echo", 1) == 1
        comm = sync.connect(_address(call))
        with pytest.raises(TypeError, match="bad handler"):
            sync.Calls(comm, handlers)
        assert not comm.closed()
        with sync.Calls(comm) as calls:
            assert calls.ping() > 0
            assert "pending=0" in repr(calls)


def _address(call: Callable[..., Any]) -> str:
    """Where the listener of a `caller` is."""
    calls: Calls = call.__closure__[0].cell_contents  # type: ignore[attr-defined]
    return calls.comm.local_address


def test_calls_are_not_made_while_a_read_goes_on() -> None:
    """It would take what is the calls' own; the comm stays what it was."""
    with caller({}) as call, sync.connect(_address(call)) as comm:
        with pytest.raises(TimeoutError):
            comm.read(timeout=0.01)
        with pytest.raises(CommBusy, match="a read of it has begun"):
            sync.Calls(comm)
        assert not comm.closed()
        with pytest.raises(TimeoutError):
            comm.read(timeout=0.01)


@pytest.mark.parametrize("seconds", [1e10, 1e300, 2**64])
def test_a_long_timeout_is_one(seconds: float) -> None:
    with caller({}) as call, sync.connect(_address(call), timeout=seconds) as comm:
        assert comm.write([4, 1], timeout=seconds) > 0
        assert comm.read(timeout=seconds) == [5, 1]


def test_it_ends_with_the_interpreter(tmp_path: Path) -> None:
    """Whose last finalizers would otherwise wait for a thread that does not run any more."""
    program = """
import asyncio, builtins, os, queue, threading
from sealwire.comm import listen, sync
address = queue.SimpleQueue()
async def hold(comm):
    await comm.wait_closed()
async def main():
    async with listen("mem://", hold) as listener:
        address.put(listener.contact_address)
        await asyncio.Event().wait()
threading.Thread(target=asyncio.run, args=(main(),), daemon=True).start()
class Kept:
    def __init__(self):
        self.comm = sync.connect(address.get())
    def __del__(self, write=os.write):
        for use in (self.comm.close, self.comm.read, lambda: self.comm.write(1), self.comm.abort):
            try:
                use()
            except RuntimeError as error:
                write(1, f"{error}\\n".encode())
builtins.kept = Kept()
print("the end", flush=True)
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True, text=True, timeout=HANG, check=True, cwd=tmp_path,
    )  # fmt: skip
    first, *told = done.stdout.splitlines()
    assert first == "the end"
    assert len(told) == 4
    assert all("its event loop has ended, as it does with the interpreter" in line for line in told)


class Connecting:
    """Garbage whose finalizer connects."""

    def __init__(self, address: str, told: list[Any]) -> None:
        self.address = address
        self.told = told
        self.itself = self

    def __del__(self) -> None:
        with sync.connect(self.address) as comm:
            comm.write("of a finalizer")
            self.told.append(comm.read(timeout=HANG))


@pytest.mark.parametrize("where", ["__init__", "_run"])
def test_a_finalizer_may_connect_while_the_background_is_made(
    where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the thread that makes it, or in its own."""
    told: list[Any] = []
    before = set(threading.enumerate())
    method = getattr(sync._Background, where)

    def collecting(background: Any) -> None:
        monkeypatch.setattr(sync._Background, where, method)  # once
        Connecting(address, told)
        gc.collect()
        method(background)

    def connect() -> None:
        with sync.connect(address) as comm:
            comm.write("of the program")
            told.append(comm.read(timeout=HANG))

    with listening(echo) as (address, _):
        monkeypatch.setattr(sync, "_background", None)
        monkeypatch.setattr(sync._Background, where, collecting)
        thread = threading.Thread(target=connect, daemon=True)
        thread.start()
        thread.join(20)  # for ever, if each waits for the other
        assert told == ["of a finalizer", "of the program"]
        sync._current().end()
    for thread in set(threading.enumerate()) - before:
        thread.join(HANG)
        assert not thread.is_alive(), "a background that nobody uses goes on"
