"""What distributed's servers are given for the page: workers a metric, schedulers an extension.

The page itself is imported by a scheduler only: a worker need not wait for it.
"""

from __future__ import annotations

from typing import Any

from .report import NAME, metric

__all__ = ["attach", "extension"]


def extension(scheduler: Any) -> Any:
    """Return the extension of a scheduler, which adds its page."""
    from .extension import SchedulerExtension

    return SchedulerExtension(scheduler)


def attach(server: Any) -> None:
    """Give a server its part that was made before `install`, or without distributed's defaults."""
    from distributed.scheduler import Scheduler
    from distributed.worker import Worker

    if isinstance(server, Worker):
        server.metrics.setdefault(NAME, metric)
    elif isinstance(server, Scheduler) and NAME not in server.extensions:
        server.extensions[NAME] = extension(server)
        server.periodic_callbacks[NAME].start()
