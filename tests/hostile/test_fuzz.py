"""Framing, hello and codec under random and mutated bytes: only the documented errors escape.

The seeds of the mutations are the files of `corpus/`. Everything is repeatable: the generator is
seeded, and hypothesis prints what it found.
"""

from __future__ import annotations

import random
import tracemalloc
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sealwire.comm import DecodeError, FramingError, HandshakeError, HelloError, codec
from sealwire.comm.wire import hello
from sealwire.comm.wire.framing import PER_FRAME, Splitter, pack
from support.target import check, count, figure

CORPUS = sorted((Path(__file__).parent / "corpus").glob("*.bin"))
MAX_SIZE = 1 << 20
MAX_FRAMES = 1000
EXAMPLES = settings(max_examples=count(5000, 150))
MUTATIONS = count(200_000, 4_000)

INTERESTING = [0, 1, 7, 8, 15, 16, 255, 1 << 16, 1 << 31, 1 << 32, (1 << 63) - 1, (1 << 64) - 1]


def mutated(data: bytes, source: random.Random) -> bytes:
    """`data` with up to four accidents."""
    work = bytearray(data)
    for _ in range(source.randint(1, 4)):
        place = source.randrange(len(work) + 1)
        what = source.randrange(7)
        if what == 0 and place < len(work):
            work[place] ^= 1 << source.randrange(8)
        elif what == 1 and place < len(work):
            work[place] = source.randrange(256)
        elif what == 2:
            del work[place : place + source.randrange(1, 20)]
        elif what == 3:
            work[place:place] = source.randbytes(source.randrange(1, 20))
        elif what == 4:
            work[place:place] = work[: source.randrange(1, 40)]
        elif what == 5:
            word = source.choice(INTERESTING).to_bytes(8, "little")
            start = place - place % 8
            work[start : start + 8] = word
        else:
            del work[place:]
    return bytes(work)


class Reader:
    """A splitter that counts what it reserves and checks what it delivers."""

    def __init__(self) -> None:
        self.inbox: deque[tuple[list[bytearray | memoryview], int]] = deque()
        self.reserved = 0
        self.splitter = Splitter(
            self.inbox, self._allocate, max_size=MAX_SIZE, max_frames=MAX_FRAMES
        )

    def _allocate(self, size: int) -> memoryview:
        self.reserved += size
        check(size <= MAX_SIZE, f"{size} bytes reserved")
        return memoryview(bytearray(size))

    @property
    def messages(self) -> list[list[bytearray | memoryview]]:
        for frames, size in self.inbox:
            check(0 < len(frames) <= MAX_FRAMES)
            payload = sum(memoryview(frame).nbytes for frame in frames)
            check(payload <= MAX_SIZE)
            check(size == payload + PER_FRAME * (len(frames) - 1))
        return [frames for frames, _ in self.inbox]

    def feed(self, data: bytes, pieces: Iterator[int]) -> bool:
        """Whether the bytes were taken."""
        position = 0
        try:
            while position < len(data):
                piece = bytearray(data[position : position + next(pieces)])
                self.splitter.feed(piece, len(piece))
                position += len(piece)
        except FramingError as error:
            check("; " in str(error) or "bad frame" in str(error), str(error))
            return False
        return True


def whole() -> Iterator[int]:
    while True:
        yield 1 << 20


def pieces(source: random.Random) -> Iterator[int]:
    while True:
        yield source.choice([1, 2, 3, 7, 8, 9, 16, 24, 100, 1000])


def both_ways(data: bytes, source: random.Random) -> Reader:
    """However the bytes are cut, the same messages and the same end come out."""
    at_once, cut = Reader(), Reader()
    ends = at_once.feed(data, whole()), cut.feed(data, pieces(source))
    check(ends[0] == ends[1], f"{ends} for {data!r}")
    shown = [[[bytes(f) for f in frames] for frames in r.messages] for r in (at_once, cut)]
    check(shown[0] == shown[1], f"cut differently, {data!r} is different")
    check(at_once.reserved <= MAX_SIZE + len(data), f"{data!r} reserves {at_once.reserved}")
    return at_once


