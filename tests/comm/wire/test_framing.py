"""The wire: every row whole, byte by byte, in random pieces, and with another message behind."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealwire.comm import FramingError, MessageTooLarge
from sealwire.comm.wire import framing
from sealwire.comm.wire.foreign import name_foreign
from sealwire.comm.wire.framing import PER_FRAME, Frame, Splitter, pack
from support.attacker import words

MAX_SIZE = 1 << 20
MAX_FRAMES = 1000


class Collector:
    """A splitter whose messages are kept, and which counts what it reserves."""

    def __init__(self, max_size: int = MAX_SIZE, max_frames: int = MAX_FRAMES) -> None:
        self.messages: list[list[bytes]] = []
        self.writable: list[bool] = []
        self.reserved = 0
        self._inbox: deque[tuple[list[bytearray | memoryview], int]] = deque()
        self.splitter = Splitter(
            self._inbox, self._allocate, max_size=max_size, max_frames=max_frames
        )

    def _allocate(self, size: int) -> memoryview:
        self.reserved += size
        return memoryview(bytearray(size))

    def _collect(self) -> None:
        while self._inbox:
            frames, size = self._inbox.popleft()
            self.messages.append([bytes(frame) for frame in frames])
            self.writable += [not memoryview(frame).readonly for frame in frames]
            assert sum(map(len, frames)) + PER_FRAME * (len(frames) - 1) == size

    def feed(self, data: bytes, step: int = 0) -> None:
        step = step or len(data) or 1
        scratch = bytearray(step + 5)  # longer than what is in it, as a receive buffer is
        try:
            for start in range(0, len(data), step):
                piece = data[start : start + step]
                scratch[: len(piece)] = piece
                self.splitter.feed(scratch, len(piece))
                scratch[:] = bytes(len(scratch))  # whoever kept a view of it now holds zeros
        finally:
            self._collect()

    def feed_direct(self, data: bytes) -> None:
        """As the stream does: straight into the frame where that is possible."""
        position = 0
        while position < len(data):
            target = self.splitter.target(1)
            if target is None:
                self.feed(data[position : position + 8])
                position += 8
            else:
                piece = data[position : position + len(target)]
                target[: len(piece)] = piece
                self.splitter.advance(len(piece))
                self._collect()
                position += len(piece)


WELL_FORMED = {
    "one frame": (words(8 + 8 + 5, 1, 5) + b"hello", [b"hello"]),
    "one empty frame": (words(16, 1, 0), [b""]),
    "one frame outside the block": (words(16, 1, 5) + b"hello", [b"hello"]),
    "three in the block": (words(8 + 24 + 6, 3, 1, 2, 3) + b"abbccc", [b"a", b"bb", b"ccc"]),
    "one in, two bare": (
        words(8 + 24 + 1, 3, 1, 2, 3) + b"abbccc",
        [b"a", b"bb", b"ccc"],
    ),
    "all bare": (words(8 + 24, 3, 1, 2, 3) + b"abbccc", [b"a", b"bb", b"ccc"]),
    "empty frames at the edge": (words(8 + 32 + 1, 4, 1, 0, 0, 1) + b"ab", [b"a", b"", b"", b"b"]),
    "empty frames at the end": (words(8 + 24 + 1, 3, 1, 0, 0) + b"a", [b"a", b"", b""]),
    "only empty frames": (words(8 + 24, 3, 0, 0, 0), [b"", b"", b""]),
    "empty first": (words(8 + 16 + 0, 2, 0, 4) + b"wxyz", [b"", b"wxyz"]),
}


@pytest.mark.parametrize("name", WELL_FORMED)
@pytest.mark.parametrize("step", [0, 1, 3, 7, 8, 9, 17])
def test_well_formed(name: str, step: int) -> None:
    data, frames = WELL_FORMED[name]
    collector = Collector()
    collector.feed(data, step)
    assert collector.messages == [frames]
    assert collector.splitter.progress() == ""
    assert all(collector.writable)


@pytest.mark.parametrize("name", WELL_FORMED)
def test_nothing_is_delivered_early(name: str) -> None:
    data, _ = WELL_FORMED[name]
    collector = Collector()
    collector.feed(data[:-1])
    assert collector.messages == []
    assert "bytes" in collector.splitter.progress()


@pytest.mark.parametrize("name", WELL_FORMED)
def test_received_in_place(name: str) -> None:
    data, frames = WELL_FORMED[name]
    collector = Collector()
    collector.feed_direct(data + data)
    assert collector.messages == [frames, frames]


@pytest.mark.parametrize("first", WELL_FORMED)
@pytest.mark.parametrize("step", [0, 1, 5])
def test_one_after_the_other(first: str, step: int) -> None:
    data = WELL_FORMED[first][0] + b"".join(row[0] for row in WELL_FORMED.values())
    collector = Collector()
    collector.feed(data, step)
    assert collector.messages == [
        WELL_FORMED[first][1],
        *(row[1] for row in WELL_FORMED.values()),
    ]


TOO_LARGE = MessageTooLarge
MALFORMED = {
    "no frames": (words(8, 0) + b"x" * 16, FramingError, "block of 8 bytes"),
    "no frames in a larger block": (words(16, 0, 0), FramingError, "0 frames"),
    "a block of nothing": (words(0, 1), FramingError, "block of 0 bytes"),
    "no room for the lengths": (
        words(16, 2, 1, 1),
        FramingError,
        "need a first block",
    ),
    "a block ends in a frame": (
        words(8 + 16 + 3, 2, 2, 2),
        FramingError,
        "ends inside frame",
    ),
    "a block longer than its frames": (words(8 + 8 + 9, 1, 2), FramingError, "after the last"),
    "a block over the limit": (words(1 << 40, 1), TOO_LARGE, "the limit"),
    "a block that overflows": (words((1 << 64) - 1, 1), TOO_LARGE, "the limit"),
    "frames over the limit": (words(16, 1, MAX_SIZE + 1), TOO_LARGE, "the limit"),
    "a sum over the limit": (words(24, 2, MAX_SIZE, 1), TOO_LARGE, "the limit"),
    "a length that overflows": (words(24, 2, (1 << 64) - 1, 1), TOO_LARGE, "the limit"),
    "too many frames": (words(8 + 8 * 1001, 1001), TOO_LARGE, "1001 frames"),
    "a lying count": (words(8 + 8 * 4, (1 << 61) + 4), TOO_LARGE, "frames"),
    "a ClientHello": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", FramingError, "TLS"),
    "an HTTP request": (b"GET / HTTP/1.1\r\n\r\n", FramingError, "HTTP"),
}


@pytest.mark.parametrize("name", MALFORMED)
@pytest.mark.parametrize("step", [0, 1, 3, 8])
def test_malformed(name: str, step: int) -> None:
    data, error, words_ = MALFORMED[name]
    collector = Collector()
    with pytest.raises(error, match=words_):
        collector.feed(data, step)
    assert collector.messages == []
    assert collector.reserved == 0


def test_messages_before_a_malformed_one_are_delivered() -> None:
    collector = Collector()
    good, frames = WELL_FORMED["three in the block"]
    with pytest.raises(FramingError):
        collector.feed(good + MALFORMED["a block of nothing"][0])
    assert collector.messages == [frames]


def test_a_limit_says_got_and_allowed() -> None:
    collector = Collector(max_size=100)
    with pytest.raises(MessageTooLarge) as caught:
        collector.feed(words(16, 1, 101))
    assert (caught.value.size, caught.value.limit) == (101, 100)
    assert "101 bytes" in str(caught.value)
    assert "Limits.max_message_size" in str(caught.value)


def test_the_limit_of_the_hello_is_for_the_first_message_alone() -> None:
    inbox: deque[tuple[list[bytearray | memoryview], int]] = deque()
    splitter = Splitter(
        inbox,
        lambda size: memoryview(bytearray(size)),
        max_size=100,
        max_frames=10,
        max_hello_size=20,
    )
    data = bytearray(b"".join(words(16 + n, 1, n) + bytes(n) for n in (20, 100, 101)))
    with pytest.raises(MessageTooLarge, match=r"101 bytes.* limit is 100.*max_message_size"):
        splitter.feed(data, len(data))
    assert [size for _, size in inbox] == [20, 100]


def test_a_hello_too_large_names_its_limit() -> None:
    splitter = Splitter(
        deque(), lambda size: memoryview(b""), max_size=100, max_frames=10, max_hello_size=20
    )
    with pytest.raises(MessageTooLarge, match=r"21 bytes.* limit is 20.*max_hello_size"):
        splitter.feed(bytearray(words(16 + 21, 1, 21) + bytes(21)), 45)


def test_a_prelude_alone_reserves_no_frame() -> None:
    collector = Collector(max_size=1 << 50)
    collector.feed(words(8 + 16 + (1 << 40), 2, 1 << 40)[:24])
    assert collector.reserved == 0


def test_a_million_empty_frames_share_one_buffer() -> None:
    count = 1_000_000
    inbox: deque[tuple[list[bytearray | memoryview], int]] = deque()
    splitter = Splitter(
        inbox,
        lambda size: memoryview(bytearray(size)),
        max_size=MAX_SIZE,
        max_frames=count,
    )
    data = bytearray(words(8 + 8 * count, count) + bytes(8 * count))
    splitter.feed(data, len(data))
    ((frames, _),) = inbox
    assert len(frames) == count
    assert len({id(frame) for frame in frames}) == 1


@st.composite
def messages(draw: st.DrawFn) -> tuple[list[bytes], int]:
    frames = draw(st.lists(st.binary(max_size=50), min_size=1, max_size=6))
    return frames, draw(st.integers(0, len(frames)))


@given(st.lists(messages(), max_size=4), st.lists(st.integers(1, 60), min_size=1))
def test_pack_then_split(sent: list[tuple[list[bytes], int]], steps: list[int]) -> None:
    stream = b"".join(
        pack([len(f) for f in frames], shared) + b"".join(frames) for frames, shared in sent
    )
    collector = Collector()
    position = 0
    for size in _cycle(steps):
        if position >= len(stream):
            break
        collector.feed(stream[position : position + size])
        position += size
    assert collector.messages == [frames for frames, _ in sent]


@pytest.mark.parametrize("small", [1, 5, 4096])
@pytest.mark.parametrize("many", [1, 3, 1024])
def test_pack_then_split_however_frames_are_made(
    small: int, many: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Out of what was fed, in blocks of their own, or as views of the first block."""
    monkeypatch.setattr(framing, "_SMALL", small)
    monkeypatch.setattr(framing, "_MANY", many)
    source = random.Random(small * many)
    for _ in range(150):
        sent = []
        stream = b""
        for _ in range(source.randint(1, 3)):
            sizes = source.choices([0, 1, 4, 5, 6, 30], k=source.randint(1, 8))
            frames = [source.randbytes(size) for size in sizes]
            stream += pack(sizes, source.randint(0, len(sizes))) + b"".join(frames)
            sent.append(frames)
        cut, direct = Collector(), Collector()
        position = 0
        while position < len(stream):
            step = source.randint(1, 70)
            cut.feed(stream[position : position + step])
            position += step
        direct.feed_direct(stream)
        assert cut.messages == direct.messages == sent
        assert all(cut.writable + direct.writable)


