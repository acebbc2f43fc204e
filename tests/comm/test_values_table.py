"""The table of docs/messages.md: what it says is what arrives, and there is nothing else."""

from __future__ import annotations

import array
import collections
import datetime
import decimal
import fractions
import math
import pathlib
import pickle
import re
import types
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest

from sealwire.comm import EncodeError
from sealwire.comm.codec import OUT_OF_BAND, encode
from support.headers import Box
from support.values import (
    BERLIN,
    FIVE,
    FOLD,
    UTC,
    Colour,
    Count,
    Digest,
    Image,
    Level,
    Lying,
    LyingList,
    Many,
    Memory,
    Point,
    Ratio,
    Strange,
    Text,
    is_array,
    is_buffer,
    is_moment,
    is_plain,
    is_python,
    is_same,
    travel,
)

PAGE = (Path(__file__).resolve().parents[2] / "docs/messages.md").read_text(encoding="utf-8")
(PART,) = re.findall(r"\n\| sent \| arrives as \|\n\|---\|---\|\n((?:\|.*\|\n)+)", PAGE)
TABLE = [tuple(cell.strip() for cell in line.strip("|\n").split("|")) for line in PART.splitlines()]


twice: list[Any] = [1]
itself: list[Any] = []
itself.append(itself)
deep: Any = 1
for _ in range(501):
    deep = [deep]
gaps = np.zeros(2, {"names": ["a"], "formats": ["i1"], "offsets": [3], "itemsize": 8})
NUMPY_2 = int(np.__version__.partition(".")[0]) >= 2  # 1 has at most 32 dimensions
with_metadata = np.zeros(2, np.dtype("i4", metadata={"unit": "m"}))


class Moment(datetime.datetime):
    """As pandas has one."""


boxes: Any = 1
for _ in range(33):
    boxes = Box(boxes)
Check = Callable[[Any, Any], bool]
REFUSED = "refused"
UNLESS = "refused, unless registered"

