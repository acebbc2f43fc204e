"""When what is sent, to a kernel that takes what the test says. No socket, and a loop in steps."""

from __future__ import annotations

import itertools
import random
import ssl
from typing import Any

import pytest

from sealwire.comm import CommClosedError, Limits, MessageTooLarge
from sealwire.comm.transport import sender as module
from sealwire.comm.transport.sender import Sender
from sealwire.comm.wire.framing import ONE_FRAME, pack, pack_one
from support.fakes import FakeConnection, FakeLoop, Wire

PEER = "tcp://peer:1"
SMALL = b"x" * 100
SIZE = len(SMALL) + ONE_FRAME
LARGE = bytes(40_000)


class Clock:
    now = 50.0

    def perf_counter(self) -> float:
        return self.now


class Sending:
    """A sender and what is around it."""

    def __init__(self, wire: Wire, **limits: Any) -> None:
        self.wire = wire
        self.loop = FakeLoop()
        self.connection = FakeConnection()
        self.sender = Sender(self.connection, Limits(**limits), PEER, self.loop)  # type: ignore[arg-type]
        self.connection.parts.append(self.sender.end)
        self.sender.begin(wire.channel())

    @property
    def sizes(self) -> list[int]:
        return [len(each) for each in self.wire.sends]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


@pytest.mark.parametrize(
    ("gaps", "answering", "at_once", "in_all"),
    [
        # The first goes at once; what follows within 50 us waits for the loop's turn, in one send.
        ([0, 0, 0], False, [SIZE], [SIZE, 2 * SIZE]),
        ([0, 20e-6, 20e-6], False, [SIZE], [SIZE, 2 * SIZE]),
        # What comes later than that goes at once.
        ([0, 60e-6, 60e-6], False, [SIZE, SIZE, SIZE], [SIZE, SIZE, SIZE]),
        # So does an answer.
        ([0, 0, 0], True, [SIZE, SIZE, SIZE], [SIZE, SIZE, SIZE]),
    ],
)
def test_small_messages_share_a_send(
    clock: Clock, gaps: list[float], answering: bool, at_once: list[int], in_all: list[int]
) -> None:
    sending = Sending(Wire())
    for gap in gaps:
        clock.now += gap
        if answering:
            sending.sender.answering = True
        size, wait = sending.sender.write([SMALL])
        assert (size, wait) == (SIZE, None)
    assert sending.sizes == at_once
    sending.loop.turn()
    assert sending.sizes == in_all
    assert b"".join(sending.wire.sends) == (pack_one(100) + SMALL) * len(gaps)
    assert sending.connection.told == []  # nothing is left to wait for


def test_no_more_than_64_kib_waits_for_company(clock: Clock) -> None:
    sending = Sending(Wire())
    for _ in range(2000):
        sending.sender.write([SMALL])
    held_back = 2000 * SIZE - sum(sending.sizes)
    assert 0 < held_back <= 64 * 1024
    assert max(sending.sizes) <= 64 * 1024 + SIZE


def test_a_large_frame_waits_for_nothing(clock: Clock) -> None:
    sending = Sending(Wire())
    sending.sender.write([SMALL])
    sending.sender.write([SMALL])  # held back
    sending.sender.write([LARGE])
    assert sending.sizes == [SIZE, SIZE + ONE_FRAME + len(LARGE)]
    sending.loop.turn()
    assert len(sending.sizes) == 2


@pytest.mark.parametrize("size", [300_000, 1 << 20])
def test_a_large_frame_behind_others_is_offered_at_once(clock: Clock, size: int) -> None:
    """Its writer, which need not wait in Dask, may keep the loop busy while the kernel has room."""
    sending = Sending(Wire([0]))
    sending.sender.write([bytes(size)])
    assert sending.sizes == []
    clock.now += 1
    sending.wire.takes.append(0)
    sending.sender.write([bytes(size)])
    assert sending.sizes == []
    sending.sender.write([bytes(size)])
    assert sum(sending.sizes) == 3 * (ONE_FRAME + size)
    assert not sending.sender.blocked


