"""What a comm promises, over tcp and tls, on asyncio's loop and uvloop."""

from __future__ import annotations

import asyncio
import gc
import logging
import random
import socket
from collections.abc import Callable
from typing import Any

import numpy as np
import psutil
import pytest
import uvloop

from sealwire.comm import (
    CloseCode,
    Comm,
    CommBusy,
    CommClosedError,
    EncodeError,
    Limits,
    MessageTooLarge,
    connect,
    listen,
)
from support.aio import aio, until
from support.links import SCHEMES, connect_args, echo, listen_args, pair

LoopFactory = Callable[[], asyncio.AbstractEventLoop]

pytestmark = pytest.mark.parametrize("scheme", SCHEMES)
loops = pytest.mark.parametrize(
    "loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"]
)

SIZES = [0, 1, 100, 4095, 4096, 16 * 1024, 16 * 1024 + 1, 65_536, 262_144, 1 << 20, 9_999_999]


@loops
@aio
async def test_messages_of_all_sizes_come_back(scheme: str, loop_factory: LoopFactory) -> None:
    address = f"{scheme}://127.0.0.1:0"
    async with (
        listen(address, echo, **listen_args(scheme)) as listener,
        connect(listener.contact_address, **connect_args(scheme)) as comm,
    ):
        for size in SIZES:
            content = random.Random(size).randbytes(size)
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
            for number in range(400):
                await comm.write([number, source.randbytes(source.choice((3, 5000, 300_000)))])

        async def check(comm: Comm, seed: int) -> None:
            source = random.Random(seed)
            for number in range(400):
                content = source.randbytes(source.choice((3, 5000, 300_000)))
                assert await comm.read() == [number, content]

        await asyncio.gather(send(a, 1), send(b, 2), check(a, 2), check(b, 1))


@aio
async def test_many_comms_to_one_listener(scheme: str) -> None:
    address = f"{scheme}://127.0.0.1:0"
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


@aio
async def test_addresses_and_facts(scheme: str) -> None:
    async with pair(scheme) as (a, b):
        assert a.local_address == b.peer_address
        assert a.peer_address == b.local_address
        assert a.local_address.startswith(f"{scheme}://127.0.0.1:")
        assert a.peer_address in repr(a)
        assert "closed" not in repr(a)
        if scheme == "tcp":
            assert dict(a.extra_info) == {}
        else:
            for comm, role in ((a, "scheduler"), (b, "worker")):
                info = comm.extra_info
                assert info["protocol"] == "TLSv1.3"
                assert info["cipher"][2] >= 128
                assert ((("commonName", role),),) == info["peercert"]["subject"]
        await a.close()
        assert "closed" in repr(a)


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "localhost"])
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
@aio
async def test_a_wildcard_is_contacted_at_a_concrete_address(scheme: str, host: str) -> None:
    async with listen(f"{scheme}://{host}:0", echo, **listen_args(scheme)) as listener:
        contact = listener.contact_address
        assert "0.0.0.0" not in contact
        assert "[::]" not in contact
        async with connect(contact, **connect_args(scheme)) as comm:
            await comm.write(1)
            assert await comm.read() == 1


@aio
async def test_a_bare_address_takes_tls_when_there_is_a_context(scheme: str) -> None:
    async with listen("127.0.0.1:0", echo, **listen_args(scheme)) as listener:
        assert listener.listen_address.startswith(f"{scheme}://")
        bare = listener.listen_address.rpartition("/")[2]
        async with connect(bare, **connect_args(scheme)) as comm:
            assert comm.peer_address.startswith(f"{scheme}://")


@aio
async def test_iteration_ends_when_the_peer_closes(scheme: str) -> None:
    async with pair(scheme) as (a, b):
        for number in range(100):
            await a.write(number)
        await a.close()
        assert [message async for message in b] == list(range(100))
        assert b.closed()
        with pytest.raises(CommClosedError, match="closed by the peer") as caught:
            await b.read()
        assert caught.value.clean
        with pytest.raises(CommClosedError):
            await b.write(1)


@aio
async def test_close_sends_what_is_queued(scheme: str) -> None:
    async with pair(scheme) as (a, b):
        content = bytes(8_000_000)
        writing = asyncio.ensure_future(a.write(content))
        await asyncio.sleep(0)
        closing = asyncio.ensure_future(a.close())
        assert bytes(await b.read()) == content
        await closing
        await writing
        with pytest.raises(CommClosedError):
            await b.read()


@aio
async def test_close_gives_up_on_a_peer_that_does_not_read(scheme: str) -> None:
    limits = Limits(close_timeout=0.05)
    async with pair(scheme, limits) as (a, b):
        first = asyncio.ensure_future(a.write(bytes(20_000_000)))  # fills what is read ahead
        second = asyncio.ensure_future(a.write(bytes(50_000_000)))
        await first
        await a.close()
        with pytest.raises(CommClosedError):
            await second
        assert len(await b.read()) == 20_000_000
        with pytest.raises(CommClosedError, match=r"reset by peer|middle of a message") as caught:
            await b.read()
        assert not caught.value.clean
        assert caught.value.code == CloseCode.ABNORMAL