def decoded(reader: Reader) -> None:
    for frames in reader.messages:
        try:
            codec.decode(frames, "tcp://fuzz:1")
        except DecodeError as error:
            check("tcp://fuzz:1" in str(error))
        try:
            offer = hello.decode(frames, "tcp://fuzz:1")
            hello.agree(offer, "tcp://fuzz:1")
        except HelloError as error:
            check("tcp://fuzz:1" in str(error))


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.stem)
def test_the_corpus_is_valid(path: Path) -> None:
    """Otherwise mutations of it would not go deep."""
    reader = both_ways(path.read_bytes(), random.Random(0))
    check(reader.messages, "no message in it")
    check(reader.splitter.progress() == "")
    for frames in reader.messages:
        codec.decode(frames)


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.stem)
def test_mutations(path: Path) -> None:
    source = random.Random(path.stem)
    seed = path.read_bytes()
    refused = 0
    for _ in range(MUTATIONS // len(CORPUS)):
        reader = both_ways(mutated(seed, source), source)
        decoded(reader)
        refused += not reader.messages
    check(refused, "no mutation was refused: they do not bite")
    figure(f"{MUTATIONS // len(CORPUS)} mutations, {refused} refused")


@EXAMPLES
@given(st.binary(max_size=300), st.randoms(use_true_random=False))
def test_any_bytes(data: bytes, source: random.Random) -> None:
    decoded(both_ways(data, source))


numbers = st.integers(0, 40) | st.sampled_from(INTERESTING)


@EXAMPLES
@given(
    st.integers(0, 200) | st.sampled_from(INTERESTING),
    numbers,
    st.lists(numbers, max_size=5),
    st.binary(max_size=100),
    st.randoms(use_true_random=False),
)
def test_any_prelude(
    lead: int, number: int, lengths: list[int], body: bytes, source: random.Random
) -> None:
    data = b"".join(n.to_bytes(8, "little") for n in (lead, number, *lengths)) + body
    both_ways(data, source)


@EXAMPLES
@given(st.lists(st.binary(max_size=50), min_size=1, max_size=6), st.data())
def test_what_is_packed_comes_apart(frames: list[bytes], data: st.DataObject) -> None:
    shared = data.draw(st.integers(0, len(frames)))
    wire = pack([len(frame) for frame in frames], shared) + b"".join(frames)
    reader = both_ways(wire, random.Random(0))
    check([[bytes(f) for f in m] for m in reader.messages] == [frames])


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 64) - 1)
    | st.floats(allow_nan=False)
    | st.text(max_size=10)
    | st.binary(max_size=10)
    | st.builds(msgpack.ExtType, st.integers(0, 127), st.binary(max_size=20)),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=5) | st.integers(0, 9), inner, max_size=4)
    ),
    max_leaves=15,
)


@EXAMPLES
@given(values, st.lists(st.binary(max_size=20), max_size=3))
def test_any_msgpack(value: object, buffers: list[bytes]) -> None:
    """Well-formed msgpack with extension types of every number, and of ours with any content."""
    frames = [bytearray(msgpack.packb(value)), *map(bytearray, buffers)]
    reader = Reader()
    reader.inbox.append((list(frames), sum(map(len, frames)) + PER_FRAME * len(buffers)))
    decoded(reader)


KEYS = ["compression", "python", "pickle-protocol", "sealwire", "refused"]
plain = st.none() | st.integers(-9, 9) | st.text(max_size=5) | st.lists(st.integers(0, 9))
versions = st.fixed_dictionaries({}, optional={"version": plain, "arrays": plain})


@EXAMPLES
@given(st.dictionaries(st.sampled_from(KEYS), plain | versions))
def test_any_hello(value: dict[str, object]) -> None:
    try:
        hello.agree(hello.decode([bytearray(msgpack.packb(value))], "tcp://fuzz:1"), "tcp://fuzz:1")
    except (HelloError, HandshakeError) as error:
        check("tcp://fuzz:1" in str(error))


arrays = st.tuples(
    st.sampled_from(["<f8", "|u1", "|O", "|S0", "<M8[D]", "V8", "(2,)i4", "i4,i4", ">i2", "x", ""]),
    st.lists(st.integers(-3, 5) | st.sampled_from(INTERESTING[:-1]), max_size=4),
    st.sampled_from(["C", "F", "X", "", None]),
    st.binary(max_size=64) | st.integers(-2, 3),
)


@EXAMPLES
@given(arrays, st.binary(max_size=64))
def test_any_array(parts: tuple[object, ...], buffer: bytes) -> None:
    header = msgpack.packb(msgpack.ExtType(2, msgpack.packb(parts)))
    reader = Reader()
    size = len(header) + len(buffer) + PER_FRAME
    reader.inbox.append(([bytearray(header), bytearray(buffer)], size))
    decoded(reader)


def test_fuzzing_costs_bounded_memory() -> None:
    """No mutation makes the decoder hold a hundred times its size."""
    source = random.Random(1)
    tracemalloc.start()
    try:
        for _ in range(count(5000, 300)):
            data = mutated(source.choice(CORPUS).read_bytes(), source)
            tracemalloc.reset_peak()
            before, _ = tracemalloc.get_traced_memory()
            reader = Reader()
            reader.feed(data, whole())
            peak = tracemalloc.get_traced_memory()[1] - before - reader.reserved
            check(peak < 100 * len(data) + 65536, f"{peak} bytes for {data!r}")
            decoded(reader)
    finally:
        tracemalloc.stop()
