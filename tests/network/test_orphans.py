"""A connection that is closed while the network is away: the kernel ends it, within bounds."""

from __future__ import annotations

import asyncio
import itertools
import time
from typing import Any

import pytest

from support.activities import open_comms, stream_of, until, until_calm
from support.endings import kind_of
from support.faces import Face
from support.network import HANG, Network, Side, states

AWAY = 4.0  # seconds; a bound of a second for its pauses lets a kernel give up after 1.4


@pytest.fixture
def keepalive() -> float:
    return 8.0


def test_a_close_is_heard_after_a_shorter_absence(
    network: Network, near: Side, far: Side, both_faces: list[Face]
) -> None:
    """Though who closed has nothing to wait for."""
    comms = [near.do(open_comms(face, near, far, 1))[0] for face in both_faces]
    until_calm(ours for ours, _ in comms)
    network.both(cut=True)
    start = time.monotonic()
    for ours, _ in comms:
        near.do(ours.close())
    assert time.monotonic() - start < AWAY / 2
    time.sleep(AWAY)
    network.heal()

    async def end_of(comm: Any) -> OSError:
        try:
            await comm.read()
        except OSError as error:
            return error
        raise AssertionError("a message came")

    for face, (_, theirs) in zip(both_faces, comms, strict=True):
        error = far.do(end_of(theirs))
        expected = "unannounced" if str(face) == "dask-tcp" else "closed"
        assert kind_of(error) == expected, (str(face), error)
    until(lambda: not states(near), "sockets are left", 5)


@pytest.mark.parametrize("keepalive", [4.0])
def test_none_stays_longer_than_a_dead_peer(
    network: Network, near: Side, far: Side, both_faces: list[Face], keepalive: float
) -> None:
    """At rest, with something on its way, and with more than the kernel takes."""
    ways = list(itertools.product(("close", "abort"), (0, 1000, 16_000_000)))
    comms = [near.do(open_comms(face, near, far, len(ways))) for face in both_faces]
    ended = [
        (*way, ours) for of_face in comms for way, (ours, _) in zip(ways, of_face, strict=True)
    ]
    until_calm(ours for *_, ours in ended)
    network.both(cut=True)
    start = time.monotonic()

    async def end(how: str, size: int, comm: Any) -> None:
        stream = stream_of(comm)
        before = stream.bytes_out
        writing = asyncio.ensure_future(comm.write(bytes(size))) if size else None
        while writing is not None and stream.bytes_out + stream.bytes_queued == before:
            await asyncio.sleep(0.01)
        assert (stream.bytes_queued > 0) == (size > 1000)
        if how == "abort":
            comm.abort()
        else:
            await comm.close()
        if writing is not None:
            await asyncio.gather(writing, return_exceptions=True)

    ending = [near.begin(end(*way)) for way in ended]
    for each in ending:
        each.result(HANG)
    assert time.monotonic() - start < keepalive + 1
    until(lambda: not states(near), "sockets are left", HANG)
    assert time.monotonic() - start < keepalive + 2
