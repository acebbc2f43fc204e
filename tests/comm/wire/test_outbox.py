"""What is offered to the kernel, byte for byte, whatever it takes. No socket, no loop."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealwire.comm import Limits, MessageTooLarge
from sealwire.comm.wire import outbox as module
from sealwire.comm.wire.framing import pack, pack_one
from sealwire.comm.wire.outbox import CHUNK, COPIED_UP_TO, GATHERED, Outbox

PEER = "tcp://peer:1"


def on_wire(frames: list[bytes], shared: int) -> bytes:
    return pack([len(frame) for frame in frames], shared) + b"".join(frames)


def drained(outbox: Outbox, most: int, *, several: bool) -> list[bytes]:
    """All that it offers to a kernel that takes up to `most` bytes at a time."""
    taken = []
    for _ in range(10_000):
        if not outbox:
            return taken
        offered = b"".join(outbox.several()) if several else bytes(outbox.next())
        assert offered
        taken.append(offered[:most])
        outbox.advance(len(taken[-1]))
    raise AssertionError("it has no end")


@pytest.mark.parametrize("several", [False, True], ids=["send", "sendmsg"])
@pytest.mark.parametrize("fill_records", [False, True], ids=["plain", "tls"])
@given(
    st.lists(
        st.lists(
            st.sampled_from([0, 1, 100, COPIED_UP_TO, COPIED_UP_TO + 1, 40_000, CHUNK + 7]),
            min_size=1,
            max_size=5,
        ),
        min_size=1,
        max_size=5,
    ),
    st.sampled_from([100_000, 4096 + 1, 1 << 30]),
)
def test_every_byte_goes_once_and_in_order(
    several: bool, fill_records: bool, messages: list[list[int]], most: int
) -> None:
    outbox = Outbox(Limits(), PEER)
    outbox.fill_records = fill_records
    expected = b""
    for number, lengths in enumerate(messages):
        frames = [bytes([number + place]) * size for place, size in enumerate(lengths)]
        borrowed = outbox.put(frames, 1)
        assert borrowed == any(length > COPIED_UP_TO for length in lengths)
        expected += on_wire(frames, 1)
    assert outbox.queued == len(expected)
    assert b"".join(drained(outbox, most, several=several)) == expected
    assert outbox.sent == outbox.queued == len(expected)


@pytest.mark.parametrize(
    ("lengths", "fill_records", "offers"),
    [
        # Small frames of several messages are one send.
        ([[100], [200], [300]], False, [600 + 3 * 24]),
        ([[100], [200], [300]], True, [600 + 3 * 24]),
        # A large frame is referred to; what stands before it fills a TLS record from it.
        ([[100, 50_000]], False, [100 + 32, 50_000]),
        ([[100, 50_000]], True, [16 * 1024, 50_000 - (16 * 1024 - 132)]),
        # No send is offered more than a chunk.
        ([[CHUNK + 10]], False, [24, CHUNK, 10]),
    ],
)
def test_what_one_send_is_offered(
    lengths: list[list[int]], fill_records: bool, offers: list[int]
) -> None:
    outbox = Outbox(Limits(), PEER)
    outbox.fill_records = fill_records
    for message in lengths:
        outbox.put([bytes(length) for length in message], 1)
    assert [len(each) for each in drained(outbox, 1 << 30, several=False)] == offers


def test_what_was_not_taken_is_offered_again_the_same() -> None:
    """OpenSSL wants the same bytes after a send that would block."""
    outbox = Outbox(Limits(), PEER)
    outbox.put([b"a" * 100], 1)
    first = outbox.next()
    outbox.put([b"b" * 100], 1)
    assert outbox.next() is first


def test_a_gathering_send_has_a_bound_too() -> None:
    outbox = Outbox(Limits(), PEER)
    outbox.put([bytes(GATHERED) for _ in range(3)], 1)
    assert sum(map(len, outbox.several())) <= 2 * GATHERED
    outbox = Outbox(Limits(), PEER)
    outbox.put([bytes(COPIED_UP_TO + 1) for _ in range(40)], 1)
    assert len(outbox.several()) == 16  # iovecs


@pytest.mark.parametrize(
    ("limits", "lengths", "words"),
    [
        (
            Limits(max_message_size=1000),
            [600, 500],
            "1100 bytes, the limit is 1000; raise Limits.max_message_size",
        ),
        (Limits(max_frames=2), [1, 1, 1], "3 frames, the limit is 2; raise Limits.max_frames"),
    ],
)
def test_too_much_is_refused_with_nothing_queued(
    limits: Limits, lengths: list[int], words: str
) -> None:
    outbox = Outbox(limits, PEER)
    outbox.put([b"before"], 1)
    queued = outbox.queued
    with pytest.raises(MessageTooLarge, match=f"message to {PEER} too large: {words}"):
        outbox.put([bytes(length) for length in lengths], 1)
    assert outbox.queued == queued
    assert b"".join(drained(outbox, 1 << 20, several=False)) == on_wire([b"before"], 1)


@pytest.mark.parametrize("sent", [0, 1, 23, 24, 30, 34])
def test_a_message_that_passes_the_queue_leaves_its_rest_there(sent: int) -> None:
    data = pack_one(10) + bytes(range(10))
    outbox = Outbox(Limits(), PEER)
    outbox.sent_directly(data, sent)
    assert bool(outbox) == (sent < len(data))
    outbox.put([b"next"], 1)
    rest = b"".join(drained(outbox, 7, several=False))
    assert rest == data[sent:] + on_wire([b"next"], 1)
    assert outbox.sent == len(data) + 28


def test_after_clear_there_is_nothing_left() -> None:
    outbox = Outbox(Limits(), PEER)
    outbox.put([b"small", bytes(100_000)], 1)
    outbox.advance(3)
    outbox.clear()
    assert not outbox
    assert outbox.queued == outbox.sent == 3
    assert outbox.several() == []


def test_it_knows_no_loop_and_no_socket() -> None:
    assert not {"asyncio", "socket", "ssl"} & set(vars(module))
