"""The journal of an authority: what it issued and revoked, one line each, only ever appended.

Seven columns, parted by tabs, for people and for `grep`:

    time, `issued` or `revoked`, serial, issuer's key, end of validity or reason, subject, file

It is what the CRL is made from, so that losing the CRL's file pardons nobody.
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

__all__ = ["JOURNAL", "Journal", "Record"]

JOURNAL = "journal.tsv"

_HEADING = "# time\tevent\tserial\tissuer\tuntil or reason\tsubject\tfile\n"
_FORMAT = "%Y-%m-%dT%H:%M:%SZ"


@dataclass(frozen=True)
class Record:
    """One line. `detail` is the end of validity of what was issued, the reason of a revocation."""

    time: datetime.datetime
    event: str
    serial: int
    issuer: str
    detail: str
    subject: str
    file: str

    @property
    def until(self) -> datetime.datetime:
        """The end of validity of what was issued."""
        return _time(self.detail)

    def line(self) -> str:
        """The line, with its end."""
        columns = (self.time.strftime(_FORMAT), self.event, hexadecimal(self.serial), self.issuer)
        rest = (self.detail, self.subject, self.file)
        return "\t".join(re.sub(r"[\t\r\n]", " ", text) for text in (*columns, *rest)) + "\n"


class Journal:
    """The lines of one authority's journal; a folder without one has an empty one.

    Its columns are words: no path in it is ever opened. Raises `PEMError` if the file cannot be
    read, and `AuthorityError` for a revocation in it whose certificate cannot be told.
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
        """What was issued, in order."""
        return [record for record in self.records if record.event == "issued"]

    def revoked(self) -> dict[int, Record]:
        """The first revocation of each serial."""
        found: dict[int, Record] = {}
        for record in self.records:
            if record.event == "revoked":
                found.setdefault(record.serial, record)
        return found

    def files(self) -> dict[str, Record]:
        """What was issued last into each file, by the file's name here; not what was only shown."""
        return {record.file: record for record in self.issued() if record.file != "-"}

    def named(self, what: str) -> list[str]:
        """The files, by their names here, that a name or a path may mean; it need not be there."""
        known = list(self.files())
        paths = (self.name(Path(f"{what}{ending}")) for ending in ("", ".pem"))
        meant = {what, f"{what}.pem", *paths}
        exact = [each for each in known if each in meant]
        return exact or [each for each in known if what in (Path(each).stem, Path(each).name)]

    def issue(
        self, certificate: x509.Certificate, issuer: x509.Certificate, path: Path | None
    ) -> Record:
        """The record of a certificate that is written to `path`; None if it is only shown."""
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
        """The record of a revocation, now."""
        return Record(now(), "revoked", serial, issuer, reason, subject, file)

    def name(self, path: Path) -> str:
        """A path as the journal has it: relative to its folder where it lies within."""
        full, home = os.path.abspath(path), os.path.abspath(self.path.parent)
        return os.path.relpath(full, home) if full.startswith(home + os.sep) else full

    def write(self, records: Iterable[Record]) -> list[Write]:
        """What appends records; nothing for none."""
        text = "".join(record.line() for record in records)
        if not text:
            return []
        text = (_HEADING if self._empty else "") + text
        words = "what was issued and revoked"
        return [Write(self.path, text, words, append=True, folder=self.folder)]


def _names(subject: x509.Name) -> list[str]:
    node = node_name(subject)
    return [common_name(subject), *([node] if node else [])]


def _time(text: str) -> datetime.datetime:
    found = datetime.datetime.strptime(text, _FORMAT).replace(tzinfo=datetime.timezone.utc)
    if found.year < 1950:  # before which neither certificates nor lists have a time
        raise ValueError(text)
    return found


def _parsed(lines: Iterable[str], path: Path) -> Iterator[Record]:
    """The records of whole lines: one that a crash cut off is of a command that never ended."""
    for number, line in enumerate(lines, 1):
        columns = line.split("\t")
        if len(columns) != 7 or line.startswith("#"):
            continue
        when, event, serial, issuer, detail, subject, file = columns
        try:
            record = Record(_time(when), event, _serial(serial), issuer, detail, subject, file)
            if event == "issued":
                _time(detail)
        except ValueError as error:
            if event != "revoked":
                continue
            raise AuthorityError(
                f"cannot use {path}: line {number} is a revocation, and its time or serial is "
                "damaged; correct it, or take the file from a copy"
            ) from error
        yield record


def _serial(text: str) -> int:
    """A serial number as certificates have it. Raises ValueError for anything else."""
    if not re.fullmatch(r"[0-9A-Fa-f]{1,40}", text) or not 0 < int(text, 16) < 1 << 159:
        raise ValueError(text)
    return int(text, 16)
