"""What Dask expects of a comm: stock's and ours, over tcp and tls, do the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from distributed.comm import tcp as stock
from distributed.protocol import Serialized, to_serialize
from distributed.utils import get_ip

from support.parties import Party, assert_same, asynchronous, echo, pair

# Addresses


@pytest.mark.parametrize(
    ("where", "bound", "contact"),
    [
        ("", "0.0.0.0", get_ip()),
        ("0.0.0.0:0", "0.0.0.0", get_ip()),
        ("127.0.0.1", "127.0.0.1", "127.0.0.1"),
        ("127.0.0.1:0", "127.0.0.1", "127.0.0.1"),
        ("localhost:0", "127.0.0.1", "127.0.0.1"),
        ("[::1]", "[::1]", "[::1]"),
        ("[::1]:0", "[::1]", "[::1]"),
    ],
)
@asynchronous
async def test_a_listener_knows_its_addresses(
    party: Party, where: str, bound: str, contact: str
) -> None:
    async with party.listen(echo, where) as listener:
        host, port = listener.get_host_port()
        assert port > 0
        assert listener.listen_address == f"{party.scheme}://{bound}:{port}"
        assert listener.contact_address == f"{party.scheme}://{contact}:{port}"
        assert host == bound.strip("[]")
        comm = await party.connect(listener.contact_address)
        assert comm.peer_address == listener.contact_address
        await comm.close()


@asynchronous
async def test_a_wildcard_is_contacted_on_the_default_host(party: Party) -> None:
    async with party.listen(echo, "0.0.0.0:0", default_host="127.0.0.1") as listener:
        assert (
            listener.contact_address == f"{party.scheme}://127.0.0.1:{listener.get_host_port()[1]}"
        )
        await (await party.connect(listener.contact_address)).close()


@asynchronous
async def test_a_default_port_is_taken_where_none_is_given(party: Party) -> None:
    async with party.listen(echo, "127.0.0.1") as first:
        port = first.get_host_port()[1]
    async with party.listen(echo, "127.0.0.1", default_port=port) as second:
        assert second.get_host_port() == ("127.0.0.1", port)


# Tornado's bind_sockets leaves the socket that it could not bind to the collector.
@pytest.mark.filterwarnings(
    "ignore:Exception ignored .* <socket:pytest.PytestUnraisableExceptionWarning"
)
@asynchronous
async def test_a_port_that_is_taken_is_an_error(party: Party) -> None:
    async with party.listen(echo) as first:
        host, port = first.get_host_port()
        with pytest.raises(OSError, match="in use"):
            await party.listen(echo, f"{host}:{port}").start()


@asynchronous
async def test_a_listener_that_does_not_run_has_no_address(party: Party) -> None:
    listener = party.listen(echo)
    with pytest.raises(ValueError, match=r"non-started|not running"):
        _ = listener.listen_address
    await listener.start()
    listener.stop()
    listener.stop()
    with pytest.raises(ValueError, match=r"non-started|not running"):
        _ = listener.contact_address


@asynchronous
async def test_distributed_takes_it_for_its_own_class(party: Party) -> None:
    """Its tools for tests, and others, ask for the class."""
    async with pair(party) as (near, far):
        for comm in (near, far):
            assert isinstance(comm, stock.TCP)
            assert isinstance(comm, stock.TLS) is (party.scheme == "tls")


@asynchronous
async def test_both_ends_know_each_other(party: Party) -> None:
    async with pair(party) as (near, far):
        assert near.local_address == far.peer_address
        assert near.peer_address == far.local_address
        assert near.peer_address.startswith(f"{party.scheme}://127.0.0.1:")
        assert near.same_host
        assert far.same_host
        for comm in (near, far):
            assert type(comm) is party.comm_class


# Messages

RNG = np.random.default_rng(0)
MEDIUM = RNG.integers(0, 255, 300_000, dtype="u1")
SHAPED = RNG.random((70, 90))
MESSAGES: dict[str, tuple[Any, Any]] = {
    # name: what is written, what is read
    "scalars": (v := {"op": "x", "n": -1, "f": 1.5, "none": None, "yes": True, "text": "ü"}, v),
    "nested": ({"a": {"b": [1, (2, [3])]}, "c": []}, {"a": {"b": (1, (2, (3,)))}, "c": ()}),
    "int keys": (v := {1: "one", 2: {3: b"three"}}, v),
    "a set": (v := {"keys": {"x", "y"}}, v),
    "a large set": (v := {"keys": {f"key-{i}" for i in range(30_000)}}, v),
    "much text": (v := {"text": "ü" * 200_000}, v),
    "a list": (["op", 1], ("op", 1)),
    "empty": ({}, {}),
    "large bytes": (v := {"data": bytes(range(256)) * 20_000}, v),
    "an object": (v := {"x": complex(1, 2)}, v),
    "a marked object": ({"x": to_serialize({1, 2, (3, 4)})}, {"x": {1, 2, (3, 4)}}),
    "an array": ({"x": to_serialize(SHAPED)}, {"x": SHAPED}),
    "arrays": ({"x": [to_serialize(SHAPED), to_serialize(MEDIUM)]}, {"x": (SHAPED, MEDIUM)}),
    "an array of nothing": ({"x": to_serialize(MEDIUM[:0])}, {"x": MEDIUM[:0]}),
    "a strided array": ({"x": to_serialize(SHAPED[::2, ::3])}, {"x": SHAPED[::2, ::3]}),
    "a large array": ({"x": to_serialize(big := np.arange(3_000_000))}, {"x": big}),
    "many frames": (
        {"x": [to_serialize(MEDIUM[i : i + 50]) for i in range(700)]},
        {"x": tuple(MEDIUM[i : i + 50] for i in range(700))},
    ),
}


@pytest.mark.parametrize("name", MESSAGES)
@asynchronous
async def test_messages_arrive_as_distributed_decodes_them(party: Party, name: str) -> None:
    written, expected = MESSAGES[name]
    async with pair(party) as (near, far):
        for writer, reader in ((near, far), (far, near)):
            size = await writer.write(written)
            assert_same(await reader.read(), expected)
            assert size >= 8 + 8 + 8 + 1


@asynchronous
async def test_arrays_arrive_writable_and_apart(party: Party) -> None:
    """Each in memory of its own, so that one can be released before the other."""
    async with pair(party) as (near, far):
        await near.write({"x": [to_serialize(MEDIUM), to_serialize(MEDIUM + 1)]})
        first, second = (await far.read())["x"]
        first[:] = 0
        np.testing.assert_array_equal(second, MEDIUM + 1)
        assert not np.shares_memory(first, second)


@asynchronous
async def test_messages_keep_their_order(party: Party) -> None:
    async with pair(party) as (near, far):
        for number in range(300):
            await near.write({"n": number, "x": to_serialize(MEDIUM[:number])})
        for number in range(300):
            message = await far.read()
            assert (message["n"], len(message["x"])) == (number, number)


@asynchronous
async def test_write_returns_before_the_peer_reads(party: Party) -> None:
    """Dask relies on it: what does not fit into the socket is queued."""
    async with pair(party) as (near, far):
        total = 0
        for _ in range(8):
            total += await near.write({"x": to_serialize(MEDIUM)})
            await near.write(MESSAGES["a large array"][0])
        for _ in range(8):
            assert_same((await far.read())["x"], MEDIUM)
            assert_same(await far.read(), MESSAGES["a large array"][1])


@asynchronous
async def test_without_deserialize_a_message_passes_through(party: Party) -> None:
    """As in the scheduler, which forwards data it never looks at."""
    written, expected = MESSAGES["arrays"]
    through = {"listen_args": {"deserialize": False}}
    async with pair(party) as (middle, end), pair(party, **through) as (start, scheduler):
        await start.write(written)
        passed = await scheduler.read()
        assert all(type(item) is Serialized for item in passed["x"])
        await middle.write(passed)
        assert_same(await end.read(), expected)


@asynchronous
async def test_only_the_deserializers_asked_for_are_used(party: Party) -> None:
    async with pair(party) as (near, far):
        await near.write({"x": to_serialize(lambda: 1)}, serializers=["pickle"])
        with pytest.raises(TypeError, match="pickle"):
            await far.read(deserializers=["dask"])
        await near.write({"x": to_serialize(SHAPED)}, serializers=["dask"])
        assert_same(await far.read(deserializers=["dask"]), {"x": SHAPED})


@asynchronous
async def test_what_cannot_be_serialised_is_not_sent(party: Party) -> None:
    async with pair(party) as (near, far):
        with pytest.raises(TypeError):
            await near.write({"x": to_serialize(lambda: 1)}, serializers=["dask"], on_error="raise")
        await near.write({"next": 1})
        assert await far.read() == {"next": 1}
