"""Messages to frames and back, and what may escape when the frames are garbage."""

from __future__ import annotations

import collections
import datetime
import gc
import random
import subprocess
import sys
import time
import timeit
import weakref
from collections.abc import Callable
from pickle import PickleBuffer
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealwire.comm import DecodeError, EncodeError, codec, register_type
from sealwire.comm.codec import OUT_OF_BAND, decode, encode

UTC = datetime.timezone.utc
LARGE = OUT_OF_BAND


def travel(message: Any, memory: Callable[[Any], Any] = bytearray) -> Any:
    """As over the wire: every frame arrives in writable memory of its own."""
    return decode([memory(frame) for frame in encode(message)])


def view(frame: Any) -> memoryview:
    """A frame as a large one arrives."""
    return memoryview(bytearray(frame))


SAME = {
    "none": None,
    "bools": [True, False],
    "ints": [0, -1, 2**63 - 1, -(2**63), 2**64 - 1, 2**64, -(2**63) - 1, 10**60, -(10**60)],
    "floats": [0.0, -1.5, 1e300, float("inf")],
    "text": ["", "x", "ünïcode", "a" * 100_000],
    "nested": {"a": [1, {"b": [{"c": None}]}]},
    "keys": {"s": 1, 2: 2, -3: 3, 1.5: 4, True: 5, None: 6, b"bytes": 7},
    "naive time": datetime.datetime(2026, 1, 2, 3, 4, 5, 678901),
    "time with zone": datetime.datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC),
    "an early time": datetime.datetime(1901, 1, 1, tzinfo=UTC),
    "time as key": {datetime.datetime(2026, 1, 1, tzinfo=UTC): 1},
    "empty": [[], {}, ""],
}


@pytest.mark.parametrize("memory", [bytearray, view])
@pytest.mark.parametrize("name", SAME)
def test_arrives_the_same(name: str, memory: Any) -> None:
    assert travel(SAME[name], memory) == SAME[name]


def test_nan() -> None:
    assert np.isnan(travel(float("nan")))


def test_a_zone_becomes_utc() -> None:
    zone = datetime.timezone(datetime.timedelta(hours=5))
    moment = datetime.datetime(2026, 1, 1, 12, tzinfo=zone)
    assert travel(moment) == moment
    assert travel(moment).utcoffset() == datetime.timedelta(0)


CHANGED = {
    "tuple": ((1, (2,)), [1, [2]]),
    "named tuple": (collections.namedtuple("P", "x y")(1, 2), [1, 2]),
    "ordered dict": (collections.OrderedDict(b=1, a=2), {"b": 1, "a": 2}),
    "numpy int": (np.int64(-5), -5),
    "numpy bool": (np.True_, True),
    "numpy float32": (np.float32(0.5), 0.5),
    "numpy text": (np.str_("x"), "x"),
}


@pytest.mark.parametrize("name", CHANGED)
def test_arrives_as_its_plain_form(name: str) -> None:
    sent, expected = CHANGED[name]
    received = travel([sent])[0]
    assert received == expected
    assert type(received) is type(expected)


@pytest.mark.parametrize("size", [0, 1, 100, LARGE - 1, LARGE, LARGE + 1, 1 << 20])
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, PickleBuffer])
@pytest.mark.parametrize("memory", [bytearray, view])
def test_buffers_arrive_writable(kind: type, size: int, memory: Any) -> None:
    content = random.Random(size).randbytes(size)
    sent = kind(content if kind is not memoryview else memoryview(content))
    before, received, after = travel(["x" * 100_000, sent, "x" * 100_000], memory)
    assert received == content
    assert before == after == "x" * 100_000
    assert not memoryview(received).readonly
    assert memoryview(received).nbytes == size


def test_large_buffers_are_referred_to_not_copied() -> None:
    content = bytearray(LARGE)
    header, frame = encode({"data": content})
    assert len(header) < 100
    assert isinstance(frame, memoryview)
    assert frame.obj is content


def test_large_buffers_are_received_without_a_copy() -> None:
    header, frame = encode({"data": bytes(LARGE)})
    arrived = bytearray(frame)
    assert decode([bytearray(header), arrived])["data"].obj is arrived


class Tracked(bytearray):
    """A frame whose end can be seen."""


@pytest.mark.parametrize("value", [bytes(LARGE), np.zeros(LARGE), [1, {"deep": bytes(LARGE)}]])
def test_frames_are_freed_with_their_message(value: Any) -> None:
    """At once: large memory must not wait for the collector."""
    header, frame = encode(value)
    arrived = Tracked(frame)
    end = weakref.ref(arrived)
    gc.disable()
    try:
        message = decode([bytearray(header), arrived])
        del arrived
        assert end() is not None
        del message
        assert end() is None
    finally:
        gc.enable()