#: the table again, as code: what arrives, how to see that it does, and values of the row
ROWS: list[tuple[str, Check | None, list[Any]]] = [
    (
        "the same; NaN, infinities and -0.0 too",
        is_same,
        [
            None,
            True,
            False,
            0,
            -1,
            1 << 63,
            -(1 << 64),
            int("9" * 4295),
            -int("9" * 4295),
            0.5,
            math.nan,
            math.copysign(math.nan, -1),
            math.inf,
            -math.inf,
            -0.0,
            5e-324,
            "",
            "ünï\x00",
        ],
    ),
    (
        "the same, in the same order",
        is_same,
        [
            [],
            {},
            [[]],
            {"b": 1, "a": 2},
            {1: 1, None: 2, 2.5: 3, False: 4, b"x": 5, "x": 6},
            {datetime.datetime(2026, 1, 1): 1},
            {-(1 << 63): 1, (1 << 64) - 1: 2},
            {datetime.datetime(2026, 1, 1, tzinfo=UTC): 1},
            dict.fromkeys(range(9999, 0, -1)),
        ],
    ),
    ("list", lambda s, r: is_same(list(s), r), [(), (1, 2), Point(1, None), (Level.LOW + 0,)]),
    (
        "the plain type",
        is_plain,
        [
            Text("x"),
            Count(5),
            Count(1 << 100),
            Ratio(-0.0),
            Many([1]),
            LyingList([1, b"x"]),
            Level.LOW,
            Level.HUGE,
            collections.OrderedDict(b=1, a=2),
            collections.Counter("aab"),
            collections.defaultdict(int, a=1),
            np.float64(0.5),
            np.str_("x"),
            {Text("x"): 1},
            {Level.LOW: 2},
            {Ratio(0.5): 3},
            {Digest(b"x"): 4},
            {np.str_("x"): 5},
        ],
    ),
    (
        "writable bytes: `bytearray`, or `memoryview` if 4,096 bytes or more",
        is_buffer,
        [
            kind(bytes(size))
            for kind in (bytes, bytearray, pickle.PickleBuffer, Digest, Memory)
            for size in (0, 1, OUT_OF_BAND - 1, OUT_OF_BAND, 100_000)
        ],
    ),
    (
        "writable bytes, in C order; format and shape are lost",
        is_buffer,
        [
            memoryview(b""),
            memoryview(b"abc"),
            memoryview(b"abcdef")[::-2],
            memoryview(array.array("d", [1, 2])),
            memoryview(np.ones((3, 4))),
            memoryview(b"a")[:0],
            memoryview(np.arange(5000).reshape(50, 100).T),
            memoryview(np.array(5.0)),
            memoryview(np.zeros(2, [("Offset", "i4"), ("O", "f8")])),
        ],
    ),
    (
        "the same, with `fold` 0",
        lambda s, r: is_same(s, r) and r.fold == 0 and r.tzinfo is None,
        [datetime.datetime.min, datetime.datetime.max, FOLD, FOLD.replace(fold=0)],
    ),
    (
        "the same moment, in UTC",
        is_moment,
        [datetime.datetime(2026, 1, 2, 3, 4, 5, 678901, zone) for zone in (UTC, FIVE, BERLIN)]
        + [FOLD.replace(tzinfo=BERLIN), FOLD.replace(tzinfo=BERLIN, fold=0)]
        + [datetime.datetime.min.replace(tzinfo=UTC), datetime.datetime.max.replace(tzinfo=UTC)]
        + [datetime.datetime(2026, 3, 29, 2, 30, tzinfo=BERLIN, fold=f) for f in (0, 1)]
        + [datetime.datetime(1, 1, 1, 5, tzinfo=FIVE)],
    ),
    (
        "bool, int, float, str, writable bytes",
        is_python,
        [
            np.True_,
            np.int8(-5),
            np.uint64(2**64 - 1),
            np.float16(0.5),
            np.float32(-0.0),
            np.float64(math.inf),
            np.str_("x"),
            np.bytes_(b"x"),
            np.bytes_(bytes(5000) + b"x"),
        ],
    ),
    (
        "array with the same dtype, shape and values, C or Fortran order, writable; metadata of "
        "the dtype is lost",
        is_array,
        [
            np.arange(5),
            np.array(5.0),
            np.zeros((0, 3)),
            np.arange(6, dtype=">i2").reshape(2, 3),
            np.asfortranarray(np.ones((40, 50))),
            np.arange(10000)[::3],
            np.ones((9, 9))[:, ::-1],
            np.array(["2026", "NaT"], "M8[ns]"),
            np.array([5], "m8[ns]"),
            np.array(["a", "bc"]),
            np.zeros(3, [("a", "i4"), ("b", "f8", (2,))]),
            np.array([1j]),
            np.array([b"x"]),
            np.array([math.nan, -0.0]),
            np.array(["\ud800"]),
            np.zeros(3, "V5"),
            np.ones((1,) * 32),
            np.zeros((0, 1 << 24)),
        ],
    ),
    ("what the function registered there returns", None, []),  # test_registered_types.py
    (
        "as many equal objects",
        lambda s, r: is_same(s, r) and r[0] is not r[1],
        [[twice, twice], [[twice], [twice]]],
    ),
    (
        UNLESS,
        None,
        [
            {1},
            frozenset(),
            1j,
            datetime.date(2026, 1, 1),
            datetime.time(1),
            datetime.timedelta(1),
            decimal.Decimal(1),
            fractions.Fraction(1, 2),
            uuid.UUID(int=1),
            pathlib.Path("x"),
            Colour.RED,
            range(3),
            array.array("d", [1]),
            object(),
            len,
            ValueError("x"),
            iter([]),
            types.MappingProxyType({}),
            collections.deque(),
            collections.ChainMap(),
            Moment(2026, 1, 1),
            ...,
        ],
    ),
    (
        UNLESS,
        None,
        [
            np.datetime64("2026", "ns"),
            np.datetime64("NaT", "ns"),
            np.timedelta64(5, "ns"),
            np.timedelta64(5, "s"),
            np.timedelta64(5, "D"),
            np.timedelta64("NaT", "s"),
            np.complex64(1),
            np.complex128(1),
            np.longdouble(1),
            np.clongdouble(1),
            np.ma.zeros(3),
            np.void(b"x"),
            np.zeros(3).view(Image),
            np.rec.array([(1,)], dtype=[("a", "i4")]),
            np.dtype("i4"),
        ],
    ),
    (UNLESS, None, [msgpack.ExtType(5, b"2026-01-01T00:00:00"), msgpack.Timestamp(1, 1)]),
    (
        REFUSED,
        None,
        [
            np.array([None]),
            np.zeros(3, np.longdouble),
            gaps,
            memoryview(np.array([None])),
            pickle.PickleBuffer(np.array([None])),
            np.zeros(1, [("a", "O"), ("b", "i4")]),
            *([np.array(["x"], np.dtypes.StringDType())] if NUMPY_2 else []),
        ],
    ),
    (
        REFUSED,
        None,
        [np.zeros(3, "V0"), np.zeros((0, 1 << 24, 2)), *([np.ones((1,) * 33)] if NUMPY_2 else [])],
    ),
    (
        REFUSED,
        None,
        [
            "\ud800",
            "a" * 5000 + "\udfff",
            {"\ud800": 1},
            Text("\ud800"),
            np.str_("\ud800"),
            datetime.datetime.min.replace(tzinfo=FIVE),
            datetime.datetime.max.replace(tzinfo=datetime.timezone(-datetime.timedelta(hours=1))),
            {FOLD.replace(tzinfo=BERLIN): 1, FOLD.replace(tzinfo=BERLIN).astimezone(UTC): 2},
            datetime.datetime(2026, 1, 1, tzinfo=Strange()),
        ],
    ),
    (REFUSED, None, [deep, itself, boxes]),
]


