"""Which keys a message may have: none that cannot be one, and none that are made to collide."""

from __future__ import annotations

import datetime
from typing import Any

import msgpack
import numpy as np
import pytest

from sealwire.comm import EncodeError
from sealwire.comm.codec import encode
from support.headers import UTC, Box, ext, refusal, travel

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
    round_, place = [], 12345
    for _ in range(int(size * 0.45)):
        round_.append(place)
        place = (5 * place + 1) % size
    full = np.zeros(size, bool)
    full[round_] = True
    order = np.zeros(size, int)
    order[round_] = np.arange(len(round_))
    # Bits 16 to 60 are chosen five at a time: each five decide where the next step leads.
    source = np.random.default_rng(1)
    keys = places = np.array(round_)
    for step in range(14):
        if step < 9:
            chosen = source.integers(len(keys), size=700_000)
            keys = keys[chosen] | source.integers(32, size=700_000) << (16 + 5 * step)
            places = places[chosen]
        places = (places * 5 + (keys >> 5 * (step + 1)) + 1) % size
        left = full[places]
        keys, places = keys[left], places[left]
    large = (keys > 1 << 40) & (keys < P - 1)
    found = np.unique(keys[large & (order[places] < len(round_) // 2)]).tolist()
    assert len(found) > 2000
    packer = msgpack.Packer()
    every = [*round_, *found[:2000]]
    header = packer.pack_map_header(len(every)) + b"".join(packer.pack(k) + b"\xc0" for k in every)
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