@aio
async def test_abort_drops_at_once_and_wakes_everybody(scheme: str) -> None:
    async with pair(scheme) as (a, b):
        reading = asyncio.ensure_future(a.read())
        writing = asyncio.ensure_future(a.write(bytes(50_000_000)))
        await asyncio.sleep(0)
        a.abort()
        assert a.closed()
        for task in (reading, writing):
            with pytest.raises(CommClosedError, match="we closed it"):
                await task
        with pytest.raises(CommClosedError):
            await b.read()
        a.abort()
        await a.close()


@pytest.mark.parametrize("how", ["close", "abort"])
@aio
async def test_what_is_unread_when_we_close_is_dropped(scheme: str, how: str) -> None:
    async with pair(scheme) as (a, b):
        await a.write(1)
        await a.write(2)
        assert await b.read() == 1
        done = getattr(b, how)()
        if done is not None:
            await done
        with pytest.raises(CommClosedError, match="we closed it"):
            await b.read()


@aio
async def test_a_cancelled_read_takes_nothing(scheme: str) -> None:
    async with pair(scheme) as (a, b):
        for number in range(20):
            reading = asyncio.ensure_future(b.read())
            await asyncio.sleep(0)
            if number % 2:
                await a.write(number)
            reading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reading
            if not number % 2:
                await a.write(number)
            assert await b.read() == number


@aio
async def test_a_read_cancelled_at_any_moment_takes_nothing(scheme: str) -> None:
    """Each turn of the loop later, until the message has been read: it is never lost."""
    async with pair(scheme) as (a, b):
        got = []
        for turns in range(12):
            reading = asyncio.ensure_future(b.read())
            await asyncio.sleep(0)
            await a.write([turns, "first"])
            for _ in range(turns):
                await asyncio.sleep(0)
            reading.cancel()
            try:
                first = await reading
                got.append("read")
            except asyncio.CancelledError:
                await a.write([turns, "second"])  # what would come if the first were lost
                first = await b.read()
                assert await b.read() == [turns, "second"]
                got.append("cancelled")
            assert first == [turns, "first"]
        assert got[0] == "cancelled"
        assert got[-1] == "read"


@aio
async def test_a_cancelled_write_still_sends_its_message_whole(scheme: str) -> None:
    async with pair(scheme) as (a, b):
        writing = asyncio.ensure_future(a.write(bytes(20_000_000)))
        await asyncio.sleep(0)
        assert not writing.done()
        writing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await writing
        after = asyncio.ensure_future(a.write("after"))
        assert len(await b.read()) == 20_000_000
        assert await b.read() == "after"
        await after


@aio
async def test_two_readers(scheme: str) -> None:
    async with pair(scheme) as (a, b):
        first = asyncio.ensure_future(b.read())
        await asyncio.sleep(0)
        with pytest.raises(CommBusy, match=b.peer_address):
            await b.read()
        await a.write("for the first")
        assert await first == "for the first"


@aio
async def test_writers_are_served_in_order(scheme: str) -> None:
    async with pair(scheme) as (a, b):
        tasks = [asyncio.ensure_future(a.write([number, bytes(2_000_000)])) for number in range(5)]
        assert [(await b.read())[0] for _ in range(5)] == list(range(5))
        await asyncio.gather(*tasks)


@aio
async def test_a_reader_that_does_not_read_holds_back_its_sender(scheme: str) -> None:
    async with pair(scheme) as (a, b):
        sent = 0

        async def flood() -> None:
            nonlocal sent
            while True:
                await a.write(bytes(3000))
                sent += 3000

        task = asyncio.ensure_future(flood())
        for _ in range(20_000):
            await asyncio.sleep(0)
        held = sent
        for _ in range(1000):
            await asyncio.sleep(0)
        assert sent == held, "the sender still runs"
        assert held < 32 << 20
        for _ in range(held // 3000):
            assert len(await b.read()) == 3000
        await until(lambda: sent > held)
        task.cancel()


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

    address = f"{scheme}://127.0.0.1:0"
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
    address = f"{scheme}://127.0.0.1:0"
    handler = lambda comm: seen.append(comm.local_address)  # noqa: E731
    async with (
        listen(address, handler, **listen_args(scheme)) as listener,
        connect(listener.contact_address, **connect_args(scheme)) as comm,
    ):
        assert [message async for message in comm] == []
        assert seen == [comm.peer_address]


@aio
async def test_stop_leaves_open_comms_alone(scheme: str) -> None:
    address = f"{scheme}://127.0.0.1:0"
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
    "ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning"
)
@aio
async def test_an_address_in_use(scheme: str) -> None:
    async with listen(f"{scheme}://127.0.0.1:0", echo, **listen_args(scheme)) as listener:
        with pytest.raises(OSError, match=r"cannot listen on .*in use"):
            await listen(listener.listen_address, echo, **listen_args(scheme))


@aio
async def test_a_forgotten_comm_closes_its_socket(
    scheme: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with pair(scheme) as (a, b):
        address = f"{scheme}://127.0.0.1:0"
        async with listen(address, echo, **listen_args(scheme)) as listener:
            comm = await connect(listener.contact_address, **connect_args(scheme))
            await comm.write(1)
            await comm.read()
            before = len(psutil.Process().net_connections())
            local = comm.local_address
            del comm
            gc.collect()
            await until(lambda: len(psutil.Process().net_connections()) < before)
        assert any(local in record.getMessage() for record in caplog.records)
        await a.write("others go on")
        assert await b.read() == "others go on"
