"""A listener owns its comms: `comms`, `close`, `wait_closed` and `serve_forever`."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from sealwire.comm import CloseCode, Comm, CommClosedError, ConnectError, Limits, connect, listen
from support.aio import aio, until
from support.endings import error_of
from support.links import by_port, connect_args, echo, listen_args, over_schemes, place

pytest_generate_tests = over_schemes


def listening(scheme: str, handler: Any, **more: Any) -> Any:
    return listen(place(scheme), handler, **listen_args(scheme), **more)


async def dial(scheme: str, address: str) -> Comm:
    return await connect(address, **connect_args(scheme))


async def told(comm: Comm) -> None:
    """The peer said that it goes, and nothing went wrong."""
    error = await error_of(comm.read())
    assert (error.code, error.closed_by, error.clean) == (CloseCode.GOING_AWAY, "peer", True)


@aio
async def test_its_comms(scheme: str) -> None:
    listener = await listening(scheme, echo)
    assert listener.comms == ()
    comms = [await dial(scheme, listener.contact_address) for _ in range(3)]
    await until(lambda: len(listener.comms) == 3)
    before = listener.comms
    assert {comm.peer_address for comm in before} == {comm.local_address for comm in comms}
    await comms[0].close()
    await until(lambda: len(listener.comms) == 2)
    assert len(before) == 3, "a snapshot"
    await listener.close()
    assert listener.comms == ()


@aio
async def test_close_answers_what_is_being_worked_on_and_no_more(scheme: str) -> None:
    """Over every comm: the message in work is answered, the next one is not read."""
    working = asyncio.Event()
    go = asyncio.Event()
    seen = []

    async def slow(comm: Comm) -> None:
        async for message in comm:
            seen.append(message)
            working.set()
            await go.wait()
            await comm.write(["done", message])
        await comm.write("farewell")

    listener = await listening(scheme, slow)
    async with (
        await dial(scheme, listener.contact_address) as busy,
        await dial(scheme, listener.contact_address) as idle,
    ):
        await busy.write(1)
        await busy.write(2)
        await working.wait()
        await until(lambda: len(listener.comms) == 2)
        closing = asyncio.ensure_future(listener.close(grace=30))
        assert await idle.read() == "farewell"
        await told(idle)
        assert not closing.done()
        go.set()
        assert await busy.read() == ["done", 1]
        assert await busy.read() == "farewell"
        await told(busy)
        await closing
        assert seen == [1]


@aio
async def test_a_reader_beside_its_workers_lets_them_answer(scheme: str) -> None:
    """As a handler with many calls at once: its reader waits while they work."""
    release = asyncio.Event()

    async def many(comm: Comm) -> None:
        async def work(message: Any) -> None:
            await release.wait()
            await comm.write(message)

        tasks = [asyncio.ensure_future(work(message)) async for message in comm]
        await asyncio.gather(*tasks)

    listener = await listening(scheme, many)
    async with await dial(scheme, listener.contact_address) as comm:
        for number in range(5):
            await comm.write(number)
        await until(lambda: bool(listener.comms))
        stream = listener.comms[0]._stream
        await until(lambda: bool(stream._receiver.messages == 5))
        closing = asyncio.ensure_future(listener.close(grace=30))
        await asyncio.sleep(0)
        release.set()
        assert sorted([await comm.read() for _ in range(5)]) == list(range(5))
        await told(comm)
        await closing


@aio
async def test_after_the_grace_handlers_are_cancelled_and_peers_told(scheme: str) -> None:
    ends = []

    async def hang(comm: Comm) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await comm.write("the last word")
            ends.append("cancelled")
            raise

    for grace in (0, 0.05, 1e-9):
        listener = await listening(scheme, hang)
        comm = await dial(scheme, listener.contact_address)
        await until(lambda listener=listener: bool(listener.comms))  # type: ignore[misc]
        await listener.close(grace)
        assert await comm.read() == "the last word"
        await told(comm)
        with pytest.raises(ConnectError) as refused:
            await connect(listener.contact_address, max_attempts=1, **connect_args(scheme))
        assert refused.value.kind == "refused"
    assert ends == ["cancelled"] * 3


@aio
async def test_closing_is_idempotent_and_the_shortest_grace_counts(scheme: str) -> None:
    async def hang(comm: Comm) -> None:
        await asyncio.Event().wait()

    listener = await listening(scheme, hang)
    comm = await dial(scheme, listener.contact_address)
    await until(lambda: bool(listener.comms))
    patient = asyncio.ensure_future(listener.close(grace=1000))
    waiting = asyncio.ensure_future(listener.wait_closed())
    await asyncio.sleep(0.01)
    assert not patient.done()
    patient.cancel()  # cancels the call, not the close
    with pytest.raises(asyncio.CancelledError):
        await patient
    assert not comm.closed()
    await asyncio.gather(*(listener.close(grace) for grace in (100, 0, 50)))
    await told(comm)
    await waiting
    for grace in (0, 100):
        await listener.close(grace)
    await listener.wait_closed()
    await listener.serve_forever()  # has been closed


@aio
async def test_a_handler_may_close_its_listener(scheme: str) -> None:
    """It is neither cancelled nor waited for, with or without grace, alone or twice."""

    async def obey(comm: Comm) -> None:
        async for grace in comm:
            if grace is None:
                continue
            await asyncio.gather(listener.close(grace), asyncio.sleep(0))
            await comm.write("closed")

    for grace in (0, 1000.0):
        listener = await listening(scheme, obey)
        comm, other, third = [await dial(scheme, listener.contact_address) for _ in range(3)]
        await until(lambda listener=listener: len(listener.comms) == 3)  # type: ignore[misc]
        await third.write(None)
        await comm.write(grace)
        if grace:
            await other.write(grace)
        assert await comm.read() == "closed"
        if grace:
            assert await other.read() == "closed"
        await told(comm)
        await told(other)
        await told(third)
        await listener.wait_closed()


@aio
async def test_a_handler_cannot_wait_for_its_listener(scheme: str) -> None:
    async def wait(comm: Comm) -> None:
        with pytest.raises(RuntimeError, match=r"cannot wait for <.* in a handler of its own"):
            await listener.wait_closed()
        with pytest.raises(RuntimeError, match="in a handler of its own"):
            await listener.serve_forever()
        await comm.write("told")

    listener = await listening(scheme, wait)
    async with await dial(scheme, listener.contact_address) as comm:
        assert await comm.read() == "told"
    await listener.close()


@aio
async def test_a_stubborn_handler_loses_its_comm(
    scheme: str, caplog: pytest.LogCaptureFixture
) -> None:
    over = asyncio.Event()

    async def stubborn(comm: Comm) -> None:
        while not over.is_set():
            try:
                await over.wait()
            except asyncio.CancelledError:
                pass

    listener = await listening(
        scheme, stubborn, limits=Limits(close_timeout=0.05, stop_timeout=0.01)
    )
    comm = await dial(scheme, listener.contact_address)
    await until(lambda: bool(listener.comms))
    await listener.close()
    assert (await error_of(comm.read())).closed_by == "lost"
    assert "goes on 0.06 s after it was cancelled" in caplog.text
    over.set()
    await listener.wait_closed()


@aio
async def test_stop_then_wait_closed_lets_all_comms_end(scheme: str) -> None:
    listener = await listening(scheme, echo)
    comm = await dial(scheme, listener.contact_address)
    waiting = asyncio.ensure_future(listener.wait_closed())
    await until(lambda: bool(listener.comms))
    listener.stop()
    await comm.write(1)
    assert await comm.read() == 1
    assert not waiting.done()
    await comm.close()
    await waiting


@aio
async def test_leaving_the_context_only_stops(scheme: str) -> None:
    async with listening(scheme, echo) as listener:
        comm = await dial(scheme, listener.contact_address)
    await comm.write(1)
    assert await comm.read() == 1
    await listener.close(0)
    await told(comm)


@aio
async def test_serve_forever_starts_and_closes_when_cancelled(scheme: str) -> None:
    ends: list[str] = []

    async def note(comm: Comm) -> None:
        async for message in comm:
            ends.append(message)  # noqa: PERF401 (when it comes)
        ends.append("over")

    listener = listening(scheme, note)
    serving = asyncio.ensure_future(listener.serve_forever(grace=30))
    await until(lambda: not listener.listen_address.endswith(":0"))
    comm = await dial(scheme, listener.contact_address)
    await comm.write("x")
    await until(lambda: bool(ends))
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving
    assert ends == ["x", "over"]
    await told(comm)

    await listener.start()  # once more
    serving = asyncio.ensure_future(listener.serve_forever())
    comm = await dial(scheme, listener.contact_address)
    await until(lambda: bool(listener.comms))
    await listener.close()
    await serving
    await told(comm)


@by_port
@aio
async def test_a_pending_connection_learns_too(scheme: str) -> None:
    """Its hello comes within the stop timeout, but no handler."""
    listener = await listening(scheme, echo)
    host, port = listener.listen_address.rpartition("/")[2].split(":")
    _, writer = await asyncio.open_connection(host, int(port))
    await until(lambda: listener.stats.pending == 1)
    dialling = asyncio.ensure_future(dial(scheme, listener.contact_address))
    await until(lambda: listener.stats.accepted == 2)
    closing = asyncio.ensure_future(listener.close(grace=10))
    comm = await dialling
    await told(comm)
    await closing
    assert listener.stats.refused
    writer.close()


@aio
async def test_the_end_of_the_loop_aborts_a_close(scheme: str) -> None:
    async def hang(comm: Comm) -> None:
        await asyncio.Event().wait()

    listener = await listening(scheme, hang)
    comm = await dial(scheme, listener.contact_address)
    await until(lambda: bool(listener.comms))
    closing = asyncio.ensure_future(listener.close(grace=1000))
    await until(lambda: not listener.contact_address.endswith(":0") and listener._server is None)
    assert listener._leaving is not None
    listener._leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    assert (await error_of(comm.read())).closed_by == "lost"
    assert listener.comms == ()


@aio
async def test_an_error_of_the_handler_while_closing(
    scheme: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "sealwire")

    async def fail(comm: Comm) -> None:
        async for _ in comm:
            pass
        raise ZeroDivisionError

    listener = await listening(scheme, fail)
    comm = await dial(scheme, listener.contact_address)
    await until(lambda: bool(listener.comms))
    await listener.close(grace=30)
    error = await error_of(comm.read())
    assert (error.code, error.kind) == (CloseCode.HANDLER_FAILED, "handler-failed")
    with pytest.raises(CommClosedError):
        await comm.write(1)
