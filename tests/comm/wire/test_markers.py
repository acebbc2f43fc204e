"""What a header may hold, against what a plain search finds in it."""

from __future__ import annotations

import random

import pytest

from sealwire.comm.wire import markers

EMPTY = b"\xc4\x00"
PIECE = 64 * 1024

# Where the marker is rare, dense, alone, at an end, or divided between two pieces.
FILLINGS = (b"a", b"\x00", b"\xc4", b"\xc4\x01", b"\xc4" + 254 * b"a", b"\xc4" + 300 * b"a")
LENGTHS = (0, 1, 2, 255, 256, 257, 4096, PIECE - 1, PIECE, PIECE + 1, 2 * PIECE + 7)


@pytest.mark.parametrize("filling", FILLINGS)
@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("kind", [bytearray, lambda data: memoryview(bytearray(data))])
def test_empty_bytes(filling: bytes, length: int, kind: type) -> None:
    plain = (filling * (length // len(filling) + 1))[:length]
    assert markers.may_hold_empty(kind(plain)) is (EMPTY in plain)
    for place in {0, 1, length // 2, length - 2, PIECE - 2, PIECE - 1, PIECE, 2 * PIECE - 1}:
        if 0 <= place <= length - 2:
            data = plain[:place] + EMPTY + plain[place + 2 :]
            assert markers.may_hold_empty(kind(data))


def test_empty_bytes_in_random_data() -> None:
    source = random.Random(5)
    found = 0
    for _ in range(2000):
        alphabet = b"\xc4\x00" + bytes(range(1, 1 + source.choice([1, 16, 180])))
        data = bytes(source.choices(alphabet, k=source.randrange(3000)))
        assert markers.may_hold_empty(data) is (EMPTY in data), data.hex()
        found += EMPTY in data
    assert 200 < found < 1900


@pytest.mark.parametrize("kind", [bytearray, lambda data: memoryview(bytearray(data))])
@pytest.mark.parametrize("marker", [0xC4, 0xC5, 0xC6])
@pytest.mark.parametrize("place", [0, PIECE - 1, PIECE, 2 * PIECE + 6])
def test_bytes(kind: type, marker: int, place: int) -> None:
    data = bytearray(2 * PIECE + 7)
    assert not markers.may_hold_bytes(kind(data))
    data[place] = marker
    assert markers.may_hold_bytes(kind(data))