def test_a_small_one_is_not(clock: Clock) -> None:
    sending = Sending(Wire([0]))
    sending.sender.write([bytes(1 << 20)])
    for _ in range(3):
        sending.sender.write([SMALL])
    assert sending.sizes == []


@pytest.mark.parametrize("frames", [[SMALL], [SMALL, SMALL], [LARGE]], ids=["one", "two", "large"])
@pytest.mark.parametrize(
    "takes",
    [[0], [1, 0], [ONE_FRAME, 0], [30, 5, 0], [BlockingIOError()], [ssl.SSLWantWriteError()]],
    ids=["nothing", "a byte", "the prelude", "twice", "would block", "TLS would block"],
)
def test_what_the_kernel_does_not_take_goes_when_it_can(
    clock: Clock, frames: list[bytes], takes: list[Any]
) -> None:
    sending = Sending(Wire([*takes, 0, 0]))
    size, wait = sending.sender.write(frames)
    before = sum(sending.sizes)
    assert before < size
    assert sending.connection.told == ["watch"]
    assert sending.sender.blocked
    assert wait == (0 if frames == [LARGE] else None)  # who lent its memory must wait
    sending.wire.takes.clear()
    sending.sender.flush()
    assert sum(sending.sizes) == size
    assert not sending.sender.blocked
    assert b"".join(sending.wire.sends).endswith(frames[-1])


def test_openssl_may_have_to_read_first(clock: Clock) -> None:
    sending = Sending(Wire([ssl.SSLWantReadError(), ssl.SSLWantReadError()]))
    sending.sender.write([SMALL])
    assert sending.sender.wants_read
    assert not sending.sender.blocked  # that it can be written says nothing
    sending.sender.flush()
    assert sending.sizes == [SIZE]
    assert not sending.sender.wants_read


@pytest.mark.parametrize("queued_first", [False, True])
def test_a_connection_that_breaks_is_told_of_once(clock: Clock, queued_first: bool) -> None:
    takes: list[Any] = [0, 0] if queued_first else []
    sending = Sending(Wire([*takes, ConnectionResetError("gone"), ConnectionResetError("gone")]))
    if queued_first:
        sending.sender.write([SMALL])
    sending.sender.answering = True
    if queued_first:
        sending.sender.flush()
    else:
        with pytest.raises(CommClosedError, match="gone"):
            sending.sender.write([SMALL])
    assert sending.connection.told.count("broken") == 1
    for frames in ([SMALL], [SMALL, SMALL], [LARGE]):
        with pytest.raises(CommClosedError, match="gone"):
            sending.sender.write(frames)
    sending.loop.turn()
    assert sending.sizes == []
    assert not sending.sender.outbox


def test_each_turn_sends_no_more_than_its_budget(clock: Clock) -> None:
    sending = Sending(Wire([0, 0]))
    sending.sender.write([bytes(5 << 20)])
    channel = sending.wire.channel(several=False)
    sending.sender.begin(channel)
    sizes = []
    while sending.sender.outbox:
        before = sum(sending.sizes)
        sending.sender.flush()
        sizes.append(sum(sending.sizes) - before)
    assert len(sizes) == 6
    assert max(sizes) < (1 << 20) + (256 << 10)


@pytest.mark.parametrize(
    ("limits", "sizes", "waits"),
    [
        ({"write_ahead": 1000}, [500, 400, 400, 400], [None, None, 1000, 1000]),
        ({"write_ahead": 10_000}, [500, 400], [None, None]),
        # A bound on what is queued holds for what is written ahead too.
        ({"write_ahead": 10_000, "max_queued": 600}, [500, 400], [None, 600]),
    ],
)
def test_which_writer_must_wait_for_how_much(
    clock: Clock, limits: dict[str, int], sizes: list[int], waits: list[int | None]
) -> None:
    sending = Sending(Wire(itertools.repeat(0, 100)), **limits)  # type: ignore[arg-type]
    assert [sending.sender.write([bytes(size)])[1] for size in sizes] == waits


