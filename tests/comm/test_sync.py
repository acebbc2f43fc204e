"""Comms and calls without an event loop; comms outside the event loop that they belong to."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sealwire.comm import (
    Calls,
    CallTimeout,
    CloseCode,
    Comm,
    CommBusy,
    CommClosedError,
    ConnectError,
    EncodeError,
    RemoteError,
    broadcast,
    connect,
    listen,
    sync,
)
from support import HANG
from support.aio import aio
from support.links import SCHEMES, connect_args, echo, listen_args, pair


@contextlib.contextmanager
def served(handler: Any, scheme: str = "tcp") -> Iterator[str]:
    """The address of a listener in a thread with a loop of its own."""
    address: list[str] = []
    ready = threading.Event()
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()

    async def serve() -> None:
        url = f"{scheme}://127.0.0.1:0"
        async with listen(url, handler, **listen_args(scheme)) as listener:
            address.append(listener.contact_address)
            ready.set()
            await stop.wait()

    def run() -> None:
        loop.run_until_complete(serve())
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        if left:
            loop.run_until_complete(asyncio.wait(left))
        loop.close()

    thread = threading.Thread(target=run)
    thread.start()
    assert ready.wait(30)
    try:
        yield address[0]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(30)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_messages_and_ends(scheme: str) -> None:
    async def talk(comm: Comm) -> None:
        async for message in comm:
            if message == "bye":
                return
            await comm.write(message)

    with served(talk, scheme) as address:
        with sync.connect(address, **connect_args(scheme)) as comm:
            for message in (None, {"a": [1, "ä"]}, b"x" * 100_000):
                assert comm.write(message) > 0
                assert comm.read() == message
            assert comm.peer_address == address
            assert not comm.closed()
            with pytest.raises(EncodeError):
                comm.write({1})
            for number in range(3):
                comm.write(number)
            comm.write("bye")
            assert list(comm) == [0, 1, 2]
        assert comm.closed()
        with pytest.raises(CommClosedError):
            comm.read()
        with sync.connect(address, **connect_args(scheme)) as comm:
            comm.abort()
            with pytest.raises(CommClosedError):
                comm.write(1)


def test_a_read_that_timed_out_loses_nothing() -> None:
    with served(echo) as address, sync.connect(address) as comm:
        for number in range(3):
            with pytest.raises(TimeoutError, match=r"nothing came of it within 0\.01 s"):
                comm.read(timeout=0.01)
            comm.write(number)
            assert comm.read(timeout=30) == number
        for bad in (0, -1, "1", float("nan")):
            with pytest.raises(ValueError, match="bad timeout"):
                comm.read(timeout=bad)  # type: ignore[arg-type]


def test_ctrl_c_interrupts_a_read_that_loses_nothing(tmp_path: Path) -> None:
    """In a process of its own, whose main thread waits."""
    program = """
import sys, threading, time
from sealwire.comm import sync
with sync.connect(sys.argv[1]) as comm:
    def tell():
        while comm._reading is None:
            time.sleep(0.001)
        print("reads", flush=True)
    threading.Thread(target=tell).start()
    try:
        comm.read()
    except KeyboardInterrupt:
        print("interrupted", flush=True)
    comm.write("after")
    print(comm.read(timeout=30), flush=True)
