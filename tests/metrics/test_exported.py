"""What `install` does about `/metrics`: who gets our series, and that nobody fails for it."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Iterator
from typing import Any

import prometheus_client
import pytest
from distributed import Scheduler
from distributed.node import ServerNode
from prometheus_client import CollectorRegistry

from sealwire import metrics
from sealwire.dask_backend import exported, install, uninstall
from sealwire.metrics.collector import Collector


@pytest.fixture(autouse=True)
def registry(monkeypatch: pytest.MonkeyPatch) -> Iterator[CollectorRegistry]:
    """A default registry of the test's own."""
    uninstall()
    made = CollectorRegistry()
    monkeypatch.setattr(prometheus_client, "REGISTRY", made)
    yield made
    uninstall()


def exports(registry: CollectorRegistry) -> bool:
    return registry.get_sample_value("sealwire_send_queue_bytes") is not None


def backend(registry: CollectorRegistry) -> str:
    (info,) = [each for each in registry.collect() if each.name == "sealwire_info"]
    (sample,) = info.samples
    return sample.labels["backend"]


def test_what_is_served_already_gets_the_series_at_once(registry: CollectorRegistry) -> None:
    for _ in range(2):
        install()
        assert backend(registry) == "sealwire"
    uninstall()
    assert backend(registry) == "distributed"  # its comms go on, and so do the sums
    install()
    assert backend(registry) == "sealwire"


def test_without_dask_there_is_no_backend() -> None:
    (info,) = [each for each in Collector(lambda: "none").collect() if each.name == "sealwire_info"]
    assert info.samples[0].labels["backend"] == "none"


@pytest.mark.parametrize("there", [False, None])
def test_where_nothing_has_loaded_it_nothing_does(
    there: Any, registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as without:
        if there is None:  # where importing it is forbidden
            without.setitem(sys.modules, "prometheus_client", None)
        else:
            without.delitem(sys.modules, "prometheus_client")
        install()
        assert not sys.modules.get("prometheus_client")
    assert not exports(registry)


def test_a_server_that_starts_later_has_the_series(
    registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as without:
        without.delitem(sys.modules, "prometheus_client")
        install()
    assert not exports(registry)

    async def serve() -> None:
        async with Scheduler(port=0, host="127.0.0.1", dashboard_address="127.0.0.1:0"):
            assert exports(registry)

    asyncio.run(serve())


def test_starting_a_server_is_passed_on() -> None:
    asked: list[Any] = []

    class Node:
        def start_http_server(self, *args: Any, **kwargs: Any) -> str:
            """Start it."""
            asked.append((self, args, kwargs))
            if kwargs.get("fail"):
                raise OSError("in use")
            return "started"

    stock = Node.start_http_server
    Node.start_http_server = exported.serving(stock)  # type: ignore[method-assign]
    node = Node()
    assert node.start_http_server(1, a=2) == "started"
    assert asked == [(node, (1,), {"a": 2})]
    assert Node.start_http_server.__doc__ == stock.__doc__
    with pytest.raises(OSError, match="in use"):
        node.start_http_server(fail=True)


def test_uninstall_leaves_the_server_as_it_was() -> None:
    before = ServerNode.start_http_server
    install()
    assert ServerNode.start_http_server is not before
    uninstall()
    assert ServerNode.start_http_server is before


@pytest.mark.parametrize("error", [ValueError("duplicated"), ImportError("no"), RuntimeError("?")])
def test_a_registry_that_refuses_costs_a_line(
    error: Exception, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: Any) -> None:
        raise error

    monkeypatch.setattr(metrics, "register", refuse)
    with caplog.at_level(logging.WARNING, logger="sealwire"):
        install()
    lines = [record.getMessage() for record in caplog.records]
    assert lines == [f"/metrics goes without the series of sealwire: {error}"]