@pytest.mark.parametrize("largest", [100, 5000])
def test_a_slow_consumer_is_closed_at_its_bound(clock: Clock, largest: int) -> None:
    """Besides the largest message that is queued: one must always have a place."""
    sending = Sending(Wire(itertools.repeat(0, 1000)), max_queued=1000)  # type: ignore[arg-type]
    sending.sender.write([bytes(largest)])
    written = largest + ONE_FRAME
    words = r"bytes are queued unsent, the limit is 1000"

    def write_on() -> None:
        nonlocal written
        for _ in range(100):
            sending.sender.write([SMALL])
            written += SIZE

    with pytest.raises(CommClosedError, match=words):
        write_on()
    assert sending.connection.error is not None
    assert sending.connection.error.kind == "slow-consumer"
    assert 1000 + largest < written <= 1000 + largest + ONE_FRAME + 2 * SIZE
    assert not sending.sender.outbox  # freed


def test_a_slow_consumer_that_takes_some_meanwhile_is_kept(clock: Clock) -> None:
    """A writer that does not wait may not have let the loop run: the socket is asked once more."""
    sending = Sending(Wire([0, 0, 10_000]), max_queued=1000)
    for _ in range(20):
        sending.sender.write([SMALL])
    assert sending.connection.error is None
    assert sending.sizes[0] > 1000
    sending.loop.turn()
    assert sum(sending.sizes) == 20 * SIZE


def test_a_slow_consumer_whose_connection_breaks_meanwhile_is_told_of_that(clock: Clock) -> None:
    sending = Sending(Wire([0, 0, ConnectionResetError("gone")]), max_queued=1000)

    def write_on() -> None:
        for _ in range(20):
            sending.sender.write([SMALL])

    with pytest.raises(CommClosedError, match="gone"):
        write_on()
    assert sending.connection.told[-1] == "broken"


@pytest.mark.parametrize("sizes", [[100, 5000, 900], [5000, 100, 900], [100, 100, 5000]])
def test_the_largest_message_that_is_queued_has_its_place(clock: Clock, sizes: list[int]) -> None:
    sending = Sending(Wire(itertools.repeat(0, 100)), max_queued=1000)  # type: ignore[arg-type]
    for size in sizes:
        sending.sender.write([bytes(size)])
    assert sending.connection.error is None
    assert sending.sender.outbox.queued == sum(sizes) + 3 * ONE_FRAME


@pytest.mark.parametrize("takes", [[0], [50, 0]], ids=["nothing", "some"])
def test_what_was_held_back_and_is_not_taken_is_watched_for(clock: Clock, takes: list[int]) -> None:
    sending = Sending(Wire([SIZE, *takes]))
    for _ in range(3):
        sending.sender.write([SMALL])
    sending.connection.told.clear()
    sending.loop.turn()
    assert sending.connection.told == ["watch"]
    assert sending.sender.blocked
    sending.sender.flush()
    assert sum(sending.sizes) == 3 * SIZE


def test_a_message_that_is_too_large_leaves_all_as_it_was(clock: Clock) -> None:
    sending = Sending(Wire(), max_message_size=1000)
    with pytest.raises(MessageTooLarge, match="1001 bytes, the limit is 1000"):
        sending.sender.write([bytes(1001)])
    assert sending.sizes == []
    sending.sender.write([bytes(1000)])
    assert sending.sizes == [1000 + ONE_FRAME]


def drain(sending: Sending, leave: int = 0) -> Any:
    """The future that `drain` waits for, or None if it does not wait."""
    waiting = sending.sender.drain(leave)
    try:
        return waiting.send(None)
    except StopIteration:
        return None
    finally:
        waiting.close()


