"""The node's name in a certificate: peers of every kind take it, and judge by the role."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from sealwire.security import Security, config
from sealwire.security.x509.certinfo import CertificateInfo
from support import folders
from support.certs_cli import good, run, told
from support.handshakes import client_context, server_context, shake

BOUNDS = {
    "none": [],
    "a domain": ["--name-constraint", "lab.example"],
    "a network": ["--name-constraint", "10.0.0.0/8"],
    "both": ["--name-constraint", "lab.example", "--name-constraint", "10.0.0.0/8"],
}
NAMES = [
    ["n1.lab.example"],
    ["10.0.0.7"],
    ["10.0.0.7", "n1.lab.example"],
    ["--name", "alice@elsewhere.example"],
    ["--name", "rack 3"],
    ["--name", "node7"],
    [],
]


@pytest.mark.parametrize("bounds", BOUNDS)
def test_every_name_that_is_issued_is_accepted(home: Path, bounds: str) -> None:
    """By OpenSSL itself, which holds common names to the bounds of a CA, and by our contexts."""
    good("init", "bound", *BOUNDS[bounds])
    paths = [home / f"{number}.pem" for number in range(len(NAMES))]
    allowed = config.read(str(home / "bound/dask.yaml"))["tls_allowed_peers"]
    for names, path in zip(NAMES, paths, strict=True):
        good("issue", "worker", *names, "--dir", "bound", "--out", str(path))
    verified = subprocess.run(
        ["openssl", "verify", "-x509_strict", "-CAfile", "bound/ca.pem", *map(str, paths)],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert verified.stdout.splitlines() == [f"{path}: OK" for path in paths], verified.stderr
    for names, path in zip(NAMES, paths, strict=True):
        sides = Security(
            tls_ca_file=home / "bound/ca.pem",
            tls_worker_cert=path,
            tls_scheduler_cert=home / "bound/scheduler.pem",
            tls_allowed_peers=allowed,
        )
        assert shake(server_context(sides), client_context(sides)).accepted, names


@pytest.mark.parametrize("name", ["n1.elsewhere.example", "10.0.0.7", "lab.example.org"])
def test_a_name_beyond_the_bounds_is_not_issued(home: Path, name: str) -> None:
    good("init", "bound", *BOUNDS["a domain"])
    done = run("issue", "worker", "--name", name, "--dir", "bound", "--out", "made.pem")
    assert done.exit_code == 1
    assert "is outside the names that the CA may sign for" in done.output
    good("issue", "worker", "--name", "n1.lab.example", "--dir", "bound", "--out", "made.pem")
    assert CertificateInfo.of(folders.certificate(home / "made.pem")).node == "n1.lab.example"


def test_a_nodes_name_is_no_role(home: Path) -> None:
    """Whoever is a client stays one, whatever the node is called."""
    good("issue", "client", "scheduler-7.lab", "--out", "made.pem")
    allowed = config.read(str(home / "certs/dask.yaml"))["tls_allowed_peers"]
    for role, accepted in (("scheduler", True), ("worker", False)):
        sides = Security(
            tls_ca_file=home / "certs/ca.pem",
            tls_client_cert=home / "made.pem",
            **{f"tls_{role}_cert": home / f"certs/{role}.pem"},
            tls_allowed_peers={role: allowed[role]},
        )
        server = sides.get_listen_args(role)["ssl_context"]
        client = sides.get_connection_args("client")["ssl_context"]
        assert shake(server, client).accepted == accepted


@pytest.mark.parametrize("named", [[], ["node8"], ["worker"]])
def test_a_folder_whose_key_is_on_its_machine_already(home: Path, named: list[str]) -> None:
    """Nobody may think that it is complete."""
    good("sign", "node8.csr", "--role", "worker")
    said = told("pack", *named, "--to", "deploy")
    without = [] if named == ["worker"] else ["deploy/node8.lab/worker.pem"]
    assert said["without_key"] == without
    output = good("pack", *named, "--to", "deploy")
    assert output.count("has no private key") == len(without)
    assert output.count("distributed.comm.tls.worker.key") == len(without)
