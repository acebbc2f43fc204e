"""Who is called when a socket can be read or written, and how a registration is handed on."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Iterator

import pytest
import uvloop

from sealwire.comm.transport.readiness import Readiness
from sealwire.comm.transport.wakeup import resume
from support.aio import aio, until

Loops = Callable[[], asyncio.AbstractEventLoop]
Pair = tuple[socket.socket, socket.socket]

on_both_loops = pytest.mark.parametrize(
    "loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"]
)


@pytest.fixture
def pair() -> Iterator[Pair]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with ours, theirs:
        yield ours, theirs


async def polls(number: int) -> None:
    """Return once the loop has called for a socket that can be read that often."""
    loop = asyncio.get_running_loop()
    seen: list[None] = []
    near, far = socket.socketpair()
    with near, far:
        near.setblocking(False)
        far.send(b"x")
        loop.add_reader(near, seen.append, None)
        await until(lambda: len(seen) >= number)
        loop.remove_reader(near)


@on_both_loops
@aio
async def test_the_last_one_is_called_and_no_other(loop_factory: Loops, pair: Pair) -> None:
    ours, theirs = pair
    called: list[str] = []
    readiness = Readiness(ours)
    readiness.on_readable(lambda: called.append("first byte"))
    readiness.on_readable(lambda: called.append("handshake"))
    readiness.on_writable(lambda: called.append("can be written"))
    assert readiness.reads
    assert readiness.writes
    theirs.send(b"x")
    await until(lambda: len(set(called)) == 2)
    readiness.on_writable(None)
    assert readiness.reads
    assert not readiness.writes
    called.clear()
    await until(lambda: len(called) == 3)  # as long as nobody takes the byte
    assert set(called) == {"handshake"}
    readiness.stop()
    called.clear()
    await polls(3)
    assert not called
    assert not readiness.reads
    readiness.stop()


@on_both_loops
@aio
async def test_a_callback_hands_over_while_it_runs(loop_factory: Loops, pair: Pair) -> None:
    """As a handshake does that is done in the event in which the first message is there too."""
    ours, theirs = pair
    readiness = Readiness(ours)
    taken: list[bytes] = []

    def handshake() -> None:
        taken.append(ours.recv(1))
        readiness.on_readable(lambda: taken.append(ours.recv(1)))

    readiness.on_readable(handshake)
    theirs.send(b"abc")
    await until(lambda: len(taken) == 3)
    assert b"".join(taken) == b"abc"
    readiness.stop()


@aio
async def test_a_registration_that_is_handed_on_costs_no_system_call(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    selector = asyncio.get_running_loop()._selector._selector
    readiness = Readiness(pair[0])
    readiness.on_readable(lambda: None)

    class Counting:
        calls = 0

        def __getattr__(self, name: str) -> object:
            type(self).calls += name in ("register", "modify", "unregister")
            return getattr(selector, name)

    monkeypatch.setattr(asyncio.get_running_loop()._selector, "_selector", Counting())
    readiness.on_readable(lambda: None)
    assert Counting.calls == 0
    readiness.stop()
    assert Counting.calls == 1


@pytest.mark.parametrize(
    ("loop_factory", "once"),
    [(asyncio.new_event_loop, False), (uvloop.new_event_loop, True)],
    ids=["asyncio", "uvloop"],
)
@aio
async def test_which_loops_tell_an_error_once(loop_factory: Loops, once: bool, pair: Pair) -> None:
    assert Readiness(pair[0]).errors_once is once


@aio
async def test_a_closed_socket_is_not_registered() -> None:
    ours, theirs = socket.socketpair()
    readiness = Readiness(ours)
    theirs.close()
    os.close(ours.detach())
    with pytest.raises((OSError, ValueError)):
        readiness.on_readable(lambda: None)
    assert not readiness.reads
    readiness.stop()


@aio
async def test_an_event_may_wake_again_what_it_woke() -> None:
    """It is called in each turn of the loop until somebody takes the registration over."""
    waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    order: list[str] = []

    async def wait() -> None:
        await waiter
        order.append("woken")

    task = asyncio.ensure_future(wait())
    await asyncio.sleep(0)

    def event() -> None:
        resume(waiter)
        order.append("event over")

    asyncio.get_running_loop().call_soon(event)
    asyncio.get_running_loop().call_soon(event)
    await task
    await until(lambda: len(order) == 3)
    assert order == ["woken", "event over", "event over"]


@aio
async def test_one_that_was_cancelled_is_not_woken() -> None:
    waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    task = asyncio.ensure_future(asyncio.wait_for(waiter, 60))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    resume(waiter)
    assert waiter.cancelled()
