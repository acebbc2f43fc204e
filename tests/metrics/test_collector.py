"""The collector in a program's own registry: what it exports, and how often it may be added."""

from __future__ import annotations

import asyncio
import importlib
import multiprocessing
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import uvloop
from prometheus_client import (
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    generate_latest,
)
from prometheus_client.parser import text_string_to_metric_families

from sealwire import metrics
from sealwire.comm import connect, listen, statistics
from sealwire.comm.kinds import KINDS
from sealwire.metrics import SERIES, registration
from support.aio import aio, until
from support.links import connect_args, echo, listen_args, place

LABELS = {
    "scheme": {*statistics.SCHEMES, statistics.OTHER},
    "tls_version": {*statistics.TLS_VERSIONS, statistics.OTHER},
    "direction": {"in", "out"},
    "side": {"client", "server"},
    "role": {"", "client", "scheduler", "worker"},
    "backend": {"sealwire", "distributed", "none"},
}


@pytest.fixture(autouse=True)
def _a_process_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "_process", statistics._Process())


@pytest.fixture
def registry() -> CollectorRegistry:
    made = CollectorRegistry()
    assert metrics.register(made)
    return made


@pytest.fixture
def _default_registry() -> Iterator[None]:
    """Without our series, and as it was afterwards."""
    before = dict(REGISTRY._collector_to_names)
    for collector in before:
        if type(collector).__module__.startswith("sealwire."):
            REGISTRY.unregister(collector)
    yield
    for collector in set(REGISTRY._collector_to_names) - set(before):
        REGISTRY.unregister(collector)
    for collector in set(before) - set(REGISTRY._collector_to_names):
        REGISTRY.register(collector)


def value(registry: CollectorRegistry, name: str, **labels: str) -> float | None:
    return registry.get_sample_value(name, labels)


def families(registry: CollectorRegistry) -> list[Any]:
    """As Prometheus reads them."""
    return list(text_string_to_metric_families(generate_latest(registry).decode()))


@aio
async def test_the_series_are_those_of_the_table(registry: CollectorRegistry) -> None:
    async with listen(place("tls"), echo, **listen_args("tls")) as listener:
        comm = await connect(listener.contact_address, **connect_args("tls"))
        await comm.write("x")
        await comm.read()
        found = families(registry)
        await comm.close()
    suffix = {"counter": "_total", "gauge": "", "histogram": ""}
    assert {each.name + suffix[each.type]: each.type for each in found} == {
        name: series.type for name, series in SERIES.items()
    }
    for family in found:
        series = SERIES[family.name + suffix[family.type]]
        assert family.documentation == series.meaning
        assert family.samples, family.name
        for sample in family.samples:
            assert set(sample.labels) - {"le"} == set(series.labels), sample


@aio
async def test_values_of_labels_are_of_bounded_sets(registry: CollectorRegistry) -> None:
    kinds = {"sealwire_certificate_not_after_timestamp_seconds": {"leaf", "ca", "crl"}}
    async with listen(place("tls"), echo, **listen_args("tls")) as listener:
        for _ in range(3):
            async with connect(listener.contact_address, **connect_args("tls")):
                pass
        for family in families(registry):
            allowed = {**LABELS, "kind": kinds.get(family.name, set(KINDS))}
            for sample in family.samples:
                for label, text in sample.labels.items():
                    assert label not in allowed or text in allowed[label], sample


@pytest.mark.parametrize("loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_a_program_sees_what_it_does(
    loop_factory: Callable[[], asyncio.AbstractEventLoop], registry: CollectorRegistry
) -> None:
    async def run() -> None:
        async with listen(place("tls"), echo, **listen_args("tls")) as listener:
            port = int(listener.contact_address.rpartition(":")[2])
            async with connect(listener.contact_address, **connect_args("tls")) as comm:
                await comm.write(bytes(100_000))
                await comm.read()
                for side in ("in", "out"):
                    labels = {"scheme": "tls", "tls_version": "TLSv1.3", "direction": side}
                    assert value(registry, "sealwire_comms_open", **labels) == 1
                    assert value(registry, "sealwire_messages_total", direction=side) == 2
                    size = value(registry, "sealwire_payload_bytes_total", direction=side)
                    assert size is not None
                    assert size > 200_000
            for number in range(50):
                with socket.create_connection(("127.0.0.1", port)) as stranger:
                    stranger.sendall(b"SSH-2.0-stranger\r\n" * 3)
                    await until(lambda: refused("not-tls") == number + 1)  # noqa: B023
        assert value(registry, "sealwire_connections_accepted_total") == 51
        assert value(registry, "sealwire_connections_greeted_total") == 1
        assert value(registry, "sealwire_connections_pending") == 0
        assert value(registry, "sealwire_handshake_seconds_count", side="server") == 1

    def refused(kind: str) -> float | None:
        return value(registry, "sealwire_connections_refused_total", kind=kind)

    assert refused("not-tls") == 0  # so that `increase` sees the first
    loop = loop_factory()
    try:
        loop.run_until_complete(run())
    finally:
        loop.close()


