"""The switch interval is lowered while a loop has I/O in hand, and always comes back."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator

import pytest
import uvloop

from sealwire.comm import Comm, configure_gil, connect, listen
from sealwire.comm.transport import switch_interval
from support.aio import aio, until
from support.links import SCHEMES, connect_args, echo, listen_args, pair

LoopFactory = Callable[[], asyncio.AbstractEventLoop]

LOWERED = 20  # microseconds
USUAL = 4_000

loops = pytest.mark.parametrize(
    "loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"]
)


def interval() -> int:
    return round(sys.getswitchinterval() * 1e6)


@pytest.fixture(autouse=True)
def known_interval() -> Iterator[None]:
    before, chosen = sys.getswitchinterval(), switch_interval.policy()
    sys.setswitchinterval(USUAL / 1e6)
    configure_gil(interval=LOWERED / 1e6, linger=0.005)
    yield
    now = interval()
    sys.setswitchinterval(before)
    configure_gil(*chosen)
    assert now == USUAL


async def exchange(comm: Comm) -> None:
    await comm.write("x")
    await comm.read()


@pytest.mark.parametrize("scheme", SCHEMES)
@loops
@aio
async def test_lowered_by_a_message_and_restored_when_idle(
    scheme: str, loop_factory: LoopFactory
) -> None:
    async with (
        listen(f"{scheme}://127.0.0.1:0", echo, **listen_args(scheme)) as listener,
        connect(listener.contact_address, **connect_args(scheme)) as comm,
    ):
        for _ in range(3):
            await exchange(comm)
            assert interval() == LOWERED
            await until(lambda: interval() == USUAL)  # the comm stays open


@aio
async def test_kept_low_while_messages_follow_each_other() -> None:
    async with pair("tcp") as (near, far):
        loop = asyncio.get_running_loop()
        stop = loop.time() + 0.05  # many times the linger
        while loop.time() < stop:
            await near.write("x")
            await far.read()
            assert interval() == LOWERED
        await until(lambda: interval() == USUAL)


@aio
async def test_restored_though_a_handler_fails(caplog: pytest.LogCaptureFixture) -> None:
    async def fail(comm: Comm) -> None:
        await comm.read()
        raise LookupError("on purpose")

    async with listen("tcp://127.0.0.1:0", fail) as listener:
        comm = await connect(listener.contact_address)
        await comm.write("x")
        await until(comm.closed)
        assert interval() == LOWERED
        await until(lambda: interval() == USUAL)
    assert "on purpose" in caplog.text


def test_restored_when_the_loop_ends_in_the_middle() -> None:
    """In a process of its own: its comms are still open when its loop is gone."""
    run(
        """
kept = []

async def main():
    listener = listen("tcp://127.0.0.1:0", echo)
    await listener
    comm = await connect(listener.contact_address)
    await comm.write(1)
    await comm.read()
    assert sys.getswitchinterval() < 0.001
    kept.extend([listener, comm])

asyncio.run(main())
assert sys.getswitchinterval() == 0.005
"""
    )


def test_restored_after_loops_that_were_just_closed() -> None:
    """Not by `asyncio.run`: nothing of theirs is shut down, and their comms were busy."""
    run(
        """
async def main():
    async with listen("tcp://127.0.0.1:0", echo) as listener:
        async with connect(listener.contact_address) as comm:
            await comm.write(1)
            await comm.read()

kept = []
for _ in range(3):
    kept.append(asyncio.new_event_loop())
    kept[-1].run_until_complete(main())
    kept[-1].close()
