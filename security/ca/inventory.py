"""What a CA has issued, a line for each certificate, and who is revoked: told, not judged.

Everything here is only read, so that it works on a copy of the folder as well, without the CA's key
and as far as the copy goes.
"""

from __future__ import annotations

import datetime
import os
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509

from ..errors import SecurityError
from ..security import ROLES
from ..x509 import keys
from ..x509.certinfo import CertificateInfo
from ..x509.templates import now
from .crl import read_lists, reason_of
from .folder import Folder
from .journal import JOINED, Journal, Record
from .store import CRL, Store

__all__ = ["Entry", "Revocation", "Revocations", "inventory"]


@dataclass(frozen=True)
class Revocation:
    """One revoked certificate; `subject` and `file` are "" where only the list knows of it."""

    serial: int
    when: datetime.datetime
    reason: str
    subject: str = ""
    file: str = ""


class Revocations:
    """Who is revoked by the lists and journals of folders; nobody where there is neither.

    A list is taken at its word: whether its CA has signed it, `check` says.
    """

    def __init__(self, *folders: Folder) -> None:
        self._found: dict[tuple[str | None, int], Revocation] = {}
        for folder in folders:
            self._read(folder)

    def _read(self, folder: Folder) -> None:
        try:
            records = Journal(folder).records
        except (SecurityError, OSError):
            records = []
        try:
            lists = read_lists(folder.text(CRL))
        except (SecurityError, OSError):
            lists = []
        known = {each.serial: (each.subject, each.file) for each in records}
        for crl in lists:
            issuer = crl.issuer.rfc4514_string()
            for entry in crl:
                serial, when = entry.serial_number, entry.revocation_date_utc
                about = known.get(serial, ("", ""))
                found = Revocation(serial, when, reason_of(entry), *about)
                self._found.setdefault((issuer, serial), found)
        for record in records:
            if record.event == "revoked":
                about = record.subject, record.file
                found = Revocation(record.serial, record.time, record.detail, *about)
                self._found.setdefault((None, record.serial), found)

    def of(self, issuer: str, serial: int) -> Revocation | None:
        """Return the revocation of a certificate, by the name of its issuer and its serial."""
        return self._found.get((issuer, serial)) or self._found.get((None, serial))


@dataclass(frozen=True)
class Entry:
    """One certificate, or a file that should have one and is `damaged`.

    `place` is `here`, `elsewhere` (written to another folder, and there), `joined` (given for a
    token, and in memory or on another machine) or `gone` (there no more, or only shown when it was
    issued). What a certificate alone can say is empty where it is not at hand.
    """

    name: str
    file: str
    place: str
    role: str = ""
    node: str = ""
    names: tuple[str, ...] = ()
    serial: int | None = None
    until: datetime.datetime | None = None
    revoked: Revocation | None = None
    damaged: str = ""

    @property
    def status(self) -> str:
        """`valid`, `expired`, `not yet valid`, `revoked` or `damaged`."""
        if self.damaged:
            return "damaged"
        if self.revoked is not None:
            return "revoked"
        return "expired" if self.until is not None and self.until < now() else "valid"


def inventory(store: Store) -> list[Entry]:
    """List the CAs, the identities in the folder, and what is valid and was issued elsewhere."""
    revocations = Revocations(store.folder)
    cas = [_entry(store.path / "ca.pem", each, "here", revocations) for each in store.trusted]
    found: list[Entry] = []
    here = set()
    for held in store.identities():
        here.add(held.path.name)
        found.append(_entry(held.path, held.certificate, "here", revocations))
    for path, why in store.damaged():
        here.add(path.name)
        known = store.journal.files().get(path.name)
        role = _role(known.subject) if known else ""
        found.append(Entry(path.stem, str(path), "here", role, damaged=why.partition("; ")[0]))
    last = {record.file if record.file != "-" else record.serial: record
            for record in store.journal.issued()}  # fmt: skip
    trusted = {keys.identifier(keys.public_of(each)) for each in store.trusted}
    elsewhere = [
        _recorded(store, record, revocations)
        for record in last.values()
        if record.file not in here and record.until > now() and record.issuer in trusted
    ]
    return [*cas, *sorted(found, key=lambda entry: entry.name), *elsewhere]


def _entry(
    path: Path, certificate: x509.Certificate, place: str, revocations: Revocations
) -> Entry:
    info = CertificateInfo.of(certificate)
    role = "CA" if info.is_ca else info.common_name if info.common_name in ROLES else ""
    return Entry(
        name=path.stem,
        file=str(path),
        place=place,
        role=role,
        node=info.common_name if info.is_ca else info.node,
        names=info.names,
        serial=info.serial,
        until=info.not_after,
        revoked=revocations.of(info.issuer, info.serial),
    )


def _role(subject: str) -> str:
    """Return the role in a subject as the journal writes it."""
    name = subject.partition(",")[0].removeprefix("CN=")
    return name if name in ROLES else ""


def _recorded(store: Store, record: Record, revocations: Revocations) -> Entry:
    """Return the entry of a certificate that only the journal, or a file elsewhere, has."""
    path = store.path / record.file
    place = "joined" if record.file.startswith(f"{JOINED}/") else "gone"
    if record.file != "-" and os.path.lexists(path):
        place = "elsewhere"
    return Entry(
        name=path.stem if path.parent == store.path else record.file,
        file=record.file,
        place=place,
        role=_role(record.subject),
        node=record.subject.partition(",")[2].removeprefix("CN="),
        serial=record.serial,
        until=record.until,
        revoked=revocations.of("", record.serial),
    )
