"""A connection that is closed while the network is away: the kernel ends it, within bounds."""

from __future__ import annotations

import asyncio
import socket
import time
from typing import Any

import pytest

from sealwire.comm.transport.goodbye import is_calm
from support.activities import open_comms, until
from support.endings import kind_of
from support.faces import Face
from support.network import HANG, Network, Side, states

AWAY = 4.0  # seconds; a bound of a second for its pauses lets a kernel give up after 1.4


def socket_of(comm: Any) -> socket.socket:
    stream = comm.stream if hasattr(comm, "stream") else comm._stream
    return stream.socket  # type: ignore[no-any-return]


@pytest.fixture
def keepalive() -> float:
    return 8.0


def test_a_close_is_heard_after_a_shorter_absence(
    network: Network, near: Side, far: Side, both_faces: list[Face]
) -> None:
    """Though who closed has nothing to wait for."""
    comms = [near.do(open_comms(face, near, far, 1))[0] for face in both_faces]
    until(lambda: all(is_calm(socket_of(ours)) for ours, _ in comms), "something is on its way")
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


@pytest.mark.parametrize("how", ["close", "abort"])
def test_none_stays_longer_than_a_dead_peer(
    how: str, network: Network, near: Side, far: Side, both_faces: list[Face], keepalive: float
) -> None:
    """At rest, with something on its way, and with more than the kernel takes."""
    sizes = (0, 1000, 50_000_000)
    comms = [near.do(open_comms(face, near, far, len(sizes))) for face in both_faces]
    pairs = [
        (size, ours) for of_face in comms for size, (ours, _) in zip(sizes, of_face, strict=True)
    ]
    until(lambda: all(is_calm(socket_of(ours)) for _, ours in pairs), "something is on its way")
    network.both(cut=True)
    start = time.monotonic()

    async def end(size: int, comm: Any) -> None:
        writing = asyncio.ensure_future(comm.write(bytes(size))) if size else None
        await asyncio.sleep(0.1)
        if how == "abort":
            comm.abort()
        else:
            await comm.close()
        if writing is not None:
            await asyncio.gather(writing, return_exceptions=True)

    ending = [near.begin(end(size, ours)) for size, ours in pairs]
    for each in ending:
        each.result(HANG)
    assert time.monotonic() - start < keepalive + 1
    until(lambda: not states(near), "sockets are left", HANG)
    assert time.monotonic() - start < keepalive + 2