@pytest.mark.parametrize(
    "view",
    [
        memoryview(bytes(range(100)))[::2],
        memoryview(np.arange(12.0).reshape(3, 4)),
        memoryview(np.arange(12.0).reshape(3, 4).T),
        memoryview(np.arange(LARGE).reshape(2, -1).T),
    ],
    ids=["strided", "two-dimensional", "transposed", "large transposed"],
)
def test_views_travel_as_their_bytes(view: memoryview) -> None:
    assert bytes(travel(view)) == view.tobytes()


ARRAYS = {
    "int64": np.arange(10),
    "large": np.random.default_rng(0).random((100, 100)),
    "scalar": np.array(5.0),
    "empty": np.zeros((0, 3)),
    "fortran": np.asfortranarray(np.arange(12).reshape(3, 4)),
    "large fortran": np.asfortranarray(np.arange(10_000).reshape(100, 100)),
    "strided": np.arange(20_000).reshape(100, 200)[::2, ::3],
    "reversed": np.arange(10)[::-1],
    "big-endian": np.arange(5, dtype=">i4"),
    "complex": np.ones(3, complex),
    "half": np.arange(4, dtype=np.float16),
    "bool": np.array([True, False]),
    "dates": np.array(["2026-01-01", "NaT"], "M8[ns]"),
    "durations": np.array([1, 2], "m8[25s]"),
    "text": np.array(["ab", "c"]),
    "bytes": np.array([b"ab", b"c"]),
    "records": np.zeros(3, [("a", "<i4"), ("b", "<f8", (2, 3)), ("c", [("d", "<U3")])]),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_arrays(name: str) -> None:
    sent = ARRAYS[name]
    received = travel({"array": sent})["array"]
    assert received.dtype == sent.dtype
    assert received.shape == sent.shape
    np.testing.assert_array_equal(received, sent)
    assert received.flags.writeable
    assert received.flags.f_contiguous or not sent.flags.f_contiguous, "its order is kept"


def test_arrays_are_not_copied() -> None:
    array = np.zeros(LARGE, "u1")
    frames = encode(array)
    array[0] = 7
    assert frames[1][0] == 7
    arrived = bytearray(frames[1])
    received = decode([bytearray(frames[0]), arrived])
    arrived[1] = 9
    assert received[1] == 9


class Point:
    def __init__(self, x: int, data: Any) -> None:
        self.x = x
        self.data = data


def point_from(message: Any) -> Point:
    return Point(message["x"], message["data"])


register_type(Point, lambda p: {"x": p.x, "data": p.data}, point_from, name="tests.Point")


@pytest.mark.parametrize("data", [1, b"short", bytes(LARGE), np.arange(LARGE), Point(2, [3])])
def test_registered_types_may_hold_anything(data: Any) -> None:
    received = travel([Point(1, data)])[0]
    assert type(received) is Point
    assert received.x == 1
    if isinstance(data, Point):
        assert (received.data.x, received.data.data) == (2, [3])
    else:
        assert np.array_equal(received.data, data) or received.data == data


def test_a_type_name_belongs_to_one_class() -> None:
    with pytest.raises(ValueError, match="taken"):
        register_type(type("Other", (), {}), vars, vars, name="tests.Point")


class NotRegistered:
    pass


itself: list[Any] = []
itself.append(itself)
UNSENDABLE = {
    "an object": (NotRegistered(), "NotRegistered"),
    "a set": ({1}, "set"),
    "a complex number": (1j, "complex"),
    "a tuple as key": ({(1, 2): 3}, "dict key of type tuple"),
    "a bool of numpy as key": ({np.bool_(True): 3}, "dict key of type numpy.bool"),
    "an object array": (np.array([None]), "Python objects"),
    "a masked array": (np.ma.zeros(3), "MaskedArray"),
    "itself": (itself, "contains itself"),
    "lone surrogates": ("\ud800", "surrogates"),
}


@pytest.mark.parametrize("name", UNSENDABLE)
def test_unsendable(name: str) -> None:
    value, words = UNSENDABLE[name]
    with pytest.raises(EncodeError, match=words) as caught:
        encode({"deep": [value]})
    assert "; " in str(caught.value), "an error says what to do"


def test_too_deep() -> None:
    deep: Any = 1
    for _ in range(2000):
        deep = [deep]
    with pytest.raises(EncodeError, match="nested too deeply"):
        encode(deep)


def test_a_stock_peer_gets_plain_msgpack() -> None:
    message = {"data": bytearray(LARGE), "list": [b"x", (1, 2)], 3: None}
    (frame,) = encode(message, buffers=False, arrays=False)
    assert msgpack.unpackb(frame, strict_map_key=False) == {
        "data": bytes(LARGE),
        "list": [b"x", [1, 2]],
        3: None,
    }


@pytest.mark.parametrize("value", [np.arange(3), Point(1, 2), 2**70])
def test_a_stock_peer_gets_nothing_it_cannot_read(value: Any) -> None:
    with pytest.raises(EncodeError):
        encode(value, buffers=False, arrays=False)


def ext(code: int, *items: Any) -> bytes:
    return bytes(msgpack.packb(msgpack.ExtType(code, msgpack.packb(items))))


BAD_HEADERS = {
    "nothing": b"",
    "cut short": msgpack.packb([1, 2, 3])[:-1],
    "something behind": msgpack.packb(1) + b"\0",
    "a reserved byte": b"\xc1",
    "bad text": b"\xa2\xff\xff",
    "a map as key": b"\x81\x80\x01",
    "a list as key": b"\x81\x90\x01",
    "an unknown extension": msgpack.packb(msgpack.ExtType(99, b"")),
    "a timestamp of five bytes": b"\xc7\x05\xff" + bytes(5),
    "a timestamp beyond the calendar": b"\xc7\x0c\xff" + bytes(4) + b"\x7f" + b"\xff" * 7,
    "a huge count": b"\xdd\xff\xff\xff\xff",
    "a huge map": b"\xdf\xff\xff\xff\xff",
    "huge bytes": b"\xc6\xff\xff\xff\xff",
    "a million open lists": b"\x91" * 1_000_000,
    "frame 0": ext(1, 0),
    "a frame that is not there": ext(1, 2),
    "a negative frame": ext(1, -1),
    "a frame by name": ext(1, "x"),
    "a reference with two": ext(1, 1, 1),
    "an unregistered type": ext(3, "tests.Unknown", 1),
    "a type without a value": ext(3, "tests.Point"),
    "a type that refuses its value": ext(3, "tests.Point", {"no": "x"}),
    "a list as a type's name": ext(3, [], 1),
    "a time that is none": msgpack.packb(msgpack.ExtType(5, b"yesterday")),
    "an array of objects": ext(2, "|O8", [1], "C", bytes(8)),
    "an array of too few bytes": ext(2, "<i8", [2], "C", bytes(8)),
    "an array of too many bytes": ext(2, "<i8", [1], "C", bytes(16)),
    "a negative shape": ext(2, "<i8", [-1], "C", bytes(8)),
    "a shape that overflows": ext(2, "<i8", [2**40, 2**40], "C", bytes(8)),
    "an unknown order": ext(2, "<i8", [1], "X", bytes(8)),
    "a dtype that is no dtype": ext(2, "import os", [1], "C", bytes(8)),
    "a dtype of expressions": ext(2, "i4,f8", [1], "C", bytes(12)),
    "a dtype of deep fields": ext(2, [["a", [["b", [["c", 1]]]]]], [1], "C", b""),
    "a dtype that is a number": ext(2, 5, [1], "C", bytes(8)),
}


@pytest.mark.parametrize("name", BAD_HEADERS)
def test_bad_messages(name: str) -> None:
    with pytest.raises(DecodeError) as caught:
        decode([bytearray(BAD_HEADERS[name]), bytearray(b"frame 1")])
    assert "does not decode (" in str(caught.value)
    assert len(str(caught.value)) < 500


keys = st.text() | st.integers(-(1 << 63), (1 << 64) - 1)
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=20,
)


