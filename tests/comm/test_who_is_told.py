"""What is told of a peer that fails, by either face, in whatever activity, and how soon."""

from __future__ import annotations

import asyncio
import pickle
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvloop

from sealwire.comm import Limits
from sealwire.dask_backend import install, installed, uninstall
from support import forking, programs
from support.aio import aio
from support.endings import kind_of, told_of
from support.faces import faces
from support.links import security

LoopFactory = Callable[[], asyncio.AbstractEventLoop]

AT_ONCE = 5.0  # seconds; some milliseconds on a machine of one's own
EVENTS = {
    "reset": "the connection is reset",
    "raise": "its handler raises",
    "close": "it closes",
    "kill": "its process is killed",
}
# What we do, and what the peer does.
ACTIVITIES = {
    "idle": ("idle", "idle"),
    "waiting": ("waiting", "waiting"),
    "sending": ("sending", "receiving"),
    "receiving": ("waiting", "sending"),
    "flooding": ("sending", "idle"),
    "both": ("both", "both"),
}
AT_REST = ("idle", "waiting")


@pytest.fixture(autouse=True)
def backend() -> Iterator[None]:
    before = installed()
    install()
    yield
    if not before:
        uninstall()


class Peer:
    """The process at the other end."""

    def __init__(self, process: forking.Popen) -> None:
        self.process = process

    def tell(self, data: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(data)
        self.process.stdin.flush()

    async def line(self) -> str:
        assert self.process.stdout is not None
        return (await asyncio.to_thread(self.process.stdout.readline)).decode().strip()


@asynccontextmanager
async def peer() -> AsyncIterator[Peer]:
    loop = asyncio.get_running_loop()
    name = "uvloop" if type(loop).__module__.startswith("uvloop") else "asyncio"
    process = await asyncio.to_thread(
        forking.Popen, "dask", programs.command("failing_peer", name), env=programs.environment(),
        cwd=programs.HOME, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    with process:
        try:
            yield Peer(process)
        finally:
            process.kill()


async def told(comm: Any, doing: str) -> tuple[float, OSError]:
    """When, and what."""
    try:
        if doing == "idle":
            while not comm.closed():
                await asyncio.sleep(0.001)
        if doing == "both":
            writing = asyncio.ensure_future(told(comm, "sending"))
            when, error = await told(comm, "waiting")
            await writing
            return when, error
        while doing == "sending":
            await comm.write(bytes(50_000))
            await asyncio.sleep(0.001)  # Dask's writes do not wait
        while True:
            await comm.read()
    except OSError as error:
        return time.monotonic(), error


@pytest.mark.parametrize(
    ("first", "loop_factory"),
    [(0, asyncio.new_event_loop), (1, uvloop.new_event_loop)],
    ids=["asyncio", "uvloop"],
)
@aio
async def test_who_is_told_what(first: int, loop_factory: LoopFactory) -> None:
    """One process fails in all ways, one after the other, and is killed in the end.

    Loops, faces and faults: every two meet, each face failing in one way on one loop.
    """
    async with peer() as other:
        other.tell(pickle.dumps(security()))
        by_face = faces(Limits())
        addresses = [await other.line() for _ in by_face]
        wrong = []
        for number, fault in enumerate(EVENTS, first):
            places = slice(number % 2, None, 2)
            told = await misled(other, by_face[places], addresses[places], fault)
            wrong += [(fault, *each) for each in told]
        assert not wrong


async def misled(
    other: Peer, by_face: list[Any], addresses: list[str], fault: str
) -> list[tuple[Any, ...]]:
    """Let a peer fail for new comms of every activity; who was told something else, or late."""
    documented = told_of(EVENTS[fault])
    assert documented.when == "at once"
    waiting = []
    for face, address in zip(by_face, addresses, strict=True):
        for activity, (doing, theirs) in ACTIVITIES.items():
            comm = await face.connect(address)
            await comm.write([theirs, fault])
            waiting.append((str(face), activity, comm, doing))
    for _ in waiting:
        assert await other.line() == "at work"
    tasks = [asyncio.ensure_future(told(comm, doing)) for _, _, comm, doing in waiting]
    for _, activity, comm, _ in waiting:
        if activity == "flooding":
            stream = comm.stream if hasattr(comm, "stream") else comm._stream
            while not stream._sender.outbox:  # the kernels have taken what they take
                await asyncio.sleep(0.001)
    assert not [task for task in tasks if task.done()], fault
    assert len(tasks) == 2 * len(ACTIVITIES)
    start = time.monotonic()
    if fault == "kill":
        other.process.kill()
    else:
        other.tell(b"!")
    wrong = []
    for (face_name, activity, _, _), task in zip(waiting, tasks, strict=True):
        when, error = await task
        at_rest, busy = documented.kinds[face_name]
        kind = kind_of(error)
        if kind not in (at_rest if activity in AT_REST else busy) or when - start > AT_ONCE:
            wrong.append((face_name, activity, kind, when - start, str(error)))
    return wrong
