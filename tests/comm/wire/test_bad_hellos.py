"""What is no hello, though it may be msgpack."""

from __future__ import annotations

import itertools

import msgpack
import pytest

from sealwire.comm import HelloError
from sealwire.comm.wire import hello
from support.headers import within


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
