"""A path of 200 ms, and one that loses a packet in a hundred: all arrives, in its order."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from support.activities import abort_all, at_work, open_comms, until
from support.faces import Face
from support.network import Network, Side

LOSS, DELAY = 0.01, 0.1  # one way: of packets, and seconds
COUNT = 60
PATHS = {"200 ms": {"delay": DELAY}, "1 % lost": {"loss": LOSS}}


@pytest.fixture
def keepalive() -> float:
    return 6.0  # with 4, the kernel gives up after two probes that a busy machine delays


async def send(comm: Any) -> None:
    for number in range(COUNT):
        await comm.write((number, bytes(number * 200)))


async def receive(comm: Any) -> float:
    """When all have come. Whoever sends has the whole of it in one window, or waits."""
    for number in range(COUNT):
        got, data = await comm.read()
        assert (got, len(data)) == (number, number * 200)
    return time.monotonic()


async def both(comm: Any) -> float:
    _, when = await asyncio.gather(send(comm), receive(comm))
    return when


@pytest.mark.parametrize("path", PATHS)
def test_all_arrives(
    path: str, network: Network, near: Side, far: Side, both_faces: list[Face]
) -> None:
    """A third of a megabyte each way on each comm, as fast as they go."""
    comms = [near.do(open_comms(face, near, far, 1))[0] for face in both_faces]
    network.both(**PATHS[path])
    start = time.monotonic()
    ends = [side.begin(both(comm)) for pair in comms for side, comm in zip((near, far), pair)]  # noqa: B905
    seconds = max(end.result(60) for end in ends) - start
    assert seconds < 15
    for pair in comms:
        for side, comm in zip((near, far), pair, strict=True):
            side.loop.call_soon_threadsafe(comm.abort)


def test_nobody_is_given_up_on_a_bad_path(
    network: Network, near: Side, far: Side, both_faces: list[Face], keepalive: float
) -> None:
    """For longer than `keepalive-timeout`, in every activity."""
    ends = at_work(both_faces, near, far)
    network.both(delay=DELAY, loss=LOSS)
    start = time.monotonic()
    before = {end: end.messages for end in ends}
    busy = [end for end in ends if end.messages]
    until(lambda: time.monotonic() - start > keepalive + 0.5, "time stands still")
    assert not [(end.name, end.told.result(0)) for end in ends if end.told and end.told.done()]
    assert all(end.messages > before[end] for end in busy)
    abort_all(ends)
