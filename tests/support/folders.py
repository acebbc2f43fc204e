"""Folders of certificates, made as `sealwire certs` makes them."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from sealwire.security import Security
from sealwire.security.ca.atomic_files import apply
from sealwire.security.ca.bootstrap import new_store
from sealwire.security.ca.renewal import renew
from sealwire.security.ca.store import Store
from sealwire.security.pem import blocks
from support.handshakes import client_context, server_context, shake
from support.once import once

ROLES = ("client", "scheduler", "worker")
DAY = datetime.timedelta(days=1)
MONTH = 30 * DAY


def now() -> datetime.datetime:
    return datetime.datetime.now(datetime.timezone.utc)


def found(folder: Path, **options: Any) -> Path:
    """A new folder, as `sealwire certs init`."""
    folder.mkdir(mode=0o700, exist_ok=True)
    apply(new_store(folder, **options))
    return folder


def found_of_rsa(factory: pytest.TempPathFactory) -> Path:
    """A folder whose keys are RSA, for hosts of lab.example; made once in a run, and only read."""

    def make(folder: Path) -> None:
        found(folder / "certs", kind="rsa3072", permitted=["lab.example", "10.0.0.0/8"])
        issue(folder / "certs", "node7", "node7.lab.example")

    return once(factory, "rsa", make) / "certs"


def issue(folder: Path, name: str, *hosts: str, days: float = 365) -> Path:
    """One more identity in a folder, as `sealwire certs issue worker --out`."""
    path = folder / f"{name}.pem"
    apply(Store(folder).issue("worker", hosts, (), days=days, path=path)[2])
    return path


def certificates(path: Path) -> list[x509.Certificate]:
    return x509.load_pem_x509_certificates(path.read_bytes())


def certificate(path: Path) -> x509.Certificate:
    return certificates(path)[0]


def key(path: Path) -> str:
    """The private key in a file."""
    (only,) = [block.text for block in blocks(path.read_text()) if block.is_private_key]
    return only


def lists(folder: Path) -> list[x509.CertificateRevocationList]:
    texts = [block.text for block in blocks((folder / "crl.pem").read_text())]
    return [x509.load_pem_x509_crl(text.encode()) for text in texts]


def revoked(folder: Path) -> set[int]:
    """The serials in all lists of a folder."""
    return {entry.serial_number for crl in lists(folder) for entry in crl}


def sides(folder: Path, worker: str = "worker") -> Security:
    return Security(
        tls_ca_file=folder / "ca.pem",
        tls_crl_file=folder / "crl.pem",
        tls_worker_cert=folder / f"{worker}.pem",
        tls_scheduler_cert=folder / "scheduler.pem",
    )


def meet(folder: Path, worker: str = "worker") -> bool:
    """Whether a worker and the scheduler of a folder accept each other."""
    both = sides(folder, worker)
    return shake(server_context(both), client_context(both)).accepted


def statuses(folder: Path, within: datetime.timedelta | None = None, *names: str) -> dict[str, str]:
    """Renew, and what came of each."""
    store = Store(folder)
    chosen = [store.find(name) for name in names] or None
    results, writes = renew(store, chosen, within=within)
    apply(writes)
    return {each.path.stem: each.status for each in results}
