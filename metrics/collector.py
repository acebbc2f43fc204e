"""Reads the numbers of the process whenever it is scraped, and makes families of series of them."""

from __future__ import annotations

import functools
import platform
import ssl
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from itertools import accumulate
from typing import Any

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

from sealwire.comm import statistics
from sealwire.comm.kinds import ErrorKind
from sealwire.security.contexts import status

from .series import SERIES, Series

__all__ = ["Collector"]

# These are 0 from the start: `increase` sees nothing of a series that appears with its first
# error. All kinds would be a hundred series for each of a thousand workers.
_REFUSED: tuple[ErrorKind, ...] = (
    "crowded", "expired", "lost", "no-certificate", "not-allowed", "not-tls", "other-ca", "probe",
    "revoked", "timeout",
)  # fmt: skip
_BROKEN: tuple[ErrorKind, ...] = ("framing", "lost", "message", "slow-consumer", "too-large")

Value = tuple[tuple[str, ...], float]


class Collector:
    """What a registry asks for the series; thread-safe, and the same in a forked child.

    Parameters
    ----------
    backend
        Returns which backend Dask has for new comms.
    """

    def __init__(self, backend: Callable[[], str]) -> None:
        self._backend = backend

    def describe(self) -> list[Metric]:
        """Return the families without values, so that a registry knows their names."""
        return [_family(series) for series in SERIES.values()]

    def collect(self) -> Iterator[Metric]:
        """Yield the families with their values of now."""
        values = self._values()
        for name, series in SERIES.items():
            family = _family(series)
            for labels, value in values[name]:
                if series.type == "histogram":
                    _add_histogram(family, labels, value)
                else:
                    family.add_metric(labels, value)
            yield family

    def _values(self) -> dict[str, Iterable[tuple[tuple[str, ...], Any]]]:
        now = statistics.snapshot()
        roles = status.statuses()
        facts = _facts()
        return {
            "sealwire_comms_open": [(tuple(kind), number) for kind, number in now.comms.items()],
            "sealwire_payload_bytes_total": _directions(now.bytes_in, now.bytes_out),
            "sealwire_messages_total": _directions(now.messages_in, now.messages_out),
            "sealwire_send_queue_bytes": _plain(now.send_queue),
            "sealwire_connections_accepted_total": _plain(now.accepted),
            "sealwire_connections_greeted_total": _plain(now.greeted),
            "sealwire_connections_pending": _plain(now.pending),
            "sealwire_connections_refused_total": _kinds(_REFUSED, now.refused),
            "sealwire_comms_broken_total": _kinds(_BROKEN, now.broken),
            "sealwire_listener_starved_total": _plain(now.starved),
            "sealwire_handshake_seconds": [((side,), h) for side, h in now.handshakes.items()],
            "sealwire_loop_hold_seconds": [((), now.holds)],
            "sealwire_certificate_not_after_timestamp_seconds": _first(
                ((role.role or "", kind), end)
                for role in roles
                for kind, end in role.not_after.items()
            ),
            "sealwire_certificate_loaded_timestamp_seconds": _first(
                ((role.role or "",), role.loaded) for role in roles
            ),
            "sealwire_reload_failures_total": _plain(status.failures()),
            "sealwire_info": [((*facts, self._backend()), 1)],
        }


def _family(series: Series) -> Any:
    make = {"counter": CounterMetricFamily, "histogram": HistogramMetricFamily}
    kind = make.get(series.type, GaugeMetricFamily)
    return kind(series.name, series.meaning, labels=series.labels)


def _add_histogram(
    family: HistogramMetricFamily, labels: tuple[str, ...], value: statistics.Histogram
) -> None:
    bounds = [*map(str, value.bounds), "+Inf"]
    buckets = list(zip(bounds, accumulate(value.counts), strict=True))
    family.add_metric(labels, buckets, value.total)


def _plain(value: float) -> list[Value]:
    return [((), value)]


def _directions(received: float, sent: float) -> list[Value]:
    return [(("in",), received), (("out",), sent)]


def _kinds(always: Iterable[ErrorKind], counts: Mapping[ErrorKind, int]) -> list[Value]:
    return [((kind,), number) for kind, number in {**dict.fromkeys(always, 0), **counts}.items()]


def _first(values: Iterable[Value]) -> list[Value]:
    """Return the least value of each set of labels: several `Security`s may have a role."""
    found: dict[tuple[str, ...], float] = {}
    for labels, value in values:
        found[labels] = min(value, found.get(labels, value))
    return list(found.items())


@functools.cache
def _facts() -> tuple[str, str, str]:
    try:
        ours = version("sealwire")
    except PackageNotFoundError:  # run from its sources
        ours = ""
    return ours, ssl.OPENSSL_VERSION, platform.python_version()