def test_waiting_writers_go_on_in_order(clock: Clock) -> None:
    sending = Sending(Wire([0, 0, 100, 0, 100, 0]))
    assert drain(sending) is None
    sending.sender.write([SMALL])
    first = drain(sending)
    most = drain(sending, leave=SIZE - 90)
    sending.sender.write([SMALL])
    last = drain(sending)
    sending.sender.flush()
    assert (most.done(), first.done(), last.done()) == (True, False, False)
    sending.sender.flush()
    assert (first.done(), last.done()) == (True, False)
    last.cancel()  # the bytes still go
    sending.sender.flush()
    assert sum(sending.sizes) == 2 * SIZE


def test_the_end_is_told_to_every_waiter(clock: Clock) -> None:
    sending = Sending(Wire([0, 0]))
    sending.sender.write([SMALL])
    waiting = [drain(sending), drain(sending)]
    sending.connection.close(CommClosedError("over"))
    errors = [future.exception() for future in waiting]
    assert [str(error) for error in errors] == ["over", "over"]
    assert errors[0] is not errors[1]  # a traceback each
    with pytest.raises(CommClosedError, match="over"):
        sending.sender.drain().send(None)


@pytest.mark.parametrize(("unsent", "said"), [(False, [b"eof"]), (True, [])])
def test_no_close_notify_is_sent_while_something_is_unsent(
    clock: Clock, unsent: bool, said: list[bytes]
) -> None:
    """An end without it tells the peer that the end is missing."""
    sending = Sending(Wire([0, 0] if unsent else []))
    sending.sender.write([SMALL])
    before = len(sending.wire.sends)
    sending.sender.send_eof()
    assert sending.wire.sends[before:] == said
    sending.sender.answer_eof()
    assert sending.wire.sends[before:] == said * 2


_LENGTHS = (0, 1, 100, 16_359, 16_360, 16_361, 40_000)  # the small and the copied end among them


@pytest.mark.parametrize("seed", range(12))
def test_in_any_mix_the_bytes_are_those_of_the_messages_in_order(clock: Clock, seed: int) -> None:
    """Whatever goes past the queue, is held back, or is taken in pieces; memory may be reused."""
    chance = random.Random(seed)
    takes = [chance.choice([0, 1, 30, 5000, 1 << 20]) for _ in range(300)]
    sending = Sending(Wire(takes), write_ahead=32 * 1024)
    expected = []
    for number in range(200):
        clock.now += chance.choice([0, 0, 0, 60e-6])
        sending.sender.answering = chance.random() < 0.1
        frames = [
            bytes([number]) * chance.choice(_LENGTHS) for _ in range(chance.choice([1, 1, 1, 3]))
        ]
        reused = [bytearray(frame) if len(frame) < 100 else frame for frame in frames]
        size, leave = sending.sender.write(reused)
        expected.append(pack([len(frame) for frame in frames], 1) + b"".join(frames))
        assert size == len(expected[-1])
        outbox = sending.sender.outbox
        if leave is None:
            assert outbox.queued - outbox.sent <= 32 * 1024
        for frame in reused:
            if isinstance(frame, bytearray):
                frame[:] = b"?" * len(frame)
        if chance.random() < 0.2:
            sending.loop.turn()
    assert sending.sender.messages == 199  # the first is the hello
    sending.wire.takes.clear()
    sending.loop.turn()
    for _ in range(100):  # each up to its budget
        sending.sender.flush()
    assert b"".join(sending.wire.sends) == b"".join(expected)
    assert sending.sender.bypassed + outbox.sent == len(b"".join(expected))


@pytest.mark.parametrize("how", ["end", "refuse"])
def test_nothing_joins_what_is_held_back_after_the_end(clock: Clock, how: str) -> None:
    sending = Sending(Wire())
    for _ in range(3):
        sending.sender.write([SMALL])
    assert sending.sender.held_back
    if how == "end":
        sending.sender.end(lambda: CommClosedError("over"))
        with pytest.raises(CommClosedError, match="over"):
            sending.sender.write([SMALL])
        sent = 1
    else:
        sending.sender.write_last(SMALL, lambda: CommClosedError("over"))
        sent = 4
    sending.loop.turn()
    assert b"".join(sending.wire.sends) == (pack_one(100) + SMALL) * sent