def test_buckets_are_cumulative(registry: CollectorRegistry) -> None:
    for seconds in (0.0005, 0.001, 0.3, 99.0):
        statistics.held(seconds)
    buckets = {
        sample.labels["le"]: sample.value
        for family in families(registry)
        for sample in family.samples
        if sample.name == "sealwire_loop_hold_seconds_bucket"
    }
    assert list(buckets) == [*map(str, statistics.BOUNDS), "+Inf"]
    assert (buckets["0.001"], buckets["0.25"], buckets["0.5"], buckets["+Inf"]) == (2, 2, 3, 4)
    assert value(registry, "sealwire_loop_hold_seconds_count") == 4
    assert value(registry, "sealwire_loop_hold_seconds_sum") == pytest.approx(99.3015)


def test_added_twice_it_is_there_once(registry: CollectorRegistry) -> None:
    assert not metrics.register(registry)
    assert generate_latest(registry).count(b"\nsealwire_send_queue_bytes ") == 1
    assert metrics.register(CollectorRegistry())  # and each registry has its own


@pytest.mark.usefixtures("_default_registry")
def test_the_default_registry() -> None:
    assert metrics.register()
    assert not metrics.register()
    assert not metrics.register(REGISTRY)
    assert REGISTRY.get_sample_value("sealwire_send_queue_bytes") is not None


def test_another_import_of_the_package_finds_it_there(
    registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.startswith("sealwire.metrics")]:
        monkeypatch.delitem(sys.modules, name)
    again = importlib.import_module("sealwire.metrics")
    assert again.register is not metrics.register
    assert not again.register(registry)
    assert again.register(CollectorRegistry())


FOREIGN = {
    "a gauge": lambda registry: Gauge("sealwire_info", "theirs", registry=registry),
    "a labelled gauge": lambda registry: Gauge(
        "sealwire_info", "theirs", ["version"], registry=registry
    ).labels("1"),
    "a gauge without values": lambda registry: Gauge(
        "sealwire_info", "theirs", ["version"], registry=registry
    ),
    "an info": lambda registry: Info("sealwire", "theirs", registry=registry).info(
        {"version": "1"}
    ),
    "a counter": lambda registry: Counter("sealwire_messages", "theirs", registry=registry),
    "a histogram": lambda registry: Histogram(
        "sealwire_handshake_seconds", "theirs", registry=registry
    ),
}


@pytest.mark.parametrize("foreign", FOREIGN)
def test_series_of_these_names_from_something_else_are_no_series_of_ours(foreign: str) -> None:
    """It must not look as if ours were there; theirs stay."""
    registry = CollectorRegistry()
    FOREIGN[foreign](registry)
    before = generate_latest(registry)
    with pytest.raises(ValueError, match=r"something else has added .*sealwire_\w+.*; rename"):
        metrics.register(registry)
    assert generate_latest(registry) == before
    assert metrics.register(CollectorRegistry())


def test_threads_that_add_it_at_once() -> None:
    registry = CollectorRegistry()
    together = threading.Barrier(8)
    added: list[bool] = []

    def add() -> None:
        together.wait()
        added.append(metrics.register(registry))

    threads = [threading.Thread(target=add) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(added) == [False] * 7 + [True]


def _child(registry: CollectorRegistry, pipe: Any) -> None:
    added = metrics.register(registry)
    pipe.send((added, value(registry, "sealwire_loop_hold_seconds_count")))


def test_a_forked_child_exports_its_own_numbers(registry: CollectorRegistry) -> None:
    statistics.held(1.0)
    ours, theirs = multiprocessing.Pipe()
    arguments = (registry, theirs)
    child = multiprocessing.get_context("fork").Process(target=_child, args=arguments)
    with registration._lock:  # as if another thread were adding it
        child.start()
    try:
        assert ours.poll(30)
        assert ours.recv() == (False, 0)
    finally:
        child.kill()
        child.join()
    assert value(registry, "sealwire_loop_hold_seconds_count") == 1


def test_without_prometheus_client(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'sealwire\[metrics\]'"):
        metrics.register()


@pytest.mark.parametrize("wrong", ["", 0, object(), generate_latest, CollectorRegistry])
def test_what_is_no_registry(wrong: Any) -> None:
    with pytest.raises(TypeError, match=r"need a prometheus_client\.CollectorRegistry"):
        metrics.register(wrong)


def test_scrapes_from_another_thread_while_comms_come_and_go(registry: CollectorRegistry) -> None:
    async def busy() -> None:
        async with listen(place("tcp"), echo) as listener:
            for _ in range(100):
                comms = [await connect(listener.contact_address) for _ in range(3)]
                for comm in comms:
                    await comm.write("x")
                    comm.abort()

    thread = threading.Thread(target=asyncio.run, args=(busy(),))
    thread.start()
    last, scrapes = 0.0, 0
    while thread.is_alive():
        now = value(registry, "sealwire_connections_accepted_total")
        assert now is not None
        assert now >= last
        last, scrapes = now, scrapes + 1
    thread.join()
    assert value(registry, "sealwire_connections_accepted_total") == 300
    assert scrapes > 1
