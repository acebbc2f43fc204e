"""One message to many comms: encoded once, and what becomes of those that are slow."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest

from sealwire.comm import (
    Comm,
    CommClosedError,
    CommError,
    EncodedMessage,
    EncodeError,
    Limits,
    MessageTooLarge,
    broadcast,
    connect,
    encoding,
    listen,
)
from support.aio import aio
from support.links import SCHEMES, Wrapping, connect_args, listen_args, pair

SMALL = Limits(write_ahead=100_000, read_ahead=100_000)
BIG = bytes(8 << 20)  # more than sockets hold


@contextlib.asynccontextmanager
async def many(
    count: int, scheme: str = "tcp", limits: Limits | None = None
) -> AsyncIterator[tuple[list[Comm], list[Comm]]]:
    """Ends to broadcast from, and the other ends, in the same order."""
    accepted: asyncio.Queue[Comm] = asyncio.Queue()
    done = asyncio.Event()

    async def hold(comm: Comm) -> None:
        accepted.put_nowait(comm)
        await done.wait()

    address = f"{scheme}://127.0.0.1:0"
    ours: list[Comm] = []
    theirs: list[Comm] = []
    async with listen(address, hold, limits=limits, **listen_args(scheme)) as listener:
        try:
            for _ in range(count):
                theirs.append(await connect(listener.contact_address, **connect_args(scheme)))
                ours.append(await accepted.get())
            yield ours, theirs
        finally:
            for comm in ours + theirs:
                comm.abort()
            done.set()


@pytest.mark.parametrize("scheme", SCHEMES)
@aio
async def test_1_mib_to_100_comms_is_encoded_once(
    scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Any] = []
    encode = encoding.encode

    def counted(message: Any, *args: Any, **kwargs: Any) -> Any:
        frames = encode(message, *args, **kwargs)
        if type(message) is not EncodedMessage:
            made.append(message)
        return frames

    async with many(100 if scheme == "tcp" else 20, scheme) as (ours, theirs):
        monkeypatch.setattr(encoding, "encode", counted)
        monkeypatch.setattr("sealwire.comm.codec.encode", counted)
        message = {"op": "news", "data": bytearray(b"x" * (1 << 20)), "more": list(range(1000))}
        reading = asyncio.gather(*(comm.read() for comm in theirs))
        sent, missed = await broadcast(ours, message)
        message["data"][:] = b"y" * (1 << 20)  # type: ignore[index]
        assert (sent, missed) == (ours, {})
        for got in await reading:
            assert got["op"] == "news"
            assert got["data"] == b"x" * (1 << 20)
            assert got["more"] == list(range(1000))
        assert made == [message]


@pytest.mark.parametrize(
    "message", [None, [], b"", "ä", {"a": [1]}, bytearray(5000), b"x" * 70_000, np.arange(2000)],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
@aio
async def test_an_encoded_message_arrives_as_the_message(message: Any) -> None:
    async with many(1) as (ours, theirs):
        encoded = EncodedMessage(message)
        for _ in range(3):
            await ours[0].write(encoded)
            await ours[0].write(message)
        for _ in range(6):
            got = await theirs[0].read()
            assert (
                np.array_equal(got, message) if isinstance(message, np.ndarray) else got == message
            )


def test_what_cannot_be_encoded_is_told_at_once() -> None:
    with pytest.raises(EncodeError):
        EncodedMessage({1, 2})


@aio
async def test_nobody_is_sent_what_cannot_be_encoded() -> None:
    async with many(2) as (ours, theirs):
        with pytest.raises(EncodeError):
            await broadcast(ours, {"a": object()})
        assert await broadcast(ours, "next") == (ours, {})
        assert [await comm.read() for comm in theirs] == ["next", "next"]
        assert await broadcast([], "nobody") == ([], {})


async def fall_behind(comm: Comm) -> None:
    """Have more queued than the sockets and the other side's read_ahead take."""
    for _ in range(4):
        comm.write_nowait(BIG)
    assert comm.queued > comm.limits.write_ahead


@aio
async def test_who_is_slow_is_skipped() -> None:
    async with many(3, limits=SMALL) as (ours, theirs):
        await fall_behind(ours[1])
        queued = ours[1].queued
        sent, missed = await broadcast(ours, "news", slow="skip")
        assert sent == [ours[0], ours[2]]
        error = missed.pop(ours[1])
        assert not missed
        assert isinstance(error, CommError)
        assert error.kind == "slow-consumer"
        assert f"was skipped: {queued} bytes" in str(error)
        assert ours[1].queued == queued
        assert not ours[1].closed()
        assert await theirs[0].read() == await theirs[2].read() == "news"
        while await theirs[1].read() == BIG and ours[1].queued:
            pass
        assert await broadcast(ours, "more", slow="skip") == (ours, {})


@aio
async def test_who_is_slow_is_closed() -> None:
    async with many(3, limits=SMALL) as (ours, theirs):
        await fall_behind(ours[1])
        sent, missed = await broadcast(ours, "news", slow="close")
        assert sent == [ours[0], ours[2]]
        assert "was aborted: " in str(missed.pop(ours[1]))
        assert not missed
        assert ours[1].closed()
        assert ours[1].queued == 0
        assert await theirs[2].read() == "news"
        sent, missed = await broadcast(ours, "more", slow="close")
        assert sent == [ours[0], ours[2]]
        assert isinstance(missed[ours[1]], CommClosedError)


