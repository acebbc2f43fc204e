"""Closing at odd times, by several at once, by who does not wait: it ends, and nothing stays."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import random
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvloop

from sealwire.comm import (
    Calls,
    CloseCode,
    Comm,
    CommBusy,
    CommClosedError,
    Limits,
    Listener,
    connect,
    listen,
)
from sealwire.comm.errors import DecodeError
from support.aio import aio
from support.endings import error_of
from support.links import SCHEMES, connect_args, listen_args, pair, security

LoopFactory = Callable[[], asyncio.AbstractEventLoop]

schemes = pytest.mark.parametrize("scheme", SCHEMES)
loops = pytest.mark.parametrize(
    "loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"]
)


def gone(comm: Comm) -> bool:
    """Whether its socket is closed, and nothing waits for it."""
    stream: Any = comm._stream  # type: ignore[attr-defined]
    sender = stream._sender
    return stream.socket.fileno() == -1 and not sender._waiters and not sender.outbox


async def write_on(comm: Comm, size: int) -> None:
    while True:
        await comm.write(bytes(size))


@schemes
@loops
@pytest.mark.parametrize("writers", [0, 6])
@aio
async def test_the_first_close_is_the_one_that_is_told(
    scheme: str, writers: int, loop_factory: LoopFactory
) -> None:
    """Any number may close; all of them return when it is done."""
    async with pair(scheme) as (a, b):
        writing = [asyncio.ensure_future(write_on(a, 10_000)) for _ in range(writers)]
        await asyncio.sleep(0.01)
        closing = [asyncio.ensure_future(a.close(3000 + n, f"the {n}th")) for n in range(5)]
        error = await error_of(read_on(b))
        assert (error.code, error.reason, error.closed_by) == (3000, "the 0th", "peer")
        assert await asyncio.gather(*closing) == [None] * 5
        assert gone(a)
        for task in writing:
            assert (await error_of(task)).code == 3000
        await a.close(4000)
        assert (await error_of(a.read())).code == 3000


@schemes
@aio
async def test_both_sides_close_at_once(scheme: str) -> None:
    """Each has closed it, as it knows; neither waits for the other."""
    for full in (False, True):
        async with pair(scheme) as (a, b):
            writing = [asyncio.ensure_future(write_on(c, 300_000)) for c in (a, b) if full]
            await asyncio.sleep(0.01)
            await asyncio.gather(a.close(3001), b.close(3002))
            assert (a.closed_by, b.closed_by) == ("us", "us")
            assert (await error_of(a.read())).code == 3001
            assert (await error_of(b.read())).code == 3002
            assert gone(a)
            assert gone(b)
            for task in writing:
                await error_of(task)


@asynccontextmanager
async def peer_that(doing: str, scheme: str) -> AsyncIterator[tuple[Comm, Comm]]:
    """A comm and the other end of it, which talks, takes nothing, or does neither."""
    async with pair(scheme, Limits(close_timeout=0.2, read_ahead=1000)) as (a, b):
        tasks = []
        if doing == "talks":
            tasks.append(asyncio.ensure_future(write_on(b, 5000)))
        if doing == "takes nothing":
            tasks.append(asyncio.ensure_future(write_on(a, 1_000_000)))
            await asyncio.sleep(0.01)
        yield a, b
        for task in tasks:
            await error_of(task)


@schemes
@loops
@pytest.mark.parametrize("doing", ["nothing", "talks", "takes nothing"])
@aio
async def test_a_close_that_is_cancelled_at_any_moment(
    scheme: str, doing: str, loop_factory: LoopFactory
) -> None:
    """It drops what is left, at once, and the peer is told all or nothing."""
    for turns in (1, 2, 5, 12):
        async with peer_that(doing, scheme) as (a, b):
            closing = asyncio.ensure_future(a.close(3000, "so far"))
            for _ in range(turns):
                await asyncio.sleep(0)
            closing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await closing
            assert gone(a), turns
            assert a.closed_by == "us"
            error = await error_of(read_on(b))
            assert (error.code, error.reason) in ((3000, "so far"), (CloseCode.ABNORMAL, ""))


@schemes
@pytest.mark.parametrize("doing", ["nothing", "talks", "takes nothing"])
@aio
async def test_an_abort_ends_a_close(scheme: str, doing: str) -> None:
    async with peer_that(doing, scheme) as (a, _):
        closing = asyncio.ensure_future(a.close(3000))
        await asyncio.sleep(0)
        a.abort()
        await closing
        assert gone(a)
        assert (await error_of(a.read())).code == 3000


async def closes_and_raises(comm: Comm) -> None:
    await comm.close(4001, "first")
    raise LookupError


async def closes_twice(comm: Comm) -> None:
    await comm.close(4001, "first")
    await comm.close(4002, "second")


async def closes_in_tasks(comm: Comm) -> None:
    tasks = [asyncio.ensure_future(comm.close(code, "first")) for code in (4001, 4002, 4003)]
    await asyncio.sleep(0)
    tasks[1].cancel()
    await asyncio.wait(tasks)


async def closes_within_its_block(comm: Comm) -> None:
    async with comm:
        await comm.close(4001, "first")
        raise LookupError


async def closes_badly(comm: Comm) -> None:
    with contextlib.suppress(ValueError):
        await comm.close(17, "first")
    await comm.close(4001, "first")


@schemes
@loops
@pytest.mark.parametrize(
    "handler",
    [closes_and_raises, closes_twice, closes_in_tasks, closes_within_its_block, closes_badly],
)
@aio
async def test_a_handler_that_closes(scheme: str, handler: Any, loop_factory: LoopFactory) -> None:
    """What it has said counts, whatever it does afterwards."""
    async with listen(f"{scheme}://127.0.0.1:0", handler, **listen_args(scheme)) as listener:
        comm = await connect(listener.contact_address, **connect_args(scheme))
        error = await error_of(comm.read())
        assert (error.code, error.reason, error.closed_by) == (4001, "first", "peer")


@schemes
@aio
async def test_a_close_from_another_thread(scheme: str) -> None:
    async with pair(scheme) as (a, b):
        loop = asyncio.get_running_loop()
        coroutine = a.close(3000, "from afar")

        def close() -> None:
            asyncio.run_coroutine_threadsafe(coroutine, loop).result(20)

        await asyncio.to_thread(close)
        assert (await error_of(b.read())).reason == "from afar"


async def read_on(comm: Comm) -> None:
    while True:
        await comm.read()


def act(source: random.Random, comm: Comm) -> Any:
    """Something that a user may do."""

    async def read() -> None:
        for _ in range(100):
            await comm.read()
            await asyncio.sleep(source.choice((0, 0, 0, 0.001)))

    async def write_and_give_up() -> None:
        for _ in range(50):
            writing = asyncio.ensure_future(comm.write(bytes(source.choice((10, 20_000)))))
            writing.add_done_callback(lambda done: done.cancelled() or done.exception())
            await asyncio.sleep(0)
            writing.cancel()

    async def abort() -> None:
        comm.abort()

    code, reason = source.choice((1000, 1001, 1011, 3000)), source.choice(("", "x" * 2000, "\n;"))
    return source.choice((
        lambda: comm.close(code, reason),
        lambda: write_on(comm, source.choice((80, 1000, 300_000))),
        read, write_and_give_up, abort, lambda: asyncio.sleep(0.01),
    ))()  # fmt: skip


@schemes
@loops
@aio
async def test_whatever_is_done_it_ends(scheme: str, loop_factory: LoopFactory) -> None:
    """Tasks of both sides that read, write, close, abort, and are cancelled, in any order."""
    for seed in range(6):
        source = random.Random(seed)
        limits = Limits(
            close_timeout=0.2,
            max_queued=source.choice((None, 100_000)),
            read_ahead=source.choice((1000, 1 << 22)),
        )
        async with pair(scheme, limits) as both:
            tasks: list[asyncio.Future[Any]] = []
            for _ in range(source.randrange(2, 12)):
                tasks.append(asyncio.ensure_future(act(source, source.choice(both))))
                for _ in range(source.randrange(4)):
                    await asyncio.sleep(0)
                if source.random() < 0.25:
                    source.choice(tasks).cancel()
            tasks += [asyncio.ensure_future(comm.close(1001, "end")) for comm in both]
            done, left = await asyncio.wait(tasks, timeout=20)
            assert not left, seed
            for task in done:
                if not task.cancelled() and task.exception() is not None:
                    assert isinstance(task.exception(), CommClosedError | CommBusy), seed
            for comm in both:
                assert gone(comm), seed
                error = await error_of(read_on(comm))
                assert error.closed_by == comm.closed_by, seed


async def begin(scheme: str, state: str, turns: int) -> None:
    """A close that does not come to its end."""
    limits = Limits(max_queued=100_000 if state == "slow" else None, read_ahead=1000)
    accepted: asyncio.Future[Comm] = asyncio.get_running_loop().create_future()

    async def hold(comm: Comm) -> None:
        accepted.set_result(comm)
        await asyncio.sleep(600)

    listener = await listen(f"{scheme}://127.0.0.1:0", hold, limits=limits, **listen_args(scheme))
    comm = await connect(listener.contact_address, limits=limits, **connect_args(scheme))
    other: Any = await accepted
    if state in ("full", "slow"):
        writing = [asyncio.ensure_future(comm.write(bytes(100_000))) for _ in range(120)]
        await asyncio.sleep(0.01)
        if state == "slow":
            await asyncio.wait(writing, return_when=asyncio.FIRST_COMPLETED)
            for task in writing:
                task.cancel()
    if state == "refused":
        other._stream.fail(DecodeError("bad message: of the test"))
    if state == "calls":
        Calls(other, {"wait": lambda: asyncio.sleep(600)})
        waiting = Calls(comm, ping_interval=5).call("wait", timeout=60)
        asyncio.ensure_future(waiting)  # noqa: RUF006
        await asyncio.sleep(0.01)
    elif state != "slow":
        asyncio.ensure_future(comm.close(3000))  # noqa: RUF006
    for _ in range(turns):
        await asyncio.sleep(0)
    listener.stop()


@schemes
@loops
@pytest.mark.parametrize("state", ["idle", "full", "slow", "refused", "calls"])
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_loop_that_is_closed_meanwhile(
    scheme: str, state: str, loop_factory: LoopFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No descriptor stays, and the collector meets no error of ours."""
    ignored: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", ignored.append)
    security()
    loop_factory().close()  # uvloop has descriptors of its own
    before = len(os.listdir("/proc/self/fd"))
    for turns in (0, 2):
        loop = loop_factory()
        loop.set_exception_handler(lambda *_: None)  # tasks that were pending
        try:
            loop.run_until_complete(begin(scheme, state, turns))
        finally:
            loop.close()
        gc.collect()
        # A task that has not begun is warned of by Python.
        errors = [each for each in ignored if not isinstance(each.exc_value, RuntimeWarning)]
        assert not errors, [str(each.exc_value) for each in errors]
        assert len(os.listdir("/proc/self/fd")) <= before