@given(plain)
def test_any_plain_message(message: Any) -> None:
    assert travel(message) == message


SEEDS = [encode(value) for value in (SAME, ARRAYS, [bytes(LARGE), Point(1, b"x"), b"y"])]


@given(
    st.sampled_from(SEEDS),
    st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=8),
    st.integers(0, 4),
)
def test_only_decode_errors_escape(
    frames: list[Any], flips: list[tuple[int, int]], dropped: int
) -> None:
    header = bytearray(frames[0])
    for position, value in flips:
        header[position % len(header)] = value
    others = [bytearray(frame) for frame in frames[1:]]
    try:
        decode([header, *others[: max(0, len(others) - dropped)]])
    except DecodeError as error:
        assert str(error)


def test_much_text_takes_no_longer_than_msgpack() -> None:
    """Give or take: looking at each byte in Python would take a hundred times as long."""
    header = view(encode({"text": "x" * (8 << 20)})[0])

    def seconds(decoder: Callable[[], Any]) -> float:
        return min(timeit.repeat(decoder, number=1, repeat=5, timer=time.process_time))

    assert seconds(lambda: decode([header])) < 20 * seconds(lambda: msgpack.unpackb(header))


def test_numpy_is_not_imported_for_plain_messages() -> None:
    code = (
        "import sys; from sealwire.comm import codec;"
        "codec.decode([bytearray(f) for f in codec.encode({'a': bytes(10**6)})]);"
        "assert 'numpy' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_extension_codes_are_the_documented_ones() -> None:
    assert codec.__doc__ is not None
    for code, word in enumerate(["reference", "array", "object", "int", "datetime"], 1):
        assert f"    {code}  {word}" in codec.__doc__
