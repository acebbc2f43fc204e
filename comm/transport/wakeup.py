"""Resume the task that waits for a future within the current event.

asyncio would resume it in the loop's next iteration, after another poll of all sockets.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

__all__ = ["resume"]


def resume(future: asyncio.Future[Any], result: Any = None) -> None:
    """Resolve a future, and run its first waiter before returning; no task may be running.

    Does nothing once it is done, so an event may call it again. asyncio's own futures tell their
    callbacks, with the contexts; a subclass that keeps them itself takes twice the time for each
    message. The waiter of a future that does not tell is resumed by the loop, and so is any where
    nest_asyncio, which Jupyter's users install, has changed the loop: a task that runs the loop
    within itself would enter this event once more, which fails for ever.
    """
    if future.done():
        return
    waiters = getattr(future, "_callbacks", None)
    nested = "nest_asyncio" in sys.modules and hasattr(future.get_loop(), "_nest_patched")
    if waiters and not nested:
        waiter, context = waiters[0]
        future.remove_done_callback(waiter)
        future.set_result(result)
        context.run(waiter, future)
    else:
        future.set_result(result)
