"""The allow-list in the dask.yaml of `certs init`: what a cluster needs works, and nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from sealwire.security import PeerNotAllowed, Security, config
from sealwire.security.ca.bootstrap import PEERS
from sealwire.security.checks.selftest import refusal
from support.certs_cli import ROLES, good, request, run
from support.processes import PRELOAD, Programs

#: identities as `init`, `issue` and `sign` make them, by role
IDENTITIES = {
    "client": ["client", "client-alice.lab", "signed-client"],
    "scheduler": ["scheduler", "scheduler-head.lab", "signed-scheduler"],
    "worker": [
        "worker",
        "worker-n1.lab",
        "worker-10.0.0.7",
        "worker-any.pool.lab",
        "signed-worker",
    ],
}


@pytest.fixture
def folder(home: Path) -> Path:
    good("issue", "worker", "n1.lab", "10.0.0.1")
    good("issue", "worker", "10.0.0.7")
    good("issue", "worker", "*.pool.lab")
    good("issue", "client", "alice.lab")
    good("issue", "scheduler", "head.lab")
    for role in ROLES:
        # Whatever a request calls itself: the role is that of who signs.
        request(home / f"signed-{role}.csr", {"worker": "scheduler"}.get(role, "worker"))
        good("sign", f"signed-{role}.csr", "--role", role)
    return home / "certs"


def refused(folder: Path, role: str, name: str, ours: str) -> Any:
    """What comes of a handshake of a process of `role`, as configured, and a peer with a file."""
    values = config.read(str(folder / "dask.yaml"))
    one = Security(**values)
    # The peer trusts everybody of the CA: whom a thief of its key would have on the other side.
    key = folder / f"{name}.pem"
    if name.startswith("signed-"):  # whose key is not here: stands for one of the same names
        key = _twin(folder, name)
    other = Security(tls_ca_file=folder / "ca.pem", tls_worker_cert=key)
    if ours == "dials":
        accepting = other.get_listen_args("worker")["ssl_context"]
        return refusal(accepting, one.get_connection_args(role)["ssl_context"])
    dialling = other.get_connection_args("worker")["ssl_context"]
    return refusal(one.get_listen_args(role)["ssl_context"], dialling)


def _twin(folder: Path, name: str) -> Path:
    path = folder.parent / f"{name}-twin.pem"
    if not path.exists():
        key = request(folder.parent / f"{name}-twin.csr")
        from cryptography.hazmat.primitives.serialization import (
            Encoding,
            NoEncryption,
            PrivateFormat,
        )

        made = x509.load_pem_x509_certificate((folder / f"{name}.pem").read_bytes())
        role = name.removeprefix("signed-")
        text = good("sign", f"{name}-twin.csr", "--role", role, "--out", "-")
        assert x509.load_pem_x509_certificate(text.encode()).subject == made.subject
        path.touch(mode=0o600)
        form = (Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        path.write_text(text + key.private_bytes(*form).decode())
    return path


ALLOWED = {
    "client": {"scheduler"},  # so no worker poses as the scheduler
    "scheduler": {"client", "worker"},
    "worker": {"scheduler", "worker"},
}


def test_which_role_may_talk_to_which(folder: Path) -> None:
    assert "all fits" in good("check", str(folder))
    assert set(PEERS) == set(ROLES)
    for role, ours, peer in product(ROLES, ("dials", "accepts"), ROLES):
        for name in IDENTITIES[peer]:
            error = refused(folder, role, name, ours)
            expected = type(None) if peer in ALLOWED[role] else PeerNotAllowed
            assert isinstance(error, expected), (role, ours, name, error)


def test_a_role_must_be_given(home: Path) -> None:
    done = run("sign", "node8.csr")
    assert done.exit_code == 2
    assert "Missing option '--role'" in done.output
    assert not (home / "certs/node8.pem").exists()


@pytest.mark.parametrize("name", ["scheduler", "Scheduler", "SCHEDULER", "client"])
def test_a_workers_host_cannot_have_the_name_of_a_role(home: Path, name: str) -> None:
    """Patterns match host names as well as common names."""
    request(home / "evil.csr", "worker", None, x509.DNSName("n1.lab"), x509.DNSName(name))
    for words in (
        ["issue", "worker", "n1.lab", name],
        ["issue", "worker", name, "--csr", "node8.csr"],
        ["sign", "evil.csr", "--role", "worker"],
    ):
        done = run(*words)
        assert done.exit_code == 1
        assert "is that of a role" in done.output
    good("issue", "worker", "worker")
    good("issue", "scheduler", "scheduler.lab")


WORK = """
import json, sys, operator
import distributed
import sealwire.dask_backend.preload
from distributed import Client, get_client, get_worker, secede, worker_client, wait
import numpy as np

