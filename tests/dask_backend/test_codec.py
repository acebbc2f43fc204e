"""The shortcuts of the codec end in distributed's bytes and values, for what clusters say."""

from __future__ import annotations

import asyncio
import copy
import operator
import threading
from collections.abc import Callable
from enum import Enum
from typing import Any

import numpy as np
import pytest
from dask._task_spec import DataNode, List, Task, TaskRef
from dask.distributed import Client, LocalCluster
from distributed import Status, protocol
from distributed.protocol import Serialized, serialize, to_serialize
from distributed.protocol.serialize import ToPickle
from hypothesis import example, given
from hypothesis import strategies as st

from sealwire.dask_backend import TCP, codec, install
from sealwire.dask_backend.sizes import is_small, offloaded_from


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
                dashboard_address="127.0.0.1:0",
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


def arrived(frames: list[Any], memory: Any = bytearray) -> list[Any]:
    """`frames` as a stream gives them to the codec; large ones are memoryviews."""
    return [memory(bytearray(frame)) for frame in frames]


def test_the_bytes_are_distributeds(corpus: list[Any]) -> None:
    shortcuts = tasks = 0
    for message in corpus:
        frames = codec.encode_short(message)
        if frames is not None:
            assert frames == protocol.dumps(message)
            shortcuts += 1
            tasks += len(frames) > 1
    assert shortcuts > len(corpus) / 2 > 50
    assert tasks > 10, "the scheduler sends tasks to workers"


def test_the_values_are_distributeds(corpus: list[Any]) -> None:
    shortcuts = tasks = 0
    for message in corpus:
        frames = arrived(protocol.dumps(message))
        plain = b"__Serialized__" not in frames[0]  # what dask serialises is equal to nothing else
        value = codec.decode_short(frames, deserialize=plain)
        if value is not codec.NOT_SHORT:
            assert value == protocol.loads(frames, deserialize=plain)
            shortcuts += 1
            tasks += len(frames) > 1
    assert shortcuts > len(corpus) / 2
    assert tasks > 10


class Colour(Enum):
    RED = 1


class Unlikely:
    """Which pickle can take, and nobody can give back."""

    def __reduce__(self) -> Any:
        return (int, ("no number",))


SHORT = {
    "a set": {"x": {1, 2}},
    "an enum": [Status.running],
    "to pickle": {"x": ToPickle(1)},
    "pickled by value": {"x": ToPickle(lambda n: n + 1)},
    "tasks": [
        {
            "op": "compute-task",
            "run_spec": ToPickle(Task(f"add-{n}", operator.add, n, TaskRef("x"))),
        }
        for n in range(20)
    ],
    "a task in a task": [ToPickle(Task("a", sum, List(Task(None, abs, -1), DataNode("d", [2]))))],
    "passed on": {"x": Serialized(*serialize(np.arange(10))), "y": Serialized({"n": {3}}, [])},
    "all of it": ({"a": {Status.closed}, "b": ToPickle({2}), "c": Serialized({}, [b"1", b"2"])},),
    "underscores": {"__": "__Pickled__", "x": {"__Pickled__": 0}},
}
"""What is neither plain nor in need of distributed."""

LONG = {
    "marked": {"x": to_serialize(1)},
    "an array to pickle": {"x": ToPickle(np.arange(10))},
    "an object": {"x": object()},
    "a number beyond 64 bits": [2**64],
    "broken text": ["\ud800"],
    "what cannot be pickled": [ToPickle(threading.Lock())],
}


@pytest.mark.parametrize("name", SHORT)
def test_what_is_not_plain_is_distributeds_too(name: str) -> None:
    frames = codec.encode_short(SHORT[name])
    assert frames == protocol.dumps(SHORT[name])
    assert is_small(SHORT[name])


@pytest.mark.parametrize("deserialize", [True, False])
@pytest.mark.parametrize("memory", [bytearray, memoryview])  # as small and large frames arrive
@pytest.mark.parametrize("name", SHORT)
def test_what_stands_for_something_else_is_found(name: str, memory: Any, deserialize: bool) -> None:
    frames = arrived(protocol.dumps(SHORT[name]), memory)
    if deserialize and b"__Serialized__" in bytes(frames[0]):  # of no kind that could be known
        for decode in (codec.decode_short, protocol.loads):
            with pytest.raises(KeyError):
                decode(frames, deserialize=deserialize)
        return
    value = codec.decode_short(frames, deserialize=deserialize)
    expected = protocol.loads(frames, deserialize=deserialize)
    if name == "pickled by value":
        assert value["x"](1) == expected["x"](1) == 2
    else:
        assert value == expected
        assert type(value) is type(expected)


