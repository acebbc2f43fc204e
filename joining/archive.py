"""Lines of journal and ledger that decide nothing any more are moved to files of their month.

A process that renews for a year leaves thousands of lines, and whoever opens the CA's folder reads
all of them. So the service moves what is over to `journal-2025-11.tsv` and `tokens-2025-11.tsv`,
which nothing reads: they are for people, who may compress or delete them.

What is moved is first appended there and then, by one rename, no longer here. A crash in between
leaves a line in both, and loses none.

What stays is chosen so that a clock that was ahead for a while does no harm: of each identity that
joined the last certificate, for a month after its end, the others for a day; whatever has to do
with a revocation; and all lines of tokens that have been over for less than a month. If these are
too many, since certificates last minutes or thousands of pods come and go, they stay less long: a
file that nobody can read any more would do more harm. A token that is not in the ledger is refused,
so that an old one is never revived by this.
"""

from __future__ import annotations

import datetime
import logging
from collections.abc import Callable, Collection, Iterable

from sealwire.security.ca.atomic_files import Write
from sealwire.security.ca.folder import LARGEST, Folder
from sealwire.security.ca.journal import JOINED, JOURNAL, Journal, Record
from sealwire.security.x509.templates import now

from .ledger import LEDGER, Grant, Ledger
from .requests import key_in

__all__ = ["LEAST", "of_journal", "of_ledger"]

logger = logging.getLogger("sealwire.joining")

#: lines from which on it is looked what can be moved: of 150 bytes, so that reading takes a moment
LEAST = 10_000
MOST = 50_000  # lines that may stay, before they stay less long
_ALARMING = 100_000  # lines: with 300,000 or more the file is too large to be read

_HOUR, _DAY = datetime.timedelta(hours=1), datetime.timedelta(days=1)
#: how long the last certificate of an identity, and the others, stay after their end
_STAY = ((30 * _DAY, _DAY), (_DAY, _HOUR), (_HOUR, datetime.timedelta(0)))


def of_journal(journal: Journal, revoked: Collection[str | int]) -> list[Write]:
    """Return the writes that move the certificates of joined processes that are over.

    `revoked` are serial numbers, and the keys in names of the journal. None if nothing is over.
    """
    last = {record.file: record.serial for record in journal.issued()}
    present = now()

    def is_over(record: Record, stays: tuple[datetime.timedelta, ...]) -> bool:
        name = record.file
        if record.event != "issued" or not name.startswith(f"{JOINED}/"):
            return False
        if record.serial in revoked or key_in(name) in revoked:
            return False
        return record.until + stays[last.get(name) != record.serial] < present

    for stays in _STAY:
        left = sum(not is_over(record, stays) for record in journal.records)
        if left <= MOST:
            break
    _warn_if_many(left, JOURNAL, "give the tokens a longer --lifetime")
    if left == len(journal.records):
        return []

    def moves(line: str) -> bool:
        record = journal.parse(line)
        return record is not None and is_over(record, stays)

    return _moved(journal.folder, JOURNAL, moves, "what was issued and revoked", private=False)


def of_ledger(ledger: Ledger) -> list[Write]:
    """Return the writes that move the lines of tokens that are over; none if there are none."""
    present, over = now(), set[str]()
    for stays, _ in _STAY:
        over = {each.id for each in ledger.grants.values() if _end(each) + stays < present}
        left = sum(2 + len(each.used) for each in ledger.grants.values() if each.id not in over)
        if left <= MOST:
            break
    _warn_if_many(left, LEDGER, "make new tokens, and revoke those that were used the most")
    if not over:
        return []

    def moves(line: str) -> bool:
        columns = line.split("\t")
        return len(columns) > 2 and not line.startswith("#") and columns[2] in over

    return _moved(ledger.folder, LEDGER, moves, "what tokens there are", private=True)


def _end(grant: Grant) -> datetime.datetime:
    """When nobody could use a token any more."""
    return min([grant.until, *(each.time for each in (grant.revoked, grant.expired) if each)])


def _warn_if_many(lines: int, name: str, remedy: str) -> None:
    if lines >= _ALARMING:
        logger.warning(
            "%s has %d lines that are needed, and cannot be read if it has more than %d MiB; %s",
            name,
            lines,
            LARGEST >> 20,
            remedy,
        )


def _moved(
    folder: Folder, name: str, moves: Callable[[str], bool], words: str, *, private: bool
) -> list[Write]:
    try:
        lines = folder.read(name).decode().split("\n")
    except UnicodeDecodeError:  # it could not be written again as it is
        return []
    kept = [line for line in lines if not moves(line)]
    gone = [line for line in lines if moves(line)]
    stem, _, suffix = name.partition(".")
    archive = f"{stem}-{now():%Y-%m}.{suffix}"
    return [
        Write(folder.path / archive, _text([*gone, ""]), f"of {words}, what is over",
              private=private, append=True, folder=folder),
        Write(folder.path / name, _text(kept), words, private=private, folder=folder),
    ]  # fmt: skip


def _text(lines: Iterable[str]) -> str:
    return "\n".join(lines)