assert sys.getswitchinterval() < 0.001
asyncio.run(main())
assert sys.getswitchinterval() == 0.005
"""
    )


def test_two_loops_are_counted_together() -> None:
    """The last one that falls idle brings the interval back."""
    steps: list[int] = []
    first_busy, second_over = threading.Event(), threading.Event()

    def first() -> None:
        async def main() -> None:
            async with pair("tcp") as (near, far):
                while not second_over.is_set():
                    await near.write("x")
                    await far.read()
                    first_busy.set()
                steps.append(interval())
                await until(lambda: interval() == USUAL)

        asyncio.run(main())

    thread = threading.Thread(target=first)
    thread.start()
    assert first_busy.wait(30)

    async def second() -> None:
        async with pair("tcp") as (near, far):
            await near.write("x")
            await far.read()
            guard = switch_interval.guard_of(asyncio.get_running_loop())
            assert guard.active
            await until(lambda: not guard.active)
            steps.append(interval())

    asyncio.run(second())
    second_over.set()
    thread.join(30)
    assert steps == [LOWERED, LOWERED]


@aio
async def test_what_other_code_sets_meanwhile_stays() -> None:
    async with pair("tcp") as (near, far):
        await near.write("x")
        await far.read()
        sys.setswitchinterval(0.001)
        await until(lambda: not switch_interval.guard_of(asyncio.get_running_loop()).active)
        assert interval() == 1_000
    sys.setswitchinterval(USUAL / 1e6)


@aio
async def test_an_interval_that_is_lower_already_stays() -> None:
    sys.setswitchinterval(3e-6)
    async with pair("tcp") as (near, far):
        await near.write("x")
        await far.read()
        assert interval() == 3
        await until(lambda: not switch_interval.guard_of(asyncio.get_running_loop()).active)
        assert interval() == 3
    sys.setswitchinterval(USUAL / 1e6)


@aio
async def test_none_leaves_it_alone() -> None:
    configure_gil(interval=None)
    async with pair("tcp") as (near, far):
        await near.write("x")
        await far.read()
        assert interval() == USUAL


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"interval": 0}, "bad switch interval 0: need seconds above 0 and at most 1"),
        ({"interval": 1.5}, "bad switch interval 1.5"),
        ({"linger": 0}, "bad linger 0: need seconds above 0"),
        ({"linger": -1}, "bad linger -1"),
    ],
)
def test_policies_that_cannot_be(settings: dict[str, float], words: str) -> None:
    before = switch_interval.policy()
    with pytest.raises(ValueError, match=words):
        configure_gil(**settings)
    assert switch_interval.policy() == before


def test_a_forked_child_does_not_inherit_it() -> None:
    run(
        """
async def main():
    async with listen("tcp://127.0.0.1:0", echo) as listener:
        async with connect(listener.contact_address) as comm:
            await comm.write(1)
            await comm.read()
            assert sys.getswitchinterval() < 0.001
            pid = os.fork()
            if not pid:
                os._exit(0 if sys.getswitchinterval() == 0.005 else 1)
            assert os.waitpid(pid, 0)[1] == 0

asyncio.run(main())
"""
    )


@pytest.mark.parametrize("doing", ["take", "release"])
def test_a_loop_may_be_collected_at_any_moment(doing: str) -> None:
    """Within each line of ours the collector frees a loop that was busy, and has its claim end."""
    run(
        f"""
import gc
from sealwire.comm.transport.switch_interval import _Hold, Guard

DOING, LOW, STEPS = {doing!r}, 20e-6, 40

class Cycle:
    pass

def forget_a_loop():
    cycle = Cycle()
    cycle.itself, cycle.loop = cycle, asyncio.new_event_loop()
    cycle.loop.cycle = cycle
    Guard(cycle.loop)._hold.take(LOW)
    cycle.loop.close()

def traced(frame, event, _):
    global left
    if frame.f_code.co_filename != _Hold.take.__code__.co_filename:
        return None
    if event == "line":
        left -= 1
        if not left:
            gc.collect()
    return traced

async def main():
    global left
    hold = _Hold(asyncio.get_running_loop())
    reached = 0
    gc.disable()
    gc.freeze()
    for step in range(1, STEPS):
        if DOING == "release":
            hold.take(LOW)
        forget_a_loop()
        left = step
        sys.settrace(traced)
        hold.take(LOW) if DOING == "take" else hold.release()
        sys.settrace(None)
        reached += left <= 0
        gc.collect()
        if DOING == "take":
            assert sys.getswitchinterval() < 0.001, step
            hold.release()
        assert sys.getswitchinterval() == 0.005, step
    assert 4 <= reached < STEPS - 1, reached  # each line was one of the steps

asyncio.run(main())
"""
    )


def run(code: str) -> None:
    """Run code in a process that uses a comm."""
    head = """
import asyncio, os, sys
from sealwire.comm import connect, listen

async def echo(comm):
    async for message in comm:
        await comm.write(message)
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", head + code], check=True, timeout=60)
