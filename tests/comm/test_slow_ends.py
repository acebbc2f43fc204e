"""A slow consumer is told that it is one, as far as it takes anything at all."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvloop

from sealwire.comm import CloseCode, Comm, CommClosedError, Limits, connect, listen
from support.aio import aio, until
from support.endings import documented, error_of, row
from support.links import SCHEMES, connect_args, listen_args

LoopFactory = Callable[[], asyncio.AbstractEventLoop]

schemes = pytest.mark.parametrize("scheme", SCHEMES)
loops = pytest.mark.parametrize(
    "loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"]
)
LIMIT = 1 << 20


@asynccontextmanager
async def two(scheme: str, **limits: Any) -> AsyncIterator[tuple[Comm, Comm]]:
    """Who writes, with these limits, and who does not read more than it is made to."""
    accepted: asyncio.Future[Comm] = asyncio.get_running_loop().create_future()
    done = asyncio.Event()

    async def hold(comm: Comm) -> None:
        accepted.set_result(comm)
        await done.wait()

    async with listen(
        f"{scheme}://127.0.0.1:0", hold, limits=Limits(read_ahead=10_000), **listen_args(scheme)
    ) as listener:
        comm = await connect(
            listener.contact_address, limits=Limits(**limits), **connect_args(scheme)
        )
        try:
            yield comm, await accepted
        finally:
            comm.abort()
            accepted.result().abort()
            done.set()


async def flood(comm: Comm, sizes: list[int]) -> list[asyncio.Task[Any]]:
    """Writers that do not wait for each other, until the comm is closed."""
    numbers = itertools.count()
    writing: list[asyncio.Task[Any]] = []
    while not comm.closed():
        for _ in range(100):
            number = next(numbers)
            content = bytes([number % 251]) * sizes[number % len(sizes)]
            writing.append(asyncio.ensure_future(comm.write([number, content])))
        await asyncio.sleep(0)
    return writing


SIZES = [[150], [1000], [16_385], [100_000], [3_000_000], [10, 100_000, 3000, 20_000, 500_000]]
FACTORIES = [asyncio.new_event_loop, uvloop.new_event_loop]


@pytest.mark.parametrize(
    ("scheme", "sizes", "loop_factory"),
    [  # every two of them meet
        pytest.param(scheme, sizes, FACTORIES[(one + other) % 2], id=f"{scheme}-{sizes}")
        for one, scheme in enumerate(SCHEMES)
        for other, sizes in enumerate(SIZES)
    ],
)
@aio
async def test_a_slow_consumer_that_reads_again_is_told(
    scheme: str, sizes: list[int], loop_factory: LoopFactory
) -> None:
    """After whole messages, the first ones that were written."""
    async with two(scheme, max_queued=LIMIT) as (writer, reader):
        writing = await flood(writer, sizes)
        assert writer.closed_by == "us"
        outbox = writer._stream._sender.outbox  # type: ignore[attr-defined]
        kept = max(sizes) + (300_000 if scheme == "tls" else 1000)  # OpenSSL has more at once
        assert outbox.queued - outbox.sent < kept, "what is queued is freed"
        count = 0
        while True:
            try:
                number, content = await reader.read()
            except CommClosedError as error:
                told = error
                break
            assert number == count
            assert content == bytes([number % 251]) * sizes[number % len(sizes)]
            count += 1
        assert (told.code, told.kind, told.closed_by) == (1008, "slow-consumer", "peer")
        assert f"the limit is {LIMIT}" in told.reason
        assert "read faster" in str(told)
        assert told.retryable
        assert row(told) in documented()
        outcomes = await asyncio.gather(*writing, return_exceptions=True)
        failed = [each for each in outcomes if isinstance(each, CommClosedError)]
        assert failed
        assert {(each.code, each.kind, each.closed_by) for each in failed} == {
            (CloseCode.SLOW_CONSUMER, "slow-consumer", "us")
        }
        assert all(isinstance(each, int) for each in outcomes[:count]), "what arrived was written"
        await until(lambda: writer._stream.socket.fileno() == -1)  # type: ignore[attr-defined]


@schemes
@loops
@aio
async def test_one_that_never_reads_is_reset(scheme: str, loop_factory: LoopFactory) -> None:
    """After `close_timeout`; closing meanwhile waits for no longer."""
    async with two(scheme, max_queued=LIMIT, close_timeout=0.3) as (writer, reader):
        # The first stops the peer's receiving, the second is more than the kernels take.
        writing = await flood(writer, [20_000, 20_000_000, *[10_000] * 2998])
        await writer.close()
        assert writer._stream.socket.fileno() == -1  # type: ignore[attr-defined]
        outcomes = await asyncio.gather(*writing, return_exceptions=True)
        kinds = {each.kind for each in outcomes if isinstance(each, CommClosedError)}
        assert kinds == {"slow-consumer"}

        async def read_on() -> None:
            while True:
                await reader.read()

        error = await error_of(read_on())
        assert (error.code, error.closed_by, error.clean) == (CloseCode.ABNORMAL, "lost", False)


@schemes
@aio
async def test_one_that_goes_meanwhile_lets_go_of_all(scheme: str) -> None:
    async with two(scheme, max_queued=LIMIT) as (writer, reader):
        writing = await flood(writer, [100_000])
        closing = asyncio.ensure_future(writer.close())
        await asyncio.sleep(0)
        reader.abort()
        await closing
        outcomes = await asyncio.gather(*writing, return_exceptions=True)
        assert isinstance(outcomes[-1], CommClosedError)
        assert outcomes[-1].kind == "slow-consumer"


@schemes
@pytest.mark.parametrize("turns", range(1, 12, 3))
@aio
async def test_the_end_of_it_may_be_cancelled(scheme: str, turns: int) -> None:
    async with two(scheme, max_queued=LIMIT) as (writer, reader):
        writing = await flood(writer, [100_000])
        closing = asyncio.ensure_future(writer.close())
        for _ in range(turns):
            await asyncio.sleep(0)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        assert writer._stream.socket.fileno() == -1  # type: ignore[attr-defined]
        await asyncio.gather(*writing, return_exceptions=True)

        async def read_on() -> None:
            while True:
                await reader.read()

        # The kernels may have taken all of it before.
        assert (await error_of(read_on())).code in (CloseCode.ABNORMAL, CloseCode.SLOW_CONSUMER)
