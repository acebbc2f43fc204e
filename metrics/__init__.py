"""The numbers of a process as Prometheus series; needs prometheus-client, an extra of this package.

In a Dask cluster with our backends there is nothing to do: the series are among those of
``/metrics``. A program that exports a registry of its own adds them to it::

    from prometheus_client import CollectorRegistry, start_http_server
    from sealwire import metrics

    registry = CollectorRegistry()
    metrics.register(registry)
    start_http_server(9100, "127.0.0.1", registry)

Everything is read when it is scraped. Importing this package does not load prometheus-client.
"""

from __future__ import annotations

from .registration import register
from .series import SERIES, Series

__all__ = ["SERIES", "Series", "register"]
