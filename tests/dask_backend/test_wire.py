"""Golden bytes: what our comm writes is what stock writes, to the last bit."""

from __future__ import annotations

import asyncio
import decimal
from collections.abc import Callable
from typing import Any

import dask
import numpy as np
import pytest
from distributed.comm import tcp as stock
from distributed.protocol import Serialized, serialize, to_serialize
from distributed.protocol.serialize import ToPickle
from hypothesis import given, settings
from hypothesis import strategies as st

from sealwire.comm.wire.framing import pack
from sealwire.dask_backend import backend, codec
from support.parties import Party, asynchronous
from support.rawpeer import Recorder, dialling, hello, packed

MakeParty = Callable[..., Party]

BYTES = np.random.default_rng(1).integers(0, 255, 400_000, dtype="u1")

MESSAGES: dict[str, list[Any]] = {
    "plain": [{"op": "ping"}, {}, None, [1, 2, {"x": b"\0"}], "text", b"bytes"],
    "types": [{"a": {1, 2}, "b": (1,), "c": {"d": 1.5, 3: -1}, "e": 2**63, "f": None}],
    "pickled": [{"x": decimal.Decimal(1)}, {"x": ToPickle(max)}, ToPickle({1: 2})],
    "marked": [{"x": to_serialize([1, {"y": 2}])}, to_serialize("alone")],
    "array": [{"x": to_serialize(BYTES)}, {"x": to_serialize(BYTES[:100].astype("f8"))}],
    "arrays": [{"x": [to_serialize(BYTES), to_serialize(BYTES[1:]), to_serialize(BYTES[:9])]}],
    "nothing": [{"x": to_serialize(BYTES[:0])}, {"x": to_serialize(b"")}],
    "strided": [{"x": to_serialize(BYTES.reshape(400, 1000)[::2, ::3])}],
    "fortran": [{"x": to_serialize(np.asfortranarray(BYTES.reshape(400, 1000)))}],
    "objects": [{"x": to_serialize(np.array([1, "two", None], object))}],
    "buffers": [{"x": to_serialize(bytearray(BYTES)), "y": to_serialize(memoryview(BYTES))}],
    "large bytes": [{"x": BYTES.tobytes(), "y": to_serialize(BYTES.tobytes())}],
    "long header": [{"x": ["key"] * 5_000, "y": to_serialize(BYTES[:4_000])}],
    "serialized": [{"x": Serialized(*serialize(BYTES))}],
    "many": [{"n": n, "x": to_serialize(BYTES[:n])} for n in range(100)],
    "many frames": [{"x": [to_serialize(BYTES[n : n + 90]) for n in range(300)]}],
    "a batch": [[{"op": "task-finished", "key": f"k-{n}", "nbytes": n} for n in range(50)]],
    "over 128 KiB": [{"x": to_serialize(np.zeros((3, 1_000_000)))}],
}


async def written(party: Party, messages: list[Any]) -> tuple[bytes, bytes, list[int]]:
    """What a dialled comm of this party puts on the wire, and what its writes return."""
    async with Recorder(hello()) as server:
        comm = await party.connect(server.address)
        sizes = [await comm.write(message) for message in messages]
        await comm.close()
        return (*await server.recorded, sizes)


async def answered(party: Party, messages: list[Any]) -> tuple[bytes, list[int]]:
    """The same of an accepted comm; the hello is at the beginning of the bytes."""
    sizes: asyncio.Future[list[int]] = asyncio.get_running_loop().create_future()

    async def send(comm: Any) -> None:
        sizes.set_result([await comm.write(message) for message in messages])
        await comm.close()

    async with (
        party.listen(send) as listener,
        dialling(listener.contact_address) as (reader, writer),
    ):
        writer.write(hello())
        return await reader.read(), await sizes


@pytest.mark.parametrize("name", MESSAGES)
@asynchronous
async def test_a_dialled_comm_writes_what_stock_writes(name: str, make_party: MakeParty) -> None:
    ours = await written(make_party("ours", "tcp"), MESSAGES[name])
    theirs = await written(make_party("stock", "tcp"), MESSAGES[name])
    assert ours == theirs
    _, body, sizes = ours
    assert sum(sizes) == len(body)


@pytest.mark.parametrize("name", MESSAGES)
@asynchronous
async def test_an_accepted_comm_writes_what_stock_writes(name: str, make_party: MakeParty) -> None:
    """But for a word in its hello, by which a backend is known and nobody goes."""
    ours, *others = await answered(make_party("ours", "tcp"), MESSAGES[name])
    stock, *same = await answered(make_party("stock", "tcp"), MESSAGES[name])
    assert others == same
    marked = hello(**{"sealwire-backend": True})
    assert ours == marked + stock.removeprefix(hello())


@asynchronous
async def test_the_hello_is_stocks(make_party: MakeParty) -> None:
    for kind in ("ours", "stock"):
        first, _, _ = await written(make_party(kind, "tcp"), [])
        assert first == hello()


