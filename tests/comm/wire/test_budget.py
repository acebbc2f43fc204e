"""What values may make the decoder do, kind by kind; and whatever is encoded can be decoded.

Where a mistake would end the process or hold it for long, a process of its own does it.
"""

from __future__ import annotations

import datetime
import itertools
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealwire.comm import DecodeError, EncodeError, HelloError, register_type
from sealwire.comm.codec import decode, encode
from sealwire.comm.wire import hello
from sealwire.comm.wire.budget import DEPTH, FIELDS, INT_SIZE, MULTIPLE, NESTED_OBJECTS, SPARE

UTC = datetime.timezone.utc


class Box:
    """A registered type that holds anything."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Box) and other.value == self.value

    __hash__ = None  # type: ignore[assignment]


register_type(Box, lambda box: box.value, Box, name="tests.Box")


def ext(code: int, data: bytes) -> msgpack.ExtType:
    """Of any code, also of those below 0."""
    return tuple.__new__(msgpack.ExtType, (code, data))


def array(dtype: Any, shape: Any, content: Any = b"", order: Any = "C") -> bytes:
    return msgpack.packb(ext(2, msgpack.packb([dtype, shape, order, content])))


def refusal(header: bytes, *frames: bytes) -> str:
    with pytest.raises(DecodeError) as caught:
        decode([bytearray(header), *map(bytearray, frames)])
    return str(caught.value)


def travel(message: Any) -> Any:
    return decode([bytearray(frame) for frame in encode(message)])


# Depth


def nested(depth: int, layers: str) -> bytes:
    """The header of None within `depth` layers: lists, maps, objects of a registered type and of
    none, and extensions that hold what is no object."""
    wrap: dict[str, Callable[[bytes], bytes]] = {
        "[": lambda inner: b"\x91" + inner,
        "{": lambda inner: b"\x81\xa1k" + inner,
        "(": lambda inner: msgpack.packb(ext(3, b"\x92\xa9tests.Box" + inner)),
        "?": lambda inner: msgpack.packb(ext(3, b"\x92\xa1x" + inner)),
        "!": lambda inner: msgpack.packb(ext(3, inner)),
        "2": lambda inner: msgpack.packb(ext(2, inner)),
        "1": lambda inner: msgpack.packb(ext(1, inner)),
    }
    header = b"\xc0"
    for layer in itertools.islice(itertools.cycle(layers), depth):
        header = wrap[layer](header)
    return header


DEEP = """
import sys, threading
from test_budget import Box, decode, encode, nested, DecodeError
headers = [nested(depth, layers) for layers in {layers!r} for depth in (33, 150, 250, 600, 3000)]
def go():
    for header in headers:
        for frames in ([bytearray(header)], [bytearray(header), bytearray(9)]):
            try:
                decode(frames)
            except DecodeError:
                continue
            if len(header) > 500:
                sys.exit(f"{{header[:40]!r}} was decoded")
