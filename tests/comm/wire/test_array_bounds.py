"""Arrays in messages: which dtypes and shapes are taken, and of how many bytes."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from sealwire.comm import EncodeError
from sealwire.comm.codec import decode, encode
from sealwire.comm.wire.budget import FIELDS
from support.headers import Box, array, refusal, travel, within

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


OVERFLOWING = [(25, 2**62), (2, 2**62), (2, -(2**62) - 1), (999_999_999, 2**34), (7, 2**63 - 1)]
UNITS = ["Y", "M", "W", "D", "h", "m", "s", "ms", "us", "ns", "ps", "fs", "as"]


@pytest.mark.parametrize("unit", UNITS)
def test_a_date_that_numpy_could_not_print_is_none(unit: str) -> None:
    for multiple, count in OVERFLOWING:
        for order in "<>":
            dtype = f"{order}M8[{multiple}{unit}]"
            dates = np.array([0, 1, count], f"{order}i8")
            for described, shape, content in (
                (dtype, [3], dates.tobytes()),
                (dtype, [1, 3], dates.tobytes()),
                ([["n", "|u1"], ["d", dtype, [3]]], [1], b"x" + dates.tobytes()),
                ([["n", [["d", dtype]]]], [3], dates.tobytes()),
            ):
                assert f"{count} times {multiple} {unit}" in refusal(
                    array(described, shape, content)
                )
            unsendable = dates.view(dtype)
            for made in (unsendable, np.zeros(2, [("d", dtype, 3)]), unsendable[::-1]):
                if made.dtype.names:
                    made["d"] = unsendable
                with pytest.raises(EncodeError, match="beyond the 64 bits"):
                    encode(made)


@pytest.mark.parametrize("unit", UNITS)
def test_every_other_date_travels_and_can_be_printed(unit: str) -> None:
    for multiple in (1, 2, 15, 999_999_999):
        most = (2**63 - 1) // multiple
        dtype = f"<M8[{multiple}{unit}]" if multiple > 1 else f"<M8[{unit}]"
        dates = np.array([0, 1, -1, most, -most, np.iinfo("i8").min], "i8").view(dtype)
        value = travel(dates)
        assert value.dtype == dates.dtype
        assert value.tobytes() == dates.tobytes()
        assert repr(value)
        assert str(travel(dates.view(f"m8[{multiple}{unit}]")))


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
        with pytest.raises(EncodeError, match=r"cannot encode .*: .*; send simpler values"):
            encode(message)
