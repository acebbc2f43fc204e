"""How reads, writes and comms end: closed, aborted, cancelled, held back, forgotten."""

from __future__ import annotations

import asyncio
import gc
import weakref

import psutil
import pytest

from sealwire.comm import CloseCode, CommBusy, CommClosedError, Limits, connect, listen
from sealwire.comm.transport.sockets import reset
from support.aio import aio, until
from support.links import connect_args, echo, listen_args, over_schemes, pair, place

pytest_generate_tests = over_schemes


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
async def test_abort_drops_at_once_and_wakes_every_waiter(scheme: str) -> None:
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
async def test_closing_what_has_just_been_reset_raises_nothing(scheme: str) -> None:
    """The closing message is the first to meet the error."""
    async with pair(scheme) as (a, b):
        await a.write(1)
        assert await b.read() == 1
        reset(b._stream.socket)  # type: ignore[attr-defined]
        b.abort()
        await a.close()
        assert a.closed()
        await a.close()


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
        held = -1
        while held != sent:  # the kernel's buffers may still grow
            held = sent
            assert held < 32 << 20, "the sender still runs"
            for _ in range(20_000):
                await asyncio.sleep(0)
        for _ in range(held // 3000):
            assert len(await b.read()) == 3000
        await until(lambda: sent > held)
        task.cancel()


@aio
async def test_a_forgotten_comm_closes_its_socket(
    scheme: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with pair(scheme) as (a, b):
        address = place(scheme)
        async with listen(address, echo, **listen_args(scheme)) as listener:
            comm = await connect(listener.contact_address, **connect_args(scheme))
            await comm.write(1)
            await comm.read()
            before = len(psutil.Process().net_connections("all"))
            local = comm.local_address
            del comm
            gc.collect()
            await until(lambda: len(psutil.Process().net_connections("all")) < before)
        assert any(local in record.getMessage() for record in caplog.records)
        await a.write("others go on")
        assert await b.read() == "others go on"


@aio
async def test_a_forgotten_wrapper_leaves_its_comm_open(scheme: str) -> None:
    """A subclass that was never initialised, and passes on the attributes of a comm."""
    async with pair(scheme) as (a, b):

        class Wrapper(type(a)):  # type: ignore[misc]
            def __init__(self, comm: object) -> None:
                self.comm = comm

            def __getattr__(self, name: str) -> object:
                return getattr(self.comm, name)

        wrapper = Wrapper(a)
        gone = weakref.ref(wrapper)
        del wrapper
        gc.collect()
        assert gone() is None
        await asyncio.sleep(0)
        await a.write("goes on")
        assert await b.read() == "goes on"