def test_progress_counts_what_has_arrived() -> None:
    sizes = [3, 5000, 2, 0, 7, 6000]
    data = pack(sizes, 1) + bytes(sum(sizes))
    ahead = len(data) - sum(sizes)
    collector = Collector()
    for position in range(len(data)):
        expected = "" if not position else f"{position} bytes of its prelude"
        if position >= ahead:
            expected = f"{position - ahead} of {sum(sizes)} bytes"
        assert collector.splitter.progress() == expected
        collector.feed(data[position : position + 1])
    assert collector.splitter.progress() == ""
    assert collector.messages == [[bytes(size) for size in sizes]]


@pytest.mark.parametrize(
    ("size", "shared"),
    [(1, 1), (1000, 1), (4095, 1), (4096, 1), (5000, 1), (1, 3000), (1000, 3000), (4095, 3000)],
)
def test_one_of_many_frames_does_not_keep_the_others(size: int, shared: int) -> None:
    ((frames, _),) = split_of_many(size, shared)
    assert {len(memoryview(frame).obj) for frame in frames} == {size}


def test_large_frames_of_the_first_block_are_views_of_it() -> None:
    """distributed joins shards of an array without a copy if they are."""
    ((frames, _),) = split_of_many(4096, 3000)
    assert {len(memoryview(frame).obj) for frame in frames} == {3000 * 4096}


