"""A cluster that outlives its certificates and its CA, and loses a worker that is revoked.

Certificates of 14 seconds, for as long as it takes. `make soak` has certificates of two minutes for
ten (`SOAK_JOINED`: seconds).
"""

from __future__ import annotations

import datetime
import operator
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dask
import pytest
from distributed import Client, Future

from sealwire.dask_backend import Security
from sealwire.joining import ledger
from sealwire.security.ca.store import Store
from support.certs_cli import good, run
from support.joined_cluster import QUIET, SECRET, Cluster
from support.joining import new_token

LONG = float(os.environ.get("SOAK_JOINED", "0"))
LIFETIME = 120.0 if LONG else 14.0


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    made = Cluster(tmp_path)
    try:
        yield made
    finally:
        made.end()


class Busy:
    """A client that has tasks computed all the time, and knows what must come of them."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.futures: list[Future] = []
        self.wanted: list[int] = []

    def go_on(self) -> None:
        """Some more tasks, that need what others have computed."""
        base = len(self.wanted)
        first = self.client.submit(operator.add, base, 1, pure=False)
        self.futures += [first, *(self.client.submit(operator.mul, first, n, pure=False)
                                  for n in range(4))]  # fmt: skip
        self.wanted += [base + 1, *((base + 1) * n for n in range(4))]

    def until(self, condition: Callable[[], bool], seconds: float = 90.0) -> float:
        """Go on until it holds; how long that took."""
        began = time.monotonic()
        while not condition():
            assert time.monotonic() - began < seconds, "it has not come to pass"
            self.go_on()
            time.sleep(0.25)
        return time.monotonic() - began

    def must_have_lost_nothing(self) -> None:
        assert self.client.gather(self.futures) == self.wanted

    def trusted(self) -> set[int]:
        """How many CAs each process of the cluster trusts."""

        def count() -> int:
            with open(dask.config.get("distributed.comm.tls.ca-file")) as file:
                return file.read().count("BEGIN CERT")

        found = self.client.run(count).values()
        return {*found, self.client.run_on_scheduler(count)}


def lines(cluster: Cluster) -> Counter[str]:
    """How many certificates each process was given."""
    return Counter(each.file for each in Store(cluster.ca).journal.issued()
                   if each.file.startswith(("joined/worker", "joined/scheduler")))  # fmt: skip


def test_a_cluster_outlives_its_certificates_and_its_ca(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    began = time.monotonic()
    monkeypatch.setattr(ledger, "_SHORTEST", datetime.timedelta(0))

    def joining(role: str, name: str) -> dict[str, str]:
        how: dict[str, Any] = {"lifetime": datetime.timedelta(seconds=LIFETIME)}
        token = new_token(cluster.ca, role, **how).text()
        return {
            "SEALWIRE_JOIN": cluster.service, "SEALWIRE_TOKEN": token,
            "DASK_SEALWIRE__JOIN__NAME": name,
        }  # fmt: skip

    options = ("--host", "127.0.0.1", "--port", "0", *QUIET)
    started = cluster.start("s", "dask", "scheduler", *options, **joining("scheduler", "s"))
    address = started.wait_for(r"Scheduler at:\s+(\S+)")[1]
    workers = {
        name: cluster.worker(address, name, "--no-nanny", **joining("worker", name))
        for name in ("one", "gone")
    }
    security = Security(
        tls_ca_file=cluster.ca / "ca.pem",
        tls_client_cert=cluster.ca / "client.pem",
        tls_crl_file=cluster.ca / "crl.pem",
    )
    with Client(address, security=security, set_as_default=False) as client:
        client.wait_for_workers(2, timeout=60)
        busy = Busy(client)
        processes = {*client.run(os.getpid).values(), client.run_on_scheduler(os.getpid)}

        good("rotate-ca", "--dir", str(cluster.ca))
        busy.until(lambda: busy.trusted() == {2})
        good("renew", "--dir", str(cluster.ca))
        busy.until(lambda: run("rotate-ca", "--complete", "--dir", str(cluster.ca)).exit_code == 0)
        busy.until(lambda: busy.trusted() == {1})

        (gone,) = (name for name in lines(cluster) if "-gone-" in name)
        good("revoke", gone, "--dir", str(cluster.ca))
        took = busy.until(lambda: len(client.scheduler_info()["workers"]) == 1)
        assert took < LIFETIME
        assert workers["gone"].process.wait(60) is not None, "it has ended, for want of a scheduler"

        renewed = lines(cluster)
        left = {name for name in renewed if name != gone}
        assert len(left) == 2
        busy.until(lambda: all(lines(cluster)[name] > renewed[name] for name in left))
        while time.monotonic() - began < LONG:
            busy.until(lambda: True)
            busy.go_on()
            time.sleep(0.5)
        busy.must_have_lost_nothing()
        still = {*client.run(os.getpid).values(), client.run_on_scheduler(os.getpid)}
        assert still < processes
        assert len(still) == 2
    assert not SECRET.search(cluster.output)
    assert "Traceback" not in "".join(workers["one"].output)
