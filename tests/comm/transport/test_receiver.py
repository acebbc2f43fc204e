"""What becomes of bytes as they arrive, from a kernel that gives what the test says."""

from __future__ import annotations

import asyncio
import contextvars
import ssl
import tracemalloc
from typing import Any

import pytest

from sealwire.comm import CommBusy, CommClosedError, Limits
from sealwire.comm.transport import end_watch
from sealwire.comm.transport import receiver as module
from sealwire.comm.transport.channel import SCRATCH
from sealwire.comm.transport.receiver import Receiver
from sealwire.comm.transport.sender import Sender
from sealwire.comm.wire.framing import pack, pack_one
from support.fakes import FakeConnection, FakeGuard, FakeLoop, Wire

PEER = "tcp://peer:1"
MiB = 1 << 20


def message(size: int, byte: bytes = b"m") -> bytes:
    return pack_one(size) + byte * size


class Receiving:
    """A receiver and what is around it."""

    def __init__(self, *gives: Any, full: int | None = None, **limits: Any) -> None:
        self.wire = Wire(gives=gives)
        self.loop: Any = FakeLoop()
        self.connection = FakeConnection()
        chosen = Limits(**{"max_hello_size": 1 << 30, **limits})
        self.sender = Sender(self.connection, chosen, PEER, self.loop)
        guard: Any = FakeGuard()
        self.receiver = Receiver(
            self.connection, self.sender, chosen, PEER, self.loop, guard, errors_once=False
        )
        self.connection.parts.append(lambda failure: self.receiver.end(failure, forget=False))
        channel = self.wire.channel() if full is None else self.wire.channel(full=full)
        self.receiver.begin(channel)

    def sizes(self) -> list[list[int]]:
        return [[len(frame) for frame in frames] for frames, _ in self.receiver.inbox]


@pytest.mark.parametrize(
    ("gives", "events", "sizes", "receives"),
    [
        ([message(10)], 1, [[10]], 1),
        ([message(10) * 3], 1, [[10], [10], [10]], 1),
        ([message(10)[:7], message(10)[7:]], 2, [[10]], 2),
        # As much as there was room for: there may be more.
        ([message(SCRATCH - 24), message(5)], 1, [[SCRATCH - 24], [5]], 2),
        # The rest of a large frame is received in its place.
        ([message(300_000)], 1, [[300_000]], 3),
    ],
    ids=["one", "three", "in two events", "a full buffer", "a large one"],
)
def test_whole_messages_come_out(
    gives: list[bytes], events: int, sizes: list[list[int]], receives: int
) -> None:
    receiving = Receiving(*gives)
    for _ in range(events):
        receiving.receiver.receive()
    assert receiving.sizes() == sizes
    assert receiving.wire.receives == receives
    assert receiving.receiver.bytes_in == sum(map(len, gives))
    assert receiving.sender.answering
    assert receiving.connection.told == []


def test_over_tls_another_record_is_tried_after_a_full_one() -> None:
    """No event tells of what OpenSSL has decrypted."""
    record = 16 * 1024
    data = message(2 * record + 100)
    receiving = Receiving(data[:record], data[record : 2 * record], data[2 * record :], full=record)
    receiving.receiver.receive()
    assert receiving.sizes() == [[2 * record + 100]]
    assert receiving.wire.receives == 3


def test_a_reader_far_behind_holds_back_its_sender() -> None:
    receiving = Receiving(*[message(1000)] * 10, read_ahead=2500)
    for _ in range(20):
        receiving.receiver.receive()
    assert len(receiving.receiver.inbox) == 2
    assert receiving.receiver.paused
    assert receiving.connection.told == ["watch"]
    receiving.receiver.take_frames()
    assert not receiving.receiver.paused
    assert receiving.connection.told == ["watch", "watch"]
    for _ in range(20):
        receiving.receiver.receive()
    assert len(receiving.receiver.inbox) == 2


