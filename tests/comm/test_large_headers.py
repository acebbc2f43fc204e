"""Messages of one large frame: what is found out about all of it at once holds for each value."""

from __future__ import annotations

import datetime
from typing import Any

import msgpack
import pytest

from sealwire.comm import DecodeError
from sealwire.comm.codec import decode, encode
from sealwire.comm.wire.budget import FEW_KEYS

MOMENT = datetime.datetime(2026, 1, 2, 3, 4)
MARKERS = [0xC4, 0xC400, 0xC5C5, 0xC60000, 0xC4 << 40, -0xC4]  # of bytes, within numbers
NUMBERS = MARKERS * 1000
TEXTS = [f"key-{number}" for number in range(2 * FEW_KEYS)]
FILLERS: dict[str, Any] = {
    "texts": TEXTS,
    "texts with the markers": ["\u0104\u0145\u0186" * 10] * 500,
    "numbers": NUMBERS,
    "floats": [number / 7 for number in range(5000)],
    "maps": [{"key": text, "who": ["a", number]} for number, text in enumerate(TEXTS[:2000])],
    "many keys": dict.fromkeys(TEXTS, 196),
    "many keys that are bytes": {text.encode(): 1 for text in TEXTS},
    "many keys that are numbers": dict.fromkeys(range(2 * FEW_KEYS), 196),
    "many keys of several kinds": {**dict.fromkeys(TEXTS), **dict.fromkeys(range(FEW_KEYS))},
    "dates": [MOMENT] * 500,
}
FOUND: dict[str, Any] = {
    "nothing": None,
    "bytes": b"xyz",
    "empty bytes": b"",
    "many bytes": [b"x" * 200] * 50,
    "bytes in a map": {"a": {"b": [b"x", b""]}},
    "empty bytes as a key": {b"": 1},
    "a number as a key": {196: b""},
    "a number beyond 64 bits": 1 << 70,
    "a date": MOMENT,
}


def arrived(value: Any) -> Any:
    """What a value arrives as: bytes, but for keys, are writable."""
    if isinstance(value, dict):
        return {key: arrived(item) for key, item in value.items()}
    if isinstance(value, list):
        return [arrived(item) for item in value]
    return bytearray(value) if isinstance(value, bytes) else value


def exactly(value: Any) -> Any:
    """The types of all values in a value, in their places."""
    kind = type(value)
    if kind is dict:
        return [*map(type, value), *map(exactly, value.values())]
    return list(map(exactly, value)) if kind is list else kind


@pytest.mark.parametrize("found", FOUND)
@pytest.mark.parametrize("filler", FILLERS)
def test_every_value_arrives_as_it_does_alone(filler: str, found: str) -> None:
    messages: list[Any] = [
        {"first": FOUND[found], "filler": FILLERS[filler], "last": [FOUND[found]]},
        [FILLERS[filler], FOUND[found]],
    ]
    for message, memory in zip(messages, (bytearray, memoryview), strict=True):
        (header,) = encode(message)
        expected = arrived(message)
        decoded = decode([memory(bytearray(header))])
        assert decoded == expected
        assert exactly(decoded) == exactly(expected)


@pytest.mark.parametrize("filler", FILLERS)
def test_damage_is_told_whatever_is_around_it(filler: str) -> None:
    filled = msgpack.packb(FILLERS[filler], datetime=False, default=lambda value: None)
    for damage in (b"\xc1", b"\xa2\xff\xff", msgpack.packb(msgpack.ExtType(9, b"x")), b"\x81\x90"):
        for header in (b"\x92" + filled + damage, b"\x92" + damage + filled):
            with pytest.raises(DecodeError, match=f"a header of {len(header)} bytes"):
                decode([bytearray(header)])