async def dialled(scheme: str, turns: int) -> tuple[Listener, socket.socket]:
    """A listener, and a connection to it; it is accepted in the loop's last turn, or before."""
    listener = await listen(f"{scheme}://127.0.0.1:0", lambda _: None, **listen_args(scheme))
    port = int(listener.contact_address.rpartition(":")[2])
    sock = socket.create_connection(("127.0.0.1", port))
    for _ in range(turns):
        await asyncio.sleep(0)
    return listener, sock


async def end_all(tasks: set[asyncio.Task[Any]], listener: Listener) -> None:
    if tasks:
        await asyncio.wait(tasks)
    listener.stop()


@schemes
@loops
@pytest.mark.filterwarnings("error::ResourceWarning")
def test_what_is_accepted_as_the_loop_ends(
    scheme: str, loop_factory: LoopFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tasks may be cancelled before they have begun; the collector finds no open socket."""
    ignored: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", ignored.append)
    for turns in range(4):
        loop = loop_factory()
        listener, sock = loop.run_until_complete(dialled(scheme, turns))
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        loop.run_until_complete(end_all(left, listener))
        loop.close()
        gc.collect()
        with sock:
            sock.settimeout(10)
            with contextlib.suppress(ConnectionResetError):
                while sock.recv(1000):
                    pass
    assert not ignored, [str(each.exc_value) for each in ignored]


@schemes
@aio
async def test_what_refuses_a_message_is_cancelled(scheme: str) -> None:
    """In each turn of the loop from the refusal on, as by the end of `asyncio.run`."""
    for turns in range(4):
        async with pair(scheme) as (a, b):
            before = asyncio.all_tasks()
            a._stream.fail(DecodeError("bad message: of the test"))
            ours = asyncio.all_tasks() - before
            assert len(ours) == 1
            for _ in range(turns):
                await asyncio.sleep(0)
            for task in ours:
                task.cancel()
            await asyncio.wait(ours)
            assert gone(a)
            assert (await error_of(read_on(b))).closed_by != "us"
