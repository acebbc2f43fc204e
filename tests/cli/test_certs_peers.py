"""The allow-list in the dask.yaml of `certs init`: what a cluster needs works, and nothing else."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from sealwire.security import PeerNotAllowed, Security, config
from sealwire.security.ca.bootstrap import PEERS
from sealwire.security.checks.selftest import refusal
from support.certs_cli import ROLES, good, request, run

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


def refused(one: Security, folder: Path, role: str, name: str, ours: str) -> Any:
    """What comes of a handshake of a process of `role`, as configured, and a peer with a file."""
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
    one = Security(**config.read(str(folder / "dask.yaml")))
    for role, ours, peer in product(ROLES, ("dials", "accepts"), ROLES):
        for name in IDENTITIES[peer]:
            error = refused(one, folder, role, name, ours)
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
