"""What operators read of a cluster of real processes, over HTTP: `/metrics` of each."""

from __future__ import annotations

import http.client
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from distributed import Client
from prometheus_client.parser import text_string_to_metric_families

from sealwire.dask_backend import Security
from sealwire.metrics import SERIES
from support import HANG, certs
from support.processes import PRELOAD, Programs, tls_options

CA, OTHER_CA = certs.root("ca"), certs.root("other ca")
ROLES = ("client", "scheduler", "worker")
SUFFIX = {"counter": "_total"}

Labels = frozenset[tuple[str, str]]


class Process:
    """One that serves ``/metrics``."""

    def __init__(self, address: str) -> None:
        self.address = address

    def page(self) -> str:
        connection = http.client.HTTPConnection(self.address, timeout=HANG)
        try:
            connection.request("GET", "/metrics")
            answer = connection.getresponse()
            assert answer.status == 200
            assert answer.getheader("Content-Type", "").startswith("text/plain; version=0.0.4")
            return answer.read().decode()
        finally:
            connection.close()

    def values(self) -> dict[tuple[str, Labels], float]:
        return {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(self.page())
            for sample in family.samples
        }

    def names(self) -> set[str]:
        return {name for name, _ in self.values()}

    def value(self, name: str, **labels: str) -> float:
        return self.values().get((name, frozenset(labels.items())), 0.0)

    def wait(self, condition: Callable[[], bool]) -> None:
        """Scrape until it holds."""
        deadline = time.monotonic() + HANG
        while not condition():
            assert time.monotonic() < deadline, self.page()
            time.sleep(0.05)


class Cluster:
    """A scheduler and a worker with our backends, and a worker with distributed's own."""

    def __init__(self, programs: Programs, folder: Path) -> None:
        self.folder = folder
        self.files = {"tls_ca_file": self.write("ca.pem", CA.pem)}
        for role in ROLES:
            for kind in ("cert", "key"):
                self.files[f"tls_{role}_{kind}"] = str(folder / f"{role}.pem")
            self.issue(role)
        program, self.address = programs.scheduler("tls", *PRELOAD, *self.options("scheduler"))
        workers = [
            programs.worker(self.address, "--no-nanny", *more, *self.options("worker"))
            for more in (PRELOAD, ())
        ]
        self.scheduler, self.worker, self.stock = (
            Process(each.wait_for(r"dashboard at:\s+(?:http://)?([\d.:]+)")[1])
            for each in (program, *workers)
        )
        self.port = int(self.address.rpartition(":")[2])

    def options(self, role: str) -> list[str]:
        return tls_options(self.files, role)

    def write(self, name: str, text: str) -> str:
        new = self.folder / "new"
        new.touch(mode=0o600)
        new.write_text(text)
        return str(new.rename(self.folder / name))

    def issue(self, role: str, days: int = 60) -> certs.Node:
        node = certs.leaf(CA, role, names=["node"], end=timedelta(days=days))
        self.write(f"{role}.pem", node.pem + node.key_pem)
        return node


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("cluster")
    with Programs(folder) as programs:
        made = Cluster(programs, folder)
        with Client(made.address, security=Security(**made.files)) as client:
            client.wait_for_workers(2, timeout=HANG)
            assert client.submit(sum, [1, 2]).result(timeout=HANG) == 3
            yield made


@pytest.mark.parametrize("process", ["scheduler", "worker"])
def test_every_series_is_among_those_of_distributed(cluster: Cluster, process: str) -> None:
    served: Process = getattr(cluster, process)
    found = {
        family.name + SUFFIX.get(family.type, "")
        for family in text_string_to_metric_families(served.page())
    }
    assert set(SERIES) <= found
    assert any(name.startswith(f"dask_{process}_") for name in found)
    ours = [labels for (name, labels) in served.values() if name == "sealwire_info"]
    assert [dict(labels)["backend"] for labels in ours] == ["sealwire"]
    labels = {"scheme": "tls", "tls_version": "TLSv1.3"}
    labels["direction"] = "in" if process == "scheduler" else "out"  # workers dial
    assert served.value("sealwire_comms_open", **labels) >= 1
    assert served.value("sealwire_payload_bytes_total", direction="in") > 100
    assert served.value("sealwire_messages_total", direction="out") >= 1


def test_a_worker_on_the_stock_backend_is_known_by_what_it_lacks(cluster: Cluster) -> None:
    """As the alert `SealwireBackendMissing` finds it."""
    names = cluster.stock.names()
    assert "dask_worker_threads" in names
    assert not {name for name in names if name.startswith("sealwire_")}
    assert {"dask_worker_threads", "sealwire_info"} <= cluster.worker.names()


def test_strangers_are_counted_by_what_was_wrong_with_them(cluster: Cluster) -> None:
    def refused(kind: str) -> float:
        return cluster.scheduler.value("sealwire_connections_refused_total", kind=kind)

    place = ("127.0.0.1", cluster.port)
    with socket.create_connection(place, timeout=HANG) as plain:
        plain.sendall(b"GET /status HTTP/1.1\r\n\r\n")
        cluster.scheduler.wait(lambda: refused("not-tls") == 1)
    foreign = certs.leaf(OTHER_CA, "worker")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.load_cert_chain(cluster.write("foreign.pem", foreign.pem + foreign.key_pem))
    with (
        socket.create_connection(place, timeout=HANG) as stranger,
        pytest.raises(ssl.SSLError),
        context.wrap_socket(stranger) as tls,
    ):
        tls.recv(1)  # a client of TLS 1.3 learns of it here
    cluster.scheduler.wait(lambda: refused("other-ca") == 1)
    assert refused("not-tls") == 1
    accepted = cluster.scheduler.value("sealwire_connections_accepted_total")
    assert accepted >= cluster.scheduler.value("sealwire_connections_greeted_total") + 2


def test_a_renewed_certificate_and_a_damaged_one(cluster: Cluster) -> None:
    worker = cluster.worker
    ends, loaded = (
        f"sealwire_certificate_{name}_timestamp_seconds" for name in ("not_after", "loaded")
    )
    before = worker.value(ends, role="worker", kind="leaf"), worker.value(loaded, role="worker")
    renewed = cluster.issue("worker", days=70).certificate.not_valid_after_utc.timestamp()
    worker.wait(lambda: worker.value(ends, role="worker", kind="leaf") == renewed)
    assert renewed > before[0]
    assert worker.value(loaded, role="worker") > before[1]
    end_of_ca = CA.certificate.not_valid_after_utc.timestamp()
    assert worker.value(ends, role="worker", kind="ca") == end_of_ca
    assert worker.value("sealwire_reload_failures_total") == 0
    cluster.write("worker.pem", "no certificate")
    worker.wait(lambda: worker.value("sealwire_reload_failures_total") > 0)
    assert worker.value(ends, role="worker", kind="leaf") == renewed  # it goes on with this one
    cluster.issue("worker")


def test_a_busy_loop_is_measured(cluster: Cluster) -> None:
    assert cluster.scheduler.page().count("\nsealwire_send_queue_bytes ") == 1
    assert cluster.scheduler.value("sealwire_loop_hold_seconds_count") > 0