"""
    with (
        served(echo) as address,
        subprocess.Popen(
            [sys.executable, "-c", program, address],
            stdout=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
        ) as process,
    ):
        assert process.stdout is not None
        assert process.stdout.readline() == "reads\n"
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=HANG)
        assert output.split() == ["interrupted", "after"]


def test_threads_share_a_comm_but_one_reads() -> None:
    with served(echo) as address, sync.connect(address) as comm:
        got: list[Any] = []
        reader = threading.Thread(target=lambda: got.append(comm.read()))
        reader.start()
        while comm._reading is None:
            reader.join(0.001)
        with pytest.raises(CommBusy, match="another thread is reading"):
            comm.read()
        comm.write("x")
        reader.join(30)
        assert got == ["x"]


def test_calls_in_both_directions() -> None:
    async def ask(calls: Calls) -> Any:
        return [await calls.call("blocking", 2), await calls.call("awaiting", 3)]

    async def serve(comm: Comm) -> None:
        async def sleep() -> None:
            await asyncio.sleep(60)

        def fail() -> None:
            raise KeyError("k")

        methods = {
            "add": lambda a, b: a + b,
            "ask": lambda: ask(calls),
            "sleep": sleep,
            "fail": fail,
        }
        async with Calls(comm, methods) as calls:
            await calls.serve()

    async def awaiting(value: int) -> int:
        await asyncio.sleep(0)
        return value

    def blocking(value: int) -> Any:
        """Calls from a handler, which no event loop could wait for."""
        return calls.call("add", value, value)

    with served(serve) as address:
        handlers = {"blocking": blocking, "awaiting": awaiting}
        with sync.Calls(sync.connect(address), handlers) as calls:
            assert calls.call("add", 1, b=2) == 3
            assert calls.call("ask", timeout=30) == [4, 3]
            assert calls.ping() >= 0
            with pytest.raises(CallTimeout):
                calls.call("sleep", timeout=0.05)
            with pytest.raises(RemoteError, match="KeyError: k"):
                calls.call("fail")
            calls.notify("add", 1, 2)
        assert calls.closed()
        calls.serve()
    with pytest.raises(TypeError, match=r"need a Comm of sync\.connect"):
        sync.Calls(address)  # type: ignore[arg-type]


def test_errors_are_those_of_connect() -> None:
    with pytest.raises(ConnectError):
        sync.connect("tcp://127.0.0.1:1", timeout=0.05)
    with pytest.raises(TypeError, match="unexpected argument"):
        sync.connect("tcp://127.0.0.1:1", wrong=1)


def test_an_error_in_the_block_is_the_reason_of_the_end() -> None:
    ends: list[CommClosedError] = []
    ended = threading.Event()

    async def note(comm: Comm) -> None:
        try:
            await comm.read()
        except CommClosedError as error:
            ends.append(error)
        ended.set()

    with served(note) as address:
        with pytest.raises(KeyError), sync.connect(address):
            raise KeyError
        assert ended.wait(30)
    assert ends[0].code == CloseCode.HANDLER_FAILED


@aio
async def test_a_running_loop_is_refused_by_name() -> None:
    with pytest.raises(RuntimeError, match="in a running event loop"):
        sync.connect("tcp://127.0.0.1:1")
    with served(echo) as address:
        comm = await asyncio.get_running_loop().run_in_executor(None, sync.connect, address)
        for use in (comm.read, comm.close, comm.abort, lambda: comm.write(1)):
            with pytest.raises(RuntimeError, match="in a running event loop"):
                use()
        await asyncio.get_running_loop().run_in_executor(None, comm.close)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_connects_anew(tmp_path: Path) -> None:
    program = """
import os, sys, warnings
from sealwire.comm import sync
warnings.simplefilter("ignore")
comm = sync.connect(sys.argv[1])
comm.write("before")
if os.fork() == 0:
    try:
        comm.write("child")
    except RuntimeError as error:
        print(str(error).partition(": ")[2], flush=True)
    with sync.connect(sys.argv[1]) as own:
        own.write("own")
        print(own.read(timeout=30), flush=True)
    os._exit(0)
os.wait()
print(comm.read(timeout=30), flush=True)
comm.close()
"""
    with served(echo) as address:
        done = subprocess.run(
            [sys.executable, "-c", program, address],
            capture_output=True, text=True, timeout=60, check=True, cwd=tmp_path,
        )  # fmt: skip
    assert done.stdout.splitlines() == [
        "it was opened by the process that has forked this one; connect again here",
        "own",
        "before",
    ]


# An asynchronous comm where it does not belong


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("size", [1, 100_000, 10_000_000])
@aio
async def test_another_thread_is_refused_before_anything_is_sent(scheme: str, size: int) -> None:
    async with pair(scheme) as (a, b):
        await b.write("is there already")

        def use() -> None:
            for wrong in (
                *(a.write(bytes(size)), a.read(), a.close()),
                *(a.drain(), a.drain(timeout=1), a.wait_closed()),
            ):
                with pytest.raises(RuntimeError, match="outside the event loop that it was opened"):
                    asyncio.run(wrong)
            with pytest.raises(RuntimeError, match="outside the event loop that it was opened"):
                a.write_nowait(bytes(size))
            with pytest.raises(RuntimeError, match="outside the event loop that it was opened"):
                a.abort()

        await asyncio.get_running_loop().run_in_executor(None, use)
        assert a.queued == 0
        await a.write("right")
        assert await b.read() == "right"
        assert await a.read() == "is there already"


def test_a_later_loop_of_the_same_thread_is_refused() -> None:
    async def open_one(address: str) -> Comm:
        return await connect(address)

    with served(echo) as address:
        comm = asyncio.run(open_one(address))
        outside = "outside the event loop that it was opened"
        for wrong in (
            comm.write("x"),
            comm.read(),
            comm.close(),
            comm.drain(),
            comm.drain(timeout=5),
            comm.wait_closed(),
            broadcast([comm], "x"),
        ):
            with pytest.raises(RuntimeError, match=outside):
                asyncio.run(wrong)
        with pytest.raises(RuntimeError, match=outside):
            comm.write_nowait("x")
        assert comm.queued == 0
        comm.abort()
