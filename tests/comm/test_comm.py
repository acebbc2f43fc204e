"""What a comm promises, over tcp and tls, on asyncio's loop and uvloop."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import socket
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import uvloop

from sealwire.comm import (
    Comm,
    CommClosedError,
    EncodeError,
    Limits,
    MessageTooLarge,
    connect,
    listen,
)
from support.aio import aio
from support.links import (
    SCHEMES,
    by_port,
    connect_args,
    echo,
    listen_args,
    over_schemes,
    pair,
    place,
)

LoopFactory = Callable[[], asyncio.AbstractEventLoop]

pytest_generate_tests = over_schemes
loops = pytest.mark.parametrize(
    "loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"]
)

SIZES = [0, 1, 100, 4095, 4096, 16 * 1024, 16 * 1024 + 1, 65_536, 262_144, 1 << 20, 9_999_999]
RANDOM = np.random.default_rng(0).bytes(max(SIZES))


def part(source: random.Random) -> bytes:
    """Bytes that are seldom the same."""
    size = source.choice((3, 5000, 300_000))
    start = source.randrange(len(RANDOM) - size)
    return RANDOM[start : start + size]


@loops
@aio
async def test_messages_of_all_sizes_come_back(scheme: str, loop_factory: LoopFactory) -> None:
    address = place(scheme)
    async with (
        listen(address, echo, **listen_args(scheme)) as listener,
        connect(listener.contact_address, **connect_args(scheme)) as comm,
    ):
        for size in SIZES:
            content = RANDOM[:size]
            await comm.write({"size": size, "data": content, "more": [content[:5], content]})
            reply = await comm.read()
            assert reply == {"size": size, "data": content, "more": [content[:5], content]}
        array = np.random.default_rng(0).random((500, 600))
        await comm.write(array)
        np.testing.assert_array_equal(await comm.read(), array)


@loops
@aio
async def test_order_is_kept_in_both_directions_at_once(
    scheme: str, loop_factory: LoopFactory
) -> None:
    async with pair(scheme) as (a, b):

        async def send(comm: Comm, seed: int) -> None:
            source = random.Random(seed)
            for number in range(80):
                await comm.write([number, part(source)])

        async def check(comm: Comm, seed: int) -> None:
            source = random.Random(seed)
            for number in range(80):
                content = part(source)
                assert await comm.read() == [number, content]

        await asyncio.gather(send(a, 1), send(b, 2), check(a, 2), check(b, 1))


@aio
async def test_many_comms_to_one_listener(scheme: str) -> None:
    address = place(scheme)
    async with listen(address, echo, **listen_args(scheme)) as listener:

        async def use(number: int) -> Any:
            async with connect(listener.contact_address, **connect_args(scheme)) as comm:
                for step in range(20):
                    await comm.write([number, step])
                    assert await comm.read() == [number, step]

        await asyncio.gather(*(use(number) for number in range(40)))


@aio
async def test_a_written_buffer_may_be_changed_at_once(scheme: str) -> None:
    async with pair(scheme) as (a, b):
        content = bytearray(b"a" * 3_000_000)

        async def send() -> None:
            for letter in b"abc":
                content[:] = bytes([letter]) * len(content)
                await a.write(content)
            content[:] = bytes(len(content))

        task = asyncio.ensure_future(send())
        for letter in b"abc":
            assert bytes(await b.read()) == bytes([letter]) * len(content)
        await task


@pytest.mark.parametrize("size", [1, 4095, 4096, 5000, 16 * 1024, 16 * 1024 + 1, 70_000])
@pytest.mark.parametrize("kind", ["bytearray", "view", "array"])
@aio
async def test_a_buffer_of_any_size_may_be_changed_after_each_of_many_writes(
    scheme: str, kind: str, size: int
) -> None:
    """Small ones too, which are batched: `write` returns before they are sent."""
    async with pair(scheme) as (a, b):
        content = bytearray(size)
        array = np.frombuffer(content, dtype=np.uint8)
        message = {"bytearray": content, "view": memoryview(content), "array": array}[kind]
        for number in range(40):
            array[:] = number
            await a.write(message)
        array[:] = 255
        for number in range(40):
            assert bytes(await b.read()) == bytes([number]) * size


@aio
async def test_addresses_and_facts(scheme: str) -> None:
    async with pair(scheme) as (a, b):
        assert a.local_address == b.peer_address
        assert a.peer_address == b.local_address
        assert a.local_address.startswith(f"{scheme}://127.0.0.1:" if scheme in SCHEMES else scheme)
        assert a.peer_address in repr(a)
        assert "closed" not in repr(a)
        if scheme in ("tcp", "mem"):
            assert dict(a.extra_info) == {}
        elif scheme == "unix":
            ours = {"peer_pid": os.getpid(), "peer_uid": os.geteuid(), "peer_gid": os.getegid()}
            assert a.extra_info == b.extra_info == ours
        else:
            for comm, role in ((a, "scheduler"), (b, "worker")):
                info = comm.extra_info
                assert info["protocol"] == "TLSv1.3"
                assert info["cipher"][2] >= 128
                assert ((("commonName", role),),) == info["peercert"]["subject"]
        await a.close()
        assert "closed" in repr(a)


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "localhost"])
@by_port
@aio
async def test_hosts(scheme: str, host: str) -> None:
    async with (
        listen(f"{scheme}://{host}:0", echo, **listen_args(scheme)) as listener,
        connect(listener.contact_address, **connect_args(scheme)) as comm,
    ):
        await comm.write("x")
        assert await comm.read() == "x"
        assert ("[::1]" in comm.peer_address) == (host == "[::1]")


@pytest.mark.parametrize("host", ["", "0.0.0.0", "[::]"])
@by_port
@aio
async def test_a_wildcard_is_contacted_at_a_concrete_address(scheme: str, host: str) -> None:
    async with listen(f"{scheme}://{host}:0", echo, **listen_args(scheme)) as listener:
        contact = listener.contact_address
        assert "0.0.0.0" not in contact
        assert "[::]" not in contact
        async with connect(contact, **connect_args(scheme)) as comm:
            await comm.write(1)
            assert await comm.read() == 1


@by_port
@aio
async def test_a_bare_address_takes_tls_when_there_is_a_context(scheme: str) -> None:
    async with listen("127.0.0.1:0", echo, **listen_args(scheme)) as listener:
        assert listener.listen_address.startswith(f"{scheme}://")
        bare = listener.listen_address.rpartition("/")[2]
        async with connect(bare, **connect_args(scheme)) as comm:
            assert comm.peer_address.startswith(f"{scheme}://")


@aio
async def test_a_message_that_cannot_be_sent_leaves_the_comm_usable(scheme: str) -> None:
    async with pair(scheme, Limits(max_message_size=1_000_000)) as (a, b):
        with pytest.raises(EncodeError):
            await a.write(object())
        with pytest.raises(MessageTooLarge, match=a.peer_address) as caught:
            await a.write(bytes(1_000_001))
        assert caught.value.size > caught.value.limit == 1_000_000
        await a.write("still here")
        assert await b.read() == "still here"


@aio
async def test_a_handler_that_raises_closes_its_comm_and_is_logged_once(
    scheme: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(comm: Comm) -> None:
        await comm.read()
        raise ZeroDivisionError("in the handler")

    address = place(scheme)
    async with (
        listen(address, fail, **listen_args(scheme)) as listener,
        connect(listener.contact_address, **connect_args(scheme)) as comm,
    ):
        await comm.write(1)
        with pytest.raises(CommClosedError):
            await comm.read()
    errors = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert len(errors) == 1
    assert comm.local_address in errors[0].getMessage()
    assert errors[0].exc_info is not None


@aio
async def test_a_plain_function_may_be_the_handler(scheme: str) -> None:
    seen: list[str] = []
    address = place(scheme)
    handler = lambda comm: seen.append(comm.local_address)  # noqa: E731
    async with (
        listen(address, handler, **listen_args(scheme)) as listener,
        connect(listener.contact_address, **connect_args(scheme)) as comm,
    ):
        assert [message async for message in comm] == []
        assert seen == [comm.peer_address]


@by_port
@aio
async def test_stop_leaves_open_comms_alone(scheme: str) -> None:
    address = place(scheme)
    listener = await listen(address, echo, **listen_args(scheme))
    comm = await connect(listener.contact_address, **connect_args(scheme))
    listened = listener.listen_address
    await listener.stop()
    listener.stop()
    await comm.write("x")
    assert await comm.read() == "x"
    await comm.close()
    with pytest.raises(ConnectionRefusedError), socket.socket() as probe:
        probe.connect(("127.0.0.1", int(listened.rpartition(":")[2])))


# Tornado leaves the socket that it could not bind to the collector.
@pytest.mark.filterwarnings(
    "ignore:Exception ignored .* <socket:pytest.PytestUnraisableExceptionWarning"
)
@aio
async def test_an_address_in_use(scheme: str) -> None:
    async with listen(place(scheme), echo, **listen_args(scheme)) as listener:
        with pytest.raises(OSError, match=r"cannot listen on .*in use"):
            await listen(listener.listen_address, echo, **listen_args(scheme))


@pytest.mark.parametrize("host", ["a..lab", ".", "x" * 64, "é" * 60], ids=ascii)
@by_port
@aio
async def test_a_host_that_is_no_name_cannot_be_bound(scheme: str, host: str) -> None:
    with pytest.raises(OSError, match="cannot listen on"):
        await listen(f"{scheme}://{host}:0", echo, **listen_args(scheme))
