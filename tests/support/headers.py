"""Headers of messages as no encoder makes them, and what decoding them comes to."""

from __future__ import annotations

import datetime
import itertools
from collections.abc import Callable
from typing import Any

import msgpack
import pytest

from sealwire.comm import DecodeError, register_type
from sealwire.comm.codec import decode, encode

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


def within(depth: int, wrap: Callable[[Any], Any]) -> Any:
    value = None
    for _ in range(depth):
        value = wrap(value)
    return value


def within_lists(value: Any, depth: int) -> Any:
    for _ in range(depth):
        value = [value]
    return value


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
