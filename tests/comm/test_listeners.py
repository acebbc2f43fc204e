"""How a listener may be used, and misused: values, loops, tasks, and what it leaves behind."""

from __future__ import annotations

import asyncio
import gc
import warnings
import weakref
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from sealwire.comm import CloseCode, Comm, CommError, Listener, connect, listen
from support.aio import aio, until
from support.endings import error_of
from support.links import connect_args, echo, listen_args, over_schemes, place

pytest_generate_tests = over_schemes


def listening(scheme: str, handler: Any, **more: Any) -> Any:
    return listen(place(scheme), handler, **listen_args(scheme), **more)


async def dial(scheme: str, address: str) -> Comm:
    return await connect(address, **connect_args(scheme))


async def told(comm: Comm) -> None:
    """The peer said that it goes, and nothing went wrong."""
    error = await error_of(comm.read())
    assert (error.code, error.closed_by, error.clean) == (CloseCode.GOING_AWAY, "peer", True)


@pytest.mark.parametrize(
    "grace",
    [None, "1", -1, -1e-9, float("nan"), float("inf"), True, [], 1j, np.timedelta64(5, "s")],
)
@aio
async def test_a_grace_that_is_none(scheme: str, grace: Any) -> None:
    listener = await listening(scheme, echo)
    for call in (listener.close, lambda grace: listener.serve_forever(grace=grace)):
        with pytest.raises((TypeError, ValueError), match=r"got grace="):
            await call(grace)
    comm = await dial(scheme, listener.contact_address)  # it goes on
    await comm.close()
    await listener.close()


@pytest.mark.parametrize("first", ["await", "start", "with", "forever"])
@pytest.mark.parametrize("again", ["await", "start", "with"])
@aio
async def test_starting_what_has_started_changes_nothing(
    scheme: str, first: str, again: str
) -> None:
    """So that ``async with await listen(…)`` stops all that it has started."""
    listener = listening(scheme, echo)

    async def start(how: str) -> None:
        if how == "await":
            await listener
        elif how == "with":
            await listener.__aenter__()
        else:
            await listener.start()

    serving = None
    if first == "forever":
        serving = asyncio.ensure_future(listener.serve_forever())
        await asyncio.sleep(0)
    else:
        await start(first)
    address = listener.contact_address
    comm = await dial(scheme, address)
    await start(again)
    assert listener.contact_address == address
    await comm.write(1)
    assert await comm.read() == 1
    assert len(listener.comms) == listener.stats.greeted == 1
    await listener.close()
    await told(comm)
    with pytest.raises(CommError):
        await connect(address, max_attempts=1, **connect_args(scheme))
    if serving is not None:
        await serving
    await listener.start()  # but what was closed starts anew
    comm = await dial(scheme, listener.contact_address)
    await listener.close()
    await told(comm)


def test_it_starts_anew_in_another_event_loop() -> None:
    """One that was left open when its own has ended."""
    listener = listen("mem://", echo)

    async def start() -> None:
        await listener

    async def use() -> None:
        async with listener, connect(listener.contact_address) as comm:
            await comm.write(1)
            assert await comm.read() == 1

    asyncio.run(start())
    asyncio.run(use())


@aio
async def test_a_listener_that_nobody_awaited(scheme: str) -> None:
    for start in (None, "await", "with", "forever", "stop", "close"):
        listener = listening(scheme, echo)
        if start == "await":
            await listener
        elif start == "with":
            async with listener:
                pass
        elif start == "forever":
            task = asyncio.ensure_future(listener.serve_forever())
            await asyncio.sleep(0)
            await listener.close()
            await task
        elif start is not None:
            await getattr(listener, start)()
        if start == "await":
            await listener.close()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            task = None
            del listener
            gc.collect()
        texts = [str(one.message) for one in caught if one.category is RuntimeWarning]
        assert bool(texts) == (start is None), (start, texts)
        assert all("was never awaited" in text for text in texts)


@pytest.mark.parametrize("make", [asyncio.create_task, asyncio.ensure_future, asyncio.gather])
@aio
async def test_a_task_may_connect(scheme: str, make: Callable[[Any], Awaitable[Any]]) -> None:
    async with listening(scheme, echo) as listener:
        got = await make(connect(listener.contact_address, **connect_args(scheme)))
        comm = got[0] if isinstance(got, list) else got
        async with comm:
            await comm.write(1)
            assert await comm.read() == 1
        task = asyncio.create_task(connect(listener.contact_address, **connect_args(scheme)))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await listener.close()


