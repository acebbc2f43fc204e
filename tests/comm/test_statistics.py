"""The numbers of a process: of every scheme, of both sides, and of all that has ended."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import socket
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from types import FrameType
from typing import Any

import pytest

from sealwire.comm import CommClosedError, Limits, connect, listen, statistics
from sealwire.comm.statistics import CommKind, Histogram, Statistics, snapshot
from sealwire.comm.transport import switch_interval
from support.aio import aio, until
from support.links import connect_args, echo, listen_args, over_schemes, pair, place

pytest_generate_tests = over_schemes

VERSIONS = {"tls": "TLSv1.3"}
SUMS = ("bytes_in", "bytes_out", "messages_in", "messages_out", "accepted", "greeted", "starved")


@pytest.fixture(autouse=True)
def _a_process_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a process that has just begun: what other tests have left open is not counted."""
    monkeypatch.setattr(statistics, "_process", statistics._Process())


def increases(before: Statistics, after: Statistics) -> bool:
    """Whether no sum is less than it was."""
    plain = all(getattr(before, name) <= getattr(after, name) for name in SUMS)
    return (
        plain
        and not Counter(before.refused) - Counter(after.refused)
        and not Counter(before.broken) - Counter(after.broken)
    )


def count(histogram: Histogram) -> int:
    return sum(histogram.counts)


@aio
async def test_an_open_comm_and_what_it_carries(scheme: str) -> None:
    async with pair(scheme) as (dialled, accepted):
        for size in (0, 1, 20_000, 3_000_000):
            written = asyncio.ensure_future(dialled.write(bytes(size)))
            assert len(await accepted.read()) == size
            await written
        assert dialled.write_nowait("and one more")
        await accepted.write("an answer")
        assert (await accepted.read(), await dialled.read()) == ("and one more", "an answer")
        now = snapshot()
        version = VERSIONS.get(scheme, "")
        assert now.comms == {CommKind(scheme, version, side): 1 for side in ("in", "out")}
        assert now.messages_in == now.messages_out == 6
        assert now.bytes_in == now.bytes_out > 3_020_001
        assert (now.accepted, now.greeted, now.pending) == (1, 1, 0)
        assert not now.send_queue
        assert count(now.handshakes["client"]) == count(now.handshakes["server"]) == 1
        assert 0 < now.handshakes["server"].total < 30
        await dialled.close()
    then = snapshot()
    assert increases(now, then)
    assert (then.messages_in, then.messages_out, then.comms) == (6, 7, {})
    assert then.bytes_out > now.bytes_out
    assert not then.broken
    assert not then.refused


@aio
async def test_a_hello_is_no_message_and_what_closes_is_one(scheme: str) -> None:
    async with pair(scheme) as (dialled, accepted):
        assert (snapshot().messages_in, snapshot().messages_out) == (0, 0)
        await dialled.close(4000, "enough")
        with pytest.raises(CommClosedError, match="enough"):
            await accepted.read()
        assert (snapshot().messages_in, snapshot().messages_out) == (1, 1)


@aio
async def test_a_peer_that_reads_nothing_leaves_a_queue() -> None:
    async with pair("tcp", Limits(read_ahead=1)) as (dialled, _):
        for _ in range(20):
            dialled.write_nowait(bytes(1_000_000))
        assert snapshot().send_queue == dialled.queued > 0  # type: ignore[attr-defined]
    assert snapshot().send_queue == 0


@pytest.mark.parametrize("side", ["dialled", "accepted"])
@aio
async def test_a_lost_comm_is_broken_at_each_end_that_sees_it(side: str) -> None:
    async with pair("tcp") as (dialled, accepted):
        lost, other = (dialled, accepted) if side == "dialled" else (accepted, dialled)
        lost.write_nowait(bytes(10_000_000))
        lost.abort()  # with bytes unsent: a reset
        with pytest.raises(CommClosedError):
            await other.read()
        assert snapshot().broken == {"lost": 1}
        assert not snapshot().comms


@aio
async def test_refusals_and_pending_connections_of_all_listeners() -> None:
    encrypted = listen(place("tls"), echo, **listen_args("tls"))
    async with encrypted as one, listen(place("tcp"), echo) as other:
        ports = [int(each.contact_address.rpartition(":")[2]) for each in (one, other)]
        with contextlib.ExitStack() as opened:
            for port in ports:
                opened.enter_context(socket.create_connection(("127.0.0.1", port)))
            await until(lambda: snapshot().pending == 2)
            assert snapshot().accepted == 2
        await until(lambda: snapshot().refused == {"probe": 2})
        with socket.create_connection(("127.0.0.1", ports[0])) as stranger:
            stranger.sendall(b"PING\r\n" * 8)
            await until(lambda: snapshot().refused == {"probe": 2, "not-tls": 1})
    before = snapshot()
    del encrypted, one, other
    await asyncio.sleep(0)  # what the loop has yet to call may refer to them
    gc.collect()
    # Listeners that are no more have not taken it with them; a slow machine has held the loop.
    assert snapshot()._replace(holds=before.holds) == before
    assert statistics._process.listeners == []


