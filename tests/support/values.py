"""Values that messages are made of, and how to see that one arrives as docs/messages.md says."""

from __future__ import annotations

import datetime
import enum
import struct
import zoneinfo
from typing import Any, NamedTuple

import numpy as np

from sealwire.comm.codec import OUT_OF_BAND, decode, encode

UTC = datetime.timezone.utc
FIVE = datetime.timezone(datetime.timedelta(hours=5))
BERLIN = zoneinfo.ZoneInfo("Europe/Berlin")
FOLD = datetime.datetime(2026, 10, 25, 2, 30, fold=1)


class Text(str):
    pass


class Count(int):
    pass


class Ratio(float):
    pass


class Many(list[Any]):
    pass


class Digest(bytes):
    pass


class Memory(bytearray):
    pass


class Lying(dict[Any, Any]):
    """Says of itself what is not so."""

    def __len__(self) -> int:
        return 5

    def items(self) -> Any:
        return [("a", 1), ("b", 2)]


class LyingList(list[Any]):
    def __len__(self) -> int:
        return 5


class Level(enum.IntEnum):
    LOW = 1
    HUGE = 1 << 70


class Point(NamedTuple):
    x: int
    y: Any


class Colour(enum.Enum):
    RED = 1


class Image(np.ndarray[Any, Any]):
    pass


class Strange(datetime.tzinfo):
    def utcoffset(self, moment: datetime.datetime | None) -> None:
        return None


def travel(message: Any) -> Any:
    return decode([bytearray(frame) for frame in encode(message)])


def is_same(sent: Any, received: Any) -> bool:
    """Of one type and equal, NaN to NaN, and -0.0 not to 0.0; containers of such."""
    if type(sent) is not type(received):
        return False
    if isinstance(sent, float):
        return struct.pack("d", sent) == struct.pack("d", received)
    if isinstance(sent, dict):
        return len(sent) == len(received) and all(map(is_same, sent.items(), received.items()))
    if isinstance(sent, (list, tuple)):
        return len(sent) == len(received) and all(map(is_same, sent, received))
    return bool(sent == received)


def is_buffer(sent: Any, received: Any) -> bool:
    content = memoryview(sent).tobytes()
    kind = bytearray if len(content) < OUT_OF_BAND else memoryview
    writable = not memoryview(received).readonly
    return type(received) is kind and received == content and writable


def is_plain(sent: Any, received: Any) -> bool:
    for kind in (int, float, str, list, dict):
        if isinstance(sent, kind):
            return type(received) is kind and received == kind(sent)
    return False


def is_moment(sent: Any, received: Any) -> bool:
    # Times that are skipped or repeated are unequal to any of another zone.
    return bool(received.tzinfo is UTC and sent.astimezone(UTC) == received)


def is_python(sent: Any, received: Any) -> bool:
    if isinstance(sent, np.bytes_):
        return is_buffer(sent, received)
    plain = {"b": bool, "i": int, "u": int, "f": float, "U": str}[sent.dtype.kind]
    return is_same(plain(sent), received)


def is_array(sent: Any, received: Any) -> bool:
    return bool(
        type(received) is np.ndarray
        and received.dtype == sent.dtype
        and received.shape == sent.shape
        and received.tobytes() == sent.tobytes()
        and received.flags.writeable
        and received.dtype.metadata is None
        and (received.flags.c_contiguous or received.flags.f_contiguous)
        and (received.flags.f_contiguous or not sent.flags.f_contiguous)
    )