@pytest.mark.parametrize(
    ("number", "size"), [(1, 0), (2, 0), (1000, 0), (200_000, 0), (1000, 1), (30_000, 1), (100, 90)]
)
def test_unread_messages_are_bounded_in_memory_whatever_their_frames(
    number: int, size: int
) -> None:
    """A frame without bytes costs memory, too."""
    one = pack([size] * number, shared=number) + bytes(size * number)
    data = one * (-(-8 * MiB // len(one)))
    gives = [data[start : start + SCRATCH] for start in range(0, len(data), SCRATCH)]
    receiving = Receiving(message(10), *gives, read_ahead=MiB // 2)
    receiving.receiver.receive()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for _ in gives:
            receiving.receiver.receive()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert receiving.connection.told == ["watch"]
    assert after - before < 2 * MiB + 250 * number  # one message more, which was begun before


def test_what_openssl_has_is_received_though_no_event_tells() -> None:
    receiving = Receiving(message(1000), message(1000), read_ahead=1000)
    receiving.receiver.receive()
    assert receiving.receiver.paused
    receiving.wire.pending = 1024
    receiving.receiver.take_frames()
    assert len(receiving.loop.soon) == 1
    receiving.loop.turn()
    assert receiving.sizes() == [[1000]]


@pytest.mark.parametrize("paused", [False, True])
def test_the_rest_behind_a_failed_send_is_bounded(paused: bool) -> None:
    """A peer that does not receive any more may go on sending for ever."""
    receiving = Receiving(*[message(MiB)] * 200, read_ahead=2 * MiB)
    receiver = receiving.receiver
    while paused and not receiver.paused:
        receiver.receive()
    end_watch.receive_rest(receiver, all_of_it=True)
    assert 32 * MiB < receiver.bytes_in < 40 * MiB
    receiver.receive()
    assert receiver.paused  # as its reader wants it
    assert receiver.bytes_in < 40 * MiB


def test_each_event_takes_no_more_than_its_budget() -> None:
    receiving = Receiving(message(10 << 20), read_ahead=1 << 30)
    receiving.receiver.receive()
    assert (1 << 20) <= receiving.receiver.bytes_in <= (1 << 20) + SCRATCH
    assert receiving.sizes() == []


@pytest.mark.parametrize(
    ("gives", "told", "words", "clean"),
    [
        ([message(10), b""], "ended", "its process has ended: it did not say which", False),
        ([b""], "ended", "closed by the peer before its hello; see the peer's log", False),
        (
            [message(10) + message(10)[:20], b""],
            "ended",
            "closed by the peer in the middle of a message, after 20 bytes of its prelude",
            False,
        ),
        (
            [message(10) + message(10)[:30], b""],
            "ended",
            "closed by the peer in the middle of a message, after 6 of 10 bytes",
            False,
        ),
        ([message(10), ssl.SSLZeroReturnError()], "ended", "closed by the peer", True),
        ([message(10), ConnectionResetError("reset")], "lost", "reset", False),
        ([b"GET / HTTP/1.1\r\n\r\n"], "fail", "HTTP", False),
        ([message(10), b"\x00" * 16], "fail", "a first block of 0 bytes", False),
    ],
)
def test_how_it_ends(gives: list[Any], told: str, words: str, clean: bool) -> None:
    receiving = Receiving(*gives)
    for _ in gives:
        receiving.receiver.receive()
    assert receiving.connection.told[-1] == told
    error = receiving.connection.error
    assert error is not None
    assert words in str(error)
    assert error.clean is clean
    receives = receiving.wire.receives
    receiving.receiver.receive()  # an event that was on its way
    assert receiving.wire.receives == receives
    assert len(receiving.receiver.inbox) == (message(10) in gives or len(gives[0]) > 34)
    with pytest.raises(CommClosedError):
        receiving.receiver.arrival()


def test_an_end_without_close_notify_is_an_end_if_the_connection_is_not_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows = [
        (False, False, "closed by the peer"),
        (True, False, "lost: connection reset by peer, or connection timed out"),
        (True, True, "lost: connection timed out; check the network between"),
    ]
    for lost, silent, words in rows:
        receiving = Receiving(message(10), ssl.SSLEOFError())
        receiving.receiver._channel.socket = object()  # type: ignore[assignment]
        monkeypatch.setattr(module, "given_up", lambda sock, lost=lost: lost)
        monkeypatch.setattr(module, "is_silent", lambda sock, seconds, silent=silent: silent)
        receiving.receiver.receive()
        receiving.receiver.receive()
        assert words in str(receiving.connection.error)


def test_no_memory_for_a_frame_ends_the_comm_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    receiving = Receiving(message(5_000_000)[:100], message(10))

    def refuse(size: int) -> memoryview:
        raise MemoryError("refused")

    receiving.receiver._splitter._allocate = refuse
    receiving.receiver.receive()
    assert "no memory for them (refused); send less at once" in str(receiving.connection.error)


def test_openssl_may_have_to_write_first() -> None:
    receiving = Receiving(ssl.SSLWantWriteError(), message(10))
    receiving.receiver.receive()
    assert receiving.receiver.wants_write
    assert receiving.connection.told == ["watch"]
    receiving.receiver.receive(in_event=False)
    assert not receiving.receiver.wants_write
    assert receiving.sizes() == [[10]]


@pytest.mark.parametrize("in_event", [True, False])
def test_a_sender_that_waits_for_bytes_is_resumed_in_events_only(in_event: bool) -> None:
    """Otherwise it is the sender that has called."""
    receiving = Receiving(message(10))
    receiving.sender.wants_read = True
    receiving.receiver.receive(in_event=in_event)
    assert receiving.connection.told == (["resume_sending"] if in_event else [])


# The reader


@pytest.mark.parametrize("in_event", [True, False])
def test_the_reader_is_resumed_within_the_event(in_event: bool) -> None:
    receiving = Receiving(message(10))
    read: list[int] = []
    waiter = receiving.receiver.arrival()
    waiter.add_done_callback(
        lambda _: read.append(len(receiving.receiver.inbox)),
        context=contextvars.copy_context(),
    )
    receiving.receiver.receive(in_event=in_event)
    assert read == ([1] if in_event else [])
    receiving.loop.turn()
    assert read == [1]
    assert receiving.receiver.arrival() is not waiter


def test_one_reader_at_a_time() -> None:
    receiving = Receiving(message(10))
    waiter = receiving.receiver.arrival()
    with pytest.raises(CommBusy, match="another task is reading; use one reader a comm"):
        receiving.receiver.arrival()
    waiter.cancel()
    receiving.receiver.arrival()


def test_a_cancelled_reader_takes_nothing() -> None:
    receiving = Receiving(message(10))
    receiving.receiver.arrival().cancel()
    receiving.receiver.receive()
    assert receiving.sizes() == [[10]]
    assert len(receiving.receiver.take_frames()[0]) == 10


@pytest.mark.parametrize("arrived", [True, False])
def test_what_arrived_before_the_end_comes_first(arrived: bool) -> None:
    receiving = Receiving(message(10) + message(3)[:5] if arrived else b"", b"")
    waiter = receiving.receiver.arrival()
    if arrived:
        receiving.receiver.receive(in_event=False)
    receiving.connection.close(CommClosedError("over"))
    assert waiter.done()
    if arrived:
        assert waiter.exception() is None
        assert len(receiving.receiver.take_frames()[0]) == 10
    else:
        assert str(waiter.exception()) == "over"
    with pytest.raises(CommClosedError, match="over"):
        receiving.receiver.arrival()


def test_we_that_close_want_no_more() -> None:
    receiving = Receiving(message(10))
    receiving.receiver.receive()
    receiving.receiver.end(CommClosedError("ours").again, forget=True)
    assert not receiving.receiver.inbox


def test_an_arrival_is_waited_for() -> None:
    async def read() -> list[int]:
        receiving = Receiving(message(10))
        receiving.receiver._loop = asyncio.get_running_loop()
        asyncio.get_running_loop().call_soon(receiving.receiver.receive)
        assert not receiving.receiver.inbox
        await receiving.receiver.arrival()
        return [len(frame) for frame in receiving.receiver.take_frames()]

    assert asyncio.run(read()) == [10]
