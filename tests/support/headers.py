"""Headers of messages as no encoder makes them, and what decoding them comes to."""

from __future__ import annotations

import datetime
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
