"""Creates a new folder of certificates: the CA, an identity per role, and the configuration."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from pathlib import Path

from cryptography import x509

from ..config import PRELOAD, PROCESSES
from ..errors import AuthorityError
from ..security import ROLES
from ..x509.templates import now
from .atomic_files import Write
from .authority import Authority
from .crl import updated
from .folder import Folder
from .journal import JOURNAL, Journal
from .store import CONFIG, CRL, KEYS, TRUST

__all__ = ["PEERS", "configuration", "must_be_nameable", "new_store"]

#: The roles that each role talks to. A client reaches workers through the scheduler. A nanny has
#: its worker's certificate, and so have the clients that tasks get of the worker.
PEERS = {
    "client": ("scheduler",),
    "scheduler": ("client", "worker"),
    "worker": ("scheduler", "worker"),
}

_PLAIN = re.compile(r"[A-Za-z/][A-Za-z0-9/._-]*")


def new_store(
    place: Path | Folder,
    *,
    name: str = "sealwire CA",
    kind: str = "p256",
    ca_days: float = 3650,
    days: float = 365,
    permitted: Iterable[str] = (),
    password: bytes | None = None,
    seen_at: str | None = None,
) -> list[Write]:
    """Return the writes that create a folder of certificates.

    `days` are those of the identities. `password` encrypts the CA's key. `seen_at` is the path
    under which the processes will see the folder, if different. Raises `AuthorityError` if a file
    exists already, and for an unusable name, kind, number of days or domain.
    """
    folder = place if isinstance(place, Folder) else Folder(place)
    at = seen_at or os.path.abspath(folder.path)
    files = [TRUST, KEYS, CRL, JOURNAL, CONFIG, *(f"{role}.pem" for role in ROLES)]
    there = [file for file in files if folder.exists() and folder.has(file)]
    if there:
        raise AuthorityError(
            f"cannot make certificates in {folder.path}: there is {', '.join(there)} already; "
            "name another folder, or look at this one with: "
            f"sealwire certs check {folder.path}"
        )
    authority = Authority.create(name, kind=kind, days=ca_days, permitted=permitted)
    journal = Journal(folder)
    records, identities = [], []

    def write(name: str, text: str, words: str, *, private: bool = False) -> Write:
        path = folder.path / name
        return Write(path, text, words, private=private, new=True, folder=folder)

    latest = now()
    for role in ROLES:
        identity = authority.issue(role, days=days, kind=kind)
        name = f"{role}.pem"
        certificate = x509.load_pem_x509_certificate(identity.certificate.encode())
        latest = max(latest, certificate.not_valid_after_utc)
        records.append(journal.issue(certificate, authority.parsed, folder.path / name))
        text = identity.certificate + identity.key
        words = f"the {role}'s certificate and key"
        identities.append(write(name, text, words, private=True))
    crl = updated([], [authority], [], {}, latest)
    assert crl is not None, "a new CA has no list yet"
    return [
        write(KEYS, authority.key(password), "the CA's private key", private=True),
        write(TRUST, authority.certificate, "the CA, whom everybody trusts"),
        write(CRL, crl, "revoked certificates: none yet"),
        *journal.write(records),
        *identities,
        write(CONFIG, configuration(at), "configuration for Dask"),
    ]


def must_be_nameable(folder: str) -> None:
    """Raise `AuthorityError` for a folder that no configuration can name."""
    if "\n" in folder or "\r" in folder:
        why = "has a line end, so that it would be taken for PEM text"
    elif any("\ud800" <= character <= "\udfff" for character in folder):
        why = "has bytes that are no UTF-8"
    else:
        return
    raise AuthorityError(
        f"cannot name {folder!r} in {CONFIG}: its path {why}; give the folder another name"
    )


def configuration(at: str) -> str:
    """Return the text of a `dask.yaml` for certificates in the folder `at`.

    Raises `AuthorityError` if it cannot be named in one.
    """
    must_be_nameable(at)
    lines = [
        "# For Dask and sealwire: name this file in the variable DASK_CONFIG, or copy it to",
        "# ~/.config/dask/. Changed certificates are used without a restart.",
        "distributed:",
        "  comm:",
        "    require-encryption: true",
        "    default-scheme: tls",
        "    tls:",
        f"      ca-file: {_quoted(at, TRUST)}",
    ]
    for role in ROLES:
        lines += [f"      {role}:", f"        cert: {_quoted(at, f'{role}.pem')}"]
    lines.append("  # What is configured under sealwire holds in processes that load this module.")
    for process in PROCESSES:
        lines += [f"  {process}:", f"    preload: [{PRELOAD}]"]
    lines += [
        "sealwire:",
        "  tls:",
        f"    crl-file: {_quoted(at, CRL)}",
        "    # Whom each role talks to, by the common names of certificates. A client that is to",
        "    # reach workers directly (direct_to_workers) stands in their list, and they in its.",
        "    allowed-peers:",
    ]
    lines += [f"      {role}: [{', '.join(PEERS[role])}]" for role in ROLES]
    return "\n".join([*lines, ""])


def _quoted(folder: str, name: str) -> str:
    """Return a path as a single-quoted YAML scalar, in which only the quote is special.

    But for control characters, which need escapes.
    """
    path = f"{folder.rstrip('/')}/{name}" if "/" in folder else os.path.join(folder, name)
    if any(character < " " for character in path):
        return json.dumps(path)
    return path if _PLAIN.fullmatch(path) else "'" + path.replace("'", "''") + "'"