def split_of_many(size: int, shared: int) -> deque[tuple[list[Frame], int]]:
    """What a splitter makes of 3000 frames."""
    inbox: deque[tuple[list[Frame], int]] = deque()
    splitter = Splitter(
        inbox, lambda size: memoryview(bytearray(size)), max_size=1 << 30, max_frames=3000
    )
    data = pack([size] * 3000, shared) + bytes(3000 * size)
    for start in range(0, len(data), 70_000):
        piece = bytearray(data[start : start + 70_000])
        splitter.feed(piece, len(piece))
    return inbox


def _cycle(steps: list[int]) -> Iterator[int]:
    while True:
        yield from steps


@given(st.binary(max_size=200), st.integers(1, 50))
def test_only_documented_errors_escape(data: bytes, step: int) -> None:
    collector = Collector()
    try:
        collector.feed(data, step)
    except FramingError as error:
        assert str(error)
    assert collector.reserved <= MAX_SIZE * (1 + len(data) // 24)


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (b"\x16\x03\x01", "TLS ClientHello"),
        (b"\x15\x03\x03\x00", "TLS alert"),
        (b"POST /x HTTP/1.1", "HTTP"),
        (b"HTTP/1.1 400 Bad", "HTTP"),
        (b"PRI * HTTP/2.0\r\n", "HTTP"),
        (b"SSH-2.0-OpenSSH_", "SSH"),
        (b"GETTING", ""),
        (b"", ""),
    ],
)
def test_foreign_protocols_are_named(head: bytes, name: str) -> None:
    assert name in name_foreign(head)
    assert bool(name) == bool(name_foreign(head))
