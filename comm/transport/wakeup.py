"""Resume the task that waits for a future within the current event.

asyncio would resume it in the loop's next iteration, after another poll of all sockets.
"""

from __future__ import annotations

import asyncio
from typing import Any

__all__ = ["resume"]


def resume(future: asyncio.Future[Any], result: Any = None) -> None:
    """Resolve a future, and run its first waiter before returning; no task may be running.

    Does nothing once it is done, so an event may call it again. asyncio's own futures tell their
    callbacks, with the contexts; a subclass that keeps them itself takes twice the time for each
    message. The waiter of a future that does not tell is resumed by the loop.
    """
    if future.done():
        return
    waiters = getattr(future, "_callbacks", None)
    if waiters:
        waiter, context = waiters[0]
        future.remove_done_callback(waiter)
        future.set_result(result)
        context.run(waiter, future)
    else:
        future.set_result(result)
