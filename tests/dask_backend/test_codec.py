"""The shortcuts of the codec end in distributed's bytes and values, for what clusters say."""

from __future__ import annotations

import asyncio
import copy
from enum import Enum
from typing import Any

import numpy as np
import pytest
from dask.distributed import Client, LocalCluster
from distributed import protocol
from distributed.protocol import Serialized, serialize, to_serialize
from distributed.protocol.serialize import ToPickle
from hypothesis import given
from hypothesis import strategies as st

from sealwire.comm import DecodeError
from sealwire.dask_backend import TCP, codec, install


@pytest.fixture(scope="module")
def corpus() -> list[Any]:
    """Every message of a running cluster, as given to `write`."""
    recorded: list[Any] = []
    write = TCP.write
    install()

    async def recording(self: TCP, msg: Any, *args: Any, **kwargs: Any) -> int:
        try:
            recorded.append(copy.deepcopy(msg))
        except (TypeError, AttributeError):  # locks and the like
            pass
        return await write(self, msg, *args, **kwargs)

    TCP.write = recording  # type: ignore[method-assign]
    try:
        with (
            LocalCluster(
                n_workers=2,
                threads_per_worker=2,
                processes=False,
                protocol="tcp",
                host="127.0.0.1",
                dashboard_address=None,
            ) as cluster,
            Client(cluster) as client,
        ):
            numbers = client.map(lambda n: n + 1, range(200))
            assert client.gather(client.submit(sum, numbers)) == 20_100
            array = client.scatter(np.arange(100_000), broadcast=True)
            assert client.submit(lambda a: int(a.sum()), array).result() == 4_999_950_000
            error = client.submit(lambda: 1 / 0)
            assert isinstance(error.exception(), ZeroDivisionError)
            client.publish_dataset(numbers=numbers)
            assert len(client.who_has(numbers)) == 200
            client.run(lambda: 1)
            client.cancel(numbers)
    finally:
        TCP.write = write  # type: ignore[method-assign]
    return recorded


def test_the_bytes_are_distributeds(corpus: list[Any]) -> None:
    shortcuts = 0
    for message in corpus:
        frame = codec.encode_plain(message)
        if frame is not None:
            assert [frame] == protocol.dumps(message)
            shortcuts += 1
    assert shortcuts > len(corpus) / 2 > 50


def test_the_values_are_distributeds(corpus: list[Any]) -> None:
    shortcuts = 0
    for message in corpus:
        frames = [bytearray(frame) for frame in protocol.dumps(message)]
        value = codec.decode_plain(frames)
        if value is not codec.NOT_PLAIN:
            assert value == protocol.loads(frames)
            shortcuts += 1
    assert shortcuts > len(corpus) / 2


class Colour(Enum):
    RED = 1


NOT_PLAIN = {
    "a set": {"x": {1, 2}},
    "an enum": [Colour.RED],
    "marked": {"x": to_serialize(1)},
    "serialized": {"x": Serialized(*serialize(1))},
    "to pickle": {"x": ToPickle(1)},
    "an object": {"x": object()},
    "a number beyond 64 bits": [2**64],
    "broken text": ["\ud800"],
}


@pytest.mark.parametrize("name", NOT_PLAIN)
def test_what_needs_distributed_goes_there(name: str) -> None:
    assert codec.encode_plain(NOT_PLAIN[name]) is None


@pytest.mark.parametrize("memory", [bytearray, memoryview])  # as small and large frames arrive
@pytest.mark.parametrize("name", ["a set", "an enum", "marked", "to pickle"])
def test_what_stands_for_something_else_is_found(name: str, memory: Any) -> None:
    frames = [memory(frame) for frame in protocol.dumps(NOT_PLAIN[name])]
    assert codec.decode_plain(frames) is codec.NOT_PLAIN


PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(), inner, max_size=4)
        | st.lists(inner, max_size=3).map(tuple)
    ),
)


@given(PLAIN)
def test_any_plain_message(message: Any) -> None:
    frame = codec.encode_plain(message)
    assert [frame] == protocol.dumps(message)
    value = codec.decode_plain([bytearray(frame or b"")])
    assert value is codec.NOT_PLAIN or value == protocol.loads([frame])


LARGE = {
    "text": {"x": "x" * 11_000_000},
    "bytes": [b"x" * 11_000_000],
    "many values": {"keys": ["key"] * 400_000},
    "many small maps": [{"a": 1, "b": [1, 2]} for _ in range(50_000)],
    "wrapped": {"x": to_serialize(np.zeros(2_000_000))},
    "serialized": {"x": Serialized({}, [bytes(11_000_000)])},
    "deep": {"a": {"b": {"c": ["key"] * 400_000}}},
}


@pytest.mark.parametrize("name", LARGE)
def test_what_is_large_goes_to_a_thread(name: str) -> None:
    """Serialised here it would be done when its task has had its first turn."""
    assert codec.encode_plain(LARGE[name]) is None

    async def main() -> None:
        encoding = asyncio.ensure_future(
            codec.encode(
                LARGE[name],
                serializers=None,
                on_error="message",
                context={},
                allow_offload=True,
                shard_size=1 << 26,
            )
        )
        await asyncio.sleep(0)
        assert not encoding.done()
        frames, _ = await encoding
        assert sum(map(len, frames)) > 400_000

    asyncio.run(main())


def test_bad_bytes_are_refused_in_a_line() -> None:
    with pytest.raises(DecodeError, match="bad message from tcp://a:1: a header of 1 bytes"):
        codec.decode_plain([bytearray(b"\xc1")], "tcp://a:1")


@pytest.mark.parametrize("header", [b"\xc1", b"", b"\xa3__", b"\xa2__\x01", b"\x91" * 100_000])
def test_a_header_is_looked_at_before_its_frames(header: bytes) -> None:
    decoding = codec.decode(
        [bytearray(header), bytearray(b"frame")],
        deserialize=True,
        deserializers=None,
        allow_offload=True,
        peer="tcp://a:1",
    )
    with pytest.raises(DecodeError, match="bad message from tcp://a:1: a header of"):
        asyncio.run(decoding)