class Counter:
    n = 0
    def add(self, by):
        self.n += by
        return self.n

def here():
    return get_worker().address

def inside(others):
    client = get_client()
    secede()
    made = [client.submit(here, workers=[each], pure=False) for each in others]
    sent = client.scatter({"key": 7})
    return client.gather(made), sent["key"].result(), client.submit(sum, [1, 2]).result()

def inside_with(others):
    with worker_client() as client:
        arrays = client.map(np.ones, [1000, 2000], workers=others[:1], pure=False)
        return float(sum(array.sum() for array in client.gather(arrays)))

said = {}
with Client(*sys.argv[1:2], timeout=30) as client:
    client.wait_for_workers(2, timeout=60)
    workers = sorted(client.scheduler_info(n_workers=-1)["workers"])
    said["submit"] = client.submit(sum, [1, 2, 3]).result()
    one = client.submit(np.arange, 100_000, workers=workers[:1])
    said["peers"] = int(client.submit(np.sum, one, workers=workers[1:]).result())
    asked = client.submit(inside, workers, workers=workers[:1])
    said["get_client"] = asked.result(timeout=30) == (workers, 7, 3)
    asked = client.submit(inside_with, workers[1:], workers=workers[:1])
    said["worker_client"] = asked.result(timeout=30)
    counter = client.submit(Counter, actor=True).result()
    said["actor"] = counter.add(2).result()
    said["run"] = len(client.run(int)) + len(client.run(int, nanny=True))
    client.scatter(list(range(10)), broadcast=True)
    client.replicate([one])
    wait(one)
    said["dealt"] = len(client.who_has([one])[one.key])
    import dask, dask.array as da
    with dask.config.set({"array.rechunk.method": "p2p"}):
        x = da.ones((400, 400), chunks=(400, 40)).rechunk((40, 400))
        said["p2p"] = float((x * 2).sum().compute())
print(json.dumps(said))
"""


def test_a_cluster_does_all_that_a_cluster_does(folder: Path, tmp_path: Path) -> None:
    """Nannies, workers among themselves, clients inside tasks, actors, P2P.

    On the workers' machine is no client's certificate.
    """
    with pytest.MonkeyPatch.context() as patch, Programs(tmp_path) as programs:
        patch.setenv("DASK_CONFIG", str(folder / "dask.yaml"))
        _, address = programs.scheduler("tls", *PRELOAD)
        patch.setenv("DASK_DISTRIBUTED__COMM__TLS__CLIENT__CERT", str(tmp_path / "none.pem"))
        for name in ("worker-n1.lab", "worker-10.0.0.7"):
            patch.setenv("DASK_DISTRIBUTED__COMM__TLS__WORKER__CERT", str(folder / f"{name}.pem"))
            programs.worker(address, "--nworkers", "1", *PRELOAD)
        patch.delenv("DASK_DISTRIBUTED__COMM__TLS__CLIENT__CERT")
        done = subprocess.run(
            [sys.executable, "-c", WORK, address],
            env=dict(os.environ),
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr + "".join(
            line for program in programs.started for line in program.output
        )
    assert json.loads(done.stdout.splitlines()[-1]) == {
        "submit": 6,
        "peers": sum(range(100_000)),
        "get_client": True,
        "worker_client": 3000.0,
        "actor": 2,
        "run": 4,
        "dealt": 2,
        "p2p": 320_000.0,
    }
