"""Our series among those of ``/metrics``, which distributed serves in schedulers and workers.

It serves prometheus-client's default registry, where that is installed. So the series are added
where something has loaded prometheus-client, and nothing is loaded on our account.
"""

from __future__ import annotations

import functools
import logging
import sys
from collections.abc import Callable
from typing import Any

from sealwire import metrics
from sealwire.metrics.registration import tell_backend

__all__ = ["begin", "serving"]

logger = logging.getLogger("sealwire.dask_backend")


def begin(installed: Callable[[], bool]) -> None:
    """Add the series where prometheus-client is loaded; they tell whether our backends are used."""
    tell_backend(lambda: "sealwire" if installed() else "distributed")
    _export()


def serving(start: Callable[..., Any]) -> Callable[..., Any]:
    """Make a `ServerNode.start_http_server` that adds the series to what it serves."""

    @functools.wraps(start)
    def start_http_server(*args: Any, **kwargs: Any) -> Any:
        started = start(*args, **kwargs)
        _export()
        return started

    return start_http_server


def _export() -> None:
    if sys.modules.get("prometheus_client") is None:
        return
    try:
        metrics.register()
    except Exception as error:  # no reason to keep a cluster from starting
        logger.warning("/metrics goes without the series of sealwire: %s", error)
