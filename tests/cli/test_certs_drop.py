"""A cluster as `certs init` configures it: it does all that a cluster does, and drops a worker.

In processes that do not follow their list, as those with distributed's own backend do not: there,
the program of `sealwire certs snippet drop` ends what a revoked worker still holds.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cloudpickle
import dask
import dask.array as da
import numpy as np
import pytest
from distributed import Client, get_client, get_worker, secede, wait, worker_client

from sealwire.dask_backend import Security
from support.certs_cli import good, told
from support.processes import HANG, PRELOAD, Programs

KEPT, REVOKED = "worker-n1.lab", "worker-10.0.0.7"

cloudpickle.register_pickle_by_value(sys.modules[__name__])


def tasks() -> tuple[Any, ...]:
    """What travels by value, since no other process can import this module."""

    class Counter:
        n = 0

        def add(self, by: int) -> int:
            self.n += by
            return self.n

    def here() -> str:
        return str(get_worker().address)

    def inside(others: list[str]) -> Any:
        """A client inside a task, which leaves its thread to others."""
        client = get_client()
        secede()
        made = [client.submit(here, workers=[each], pure=False) for each in others]
        sent = client.scatter({"key": 7})
        return client.gather(made), sent["key"].result(), client.submit(sum, [1, 2]).result()

    def inside_with(others: list[str]) -> float:
        with worker_client() as client:
            arrays = client.map(np.ones, [1000, 2000], workers=others[:1], pure=False)
            return float(sum(array.sum() for array in client.gather(arrays)))

    return Counter, inside, inside_with


Counter, inside, inside_with = tasks()


def all_of_it(client: Client, workers: list[str]) -> dict[str, Any]:
    """What came of each thing that a cluster does."""
    one = client.submit(np.arange, 100_000, workers=workers[:1])
    asked = client.submit(inside, workers, workers=workers[:1])
    asked_with = client.submit(inside_with, workers[1:], workers=workers[:1])
    counter = client.submit(Counter, actor=True).result(HANG)
    said: dict[str, Any] = {
        "submit": client.submit(sum, [1, 2, 3]).result(HANG),
        "peers": int(client.submit(np.sum, one, workers=workers[1:]).result(HANG)),
        "get_client": asked.result(HANG) == (workers, 7, 3),
        "worker_client": asked_with.result(HANG),
        "actor": counter.add(2).result(),
        "run": len(client.run(int)) + len(client.run(int, nanny=True)),
    }
    client.scatter(list(range(10)), broadcast=True)
    client.replicate([one])
    wait(one, HANG)
    said["dealt"] = len(client.who_has([one])[one.key])
    with dask.config.set({"array.rechunk.method": "p2p"}):
        x = da.ones((400, 400), chunks=(400, 40)).rechunk((40, 400))
        said["p2p"] = float(client.compute((x * 2).sum()).result(HANG))
    return said


@contextmanager
def cluster(home: Path, patch: pytest.MonkeyPatch) -> Iterator[tuple[str, dict[str, str]]]:
    """The addresses of a scheduler and of two workers, one of them with a nanny.

    On the workers' machine is no client's certificate.
    """
    client = "DASK_DISTRIBUTED__COMM__TLS__CLIENT__CERT"
    with Programs(home) as programs:
        _, address = programs.scheduler("tls", *PRELOAD)
        patch.setenv(client, str(home / "none.pem"))
        workers = {
            name: programs.worker(
                address, *PRELOAD, nanny, "--host", "127.0.0.1",
                "--tls-cert", str(home / f"certs/{name}.pem"),
            )
            for name, nanny in ((KEPT, "--nanny"), (REVOKED, "--no-nanny"))
        }  # fmt: skip
        patch.delenv(client)
        yield (
            address,
            {
                name: worker.wait_for(r"Start worker at:\s+(tls://\S+)")[1]
                for name, worker in workers.items()
            },
        )


def output(folder: Path, code: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=2 * HANG,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def workers_of(client: Client) -> set[str]:
    return set(client.sync(client.scheduler.identity, n_workers=-1)["workers"])


def test_a_cluster_does_all_that_a_cluster_does_and_drops_a_revoked_worker(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nannies, workers among themselves, clients inside tasks, actors, P2P; then a restart."""
    for name in (KEPT, REVOKED):
        good("issue", "worker", name.removeprefix("worker-"))
    config = home / "certs/dask.yaml"
    config.write_text(config.read_text() + "    reload-interval: never\n")
    monkeypatch.setenv("DASK_CONFIG", str(config))
    security = Security(
        tls_ca_file=home / "certs/ca.pem", tls_client_cert=home / "certs/client.pem"
    )
    with (
        cluster(home, monkeypatch) as (address, listening),
        Client(address, security=security, timeout=HANG) as client,  # actors look for the default
    ):
        client.wait_for_workers(2, timeout=HANG)
        assert all_of_it(client, sorted(listening.values())) == {
            "submit": 6,
            "peers": sum(range(100_000)),
            "get_client": True,
            "worker_client": 3000.0,
            "actor": 2,
            "run": 3,
            "dealt": 2,
            "p2p": 320_000.0,
        }
        moved = client.submit(len, "abc", workers=[listening[REVOKED]])
        assert client.submit(abs, moved, workers=[listening[KEPT]]).result(HANG) == 3
        (revoked,) = told("revoke", REVOKED)["revoked"]
        assert workers_of(client) == set(listening.values()), "they do not know"
        program = good("snippet", "drop", revoked["serial"])
        assert "tls://SCHEDULER:8786" in program
        said = output(home, program.replace("tls://SCHEDULER:8786", address))
        held = dict(re.findall(r"^(\w+) (.*)$", said, re.MULTILINE))
        assert "tls://" in held["scheduler"]
        assert "tls://" in held["workers"], "the other had fetched from it"
        client.wait_for_workers(1, timeout=HANG)
        assert workers_of(client) == {listening[KEPT]}
        client.restart(timeout=HANG)
        assert client.submit(sum, [4, 5]).result(HANG) == 9
