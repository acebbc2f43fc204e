"""Whatever a header of Dask's says, decoding it runs what distributed's own decoding runs.

The same pickles, in the same order, each once, to the same value, error and lines of log: for
headers that a good sender makes, and for those that only somebody hostile would think of.
"""

from __future__ import annotations

import itertools
import logging
import pickle
import random
from collections.abc import Iterator
from typing import Any

import msgpack
import pytest
from distributed.protocol import serialize
from hypothesis import given, settings
from hypothesis import strategies as st

from sealwire.dask_backend import codec
from support.pickles import (
    Lines,
    Map,
    Odd,
    Outcome,
    Raw,
    Recording,
    by_us,
    compare,
    packed,
    pickled,
)
from support.target import count


@pytest.fixture(params=["short", "long"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A message is decoded by ourselves if it is small, else by distributed."""
    if request.param == "long":
        monkeypatch.setattr(codec, "offloaded_from", lambda: 0)
    return str(request.param)


P = "__Pickled__"
S = "__Serialized__"
ENUM = {"__Enum__": 1, "__module__": "distributed.core", "__name__": "Status", "name": "running"}
FOREIGN = {"__Enum__": 1, "__module__": "os", "__name__": "environ", "name": "copy"}
NUMBERS = [True, False, -1, 0, 2, 9, 2**31, 2**63, 2**64 - 1, -(2**63), 1.0, 1.5, float("nan")]
NUMBERS += [float("inf"), -0.5]
OTHERS = [None, "1", "", b"\x01", (), (1,), {}, {"x": 1}, msgpack.ExtType(5, b"x")]
OTHERS += [msgpack.Timestamp(1), {P: 1}, {S: 1}, {"__Set__": 1, "as-list": [1]}, ENUM, FOREIGN]

TWO = pickled("one", 1), pickled("two", 2)
INT = packed({"num-sub-frames": 1, "serializer": "pickle", "compression": [None]})
SERIALIZED = INT, pickle.dumps(Recording("sub"))

HEADERS: dict[str, tuple[Any, ...]] = {
    "both markers": (Map((P, 1), (S, 2)), *TWO),
    "both, the other way round": (Map((S, 2), (P, 1)), *TWO),
    "both, and one is off": (Map((S, 0), (P, 1)), *TWO),
    "both, and one is negative": (Map((S, -1), (P, 1)), *TWO),
    "both, and one is nothing": (Map((S, None), (P, 1)), *TWO),
    "both good": (Map((P, 1), (S, 2)), pickled("one"), *SERIALIZED),
    "both good, then a pickle": ([Map((P, 1), (S, 2)), {P: 1}], pickled("one"), *SERIALIZED),
    "twice the same": ([{P: 1}, {P: 1}], *TWO),
    "a key twice": (Map((P, 1), (P, 2)), *TWO),
    "in the wrong order": ([{P: 2}, {P: 1}], *TWO),
    "with a set's": ({P: 1, "__Set__": 1, "as-list": [1]}, *TWO),
    "with an enum's": ({P: 1, **FOREIGN}, *TWO),
    "off, with an enum's": ({P: 0, **ENUM}, *TWO),
    "off, with a set's": ({S: -1, "__Set__": 1, "as-list": [1]}, *TWO),
    "nested": ({P: {P: {P: 1}}}, pickled("one", 1)),
    "a pickle that is a pickle's offset": ({P: {P: 2}}, pickled("one", "x"), pickled("two", 1)),
    "a pickle that is an offset and more": ({S: {P: 2}}, *SERIALIZED),
    "an odd offset": ({P: {P: 1}}, pickled("one", Odd())),
    "an odd offset of the other": ({S: {P: 1}}, pickled("one", Odd()), *SERIALIZED),
    "a pickle as a key": (Map(({P: 1}, 7)), pickled("one", "a")),
    "a key that is a marker": (Map(({P: 1}, 2)), pickled("one", S), *SERIALIZED),
    "a key that is the same marker": (Map(({P: 1}, 2)), pickled("one", P), pickled("two")),
    "a key that is a set's": (Map(({P: 1}, 1), ("as-list", [3])), pickled("one", "__Set__")),
    "a key that is an enum's": (Map(({P: 1}, 1)), pickled("one", "__Enum__")),
    "a key that cannot be one": (Map(({P: 1}, 1)), pickled("one", [])),
    "a map as a key": ([{P: 1}, Map(({}, 1))], *TWO),
    "good, then an offset too far": ([{P: 1}, {P: 9}], *TWO),
    "good, then one that is no number": ([{P: 1}, {P: "2"}], *TWO),
    "good, then a foreign enum": ([{P: 1}, FOREIGN], *TWO),
    "good, then a set of lists": ([{P: 1}, {"__Set__": 1, "as-list": [{}]}], *TWO),
    "good, then a set without": ([{P: 1}, {"__Set__": 1}], *TWO),
    "good, then bad text": ([{P: 1}, Raw(b"\xa2\xff\xff")], *TWO),
    "good, then cut short": ([{P: 1}, Raw(b"\xa9x")], *TWO),
    "good, then no msgpack": ([{P: 1}, Raw(b"\xc1")], *TWO),
    "good, then more": (Raw(packed({P: 1}) + b"\x01"), *TWO),
    "good, then deep": ([{P: 1}, Raw(b"\x91" * 2000 + b"\x01")], *TWO),
    "a set of pickles": ({"__Set__": 1, "as-list": [{P: 1}, {P: 2}]}, *TWO),
    "a pickle in what is a set no more": ({"__Set__": {P: 1}, P: 0, "as-list": [2]}, *TWO),
    "in place": ({S: True, "data": [{}, []]}, packed({"num-sub-frames": 0})),
    "in place, off": ({S: 0, "data": [{}, []]},),
    "in place, off, wrong": ({S: 0, "data": [1, 2, 3]},),
    "to itself": ({P: 0, "x": {S: 0}},),
    "a frame that is a header": ({P: 1}, packed({P: 1})),
    "a header with markers": ({P: 1}, pickled("one", x={P: 2}), pickled("two")),
    "a header with an enum": ({P: 1}, pickled("one", x=FOREIGN)),
    "a serialized header with an enum": ({S: 1}, packed({"num-sub-frames": 0, "x": ENUM})),
    "a serialized header with a foreign one": (
        [{P: 2}, {S: 1}],
        packed({"num-sub-frames": 0, "x": FOREIGN}),
        pickled("two"),
    ),
    "of a known kind": (
        [{P: 1}, {S: 2}],
        pickled("one"),
        packed({**serialize(1)[0], "num-sub-frames": 1}),
        bytes(serialize(1)[1][0]),
    ),
    "after a failing one": ([{P: 1}, {P: 2}], pickled("one", KeyError("x")), TWO[1]),
    "before a failing one": ([{P: 1}, {P: 2}], TWO[0], pickled("two", EOFError("end"))),
    "failing twice": ([{P: 1}, {P: 1}], pickled("one", ValueError(""))),
    "failing as we do": ({P: 1}, pickled("one", MemoryError("much"))),
    "in a text": (f"{P}\x01 and {S}", *TWO),
    "in a binary": ({"x": packed({P: 1}), "y": {P: 1}}, *TWO),
    "as a binary key": (Map((P.encode(), 1), (S.encode(), 2)), *TWO),
    "beside a number": ({"x": 129, P: 1}, *TWO),
    "alone": ({P: 1},),
    "no frames behind": ([{P: 1}, {P: 2}], TWO[0]),
    "an empty frame": ([{P: 1}, {P: 2}], TWO[0], b""),
    "a bare list": ([{P: 1}, {P: 2}], TWO[0], packed([1])),
    "a bare text": ([{P: 1}, {S: 2}], TWO[0], packed("num-sub-frames")),
}
for n, offset in enumerate(NUMBERS + OTHERS):
    HEADERS[f"an offset of {offset!r:.20} ({n})"] = {P: offset}, *TWO
    HEADERS[f"good, then an offset of {offset!r:.20} ({n})"] = [{P: 2}, {P: offset}, {P: 2}], *TWO
    HEADERS[f"another offset of {offset!r:.20} ({n})"] = [{P: 1}, {S: offset}], *TWO
    HEADERS[f"{offset!r:.20} frames ({n})"] = (
        [{P: 1}, {P: 2}],
        TWO[0],
        pickled("two", 2, **{"num-sub-frames": offset}),
        b"more",
        b"and more",
    )
    HEADERS[f"{offset!r:.20} frames of another ({n})"] = (
        [{P: 1}, {S: 2}],
        TWO[0],
        packed({"serializer": "pickle", "num-sub-frames": offset}),
        b"more",
        b"and more",
    )
    HEADERS[f"compressed by {offset!r:.20} ({n})"] = (
        [{P: 1}, {P: 2}],
        TWO[0],
        pickled("two", 2, compression=offset),
    )
    HEADERS[f"a frame compressed by {offset!r:.20} ({n})"] = (
        [{P: 1}, {P: 2}],
        TWO[0],
        pickled("two", 2, compression=[offset], **{"num-sub-frames": 1}),
        b"more",
    )
    HEADERS[f"a frame of another compressed by {offset!r:.20} ({n})"] = (
        [{P: 1}, {S: 2}],
        TWO[0],
        packed({"compression": [offset], "num-sub-frames": 1, "serializer": "pickle"}),
        b"more",
    )
    HEADERS[f"{offset!r:.20} for a pickle ({n})"] = (
        [{P: 1}, {P: 2}],
        TWO[0],
        packed({"pickled-obj": offset, "num-sub-frames": 0}),
    )
for left_out in ("pickled-obj", "compression", "num-sub-frames"):
    header = msgpack.unpackb(pickled("two", 2))
    del header[left_out]
    HEADERS[f"without {left_out}"] = [{P: 1}, {P: 2}], TWO[0], packed(header)


@pytest.mark.parametrize("name", HEADERS)
def test_what_is_run_is_what_distributed_runs(name: str, way: str) -> None:
    header, *frames = HEADERS[name]
    for memory in (bytearray, memoryview):
        compare([packed(header), *frames], memory)


def test_what_is_run_is_seen() -> None:
    """The comparison has something to compare."""
    seen = Outcome(by_us, [packed([{P: 2}, {P: 1}]), *TWO], False)
    assert seen.ran == ["two", "one"]
    assert seen.error is None
    seen = Outcome(by_us, [packed([{P: 1}, {P: 1}]), pickled("one", KeyError("x"))], False)
    assert seen.ran == ["one"]
    assert isinstance(seen.error, KeyError)
    names = [name for name, _, _ in seen.seen[2]]
    assert names == ["distributed.protocol.pickle", "distributed.protocol.core"]


def test_a_message_that_ends_too_early_is_not_quoted() -> None:
    """distributed logs all of it where it has not asked for its size."""
    frames = [packed({P: 1}), pickled("one", EOFError("end"), x=b"long" * 100_000)]
    logger = logging.getLogger("distributed.comm.utils")
    lines: list[str] = []
    handler = Lines()
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    logger.addHandler(handler)
    try:
        for deserialize in (True, False):
            assert isinstance(Outcome(by_us, frames, deserialize).error, EOFError)
    finally:
        logger.removeHandler(handler)
    assert (
        lines
        == [f"truncated data stream ({sum(map(len, frames))} bytes): [too large to display]"] * 2
    )


def cuts() -> Iterator[tuple[str, int]]:
    for name in ("both good, then a pickle", "twice the same", "beside a number", "nested"):
        for length in range(len(packed(HEADERS[name][0]))):
            yield name, length


def test_a_header_that_is_cut_short_runs_no_more(way: str) -> None:
    for name, length in cuts():
        header, *frames = HEADERS[name]
        compare([packed(header)[:length], *frames])


OFFSETS = st.integers(0, 5) | st.sampled_from(NUMBERS) | st.sampled_from([None, "1", (), {}])
KEYS = st.sampled_from([P, P, S, "__Set__", "as-list", "__Enum__", "data", "x", 1, None])
LEAVES = st.sampled_from(
    [0, "x", b"y", FOREIGN, ENUM, {"__Set__": 1, "as-list": [1, 1]}, f"{P}\x01"]
)


def maps(inner: Any) -> Any:
    marks = st.builds(lambda offset: Map((P, offset)), OFFSETS)
    others = st.builds(lambda offset: Map((S, offset)), OFFSETS)
    both = st.builds(lambda one, two: Map((P, one), (S, two)), OFFSETS | inner, OFFSETS | inner)
    keys = st.lists(st.tuples(KEYS | marks, inner | OFFSETS), max_size=3)
    return marks | others | both | keys.map(lambda pairs: Map(*pairs))


MESSAGES = st.recursive(
    maps(LEAVES) | LEAVES, lambda inner: st.lists(inner | maps(inner), max_size=4) | maps(inner)
)
RESULTS = st.sampled_from([1, 2, "x", P, S, "__Set__", [], ENUM, Odd(), KeyError("x"), EOFError()])
EXTRA = st.dictionaries(
    st.sampled_from(["num-sub-frames", "compression", "x"]),
    OFFSETS | st.sampled_from([[], [None], ["zlib"], ["no such"], FOREIGN, {P: 1}]),
    max_size=2,
)
TAGS = itertools.count()
FRAMES = st.lists(
    st.builds(lambda value, more: pickled(f"p{next(TAGS)}", value, **more), RESULTS, EXTRA)
    | st.builds(lambda value: pickled(f"p{next(TAGS)}", value), RESULTS)
    | st.builds(lambda more: packed({"num-sub-frames": 1, "serializer": "pickle", **more}), EXTRA)
    | st.builds(lambda: pickle.dumps(Recording(f"s{next(TAGS)}")))
    | st.binary(max_size=4),
    max_size=5,
)


@settings(max_examples=count(10_000, 200))
@given(MESSAGES, FRAMES)
def test_any_header_runs_what_distributed_runs(message: Any, frames: list[bytes]) -> None:
    compare([packed(message), *frames])


def test_any_accident_runs_what_distributed_runs() -> None:
    """Bytes of good and bad messages, changed at random."""
    source = random.Random(1511)
    table = [[packed(header), *frames] for header, *frames in HEADERS.values()]
    for _ in range(count(100_000, 1_500)):
        frames = [bytearray(frame) for frame in source.choice(table)]
        for _ in range(source.randint(1, 3)):
            frame = frames[0] if source.random() < 0.7 else source.choice(frames)
            if not frame:
                continue
            place = source.randrange(len(frame))
            if b"pickled-obj" in frame and place > 15:
                continue  # accidents in a pickle are not what is looked at, and could run anything
            if source.random() < 0.8:
                frame[place] = source.randrange(256)
            else:
                del frame[place]
        compare([bytes(frame) for frame in frames])
