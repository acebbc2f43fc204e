"""A task runs the event loop within itself, as nest_asyncio allows in notebooks."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Coroutine
from types import ModuleType
from typing import Any

import pytest

from sealwire.comm import Comm, connect, listen
from support.links import connect_args, echo, listen_args, over_schemes, place

pytest_generate_tests = over_schemes


class Nested(asyncio.SelectorEventLoop):
    """Does what nest_asyncio does, and is marked as it marks loops."""

    _nest_patched = True

    def _run_once(self) -> None:
        """What it was about to run may have been run within it, as nest_asyncio allows for."""
        with contextlib.suppress(IndexError):
            super()._run_once()  # type: ignore[misc]

    def within(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run the loop in a task until a coroutine is done."""
        outer = asyncio.current_task(self)
        assert outer is not None
        inner = self.create_task(coroutine)
        asyncio.tasks._leave_task(self, outer)
        try:
            for _ in range(1000):
                self._run_once()
                if inner.done():
                    return inner.result()
            raise AssertionError("it goes on for ever")
        finally:
            asyncio.tasks._enter_task(self, outer)


async def ask(comm: Comm, question: int) -> Any:
    await comm.write(question)
    return await comm.read()


def test_what_has_read_a_message_runs_the_loop(
    scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "nest_asyncio", ModuleType("nest_asyncio"))
    loop = Nested()
    failures: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: failures.append(context))

    async def main() -> None:
        listener = await listen(place(scheme), echo, **listen_args(scheme))
        comm = await connect(listener.contact_address, **connect_args(scheme))
        for number in range(0, 20, 2):
            assert loop.within(ask(comm, number)) == number
            assert await ask(comm, number + 1) == number + 1
        await comm.close()
        await listener.close()

    try:
        loop.run_until_complete(main())
    finally:
        loop.close()
    assert failures == []
