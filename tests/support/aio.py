"""Async tests on a real event loop, with a hang guard and no plugin."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Callable, Coroutine
from typing import Any

from support import HANG


def aio(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run a coroutine function as a test.

    On the loop that its argument `loop_factory` makes, if it has one. Tasks that are left are
    cancelled; an exception that reached the loop's handler fails the test.
    """

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        loop = kwargs.get("loop_factory", asyncio.new_event_loop)()
        unhandled: list[dict[str, Any]] = []
        loop.set_exception_handler(lambda _, context: unhandled.append(context))
        asyncio.set_event_loop(loop)
        try:
            loop.run_until_complete(asyncio.wait_for(test(*args, **kwargs), HANG))
            left = asyncio.all_tasks(loop)
            for task in left:
                task.cancel()
            loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.run_until_complete(loop.shutdown_default_executor())
        finally:
            asyncio.set_event_loop(None)
            loop.close()
        assert not unhandled, unhandled

    assert inspect.iscoroutinefunction(test)
    return run


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop turn until `condition` holds; the hang guard bounds it."""
    turns = 0
    while not condition():
        turns += 1
        await asyncio.sleep(0 if turns < 100 else 0.001)  # a long wait takes no CPU time
