"""Folders of certificates, made as `sealwire certs` makes them."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

from cryptography import x509

from sealwire.security.ca.atomic_files import apply
from sealwire.security.ca.bootstrap import new_store
from sealwire.security.ca.store import Store
from sealwire.security.pem import blocks

DAY = datetime.timedelta(days=1)


def now() -> datetime.datetime:
    return datetime.datetime.now(datetime.timezone.utc)


def found(folder: Path, **options: Any) -> Path:
    """A new folder, as `sealwire certs init`."""
    folder.mkdir(mode=0o700, exist_ok=True)
    apply(new_store(folder, **options))
    return folder


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
