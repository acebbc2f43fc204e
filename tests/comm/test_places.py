"""Where in a message a value stands that cannot be sent, or that a peer should not have sent."""

from __future__ import annotations

import datetime
import re
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealwire.comm import DecodeError, EncodeError, register_type
from sealwire.comm.codec import decode, encode
from sealwire.comm.wire.place import INSIDE, described, steps_to


class Box:
    def __init__(self, content: Any) -> None:
        self.content = content


class Hollow(Box):
    """One whose encoder gives what it is made of, and itself if that is nothing."""


register_type(Hollow, lambda box: box.content or box, Hollow, name="places.Hollow")
register_type(Box, lambda box: {"b": box.content}, lambda m: Box(m["b"]), name="places.Box")
register_type(type("Pile", (), {}), lambda pile: [0, {1}], str, name="places.Pile")

BAD = {1}
FIVE = datetime.timezone(datetime.timedelta(hours=5))
RETURNED = "in what a registered function returned"
PLACES: dict[str, tuple[Any, str]] = {
    "nowhere": (BAD, ""),
    "an item": ([0, BAD], "[1]"),
    "of a tuple": ((BAD,), "[0]"),
    "a value": ({"a": BAD}, '["a"]'),
    "the example": ({"a": [0, 1, 2, Box(BAD)]}, '["a"][3].b'),
    "an object in an object": ([Box([Box(BAD)])], "[0].b[0].b"),
    "an object alone": (Box(BAD), ".b"),
    "all that an encoder gives": (Hollow({1}), RETURNED),
    "all that encoders give": (Hollow(Hollow({1})), RETURNED),
    "objects without an end": (Hollow(None), RETURNED),
    "all that an encoder gives, within": ([Hollow({1})], "[0]"),
    "after many": ([*range(1000), BAD, *range(1000)], "[1000]"),
    "among buffers": ([bytes(10_000), {"x": BAD}, bytes(10_000)], '[1]["x"]'),
    "in a subclass": ({"a": type("D", (dict,), {})(b=BAD)}, '["a"]["b"]'),
    "numbers and others as keys": ({1: {2.5: {None: {True: BAD}}}}, "[1][2.5][None][True]"),
    "bytes as a key": ({b"abc": BAD}, "[3 bytes]"),
    "a date as a key": ({datetime.datetime(2026, 1, 1): BAD}, "[a value of type datetime]"),
    "quotes": ({'a"b\\': BAD}, r'["a\"b\\"]'),
    "a long key": ({"k" * 10_000: BAD}, f'["{"k" * 30}..."]'),
    "control characters": ({"a\n\x1b[0m\u202e": BAD}, '["a??[0m?"]'),
    "a key with a semicolon": ({"a; b": BAD}, '["a, b"]'),
    "half a character": (["x", {"a": "\ud800"}], '[1]["a"]'),
    "half a character in much text": (["x"] * 99 + ["\ud800"], "[99]"),
    "half a character in a key": ({"a": {"\ud800": 1}}, '["a"]["?"]'),
    "a moment before year 1": ([datetime.datetime.min.replace(tzinfo=FIVE)], "[0]"),
    "such a moment in an object": (Box([datetime.datetime.min.replace(tzinfo=FIVE)]), ".b[0]"),
    "a large int": ({"n": [1 << 20_000]}, '["n"][0]'),
    "an int as a key": ({"n": {1 << 70: 0}}, '["n"]'),
    "a key of no type for keys": ({"n": {(1, 2): 0}}, '["n"]'),
    "an array of objects": ([np.array([None])], "[0]"),
    "a wide array": ({"w": np.zeros((1,) * 33)} if np.__version__[0] != "1" else [BAD], None),
}  # type: ignore[assignment]


@pytest.mark.parametrize("name", PLACES)
def test_an_encode_error_names_the_place(name: str) -> None:
    message, place = PLACES[name]
    if place is None:
        place = '["w"]' if isinstance(message, dict) else "[0]"
    with pytest.raises(EncodeError) as caught:
        encode(message)
    text = str(caught.value)
    assert re.match(re.escape(f"{place}: " if place else "") + "cannot encode ", text), text
    assert "; " in text
    assert len(text) < 500


def test_the_message_of_the_issue() -> None:
    with pytest.raises(EncodeError, match=r'^\["a"\]\[3\]\.b: cannot encode set: '):
        encode({"a": [0, 1, 2, Box({1})]})


@pytest.mark.parametrize("levels", [100, 498, 499, 500, 501, 2000])
@pytest.mark.parametrize("kind", ["dict", "list"])
def test_deep_places_are_shortened(kind: str, levels: int) -> None:
    message: Any = BAD
    for _ in range(levels):
        message = {"deep": message} if kind == "dict" else [message]
    with pytest.raises(EncodeError, match=r"\.\.\.|nested too deeply") as caught:
        encode(message)
    assert len(str(caught.value)) < 400
    step = r'\["deep"\]' if kind == "dict" else r"\[0\]"
    if levels < 500:
        assert re.match(rf"({step}){{5}}\.\.\.({step}){{5}}: cannot encode set", str(caught.value))


