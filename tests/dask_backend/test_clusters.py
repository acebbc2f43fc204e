"""Whole clusters: every process of them, and every link between them, is as it should be."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import distributed
import psutil
import pytest
from distributed import Client

from sealwire.dask_backend import Security
from support import forking
from support.observing import check, everywhere, exercise, links_between_workers, shuffle
from support.parties import select
from support.processes import HANG, PRELOAD, Program, Programs, tls_options
from support.programs import command, environment

Files = dict[str, str]


def test_a_local_cluster(tmp_path: Path) -> None:
    """In a process of its own, where nothing but our Security brings us in.

    One by preloads is in tests/dask_backend/test_every_start.py; plain ones, by either, are in
    tests/dask_backend/test_unix.py.
    """
    done = forking.run(command("local_cluster", "security", "tls"), tmp_path, environment())
    assert done.stdout == "as it should be\n", done.stderr
    assert done.returncode == 0, done.stderr


class Cluster:
    """`dask` commands for one scheme; a kind is "ours", with the preload, or "stock"."""

    def __init__(self, programs: Programs, scheme: str, files: Files) -> None:
        self.programs = programs
        self.scheme = scheme
        self.files = files
        self.address = ""

    def _options(self, kind: str, role: str) -> list[str]:
        tls = tls_options(self.files, role) if self.scheme == "tls" else []
        return [*tls, *(PRELOAD if kind == "ours" else ())]

    def scheduler(self, kind: str) -> None:
        options = self._options(kind, "scheduler")
        _, self.address = self.programs.scheduler(self.scheme, *options)

    def worker(self, kind: str, *options: str) -> Program:
        return self.programs.worker(self.address, *self._options(kind, "worker"), *options)

    @contextmanager
    def client(self, kind: str, workers: int) -> Iterator[Client]:
        select(kind)
        make = Security if kind == "ours" else distributed.Security
        fields = self.files if self.scheme == "tls" else {}
        with Client(self.address, security=make(**fields), set_as_default=False) as client:
            client.wait_for_workers(workers, timeout=HANG)
            yield client


@pytest.fixture
def cluster(forked: Programs, scheme: str, files: Files) -> Cluster:
    return Cluster(forked, scheme, files)


@pytest.mark.parametrize("scheme", ["tls"])
def test_a_command_with_nannies_and_a_restarted_worker(cluster: Cluster) -> None:
    """And a worker that is killed; all are restarted, and shuffle, in tests/cli/test_certs_drop.py.

    One command starts both.
    """
    cluster.scheduler("ours")
    nannies = cluster.worker("ours", "--nworkers", "2")
    for _ in range(2):
        nannies.wait_for(r"Registered to")
    with cluster.client("ours", 2) as client:
        pids = look(client, cluster)
        killed = max(pids - {nannies.process.pid})
        psutil.Process(killed).kill()
        nannies.wait_for(r"Restarting worker")
        nannies.wait_for(r"Registered to")
        after = look(client, cluster)
        assert killed not in after
        assert pids - {killed} < after


def look(client: Client, cluster: Cluster) -> set[int]:
    """Use the cluster of two workers with nannies, check it; the pids of workers and nannies."""
    client.wait_for_workers(2, timeout=HANG)
    exercise(client)
    seen = everywhere(client)
    assert len(seen) == 6
    pids = {seen[address]["pid"] for address in set(seen) - {cluster.address, "client"}}
    assert len(pids) == 3  # the nannies share theirs
    check(seen, cluster.address, cluster.scheme)
    assert links_between_workers(seen, cluster.address) > 0
    return pids


@pytest.mark.parametrize(("scheduler", "scheme"), [("stock", "tls"), ("ours", "tcp")])
def test_a_mixed_cluster(scheduler: str, scheme: str, cluster: Cluster) -> None:
    """A worker of each kind, and a client of each, under a scheduler of either.

    Each kind dials each in both, since workers dial each other. Our worker has a nanny where all
    else is plain and ours: over TLS, the test above has two.
    """
    cluster.scheduler(scheduler)
    nanny = scheduler == "ours"
    cluster.worker("ours", "--nanny" if nanny else "--no-nanny", "--name", "ours")
    cluster.worker("stock", "--no-nanny", "--name", "stock")
    for kind in ("ours", "stock"):
        with cluster.client(kind, 2) as client:
            exercise(client)
            if kind == "ours":  # the blocks go from worker to worker, whose client asks for it
                shuffle(client)
            seen = everywhere(client)
            assert len(seen) == len({process["pid"] for process in seen.values()}) == 4 + nanny
            workers = client.sync(client.scheduler.identity, n_workers=-1)["workers"]
            stock = [address for address, told in workers.items() if told["name"] == "stock"]
            stock += [cluster.address] if scheduler == "stock" else []
            stock += ["client"] if kind == "stock" else []
            check(seen, cluster.address, cluster.scheme, stock)
            assert links_between_workers(seen, cluster.address) > 0


def test_plain_is_refused_where_certificates_are_configured(forked: Programs, files: Files) -> None:
    """Stock silently listens on plain tcp."""
    options = tls_options(files, "scheduler")
    refused = forked.start(
        "scheduler", "--protocol", "tcp", "--host", "127.0.0.1", "--port", "0",
        "--no-dashboard", *options, *PRELOAD,
    )  # fmt: skip
    found = refused.wait_for(r"refusing tcp://.*")
    assert re.search("encryption required", found[0])
    assert refused.process.wait(HANG) != 0