@asynchronous
async def test_the_wire_is_what_it_has_always_been(make_party: MakeParty) -> None:
    """Spelt out, lest both change together."""
    for kind in ("ours", "stock"):
        _, body, _ = await written(make_party(kind, "tcp"), [{"op": "ping"}])
        assert body == bytes.fromhex(
            "1900000000000000"  # the first block: 25 bytes
            "0100000000000000"  # one frame
            "0900000000000000"  # of 9 bytes
            "81a26f70a470696e67"  # {"op": "ping"}
        )


@asynchronous
async def test_shards_are_stocks(make_party: MakeParty, monkeypatch: pytest.MonkeyPatch) -> None:
    """Large buffers go out in frames of the configured size, which share one buffer."""
    for classes in (stock, backend):
        monkeypatch.setattr(classes.TCP, "max_shard_size", 30_000)
    for name in ("array", "arrays", "buffers", "over 128 KiB"):
        ours = await written(make_party("ours", "tcp"), MESSAGES[name])
        assert ours == await written(make_party("stock", "tcp"), MESSAGES[name])


def test_shards_have_the_configured_size() -> None:
    assert backend.TCP.max_shard_size == stock.TCP.max_shard_size
    assert backend.TLS.max_shard_size == stock.TLS.max_shard_size


@asynchronous
async def test_compressed_frames_are_stocks(make_party: MakeParty) -> None:
    messages = [
        {"x": to_serialize(np.zeros(500_000))},
        {"x": [to_serialize(BYTES), to_serialize(np.ones(200_000)), to_serialize(BYTES)]},
    ]
    seen = []
    with dask.config.set({"distributed.comm.compression": "zlib"}):
        for kind in ("ours", "stock"):
            # Between different addresses: on one host nothing is compressed.
            party = make_party(kind, "tcp")
            async with Recorder(hello(compression="zlib"), host="127.0.0.2") as server:
                comm = await party.connect(server.address)
                sizes = [await comm.write(message) for message in messages]
                await comm.close()
                seen.append((*await server.recorded, sizes))
    assert seen[0] == seen[1]
    assert seen[0][2][0] < 100_000


# The first block


def on_the_wire(frames: list[Any]) -> bytes:
    """As our comm puts frames on the wire."""
    shared = codec.shared_frames(frames)
    return pack([memoryview(f).nbytes for f in frames], shared) + b"".join(frames)


ARRAY = bytearray(100_000)
SMALL = bytearray(1_000)
SPLITS: dict[str, list[Any]] = {
    "header alone": [b"header"],
    "an empty header": [b""],
    "bytes only": [b"header", b"x" * 100_000, b"y" * 200_000],
    "one buffer": [b"header", memoryview(ARRAY)],
    "one buffer after 2048 bytes": [bytes(2048), memoryview(SMALL)],
    "one buffer after 2049 bytes": [bytes(2049), memoryview(SMALL)],
    "one buffer after 5 %": [bytes(5000), memoryview(ARRAY)],
    "one buffer after more": [bytes(5001), memoryview(ARRAY)],
    "two buffers": [b"header", memoryview(ARRAY), memoryview(SMALL)],
    "two bytearrays": [b"header", ARRAY, SMALL],
    "shards": [b"header", memoryview(ARRAY)[:50_000], memoryview(ARRAY)[50_000:]],
    "shards after more": [bytes(4_000), memoryview(ARRAY)[:50_000], memoryview(ARRAY)[50_000:]],
    "shards and a buffer": [b"h", memoryview(ARRAY)[:9], memoryview(ARRAY)[9:], memoryview(SMALL)],
    "a buffer between shards": [b"h", memoryview(ARRAY)[:9], SMALL, memoryview(ARRAY)[9:]],
    "bytes after a buffer": [b"h", memoryview(ARRAY), b"x" * 10_000, b"y"],
    "bytes between buffers": [b"h", memoryview(ARRAY), b"x" * 10_000, memoryview(SMALL), b"y"],
    "views of bytes": [b"h", memoryview(b"x" * 50_000), memoryview(b"y" * 50_000)],
    "an empty buffer first": [b"h", memoryview(bytearray()), memoryview(ARRAY)],
    "empty frames": [b"h", b"", b"", memoryview(ARRAY), b""],
    "arrays": [b"h", memoryview(np.zeros(9)).cast("B"), memoryview(np.zeros(9)).cast("B")],
}


@pytest.mark.parametrize("name", SPLITS)
def test_the_first_block_ends_where_stocks_ends(name: str) -> None:
    assert on_the_wire(SPLITS[name]) == packed(SPLITS[name])


OWNERS = [bytes(300_000), bytearray(300_000), bytearray(70_000), bytes(3_000), bytearray(3_000)]
SIZES = st.sampled_from([0, 1, 90, 2_047, 2_048, 2_049, 3_000, 40_000, 41_000, 300_000])
FRAMES = st.builds(
    lambda owner, size: memoryview(owner)[:size], st.sampled_from(OWNERS), SIZES
) | st.sampled_from(OWNERS)


@settings(max_examples=200, deadline=None)
@given(st.builds(lambda size: bytes(size), SIZES), st.lists(FRAMES, max_size=6))
def test_the_first_block_ends_where_stocks_ends_in_any_case(
    header: bytes, frames: list[Any]
) -> None:
    assert on_the_wire([header, *frames]) == packed([header, *frames])