@pytest.mark.parametrize("levels", [490, 499, 500])
@pytest.mark.parametrize("kind", ["dict", "list"])
def test_what_is_as_deep_as_allowed_still_travels(kind: str, levels: int) -> None:
    message: Any = bytes(5000)
    for _ in range(levels):
        message = {"deep": message} if kind == "dict" else [message]
    assert len(encode(message)) == 2


def ext(code: int, *items: Any) -> msgpack.ExtType:
    return msgpack.ExtType(code, msgpack.packb(items))


def box(content: Any) -> msgpack.ExtType:
    return ext(3, "places.Box", {"b": content})


UNKNOWN = ext(3, "places.Unknown", 1)
REFUSED: dict[str, tuple[Any, str]] = {
    "nowhere": (UNKNOWN, ""),
    "a type": ({"a": [0, UNKNOWN]}, '["a"][1]'),
    "in an object": ({"a": box([0, UNKNOWN])}, '["a"].b[1]'),
    "in objects": ([box([box({"x": UNKNOWN})])], '[0].b[0].b["x"]'),
    "what a function refuses": ([1, ext(3, "places.Box", {"c": 1})], "[1]"),
    "a frame": ({"a": [ext(1, 7)]}, '["a"][0]'),
    "a frame twice": ([ext(1, 1), {"x": ext(1, 1)}], '[1]["x"]'),
    "a frame in an object": ([box(ext(1, 7))], "[0].b"),
    "an array": ({"a": ext(2, "|O8", [1], "C", bytes(8))}, '["a"]'),
    "an array in an object": (box([ext(2, "<i8", [2], "C", bytes(8))]), ".b[0]"),
    "a moment": ([0, msgpack.ExtType(5, b"yesterday")], "[1]"),
    "an extension": ([0, [msgpack.ExtType(99, b"")]], "[1][0]"),
    "after a moment as a key": (
        {msgpack.ExtType(5, b"2026-01-01T00:00:00"): 1, "x": UNKNOWN},
        '["x"]',
    ),
    "a large int": ({"n": msgpack.ExtType(4, bytes(10_000))}, '["n"]'),
    "a long key": ({"k" * 10_000: UNKNOWN}, f'["{"k" * 30}..."]'),
    "control characters": ({"a\n\x1b[0m\u202e; x": UNKNOWN}, '["a??[0m?, x"]'),
    "an attribute that is none": (ext(3, "places.Box", {"b": 1, "\u202e": UNKNOWN}), '["?"]'),
    "after many": ([*range(10_000), UNKNOWN], "[10000]"),
    "among many keys": ({**dict.fromkeys(range(10_000)), "x": UNKNOWN}, '["x"]'),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_decode_error_names_the_place(name: str) -> None:
    message, place = REFUSED[name]
    with pytest.raises(DecodeError) as caught:
        decode([bytearray(msgpack.packb(message)), bytearray(5000)], "tcp://127.0.0.1:1")
    text = str(caught.value)
    start = f" does not decode ({place}: " if place else " does not decode ("
    assert start in text, text
    assert not re.search(r"does not decode \(\[", text) or place
    assert text.isprintable()
    assert len(text) < 500


def test_no_place_is_looked_for_in_what_is_no_msgpack() -> None:
    for header in (b"\x91" * 5000, b"\xdd\xff\xff\xff\xff" + bytes(1000), b"\xc1", b""):
        with pytest.raises(DecodeError, match=r"does not decode \([^\[]"):
            decode([bytearray(header)])


def test_what_a_decoder_has_made_may_contain_itself() -> None:
    """Its dicts and lists are not part of the message, and are looked into once at most."""
    itself: list[Any] = []
    itself.append(itself)
    register_type(type("Loop", (), {}), str, lambda message: itself, name="places.Loop")
    message = [ext(3, "places.Loop", 1), {"x": [ext(3, "places.Loop", 1), UNKNOWN]}]
    with pytest.raises(DecodeError, match=r'\(\[1\]\["x"\]\[1\]: type '):
        decode([bytearray(msgpack.packb(message))])


steps = st.lists(
    st.text()
    | st.integers()
    | st.floats()
    | st.none()
    | st.binary()
    | st.just(INSIDE)
    | st.integers(1 << 64, 1 << 80)
    | st.datetimes()
)


@given(steps)
def test_any_place_is_short_and_printable(way: list[Any]) -> None:
    text = described(way)
    assert len(text) <= 160
    assert text.isprintable()
    assert "; " not in text


def test_steps_to_an_item() -> None:
    target: list[Any] = []
    message = [0, {"a": [[], {"b": target}]}]
    assert steps_to(target, message) == [1, "a", 1, "b"]
    assert steps_to(message, message) == []
    assert steps_to([], message) is None


class Odd(str):
    """A key whose methods are not to be trusted."""

    def __str__(self) -> str:
        raise RuntimeError("str")

    __repr__ = __str__

    def __len__(self) -> int:
        return 10**9

    def __getitem__(self, index: Any) -> str:
        raise RuntimeError("item")


def test_odd_keys() -> None:
    with pytest.raises(EncodeError, match=r'^\["x"\]: cannot encode set'):
        encode({Odd("x"): {1}})