@aio
async def test_many_listeners_that_nobody_asks_about_are_forgotten() -> None:
    for number in range(100):
        async with listen(place("mem"), echo) as listener:
            comm = await connect(listener.contact_address)
            await comm.write("x")
            await comm.read()
            await comm.close()
        del listener, comm
        if not number % 20:
            gc.collect()
    assert len(statistics._process.listeners) <= 64
    await until(lambda: not snapshot().comms)
    now = snapshot()
    assert (now.accepted, now.greeted, now.messages_in, now.messages_out) == (100, 100, 300, 300)


def test_what_a_loop_leaves_open_still_counts(scheme: str) -> None:
    async def leave() -> None:
        listener = await listen(place(scheme), echo, **listen_args(scheme))
        comm = await connect(listener.contact_address, **connect_args(scheme))
        await comm.write("x")
        assert await comm.read() == "x"
        listener.stop()

    loop = asyncio.new_event_loop()
    loop.run_until_complete(leave())
    before = snapshot()
    assert (before.messages_in, before.messages_out) == (2, 2)
    for task in asyncio.all_tasks(loop):
        task.cancel()
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    del loop
    gc.collect()
    after = snapshot()
    assert increases(before, after)
    assert (after.messages_in, after.messages_out, after.comms) == (2, 2, {})
    assert not statistics._process.streams


@pytest.fixture
def _switching_often() -> Iterator[None]:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    switch_interval.configure(interval=None)
    yield
    switch_interval.configure()
    sys.setswitchinterval(interval)


@pytest.mark.usefixtures("_switching_often")
def test_snapshots_of_another_thread_never_decrease() -> None:
    """While comms come and go in two loops, each in a thread of its own."""

    async def busy() -> None:
        async with listen(place("tcp"), echo) as listener:
            for number in range(150):
                async with connect(listener.contact_address) as comm:
                    await comm.write(bytes(number))
                    await comm.read()
                if not number % 3:
                    (await connect(listener.contact_address)).abort()

    threads = [threading.Thread(target=asyncio.run, args=(busy(),)) for _ in range(2)]
    for thread in threads:
        thread.start()
    seen = [snapshot()]
    while any(thread.is_alive() for thread in threads):
        seen.append(snapshot())
    for thread in threads:
        thread.join()
    seen.append(snapshot())
    assert all(increases(*both) for both in pairwise(seen))
    assert len(seen) > 10
    assert 600 <= seen[-1].messages_in <= seen[-1].messages_out == 900
    assert seen[-1].accepted == 2 * (150 + 50)
    assert not seen[-1].comms


@aio
async def test_a_forked_child_begins_with_nothing() -> None:
    async with pair("tcp") as (dialled, accepted):
        await dialled.write("x")
        await accepted.read()
        reading, writing = os.pipe()
        child = os.fork()
        if not child:  # no assertion here: it would run the rest of the tests again
            here = snapshot()
            dialled._stream._count_end()  # type: ignore[attr-defined]
            told = [here.messages_in, here.bytes_out, here.accepted, len(here.comms)]
            told += [snapshot().bytes_out]
            os.write(writing, repr(told).encode())
            os._exit(0)
        os.close(writing)
        try:
            assert (await asyncio.to_thread(os.waitpid, child, 0))[1] == 0
            assert os.read(reading, 1000) == b"[0, 0, 0, 0, 0]"
        finally:
            os.close(reading)
        assert snapshot().messages_in == 1


@aio
async def test_how_long_the_loop_was_held_is_seen() -> None:
    async with pair("tcp") as (dialled, accepted):
        await dialled.write("x")
        await accepted.read()
        before = snapshot().holds
        threading.Event().wait(0.3)  # as a task that computes
        await until(lambda: count(snapshot().holds) > count(before))
    longest = max(index for index, number in enumerate(snapshot().holds.counts) if number)
    assert statistics.BOUNDS[longest] >= 0.25
    assert snapshot().holds.total >= 0.25


@pytest.mark.parametrize(
    ("seconds", "bucket"), [(-1.0, 0), (0.0, 0), (0.001, 0), (0.0011, 1), (30.0, 13), (1e9, 14)]
)
def test_a_duration_is_in_the_bucket_of_its_bound(seconds: float, bucket: int) -> None:
    statistics.held(seconds)
    holds = snapshot().holds
    assert [index for index, number in enumerate(holds.counts) if number] == [bucket]
    assert holds.total == max(seconds, 0)


@aio
async def test_a_message_costs_no_call(scheme: str) -> None:
    """But for the timer of a busy loop, which comes every few milliseconds."""
    called: Counter[str] = Counter()

    def note(frame: FrameType, event: str, _: Any) -> None:
        if event == "call":
            ours = frame.f_code.co_filename == statistics.__file__
            called[frame.f_code.co_name if ours else "elsewhere"] += 1

    async with pair(scheme) as (dialled, accepted):
        sys.setprofile(note)
        try:
            for _ in range(200):
                await dialled.write(["a", 1])
                await accepted.write(await accepted.read())
                await dialled.read()
        finally:
            sys.setprofile(None)
    assert called.pop("elsewhere") > 1000
    assert set(called) <= {"held", "add"}, called
    assert snapshot().messages_in == 400