go()
threading.stack_size(256 * 1024)
thread = threading.Thread(target=go)
thread.start()
thread.join()
print("alive")
"""


@pytest.mark.parametrize("flags", [[], ["-O"]], ids=["", "-O"])
def test_no_depth_of_anything_ends_the_process(flags: list[str]) -> None:
    """Also not in a thread with a small stack."""
    layers = ["(", "?", "!", "2", "1", "([", "({", "[(", "(?", "(2", "[{(", "!2", "12"]
    run = subprocess.run(
        [sys.executable, *flags, "-c", DEEP.format(layers=layers)],
        cwd=__file__.rpartition("/")[0],
        env={"PYTHONPATH": "."},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (run.returncode, run.stdout, run.stderr) == (0, "alive\n", "")


def within(depth: int, wrap: Callable[[Any], Any]) -> Any:
    value = None
    for _ in range(depth):
        value = wrap(value)
    return value


WRAPS: dict[str, tuple[Callable[[Any], Any], int]] = {
    "lists": (lambda value: [value], DEPTH),
    "dicts": (lambda value: {"k": value}, DEPTH),
    "lists of bytes": (lambda value: [b"x", value], DEPTH),
    "lists of large bytes": (lambda value: [bytes(5000), value], DEPTH),
    "objects": (Box, NESTED_OBJECTS),
    "objects in lists": (lambda value: [Box(value)], NESTED_OBJECTS),
    "objects of deep lists": (
        lambda value: Box(within_lists(value, 30)),
        DEPTH // 31,
    ),
}


def within_lists(value: Any, depth: int) -> Any:
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize("name", WRAPS)
def test_what_is_as_deep_as_may_be_travels_and_deeper_is_not_sent(name: str) -> None:
    wrap, most = WRAPS[name]
    received = travel(within(most, wrap))
    assert encode(received)[0] == encode(within(most, wrap))[0]
    with pytest.raises(EncodeError, match="deep"):
        encode(within(most + 1, wrap))


def test_too_deep_is_refused_whatever_stands_beside() -> None:
    for before in ([], [b"x"], ["x" * 10_000], [1] * 5000):
        level = msgpack.Packer().pack_array_header(len(before) + 1)
        level += b"".join(map(msgpack.packb, before))
        assert "deep" in refusal(level * (DEPTH + 1) + b"\xc0")
        decode([bytearray(level * DEPTH + b"\xc0")])


# Claims


@pytest.mark.parametrize("claim", [b"\xdc\x7f\xff", b"\xdd\x00\x00\x7f\xff"], ids=["16", "32"])
def test_lists_that_claim_more_than_comes_make_nothing(claim: bytes) -> None:
    """msgpack makes the places of each list as it opens; 400 within one another are 100 MiB."""
    import tracemalloc

    header = (claim * 400).ljust(40_000, b"\0")
    tracemalloc.start()
    try:
        assert "claims more" in refusal(header)
        assert tracemalloc.get_traced_memory()[1] < MULTIPLE * len(header)
        tracemalloc.reset_peak()
        refusal((claim * 400)[:DEPTH])  # which is not run over first
        assert tracemalloc.get_traced_memory()[1] < SPARE
    finally:
        tracemalloc.stop()


# Keys


KEYS = {
    "a list": [1, 2],
    "an int beyond 64 bits": ext(4, bytes(9)),
    "an int of no bytes": ext(4, b""),
    "an int that 64 bits hold": ext(4, b"\x01"),
    "a frame": ext(1, b"\x91\x01"),
    "an array": ext(2, msgpack.packb(["<i8", [1], "C", bytes(8)])),
    "an object": ext(3, msgpack.packb(["tests.Box", 1])),
    "an unknown extension": ext(9, b""),
}


@pytest.mark.parametrize("name", KEYS)
@pytest.mark.parametrize("frames", [0, 1])
def test_what_is_no_key(name: str, frames: int) -> None:
    packer = msgpack.Packer()
    one = packer.pack(KEYS[name]) + b"\xc0"
    for header in (packer.pack_map_header(1) + one, b"\x91" + packer.pack_map_header(1) + one):
        refusal(header, *[bytes(9)] * frames)


P = (1 << 61) - 1  # Python's hash of an int is its remainder


@pytest.mark.parametrize("key", [9 * P, -(1 << 63) - 1, 1 << 64, -(10**30)])
def test_an_int_beyond_64_bits_is_no_key_to_send(key: int) -> None:
    for message in ({key: 1}, [{key: 1}], {"x": {key: b"y" * 5000}}, Box({key: 1})):
        with pytest.raises(EncodeError, match="as a dict key"):
            encode(message)


def test_keys_that_are_made_to_collide() -> None:
    """Ints of 64 bits whose every step in the search for a free place meets a full one.

    The steps of CPython's dict: the low bits first, then five more of the hash at a time, and in
    the end a round through all places. Those of the first 29,000 keys are a piece of that round,
    and each of the others walks through it from where it begins.
    """
    size = 1 << 16
    mask = np.uint64(size - 1)
    round_, place = [], 12345
    for _ in range(int(size * 0.45)):
        round_.append(place)
        place = (5 * place + 1) % size
    full = np.zeros(size, bool)
    full[round_] = True
    order = np.zeros(size, int)
    order[round_] = np.arange(len(round_))
    source = np.random.default_rng(1)
    found: list[int] = []
    while len(found) < 2000:
        keys = source.integers(1 << 40, (1 << 61) - 2, 1_000_000, dtype=np.uint64)
        places, rest = keys & mask, keys
        for _ in range(14):
            left = full[places.astype(int)]
            keys, places, rest = keys[left], places[left], rest[left] >> np.uint64(5)
            ends = places
            places = (places * np.uint64(5) + rest + np.uint64(1)) & mask
        found += keys[order[ends.astype(int)] < len(round_) // 2].tolist()
    packer = msgpack.Packer()
    keys = [*round_, *found]
    header = packer.pack_map_header(len(keys)) + b"".join(packer.pack(k) + b"\xc0" for k in keys)
    for message in (header, b"\x91" + header, msgpack.packb(ext(3, b"\x92\xa9tests.Box" + header))):
        assert "keys that collide" in refusal(message)
        assert "keys that collide" in refusal(message, b"a frame")


@pytest.mark.parametrize(
    "keys",
    [range(100_000), [n << 40 for n in range(100_000)], [n * 1.5 for n in range(100_000)],
     [-n for n in range(100_000)], [2.0**n for n in range(-1000, 1000)] * 3, range(4097),
     [str(n) for n in range(100_000)], [b"%d" % n for n in range(5000)], [*range(5000), "x", None],
     [datetime.datetime(2026, 1, 1, tzinfo=UTC) + datetime.timedelta(n) for n in range(5000)]],
    ids=["in order", "in their high bits", "floats", "negative", "powers", "just as many", "texts",
         "bytes", "of several types", "days"],
)  # fmt: skip
def test_many_keys_that_are_not(keys: Any) -> None:
    message = {"one": dict.fromkeys(keys, b"x"), "frame": bytes(5000), "box": Box({1: [2]})}
    received = travel(message)
    assert received == message
    assert list(received["one"]) == list(message["one"])


def colliding_hello() -> bytes:
    """Tuples of -1 and -2 have one hash."""
    keys = itertools.islice(itertools.product([-1, -2], repeat=13), 4000)
    packer = msgpack.Packer()
    body = b"".join(packer.pack(list(key)) + b"\0" for key in keys)
    return packer.pack_map_header(4000) + body


GOOD_HELLO = {"compression": None, "python": [3, 11, 0], "pickle-protocol": 5}

HELLOS = {
    "colliding keys": colliding_hello(),
    "colliding keys within": b"\x81\xa1x" + colliding_hello(),
    "an int as key": msgpack.packb({**GOOD_HELLO, 1: 2}),
    "None as key": msgpack.packb({**GOOD_HELLO, None: 2}),
    "a date as key": msgpack.packb({msgpack.Timestamp(1): 2, **GOOD_HELLO}),
    "lists within lists": msgpack.packb(
        {**GOOD_HELLO, "x": [within(20, lambda v: [v]), "x" * 600]}
    ),
    "lists that claim much": b"\x81\xa1x" + (b"\xdc\x7f\xff" * 400).ljust(60_000, b"\0"),
    "no compression": msgpack.packb({k: v for k, v in GOOD_HELLO.items() if k != "compression"}),
    "no python": msgpack.packb({k: v for k, v in GOOD_HELLO.items() if k != "python"}),
    "no pickle-protocol": msgpack.packb(
        {k: v for k, v in GOOD_HELLO.items() if k != "pickle-protocol"}
    ),
    "a bool for a protocol": msgpack.packb({**GOOD_HELLO, "pickle-protocol": True}),
    "a map for a python": msgpack.packb({**GOOD_HELLO, "python": {}}),
    "a list for a compression": msgpack.packb({**GOOD_HELLO, "compression": []}),
    "only ours": msgpack.packb({"sealwire": {"version": 1}}),
    "empty": b"\x80",
    "nothing": b"",
}


@pytest.mark.parametrize("name", HELLOS)
def test_hellos_that_are_none(name: str) -> None:
    with pytest.raises(HelloError) as caught:
        hello.decode([HELLOS[name]], "tcp://x:1")
    assert str(caught.value).startswith("bad hello from tcp://x:1: ")
    assert len(str(caught.value)) < 400


def test_a_good_hello_has_tuples_as_distributed_does() -> None:
    more = {"x": [1, {"y": [2, [3]]}]}
    assert hello.decode([msgpack.packb({**GOOD_HELLO, **more})]) == {
        **GOOD_HELLO,
        "python": (3, 11, 0),
        "x": (1, {"y": (2, (3,))}),
    }


# Arrays


NO_BYTES = ["|S0", "<U0", ">U0", "|V0", "<S0", [], [["a", "<U0"]], [["a", "|V0"], ["b", "|S0"]]]
NO_BYTES += [[["a", "|u1", [0]]], [["a", [["b", "<U0"]]]], [["a", "<f8", [2, 0]]], "|S", "<U", "|V"]
SHAPES: list[Any] = [[], [1], [3], [100_000], [1 << 33], [1 << 62], [2, 3], [1] * 33]


@pytest.mark.parametrize("dtype", NO_BYTES, ids=str)
def test_items_without_bytes_are_no_array(dtype: Any) -> None:
    for shape, content in itertools.product(SHAPES, [b"", b"x" * 16, 1]):
        for order in "CF":
            refusal(array(dtype, shape, content, order), bytes(3))


@pytest.mark.parametrize(
    "dtype", ["<i8", "|u1", "<M8[s]", "|S3", "<U1", [["a", "<f4"], ["b", "|S2"]]], ids=str
)
def test_an_array_has_the_bytes_that_came_and_no_others(dtype: Any) -> None:
    made = np.lib.format.descr_to_dtype(
        dtype if isinstance(dtype, str) else [tuple(field) for field in dtype]
    )
    content = bytes(range(made.itemsize * 6)) if "U" not in str(dtype) else b"A\0\0\0" * 6
    for order in "CF":
        value = decode([bytearray(array(dtype, [2, 3], content, order))])
        assert value.nbytes == len(content)
        assert value.tobytes("A") == content
        assert value.flags.writeable
    for wrong in (content[:-1], content + b"x", b"", content * 2):
        refusal(array(dtype, [2, 3], wrong))


@pytest.mark.parametrize("shape", [[0], [0, 3], [3, 0], [0] * 32], ids=str)
def test_empty_arrays_travel(shape: list[int]) -> None:
    for dtype in ("i8", "U1", "M8[s]", [("a", "f4")]):
        value = travel(np.empty(shape, dtype))
        assert (value.shape, value.dtype, value.flags.writeable) == (tuple(shape), dtype, True)


@pytest.mark.parametrize("shape", [[0, 1 << 40], [1 << 25, 0], [1 << 13, 0, 1 << 13]], ids=str)
def test_empty_arrays_of_many_items_do_not(shape: list[int]) -> None:
    assert "empty array" in refusal(array("<i8", shape))
    with pytest.raises(EncodeError, match="empty array"):
        encode(np.empty(shape))


NOT_DESCRIPTIONS = {
    "native order": "=i8",
    "order of what has none": "<u1",
    "another order of what has none": "<S3",
    "no order": "i8",
    "a long double": "<f16",
    "a complex long double": "<c32",
    "an object": "|O",
    "a list of objects": [["a", "|O"]],
    "a date without a unit": "<M8",
    "a date of no units": "<M8[0s]",
    "a date of a fraction": "<M8[s/7]",
    "a unit that is none": "<M8[qq]",
    "digits of another alphabet": "<i\u0668",
    "a line": "<i8\n",
    "two dtypes": "<i8,<i8",
    "a shape in the text": "(2,)<i8",
    "gaps": [["a", "|u1"], ["", "|V7"], ["b", "<f8"]],
    "nothing but a gap": [["", "|V4"]],
    "an unnamed field": [["", "<i8"]],
    "one name twice": [["a", "<i8"], ["a", "<i8"]],
    "a title that is a name": [[["a", "b"], "<i8"], ["a", "<i8"]],
    "no name": [["<i8"]],
    "a field of a text": ["<i8"],
    "a name that is none": [[5, "<i8"]],
    "a negative shape": [["a", "<i8", [-1]]],
    "a shape that is a number": [["a", "<i8", 3]],
    "a shape beyond memory": [["a", "<i8", [1 << 40, 1 << 40]]],
    "a map": {"names": ["a"], "formats": ["<i8"]},
    "a number": 8,
    "nothing": None,
    "too many fields": [[f"f{number}", "|u1"] for number in range(FIELDS + 1)],
    "too many within": [["a", [[f"f{number}", "|u1"] for number in range(FIELDS)]]],
    "an item of 4 GB": "<U999999999",
    "fields of 4 GB": [["a", "|V999999999"], ["b", "|V999999999"], ["c", "|V999999999"]],
    "a field of 4 GB": [["a", "|V999999999", [5]]],
    "fields that come round to 8 bytes": [["a", "|V999999999", [4]], ["b", "|V294967308"]],
    "too deep": within(10, lambda inner: [["a", inner or "|u1"]]),
}


@pytest.mark.parametrize("name", NOT_DESCRIPTIONS)
def test_a_dtype_is_taken_as_numpy_describes_it_only(name: str) -> None:
    for shape in ([], [0], [1], [2]):
        for size in (0, 1, 4, 8, 16, 1001):
            refusal(array(NOT_DESCRIPTIONS[name], shape, bytes(size)))


def test_text_that_is_none_is_no_array() -> None:
    bad = b"\x00\x00\x11\x00"  # U+110000
    assert "0x110000" in refusal(array("<U1", [1], bad))
    assert "0x110000" in refusal(array("<U2", [2], b"A\0\0\0" * 3 + bad))
    assert "0x110000" in refusal(array(">U1", [1], bad[::-1]))
    assert "0x110000" in refusal(array([["n", "|u1"], ["t", "<U1"]], [1], b"\0" + bad))
    assert "0x110000" in refusal(array([["t", [["u", "<U1", [2]]]]], [1], b"A\0\0\0" + bad))


UNSENDABLE = {
    "an array with gaps": np.zeros(2, np.dtype([("a", "u1"), ("b", "f8")], align=True)),
    "an array of long doubles": np.zeros(2, np.longdouble),
    "an array of many fields": np.zeros(1, [(f"f{number}", "u1") for number in range(FIELDS + 1)]),
    "an array of nothing": np.zeros(3, "V0"),
    "an int of many digits": 10**5000,
}
if np.lib.NumpyVersion(np.__version__) >= "2.0.0":
    UNSENDABLE["an array of more dimensions"] = np.zeros((1,) * 33)


@pytest.mark.parametrize("name", UNSENDABLE)
def test_what_would_be_refused_is_not_sent(name: str) -> None:
    if name == "an array of long doubles" and np.dtype(np.longdouble).itemsize == 8:
        assert travel(UNSENDABLE[name]).dtype == np.float64  # there it is none
        return
    for message in (UNSENDABLE[name], [UNSENDABLE[name]], {"x": Box(UNSENDABLE[name])}):
        with pytest.raises(EncodeError, match=r"cannot encode message: .*; send simpler values"):
            encode(message)


# Frames


def test_a_frame_is_referred_to_once() -> None:
    """Sent back it would be many times what came."""
    one = ext(1, b"\x91\x01")
    box = ext(3, msgpack.packb(["tests.Box", one]))
    for header in ([one, one], {"a": one, "b": [one]}, [one, box], [box, box]):
        assert "twice" in refusal(msgpack.packb(header), bytes(100))
    both = [one, ext(2, msgpack.packb(["|u1", [9], "C", 1]))]
    assert "twice" in refusal(msgpack.packb(both), bytes(9))
    assert decode([bytearray(msgpack.packb([one])), bytearray(b"x")]) == [b"x"]


# Ints and times


def test_ints_up_to_what_python_prints() -> None:
    for value in (1 << 64, -(1 << 63) - 1, 10**4290, -(10**4290), (1 << (8 * INT_SIZE - 1)) - 1):
        assert travel([value]) == [value]
        assert travel(value) == value
        assert str(value)
    assert "an int of 1785 bytes" in refusal(msgpack.packb(ext(4, b"\x7f" * (INT_SIZE + 1))))


@given(
    st.datetimes(timezones=st.none() | st.timezones())
    | st.datetimes(timezones=st.just(UTC))
    | st.builds(
        lambda moment, hours: moment.replace(
            tzinfo=datetime.timezone(datetime.timedelta(hours=hours))
        ),
        st.datetimes() | st.sampled_from([datetime.datetime.min, datetime.datetime.max]),
        st.floats(-23.9, 23.9),
    )
)
def test_a_time_arrives_or_is_not_sent(moment: datetime.datetime) -> None:
    try:
        frames = encode([moment, {"k": moment}])
    except EncodeError as error:
        assert "outside the years" in str(error)
        with pytest.raises(OverflowError):
            moment.astimezone(UTC)
        return
    received = decode([bytearray(frame) for frame in frames])
    # In UTC here too: Python finds times that a zone skips or repeats unequal to any other's.
    expected = moment if moment.tzinfo is None else moment.astimezone(UTC)
    assert received == [expected, {"k": expected}]
    assert received[0].tzinfo == expected.tzinfo


@pytest.mark.parametrize(
    "text",
    ["", "2026-01-01", "2026-01-01T00:00:00Z", "2026-01-01T00:00:00+05:00", "2026-W01-1",
     "20260101T000000", "2026-01-01 00:00:00", "2026-01-01T00:00:00.5", "2026-01-01T00:00",
     "2026-01-01T00:00:00" + " " * 100_000, "２026-01-01T00:00:00"],
)  # fmt: skip
def test_a_time_is_taken_as_isoformat_writes_it_only(text: str) -> None:
    refusal(msgpack.packb(ext(5, text.encode())))


# Words


BIG = "x\x1b[31m" * 400_000


def quoting(value: Any) -> Any:
    raise ValueError(f"bad: {value}")


def unspeakable(value: Any) -> Any:
    class Error(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    raise Error


register_type(type("Quoting", (), {}), lambda _: None, quoting, name="tests.Quoting")
register_type(type("Unspeakable", (), {}), lambda _: None, unspeakable, name="tests.Unspeakable")

LONG = {
    "the name of a type": ext(3, msgpack.packb([BIG, 1])),
    "bytes as the name of a type": ext(3, msgpack.packb([BIG.encode(), 1])),
    "the number of a frame": ext(1, msgpack.packb([BIG])),
    "a list as the number of a frame": ext(1, msgpack.packb([[BIG]])),
    "a dtype": ext(2, msgpack.packb([BIG, [1], "C", b""])),
    "a dtype's field": ext(2, msgpack.packb([[[BIG, "x"]], [1], "C", b""])),
    "a dtype of many": ext(2, msgpack.packb([["x"] * 400_000, [1], "C", b""])),
    "a shape": ext(2, msgpack.packb(["<i8", BIG, "C", b""])),
    "a long shape": ext(2, msgpack.packb(["<i8", [1 << 60] * 400_000, "C", b""])),
    "an order": ext(2, msgpack.packb(["<i8", [1], BIG, b""])),
    "what an array's bytes are": ext(2, msgpack.packb(["<i8", [1], "C", BIG])),
    "a time": ext(5, BIG.encode()),
    "an int": ext(4, bytes(400_000)),
    "what a type's decode quotes": ext(3, msgpack.packb(["tests.Quoting", BIG])),
    "what a type's decode cannot say": ext(3, msgpack.packb(["tests.Unspeakable", BIG])),
}


@pytest.mark.parametrize("name", LONG)
def test_no_error_repeats_much_of_a_peer(name: str) -> None:
    with pytest.raises(DecodeError) as caught:
        decode([bytearray(msgpack.packb(LONG[name])), bytearray(9)], "tcp://x:1")
    assert len(str(caught.value)) < 500
    assert str(caught.value).isprintable()
    logged = "".join(traceback.format_exception(caught.value))  # as a handler's error is
    assert len(logged) < 20_000


# Size and time


def test_the_bounds_are_no_assertions() -> None:
    """One of each kind, under -O."""
    script = (
        "import msgpack\n"
        "from test_budget import *\n"
        "headers = [array(dtype, [5]) for dtype in NO_BYTES]\n"
        "headers += [array(dtype, [1], bytes(8)) for dtype in NOT_DESCRIPTIONS.values()]\n"
        "headers += [msgpack.packb(value) for value in LONG.values()]\n"
        "headers += [b'\\x81' + msgpack.packb(key) + b'\\xc0' for key in KEYS.values()]\n"
        "refused = 0\n"
        "for header in headers:\n"
        "    try: decode([bytearray(header), bytearray(9)])\n"
        "    except DecodeError: refused += 1\n"
        "print(refused == len(headers) > 50)\n"
    )
    run = subprocess.run(
        [sys.executable, "-O", "-c", script],
        cwd=__file__.rpartition("/")[0],
        env={"PYTHONPATH": "."},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (run.stdout, run.stderr) == ("True\n", "")


def test_decoders_of_several_threads_do_not_meet() -> None:
    message = {"box": Box([b"x", {"y": 1 << 70}]), "array": np.arange(3), "more": [b"z" * 9000]}
    frames = [bytes(frame) for frame in encode(message)]
    wrong: list[Any] = []

    def go() -> None:
        for _ in range(300):
            received = decode([bytearray(frame) for frame in frames])
            if received["box"] != message["box"] or received["more"] != message["more"]:
                wrong.append(received)

    threads = [threading.Thread(target=go) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
