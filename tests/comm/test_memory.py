"""``mem://`` and `sealwire.comm.testing`: comms within a process, and links that fail."""

from __future__ import annotations

import asyncio
import math
import os
import threading
from typing import Any

import pytest

from sealwire.comm import (
    CloseCode,
    CommClosedError,
    ConnectError,
    EncryptionRequired,
    Limits,
    WriteTimeout,
    connect,
    listen,
)
from sealwire.comm.testing import pair
from support.aio import aio, until
from support.endings import error_of
from support.links import echo


@pytest.mark.parametrize("name", ["x", "a b", "ü", "host:80", "a/b", "mem://x", "@", "-"])
@aio
async def test_names(name: str) -> None:
    async with (
        listen(f"MEM://{name}", echo) as listener,
        connect(f"mem://{name}") as comm,
    ):
        assert listener.contact_address == comm.peer_address == f"mem://{name}"
        with pytest.raises(OSError, match="the name is in use"):
            await listen(f"mem://{name}", echo)
        await comm.write(1)
        assert await comm.read() == 1
    with pytest.raises(ConnectError, match="check that a listener of that name") as caught:
        await connect(f"mem://{name}", max_attempts=2)
    assert (caught.value.kind, caught.value.attempts) == ("refused", 2)
    async with listen(f"mem://{name}", echo):  # may be taken again
        pass


@aio
async def test_listeners_without_a_name_get_one() -> None:
    async with listen("mem://", echo) as first, listen("mem://", echo) as second:
        assert first.contact_address != second.contact_address
        async with connect(second.contact_address):
            await until(lambda: len(second.comms) == 1)
            assert first.comms == ()
    with pytest.raises(ConnectError):
        await connect("mem://", max_attempts=1)


@aio
async def test_arguments() -> None:
    with pytest.raises(EncryptionRequired):
        listen("mem://x", echo, require_encryption=True)
    with pytest.raises(EncryptionRequired):
        await connect("mem://x", require_encryption=True)
    with pytest.raises(TypeError, match="unexpected argument 'mode'"):
        listen("mem://x", echo, mode=0o600)


@aio
async def test_a_listener_in_the_loop_of_another_thread() -> None:
    address: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    here = asyncio.get_running_loop()
    over: Any = None

    async def there() -> None:
        nonlocal over
        over = asyncio.Event()
        loop = asyncio.get_running_loop()
        listener = await listen("mem://", echo)
        here.call_soon_threadsafe(address.set_result, (listener.contact_address, loop))
        await over.wait()
        await listener.close()

    thread = threading.Thread(target=lambda: asyncio.run(there()))
    thread.start()
    where, loop = await address
    async with connect(where) as comm:
        for size in (0, 5, 1_000_000):
            await comm.write(bytes(size))
            assert len(await comm.read()) == size
    loop.call_soon_threadsafe(over.set)
    await asyncio.to_thread(thread.join)
    with pytest.raises(ConnectError):
        await connect(where, max_attempts=1)


@aio
async def test_a_listener_whose_loop_is_gone_is_forgotten() -> None:
    def leave() -> None:
        async def start() -> None:
            await listen("mem://left", echo)

        asyncio.run(start())

    await asyncio.to_thread(leave)
    with pytest.raises(ConnectError, match="refused"):
        await connect("mem://left", max_attempts=1)
    async with listen("mem://left", echo) as listener, connect("mem://left") as comm:
        await comm.write(os.getpid())
        assert await comm.read() == os.getpid()
        assert listener.comms


# Links


@aio
async def test_a_link_carries_all_and_holds_back() -> None:
    async with pair(Limits(read_ahead=1 << 16)) as (a, b, _):
        assert a.peer_address == b.local_address == "mem://b"
        writing = asyncio.ensure_future(a.write(bytes(5_000_000)))
        await b.write(bytes(100_000))  # more than the read-ahead
        with pytest.raises(WriteTimeout):
            await b.write(bytes(9_000_000), timeout=0.05)
        assert len(await b.read()) == 5_000_000
        await writing
        assert [len(await a.read()) for _ in range(2)] == [100_000, 9_000_000]
        await b.close(3001, "done")
        error = await error_of(a.read())
        assert (error.code, error.reason) == (3001, "done")


@pytest.mark.parametrize("after", [0, 1, 7, 100, 99_999])
@aio
async def test_a_cut(after: int) -> None:
    async with pair() as (a, b, link):
        for sender, other in ((a, b), (b, a)):
            await sender.write("before")
            assert await other.read() == "before"
        waiting = [asyncio.ensure_future(comm.wait_closed()) for comm in (a, b)]
        if after:
            link.cut(after=after, sender=a)
            await b.write("the other way")
            assert await a.read() == "the other way"
            await a.write(bytes(100_000))
        else:
            link.cut()
        for error in await asyncio.gather(*waiting):
            assert (error.code, error.closed_by, error.clean) == (CloseCode.ABNORMAL, "lost", False)
        error = await error_of(b.read())
        assert ("in the middle of a message" in str(error)) == (after > 0)
        with pytest.raises(CommClosedError):
            await b.write(1)


@aio
async def test_a_cut_between_messages_delivers_what_came_before() -> None:
    async with pair() as (a, b, link):
        size = await a.write("x")
        assert await b.read() == "x"
        link.cut(after=3 * size, sender=a)
        for _ in range(3):
            await a.write("x")
        await b.wait_closed()
        assert [await b.read() for _ in range(3)] == ["x"] * 3
        await error_of(b.read())
        with pytest.raises(ValueError, match="need one of the comms"):
            link.cut(after=1)


@aio
async def test_delay_and_hold() -> None:
    loop = asyncio.get_running_loop()
    async with pair() as (a, b, link):
        link.delay = 0.05
        start = loop.time()
        await a.write(1)
        assert await b.read() == 1
        assert loop.time() - start >= 0.049
        link.delay = 0
        link.hold()
        await a.write(2)
        reading = asyncio.ensure_future(b.read())
        done, _ = await asyncio.wait([reading], timeout=0.05)
        assert not done
        link.release()
        assert await reading == 2


@pytest.mark.parametrize("value", [-1, math.nan, math.inf, "1", None, True, 10**400], ids=ascii)
@aio
async def test_a_link_is_told_what_it_cannot_do(value: Any) -> None:
    """And goes on carrying."""
    async with pair() as (a, b, link):
        with pytest.raises((TypeError, ValueError), match="delay="):
            link.delay = value
        if value != 10**400:
            with pytest.raises((TypeError, ValueError), match="after="):
                link.cut(after=value, sender=a)
        await a.write("goes on")
        assert await b.read() == "goes on"
    with pytest.raises(TypeError, match="need a Limits or None"):
        async with pair(value if value is not None else {}):
            pass