def test_the_rows_are_those_of_the_readme() -> None:
    assert [arrives for _, arrives in TABLE] == [arrives for arrives, *_ in ROWS]


ARRIVING = [
    pytest.param(check, value, id=f"{number}-{index}")
    for number, (_, check, values) in enumerate(ROWS)
    for index, value in enumerate(values)
    if check is not None
]
KEPT_BACK = [
    pytest.param(value, id=f"{number}-{index}")
    for number, (arrives, _, values) in enumerate(ROWS)
    for index, value in enumerate(values)
    if arrives.startswith(REFUSED)
]


@pytest.mark.parametrize(("check", "value"), ARRIVING)
def test_what_arrives(check: Check, value: Any) -> None:
    for wrapped in (
        value,
        [value],
        {"a": value},
        [[bytes(OUT_OF_BAND)], value],
        [0] * 20 + [value],
    ):
        received = travel(wrapped)
        if wrapped is not value:
            received = received["a"] if type(wrapped) is dict else received[-1]
        assert check(value, received), received


@pytest.mark.parametrize("value", KEPT_BACK)
def test_what_is_refused_by_the_sender(value: Any) -> None:
    for wrapped in (value, [value], {"a": [b"x", value]}):
        with pytest.raises(EncodeError, match="; "):
            encode(wrapped)


def test_a_dict_that_lies_arrives_as_what_it_says() -> None:
    assert travel([Lying()]) == [{"a": 1, "b": 2}]


def test_nanoseconds_travel_as_the_readme_says() -> None:
    assert "`numpy.asarray(moment)`" in PAGE
    moment = np.datetime64("2026-01-01T00:00:00.123456789")
    assert travel(np.asarray(moment))[()] == moment


class Same(str):
    """Keys that are different for Python and arrive as one text."""

    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        return self is other


def test_no_key_is_lost() -> None:
    with pytest.raises(EncodeError, match=r"keys that arrive as the same: .*; use distinct ones"):
        encode([{Same("x"): 1, Same("x"): 2}])
    assert travel({Same("x"): 1}) == {"x": 1}
