"""openssl (the command) and trustme make certificates for us, and take ours."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
import trustme
from cryptography import x509

from sealwire.security import Security
from sealwire.security.ca.atomic_files import apply
from sealwire.security.ca.renewal import renew, revoke
from sealwire.security.ca.rotation import begin
from sealwire.security.ca.store import Store
from sealwire.security.checks.runner import check_configuration
from sealwire.security.config import KEYS
from support import folders
from support.handshakes import client_context, server_context, shake

ROLES = ("client", "scheduler", "worker")
KINDS = ("p256", "rsa3072")
# As a cluster's processes judge, and as the strictest do.
VERIFY = ["verify", "-x509_strict", "-check_ss_sig", "-no-CApath", "-no-CAstore"]


def openssl(*arguments: str | Path, cwd: Path, code: int = 0) -> str:
    done = subprocess.run(
        ["openssl", *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def values(ca: Path, identity: Path, **more: Any) -> dict[str, Any]:
    """A configuration in which every role has this identity."""
    fields: dict[str, Any] = dict.fromkeys(KEYS)
    fields.update({f"tls_{role}_cert": str(identity) for role in ROLES})
    return {**fields, "tls_ca_file": str(ca), "require_encryption": True, **more}


def meet(fields: dict[str, Any]) -> bool:
    sides = Security(**fields)
    return shake(server_context(sides, "scheduler"), client_context(sides, "worker")).accepted


@pytest.mark.parametrize("kind", KINDS)
def test_openssl_verifies_ours(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, kind: str
) -> None:
    if kind == "p256":
        folder = folders.found(tmp_path / "certs", permitted=["lab.example"])
        folders.issue(folder, "node7", "node7.lab.example")
    else:
        folder = folders.found_of_rsa(tmp_path_factory)
    certificates = [folder / f"{name}.pem" for name in (*ROLES, "node7")]
    for purpose in ("sslserver", "sslclient"):
        command = [*VERIFY, "-CAfile", "ca.pem", "-purpose", purpose, *certificates]
        said = openssl(*command, cwd=folder).splitlines()
        assert said == [f"{certificate}: OK" for certificate in certificates]
    for certificate in certificates:
        text = openssl("pkey", "-in", certificate, "-check", "-noout", cwd=folder)
        assert "valid" in text


def test_openssl_reads_our_lists(tmp_path: Path) -> None:
    folder = folders.found(tmp_path / "certs")
    folders.issue(folder, "out")
    apply(revoke(Store(folder), "out", "keyCompromise")[1])
    apply(begin(Store(folder)))  # two CAs, two lists
    command = [*VERIFY, "-CAfile", "ca.pem", "-crl_check", "-CRLfile", "crl.pem"]
    assert "OK" in openssl(*command, "worker.pem", cwd=folder)
    assert "certificate revoked" in openssl(*command, "out.pem", cwd=folder, code=2)
    apply(renew(Store(folder))[1])
    for role in ROLES:
        assert "OK" in openssl(*command, f"{role}.pem", cwd=folder)
    text = openssl("crl", "-in", "crl.pem", "-CAfile", "ca.pem", "-noout", "-text", cwd=folder)
    assert "verify OK" in text


def test_openssl_asks_and_we_sign(tmp_path: Path) -> None:
    folder = folders.found(tmp_path / "certs")
    openssl(
        "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
        "-keyout", "node8-key.pem", "-out", "node8.csr", "-subj", "/CN=worker",
        "-addext", "subjectAltName=DNS:node8.lab,IP:10.0.0.8", cwd=folder,
    )  # fmt: skip
    request = x509.load_pem_x509_csr((folder / "node8.csr").read_bytes())
    path = folder / "node8.pem"
    options: Any = {"days": 9, "path": path, "request": request, "own_names": True}
    apply(Store(folder).issue("", [], [], **options)[2])
    assert "OK" in openssl(*VERIFY, "-CAfile", "ca.pem", "node8.pem", cwd=folder)
    key = {f"tls_{role}_key": str(folder / "node8-key.pem") for role in ROLES}
    fields = values(folder / "ca.pem", path, **key)
    found = check_configuration(fields, soon=folders.DAY)
    assert {each.code for each in found} == {"wrong-role"}
    assert meet(fields)


@pytest.mark.parametrize("kind", ["rsa:2048", "ec"])
def test_a_ca_of_openssl_serves_us(tmp_path: Path, kind: str) -> None:
    """Made as the manuals show it: `req -x509`, then `x509 -req`, with no extensions at all."""
    new = ["-newkey", kind, "-nodes"]
    if kind == "ec":
        new += ["-pkeyopt", "ec_paramgen_curve:P-256"]
    ca = ["-keyout", "ca-key.pem", "-out", "ca.pem", "-subj", "/CN=openssl CA", "-days", "100"]
    openssl("req", "-x509", *new, *ca, cwd=tmp_path)
    request = ["-keyout", "worker-key.pem", "-out", "worker.csr", "-subj", "/CN=worker"]
    openssl("req", "-new", *new, *request, cwd=tmp_path)
    sign = ["-CA", "ca.pem", "-CAkey", "ca-key.pem", "-CAcreateserial", "-days", "90"]
    openssl("x509", "-req", "-in", "worker.csr", *sign, "-out", "worker.pem", cwd=tmp_path)
    key = {f"tls_{role}_key": str(tmp_path / "worker-key.pem") for role in ROLES}
    fields = values(tmp_path / "ca.pem", tmp_path / "worker.pem", **key)
    assert {each.code for each in check_configuration(fields)} == {"wrong-role"}
    assert meet(fields)


def test_trustme_and_we_take_each_others(tmp_path: Path) -> None:
    ca = trustme.CA()
    leaf = ca.issue_cert("node7.lab", common_name="worker")
    (tmp_path / "ca.pem").write_bytes(ca.cert_pem.bytes())
    leaf.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "worker.pem"))
    (tmp_path / "worker.pem").chmod(0o600)
    fields = values(tmp_path / "ca.pem", tmp_path / "worker.pem")
    assert meet(fields)
    assert {each.code for each in check_configuration(fields)} == {"wrong-role"}

    folder = folders.found(tmp_path / "certs")
    theirs = trustme.CA.from_pem(
        (folder / "ca.pem").read_bytes(), folders.key(folder / "ca-key.pem").encode()
    )
    made = theirs.issue_cert("node8.lab")
    made.private_key_and_cert_chain_pem.write_to_path(str(folder / "node8.pem"))
    ours = Security(
        tls_ca_file=folder / "ca.pem",
        tls_scheduler_cert=folder / "scheduler.pem",
        tls_worker_cert=folder / "node8.pem",
    )
    assert shake(server_context(ours), client_context(ours)).accepted
