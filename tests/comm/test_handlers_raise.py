"""A handler may raise anything: its peer is told, and the log, whatever class the error is of."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable
from typing import Any

import pytest
import uvloop

from sealwire.comm import CloseCode, Comm, RemoteError, connect, listen
from support.aio import aio
from support.calling import calls_pair, raising, raising_later
from support.endings import error_of
from support.links import connect_args, listen_args, over_schemes, place

LoopFactory = Callable[[], asyncio.AbstractEventLoop]
loops = pytest.mark.parametrize(
    "loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"]
)

pytest_generate_tests = over_schemes


class Foreign(BaseException):
    """As those of test runners and of other libraries' cancellations."""


async def _cancelled_elsewhere(comm: Comm) -> None:
    task = asyncio.ensure_future(asyncio.sleep(30))
    task.cancel()
    await task


async def _cancelled(comm: Comm) -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.sleep(30)


def _raising(error: BaseException) -> Callable[[Comm], Any]:
    async def handler(comm: Comm) -> None:
        await asyncio.sleep(0)
        raise error

    return handler


def _at_once(comm: Comm) -> None:
    raise Foreign


HANDLERS: dict[str, Callable[[Comm], Any]] = {
    "Foreign": _raising(Foreign()),
    "Foreign, at once": _at_once,
    "GeneratorExit": _raising(GeneratorExit()),
    "MemoryError": _raising(MemoryError()),
}
if sys.version_info >= (3, 11):  # before, a task does not know whether it was cancelled
    HANDLERS["CancelledError"] = _cancelled_elsewhere


@loops
@aio
async def test_the_peer_and_the_log_are_told(
    scheme: str, loop_factory: LoopFactory, caplog: pytest.LogCaptureFixture
) -> None:
    for name, handler in HANDLERS.items():
        caplog.clear()
        async with listen(place(scheme), handler, **listen_args(scheme)) as listener:
            comm = await connect(listener.contact_address, **connect_args(scheme))
            error = await error_of(comm.read())
        assert (error.kind, error.code) == ("handler-failed", CloseCode.HANDLER_FAILED), name
        assert error.reason == f"its handler raised {name.partition(',')[0]}"
        failed = [record for record in caplog.records if record.levelno >= logging.ERROR]
        assert [record.getMessage().split()[-1] for record in failed] == ["failed"], name
        assert failed[0].exc_info


@loops
@aio
async def test_one_that_is_cancelled_has_not_failed(
    scheme: str, loop_factory: LoopFactory, caplog: pytest.LogCaptureFixture
) -> None:
    async with listen(place(scheme), _cancelled, **listen_args(scheme)) as listener:
        comm = await connect(listener.contact_address, **connect_args(scheme))
        error = await error_of(comm.read())
    assert (error.kind, error.code) == ("lost", CloseCode.ABNORMAL)
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


@pytest.mark.parametrize("make", [raising, raising_later])
@pytest.mark.parametrize(
    "error", [Foreign("no"), GeneratorExit("no"), asyncio.CancelledError("no")]
)
@aio
async def test_who_calls_is_answered(make: Callable[..., Any], error: BaseException) -> None:
    """And the comm goes on."""
    async with calls_pair({"fail": make(error), "echo": lambda value: value}) as (calls, _):
        for _ in range(2):
            with pytest.raises(RemoteError) as told:
                await calls.call("fail", timeout=20)
            assert told.value.name.endswith(type(error).__name__)
        assert await calls.call("echo", 1) == 1
