"""Messages whose size takes more than 32 bits: every part counts them, none touches their memory.

What they cost two processes is measured in tests/comm/test_large.py.
"""

from __future__ import annotations

import mmap
import sys
from collections.abc import Callable
from typing import Any

import pytest

from sealwire.comm import Limits
from sealwire.comm.transport import receiver as module
from sealwire.comm.transport.receiver import Receiver
from sealwire.comm.transport.sender import Sender
from sealwire.comm.wire.framing import pack, pack_one
from sealwire.comm.wire.outbox import CHUNK, GATHERED
from support.fakes import FakeConnection, FakeGuard, FakeLoop, Wire

GiB = 1 << 30
SIZES = [2 * GiB - 1, 2 * GiB, 4 * GiB - 1, 4 * GiB, 5 * GiB + 12_345]
PEER = "tcp://peer:1"
LIMITS = Limits(max_message_size=8 * GiB, max_hello_size=8 * GiB)


PRIVATE: dict[str, int] = (
    {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_NORESERVE", 0)}
    if hasattr(mmap, "MAP_PRIVATE")
    else {}
)


def reserve(size: int) -> memoryview:
    """Memory that costs nothing until it is touched."""
    return memoryview(mmap.mmap(-1, size, **PRIVATE))


class Counting(Wire):
    """Takes all it is given, and fills all it is asked to, in numbers alone."""

    def __init__(self, *gives: bytes, left: int = 0) -> None:
        super().__init__(gives=gives)
        self.left = left  # to give after that
        self.taken = 0
        self.largest = 0

    def send(self, data: Any) -> int:
        size = len(data)
        self.taken += size
        self.largest = max(self.largest, size)
        return size

    def send_several(self, data: Any) -> int:
        return sum(map(self.send, data))

    def receive(self, buffer: Any) -> int:
        return super().receive(buffer) if self.gives else self._give(len(buffer))

    def fill(self, target: memoryview, note: Callable[[int], object]) -> tuple[int, int]:
        size = self._give(len(target))
        note(size)
        return size, size

    def _give(self, room: int) -> int:
        size = min(room, self.left)
        self.left -= size
        self.largest = max(self.largest, size)
        if not size:
            raise BlockingIOError
        return size


@pytest.fixture(autouse=True)
def untouched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "allocate", reserve)


@pytest.mark.parametrize("several", [True, False], ids=["plain", "tls"])
@pytest.mark.parametrize("size", SIZES)
def test_it_is_sent_in_pieces_that_a_call_takes(size: int, several: bool) -> None:
    """A send over TLS takes less than 31 bits, and one over TCP what the kernel likes."""
    loop: Any = FakeLoop()
    wire = Counting()
    sender = Sender(FakeConnection(), LIMITS, PEER, loop)
    channel = wire.channel(several=several)
    sender.begin(channel)
    written, leave = sender.write([b"header", reserve(size)])
    assert written == 32 + len(b"header") + size
    assert leave == 0
    while sender.blocked:
        before = wire.taken
        sender.flush()
        assert 0 < wire.taken - before < channel.budget + GATHERED
    assert wire.taken == written == sender.outbox.sent == sender.outbox.queued
    assert wire.largest <= (GATHERED if several else CHUNK)


@pytest.mark.parametrize("full", [sys.maxsize, 1 << 14], ids=["plain", "tls"])
@pytest.mark.parametrize("size", SIZES)
def test_it_is_received_in_place(size: int, full: int) -> None:
    loop: Any = FakeLoop()
    guard: Any = FakeGuard()
    connection = FakeConnection()
    begin = pack([6, size], 1) + b"header"
    wire = Counting(pack_one(5) + b"hello", begin, left=size)
    sender = Sender(connection, LIMITS, PEER, loop)
    receiver = Receiver(connection, sender, LIMITS, PEER, loop, guard)
    receiver.begin(channel := wire.channel(full=full))
    for _ in range(3 + size // channel.budget):
        receiver.receive()
    sizes = [[len(frame) for frame in frames] for frames, _ in receiver.inbox]
    assert sizes == [[5], [6, size]]
    assert receiver.bytes_in == 24 + 5 + len(begin) + size
    assert wire.largest <= channel.budget
    assert connection.error is None