@pytest.mark.parametrize("cancels", [False, True])
@aio
async def test_a_comm_that_has_ended_does_not_wait_for_the_collector(
    scheme: str, cancels: bool
) -> None:
    """Nor does its task, however its handler ended."""
    left: list[weakref.ref[Any]] = []

    def note(comm: Comm) -> None:
        task = asyncio.current_task()
        assert task is not None
        left.extend((weakref.ref(comm), weakref.ref(task)))

    async def read(comm: Comm) -> None:
        note(comm)
        await comm.read()

    async def wait(comm: Comm) -> None:
        note(comm)
        await comm.wait_closed()

    async def hang(comm: Comm) -> None:
        note(comm)
        await asyncio.Event().wait()

    gc.collect()
    gc.disable()
    try:
        for handler in (read, wait, hang):
            left.clear()
            listener = await listening(scheme, handler, cancel_on_disconnect=cancels)
            comms = [await dial(scheme, listener.contact_address) for _ in range(2)]
            await until(lambda listener=listener: len(listener.comms) == 2)  # type: ignore[misc]
            await comms.pop().close()
            comms.pop().abort()
            if handler is not hang or cancels:
                listener.stop()
                await listener.wait_closed()
            await listener.close()
            await until(lambda: not any(ref() for ref in left))
            assert len(left) == 4
    finally:
        gc.enable()


@aio
async def test_the_loop_of_another_thread_is_told(scheme: str) -> None:
    listener = await listening(scheme, echo)
    comm = await dial(scheme, listener.contact_address)
    for call in (listener.close, listener.wait_closed, listener.serve_forever):
        with pytest.raises(
            RuntimeError, match=r"it was started in another one; use asyncio\.run_c"
        ):
            await asyncio.to_thread(lambda call=call: asyncio.run(call()))  # type: ignore[misc]
    await comm.write("goes on")
    assert await comm.read() == "goes on"
    loop = asyncio.get_running_loop()
    await asyncio.to_thread(
        lambda: asyncio.run_coroutine_threadsafe(listener.close(), loop).result(30)
    )
    await told(comm)


@aio
async def test_another_thread_cannot_start_it_again(scheme: str) -> None:
    """What it accepts with here could not be stopped any more."""
    listener = await listening(scheme, echo)
    address = listener.contact_address
    with pytest.raises(RuntimeError, match=r"cannot start .* in this event loop: it was started"):
        await asyncio.to_thread(lambda: asyncio.run(listener.start()))
    assert listener.contact_address == address
    async with await dial(scheme, address) as comm:
        await comm.write("goes on")
        assert await comm.read() == "goes on"
    await listener.close()
    with pytest.raises(CommError):
        await connect(address, max_attempts=1, **connect_args(scheme))


@aio
async def test_another_thread_cannot_stop_it(scheme: str) -> None:
    """Not in part, either: whether a loop runs in that thread or not."""
    listener = await listening(scheme, echo)

    async def with_a_loop() -> None:
        listener.stop()

    for stop in (listener.stop, lambda: asyncio.run(with_a_loop())):
        with pytest.raises(RuntimeError, match=r"in another one; use loop\.call_soon_threadsafe"):
            await asyncio.to_thread(stop)
        async with await dial(scheme, listener.contact_address) as comm:
            await comm.write("goes on")
            assert await comm.read() == "goes on"
    asyncio.get_running_loop().call_soon_threadsafe(listener.stop)
    await listener.wait_closed()


@pytest.mark.parametrize("thread", [False, True], ids=["here", "in a thread"])
def test_it_is_stopped_where_its_loop_has_ended(scheme: str, thread: bool) -> None:
    async def started() -> Listener:
        return await listening(scheme, echo)

    listener = asyncio.run(started())
    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(listener.stop).result() if thread else listener.stop()
    assert done.done()
    assert "stopped" in repr(listener)
    asyncio.run(listening_again(scheme, listener.listen_address))


async def listening_again(scheme: str, address: str) -> None:
    async with listen(address, echo, **listen_args(scheme)) as listener:
        assert listener.listen_address == address