@pytest.mark.parametrize("how", ["short", "any"])
def test_users_serialisers_are_given_memoryviews(how: str) -> None:
    """As by distributed's own comms, whether the frames are small or large."""
    header, buffers = serialize(np.arange(10))
    frames = arrived(protocol.dumps({"x": Serialized(header, buffers)}))
    if how == "short":
        value = codec.decode_short(frames, deserialize=False)
    else:
        decoding = codec.decode(
            frames, deserialize=False, deserializers=None, allow_offload=False, peer="a test"
        )
        value = asyncio.run(decoding)
    assert [type(frame) for frame in value["x"].frames] == [memoryview] * len(buffers)
    assert not value["x"].frames[0].readonly


@pytest.mark.parametrize("memory", [bytes, bytearray, memoryview])
@pytest.mark.parametrize("size", [0, 16_000, 16_300, 16_384, 16_385, 100_000, 1 << 20])
def test_what_stands_for_something_else_is_found_in_any_size(size: int, memory: Any) -> None:
    """Small first frames are searched for it, and large ones are not."""
    marked = {"data": bytes(size), "x": {Status.closed}, "y": ToPickle({2}), "z": {"__": 1}}
    for message in (marked, {"data": bytes(size)}, {"data": b"__Pickled__" * (size // 11)}):
        frames = arrived(protocol.dumps(message), memory)
        value = codec.decode_short(frames)
        assert value == protocol.loads(frames)
        assert value.keys() == message.keys()
        assert value["data"] == message["data"]


@pytest.mark.parametrize("name", LONG)
def test_what_needs_distributed_goes_there(name: str) -> None:
    assert codec.encode_short(LONG[name]) is None
    assert codec.encode_short({"plain": 1}) == protocol.dumps({"plain": 1}), "and leaves no trace"


@pytest.mark.parametrize("name", ["marked", "an array to pickle", "an object"])
def test_what_distributed_has_encoded_is_decoded(name: str) -> None:
    frames = arrived(protocol.dumps(LONG[name]))
    assert repr(codec.decode_short(frames))[:20] == repr(protocol.loads(frames))[:20]


def test_what_distributed_has_compressed_is_decoded() -> None:
    message = {"x": to_serialize(bytes(100_000)), "y": ToPickle(np.zeros(100_000))}
    frames = arrived(protocol.dumps(message, context={"compression": "zlib"}))
    assert sum(map(len, frames)) < 10_000
    value = codec.decode_short(frames)
    assert value["x"] == bytes(100_000)
    assert value["y"].tolist() == [0.0] * 100_000


def test_the_deserialisers_are_those_that_are_asked_for() -> None:
    frames = arrived(protocol.dumps({"x": to_serialize(object)}))
    with pytest.raises(TypeError, match="pickle but only able to deserialize"):
        codec.decode_short(frames, deserializers=["dask"])
    assert codec.decode_short(frames, deserializers=["pickle"]) == {"x": object}


@pytest.mark.parametrize("size", [offloaded_from(), offloaded_from() + 1])
def test_what_is_large_is_not_decoded_at_once(size: int) -> None:
    frames = [bytearray(b"\xa2__")]
    frames.append(bytearray(size - sum(map(len, frames))))
    decoded = codec.decode_short(frames)
    assert decoded == "__" if size == offloaded_from() else decoded is codec.NOT_SHORT


FAILING = [
    {"x": ToPickle(Unlikely())},
    {"__Pickled__": "no number"},
    {"__Serialized__": 0},
    {"__Enum__": True, "__module__": "os", "__name__": "PathLike", "name": "register"},
]


@pytest.mark.parametrize("message", FAILING)
def test_what_fails_is_told_as_by_distributed(
    message: Any, caplog: pytest.LogCaptureFixture
) -> None:
    frames = arrived(protocol.dumps(message))
    told = []
    for decode in (codec.decode_short, protocol.loads):
        with pytest.raises((TypeError, ValueError, KeyError, RuntimeError)) as raised:
            decode(frames, deserialize=False)
        lines = [(line.name, line.levelno, line.getMessage()) for line in caplog.records]
        told.append((raised.type, str(raised.value), lines))
        caplog.clear()
    assert told[0] == told[1]
    assert ("distributed.protocol.core", 50, "Failed to deserialize") in told[0][2]


# Plain keys, and those by which distributed marks that a map stands for something else.
KEYS = st.text() | st.sampled_from(
    ["__Set__", "as-list", "__Enum__", "__Pickled__", "__Serialized__"]
)
PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(KEYS, inner, max_size=4)
        | st.lists(inner, max_size=3).map(tuple)
    ),
)


def outcome(decode: Callable[..., Any], frames: list[Any], deserialize: bool) -> Any:
    """What comes of it: the value, or the error's class and words."""
    try:
        return decode(frames, deserialize=deserialize)
    except Exception as error:
        return type(error), str(error)


@given(PLAIN)
@example({"__Set__": None})
@example([{"__Set__": True, "as-list": [{}]}])
@example({"__Serialized__": "", "__Pickled__": 1})
def test_any_plain_message(message: Any) -> None:
    frames = codec.encode_short(message)
    assert frames == protocol.dumps(message)
    for deserialize in (True, False):
        expected = outcome(protocol.loads, frames, deserialize)
        decoded = outcome(codec.decode_short, arrived(frames), deserialize)
        assert decoded is codec.NOT_SHORT or decoded == expected


LARGE: dict[str, Callable[[], Any]] = {
    "text": lambda: {"x": "x" * 11_000_000},
    "bytes": lambda: [b"x" * 11_000_000],
    "many values": lambda: {"keys": ["key"] * 400_000},
    "many small maps": lambda: [{"a": 1, "b": [1, 2]} for _ in range(50_000)],
    "a set": lambda: {"x": set(range(400_000))},
    "wrapped": lambda: {"x": to_serialize(np.zeros(2_000_000))},
    "serialized": lambda: {"x": Serialized({}, [bytes(11_000_000)])},
    "deep": lambda: {"a": {"b": {"c": ["key"] * 400_000}}},
    "a task's argument": lambda: [ToPickle(Task("t", len, b"x" * 11_000_000))],
    "a task's named argument": lambda: [ToPickle(Task("t", len, x="x" * 11_000_000))],
    "a task's data": lambda: [ToPickle(DataNode("t", bytes(11_000_000)))],
    "an array in a task's list": lambda: [ToPickle(Task("t", sum, List(np.zeros(2_000_000))))],
}


@pytest.mark.parametrize("name", LARGE)
def test_what_is_large_goes_to_a_thread(name: str) -> None:
    assert not is_small(LARGE[name]())


MEDIUM: dict[str, Callable[[], Any]] = {
    "numbers": lambda: {"x": [float(number) for number in range(100_000)]},
    "texts": lambda: {"x": [f"key-{number}" for number in range(50_000)]},
    "maps": lambda: [{"key": f"k{number}", "who": ["a", "b"]} for number in range(5_000)],
    "tuples as keys": lambda: {("x", number): ("y", number, 0) for number in range(20_000)},
    "bytes": lambda: [b"x" * 1_000 for _ in range(5_000)],
}


@pytest.mark.parametrize("name", MEDIUM)
def test_what_is_encoded_within_milliseconds_is_small(name: str) -> None:
    assert is_small(MEDIUM[name]())
    assert not is_small([MEDIUM[name]() for _ in range(20)])


class Looked:
    """Counts how often its size is asked for."""

    times = 0

    def __sizeof__(self) -> int:
        type(self).times += 1
        return 100


MANY: dict[str, Callable[[list[Looked]], Any]] = {
    "list": list,
    "tuple": tuple,
    "set": set,
    "frozenset": frozenset,
    "dict": lambda values: dict(enumerate(values)),
    "lists": lambda values: [[value] for value in values],
    "halves": lambda values: [values[:15_000], tuple(values[15_000:])],
}


@pytest.mark.parametrize("name", MANY)
def test_of_many_values_a_few_are_looked_at(name: str) -> None:
    """A walk over all takes longer than to encode them, and made large messages slower."""
    many = MANY[name]([Looked() for _ in range(30_000)])
    Looked.times = 0
    assert is_small({"x": many})
    assert 100 < Looked.times < 300
    assert not is_small({"x": [many] * 6})


def test_what_contains_itself_has_no_size() -> None:
    for many in (1, 600, 2_000):
        endless: list[Any] = []
        endless += [endless] * many
        assert not is_small(endless)


def test_a_size_that_cannot_be_told_is_large() -> None:
    class Shy:
        def __sizeof__(self) -> int:
            raise ValueError("not telling")

    assert not is_small([to_serialize(Shy())])


def test_a_thread_encodes_what_is_large() -> None:
    """Here it would be done when its task has had its first turn."""

    async def main() -> None:
        encoding = asyncio.ensure_future(
            codec.encode(
                LARGE["wrapped"](),
                serializers=None,
                on_error="message",
                context={},
                allow_offload=True,
                shard_size=1 << 26,
            )
        )
        await asyncio.sleep(0)
        assert not encoding.done()
        assert sum(map(len, await encoding)) > 400_000

    asyncio.run(main())
