"""An authority's journal: one line for each certificate issued or revoked, append-only.

Seven columns separated by tabs, for people and for `grep`:

    time, `issued` or `revoked`, serial, issuer's key, end of validity or reason, subject, file

The CRL is derived from it, so losing the CRL's file un-revokes nothing.
"""

from __future__ import annotations

import datetime
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509

from ..errors import AuthorityError, PEMNotFound
from ..x509 import keys
from ..x509.certinfo import hexadecimal
from ..x509.names import common_name, node_name
from ..x509.templates import now
from .atomic_files import Write
from .folder import Folder

__all__ = ["JOINED", "JOURNAL", "SERVICE", "Journal", "Record", "time_of"]

JOURNAL = "journal.tsv"
#: in the names of what was given to those who joined: it is in memory, or on other machines
JOINED = "joined"
SERVICE = f"{JOINED}/authority"  # the own certificate of `certs serve`, which is in no file

_HEADING = "# time\tevent\tserial\tissuer\tuntil or reason\tsubject\tfile\n"
_FORMAT = "%Y-%m-%dT%H:%M:%SZ"
_WRITTEN = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z")


@dataclass(frozen=True)
class Record:
    """One line. `detail` is the end of validity for `issued`, the reason for `revoked`."""

    time: datetime.datetime
    event: str
    serial: int
    issuer: str
    detail: str
    subject: str
    file: str

    @property
    def until(self) -> datetime.datetime:
        """End of validity of an issued certificate."""
        return time_of(self.detail)

    def line(self) -> str:
        """Return the line, with its newline."""
        columns = (self.time.strftime(_FORMAT), self.event, hexadecimal(self.serial), self.issuer)
        rest = (self.detail, self.subject, self.file)
        return "\t".join(re.sub(r"[\t\r\n]", " ", text) for text in (*columns, *rest)) + "\n"


class Journal:
    """The journal of one authority; empty if the folder has none.

    Its columns are only text: no path in it is ever opened. Raises `PEMError` if the file cannot be
    read, and `AuthorityError` for a revocation whose certificate cannot be identified.
    """

    def __init__(self, folder: Folder) -> None:
        self.folder = folder
        self.path = folder.path / JOURNAL
        try:
            text = folder.read(JOURNAL).decode("utf-8", "replace") if folder.exists() else ""
        except PEMNotFound:
            text = ""
        self._empty = not text
        self.records = list(_parsed(text.split("\n"), self.path))

    def issued(self) -> list[Record]:
        """Return the issued certificates, in order."""
        return [record for record in self.records if record.event == "issued"]

    def revoked(self) -> dict[int, Record]:
        """Return the first revocation of each serial number."""
        found: dict[int, Record] = {}
        for record in self.records:
            if record.event == "revoked":
                found.setdefault(record.serial, record)
        return found

    def files(self) -> dict[str, Record]:
        """Return what was last issued into each file, by the file's name in the journal."""
        return {record.file: record for record in self.issued() if record.file != "-"}

    def named(self, what: str) -> list[str]:
        """Return the files in the journal that a name or path may mean, also if they are gone."""
        known = list(self.files())
        paths = (self.name(Path(f"{what}{ending}")) for ending in ("", ".pem"))
        meant = {what, f"{what}.pem", *paths}
        exact = [each for each in known if each in meant]
        return exact or [each for each in known if what in (Path(each).stem, Path(each).name)]

    def issue(
        self, certificate: x509.Certificate, issuer: x509.Certificate, path: Path | None
    ) -> Record:
        """Return the record of a certificate written to `path`, or printed if that is None."""
        return Record(
            now(),
            "issued",
            certificate.serial_number,
            keys.identifier(issuer.public_key()),
            certificate.not_valid_after_utc.strftime(_FORMAT),
            ",".join(f"CN={each}" for each in _names(certificate.subject)),
            self.name(path) if path else "-",
        )

    def revoke(self, serial: int, issuer: str, reason: str, subject: str, file: str) -> Record:
        """Return the record of a revocation, at the current time."""
        return Record(now(), "revoked", serial, issuer, reason, subject, file)

    def name(self, path: Path) -> str:
        """Return a path as the journal has it: relative to its folder where possible."""
        full, home = os.path.abspath(path), os.path.abspath(self.path.parent)
        return os.path.relpath(full, home) if full.startswith(home + os.sep) else full

    def parse(self, line: str) -> Record | None:
        """Return the record in a line; None if it has none. Raises as reading the file does."""
        return next(_parsed([line], self.path), None)

    def take(self, record: Record) -> None:
        """Take in a record that the file has by now."""
        self._empty = False
        self.records.append(record)

    def write(self, records: Iterable[Record]) -> list[Write]:
        """Return the writes that append records; none for no records."""
        text = "".join(record.line() for record in records)
        if not text:
            return []
        text = (_HEADING if self._empty else "") + text
        words = "what was issued and revoked"
        return [Write(self.path, text, words, append=True, folder=self.folder)]


def _names(subject: x509.Name) -> list[str]:
    node = node_name(subject)
    return [common_name(subject), *([node] if node else [])]


def time_of(text: str) -> datetime.datetime:
    """Return the time in a line. Raises ValueError for anything else."""
    if _WRITTEN.fullmatch(text):  # as we write it; `strptime` takes twenty times as long
        found = datetime.datetime.fromisoformat(f"{text[:-1]}+00:00")  # `replace` takes five times
    else:
        found = datetime.datetime.strptime(text, _FORMAT).replace(tzinfo=datetime.timezone.utc)
    if found.year < 1950:  # no certificate or CRL can have such a time
        raise ValueError(text)
    return found


def _parsed(lines: Iterable[str], path: Path) -> Iterator[Record]:
    """Yield the records of complete lines; one cut off by a crash is of a command that failed."""
    for number, line in enumerate(lines, 1):
        columns = line.split("\t")
        if len(columns) != 7 or line.startswith("#"):
            continue
        when, event, serial, issuer, detail, subject, file = columns
        try:
            record = Record(time_of(when), event, _serial(serial), issuer, detail, subject, file)
            if event == "issued":
                time_of(detail)
        except ValueError as error:
            if event != "revoked":
                continue
            raise AuthorityError(
                f"cannot use {path}: line {number} is a revocation, and its time or serial is "
                "damaged; correct it, or take the file from a copy"
            ) from error
        yield record


def _serial(text: str) -> int:
    """Parse a certificate's serial number. Raises ValueError for anything else."""
    if not re.fullmatch(r"[0-9A-Fa-f]{1,40}", text) or not 0 < int(text, 16) < 1 << 159:
        raise ValueError(text)
    return int(text, 16)