@aio
async def test_who_is_slow_is_waited_for_beside_the_others() -> None:
    async with many(3, limits=SMALL) as (ours, theirs):
        await fall_behind(ours[1])
        sending = asyncio.ensure_future(broadcast(ours, "news"))
        assert await theirs[0].read() == await theirs[2].read() == "news"
        assert not sending.done()
        while (got := await theirs[1].read()) != "news":
            assert got == BIG
        sent, missed = await sending
        assert set(sent) == set(ours)
        assert not missed


@aio
async def test_who_is_too_slow_is_told() -> None:
    async with many(3, limits=SMALL) as (ours, theirs):
        await fall_behind(ours[0])
        await fall_behind(ours[1])
        sending = asyncio.ensure_future(broadcast(ours, "news", timeout=0.1))
        assert await theirs[2].read() == "news"
        ours[0].abort()
        sent, missed = await sending
        assert sent == [ours[2]]
        assert isinstance(missed[ours[0]], CommClosedError)
        assert getattr(missed[ours[1]], "kind", "") == "slow-consumer"
        assert "0.1 s" in str(missed[ours[1]])


@aio
async def test_a_cancelled_broadcast_leaves_nothing_behind() -> None:
    async with many(2, limits=SMALL) as (ours, theirs):
        await fall_behind(ours[0])
        before = asyncio.all_tasks()
        sending = asyncio.ensure_future(broadcast(ours, "news"))
        assert await theirs[1].read() == "news"
        sending.cancel()
        await asyncio.wait([sending])
        await asyncio.sleep(0)
        assert asyncio.all_tasks() <= before


@aio
async def test_the_bound_may_be_chosen() -> None:
    async with many(2, limits=SMALL) as (ours, _):
        await fall_behind(ours[0])
        sent, _ = await broadcast(ours, "news", slow="skip", max_queued=1 << 30)
        assert sent == ours
        for bad in (-1, 1.5, "1", True):
            with pytest.raises(ValueError, match="bad max_queued"):
                await broadcast(ours, "news", max_queued=bad)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="bad slow"):
            await broadcast(ours, "news", slow="drop")  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="need a Comm"):
            await broadcast(["tcp://127.0.0.1:1"], "news")  # type: ignore[list-item]


@aio
async def test_one_limit_does_not_keep_it_from_the_others() -> None:
    async with (
        many(2) as (ours, theirs),
        many(1, limits=Limits(max_message_size=1000)) as (small, _),
    ):
        sent, missed = await broadcast([*small, *ours, *ours], bytes(5000))
        assert sent == ours
        assert isinstance(missed[small[0]], MessageTooLarge)
        assert not small[0].closed()
        for comm in theirs:
            assert await comm.read() == bytes(5000)


@pytest.mark.parametrize("wrong", [None, 1, "comm", Comm])
@aio
async def test_a_wrong_member_is_told_before_anybody_is_sent_anything(wrong: Any) -> None:
    async with pair("mem") as (a, b):
        with pytest.raises(TypeError, match="need a Comm"):
            await broadcast([a, wrong], "news")
        await a.write("next")
        assert await b.read() == "next"


@pytest.mark.parametrize("slow", ["wait", "close"])
@aio
async def test_another_thread_is_refused_by_name(slow: Any) -> None:
    """Also where nothing can be written at once."""
    async with pair("mem", Limits(write_ahead=1000)) as (a, _):

        def use() -> None:
            with pytest.raises(RuntimeError, match="outside the event loop that it was opened"):
                asyncio.run(broadcast([a], "news", slow=slow))

        await asyncio.to_thread(use)
        a.write_nowait(bytes(3_000_000))
        await asyncio.to_thread(use)
        assert not a.closed()


class Failing(Wrapping):
    """Fails as one of another event loop does, or as a third party's may."""

    def __init__(self, comm: Comm, error: Exception, queued: int) -> None:
        super().__init__(comm)
        self._error = error
        self._queued = queued

    def write_nowait(self, message: Any) -> bool:
        raise self._error

    async def drain(self, *, timeout: float | None = None) -> None:
        raise self._error

    @property
    def queued(self) -> int:
        return self._queued


@pytest.mark.parametrize("queued", [0, 1 << 40], ids=["has room", "is slow"])
@pytest.mark.parametrize(
    "error", [RuntimeError("elsewhere"), OSError("lost"), NotImplementedError()], ids=repr
)
@aio
async def test_what_one_raises_does_not_keep_it_from_the_others(
    error: Exception, queued: int
) -> None:
    async with pair("mem", Limits(write_ahead=1000)) as (a, b), pair("mem") as (c, d):
        a.write_nowait(bytes(3_000_000))
        sending = asyncio.ensure_future(broadcast([Failing(c, error, queued), a, c], "news"))
        assert await d.read() == "news"
        assert len(await b.read()) == 3_000_000
        with pytest.raises(type(error)):
            await sending
        assert await b.read() == "news"
