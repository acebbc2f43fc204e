"""The ledger of tokens: what was given out, used and revoked; append-only, beside the journal.

Ten columns separated by tabs, for people and for `grep`:

    time, event, token, key, role, uses, until, lifetime, names, about    and a dot, the end

`made` has all of them, with the public half of the token as its key: nobody can make a token, or
prove one, from it. `used` has the digest of the key that joined, the end of its certificate, its
name in the journal, and from where it came. `revoked` and `expired` have what was said.

A line is synced to disk before what it allows is done, and a use before the certificate is signed:
a token whose use was not written is unused, one whose use was written is used, by that key alone.
A line that is cut, with too few columns or the last one empty, is of a command that was killed: it
counts for nothing. A whole line that
cannot be understood stops all joining, since it may be a use or a revocation.

The clock decides what has expired. It can be set back, so that what was once refused as expired is
written down, and stays expired; and a token that was made in the future is refused.
"""

from __future__ import annotations

import base64
import binascii
import datetime
import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from sealwire.security import PEMNotFound
from sealwire.security.ca.atomic_files import Write
from sealwire.security.ca.folder import Folder
from sealwire.security.ca.journal import time_of
from sealwire.security.security import ROLES
from sealwire.security.x509.templates import now

from .errors import LedgerError
from .tokens import Token, identifier

__all__ = ["LEDGER", "Grant", "Ledger", "Line"]

LEDGER = "tokens.tsv"

_HEADING = "# time\tevent\ttoken\tkey\trole\tuses\tuntil\tlifetime\tnames\tabout\t.\n"
_FORMAT = "%Y-%m-%dT%H:%M:%SZ"
_COLUMNS = 11  # with the end
_END = "."

MOST_USES = 100_000
_SHORTEST = datetime.timedelta(minutes=1)  # of a token, and of a certificate
_LONGEST = datetime.timedelta(days=366)
_PATTERN = re.compile(r"[A-Za-z0-9_.:*?\[\]!-]{1,253}")
_KEY = re.compile(r"[0-9a-f]{64}")
_AHEAD = datetime.timedelta(minutes=5)  # how far clocks may differ
_ABOUT = 200  # characters


class Line(NamedTuple):
    """One line. What an event has no use for is empty, and "-" in the file."""

    time: datetime.datetime
    event: str
    token: str
    key: str = ""
    role: str = ""
    uses: str = ""
    until: str = ""
    lifetime: str = ""
    names: str = ""
    about: str = ""

    def text(self) -> str:
        """Return the line, with its end and newline."""
        when = self.time.strftime(_FORMAT)
        rest = (self.key, self.role, self.uses, self.until, self.lifetime, self.names, self.about)
        columns = (when, self.event, self.token, *(each or "-" for each in rest), _END)
        return "\t".join(_clean(each) for each in columns) + "\n"


@dataclass
class Grant:
    """A token as the ledger knows it.

    Attributes
    ----------
    id : str
    public : bytes
        Its public half.
    role : str
        That of the certificates it gives.
    uses : int
        How many keys may join with it.
    made, until : datetime.datetime
    lifetime : float
        Seconds that its certificates are valid.
    names : tuple of str
        Patterns, one of which each name must match.
    about : str
        What its maker noted.
    used : dict
        Digest of each key that has joined -> its line.
    revoked, expired : Line or None
    """

    id: str
    public: bytes
    role: str
    uses: int
    made: datetime.datetime
    until: datetime.datetime
    lifetime: float
    names: tuple[str, ...]
    about: str = ""
    used: dict[str, Line] = field(default_factory=dict)
    revoked: Line | None = None
    expired: Line | None = None

    @property
    def status(self) -> str:
        """`valid`, `used up`, `expired`, `revoked` or `of the future`."""
        if self.revoked is not None:
            return "revoked"
        if self.expired is not None or self.until <= now():
            return "expired"
        if self.made > now() + _AHEAD:
            return "of the future"
        return "used up" if len(self.used) >= self.uses else "valid"

    @property
    def users(self) -> str:
        """Who has used it, and from where."""
        lines = list(self.used.values())
        shown = ", ".join(f"{each.names} from {each.about}" for each in lines[:3])
        return f"{shown} and {len(lines) - 3} more" if len(lines) > 3 else shown


class Ledger:
    """The ledger in a CA's folder; empty if there is none.

    Raises `LedgerError` for a line that cannot be understood, `PEMError` if it cannot be read.
    """

    def __init__(self, folder: Folder) -> None:
        self.folder = folder
        self.path = folder.path / LEDGER
        self.grants: dict[str, Grant] = {}
        self.lifetimes: dict[str, float] = {}  # name in the journal -> seconds
        self.lines = 0
        self._read = _Read(0, 0, _digest(b""))
        self._take_from(self._data())

    def follow(self) -> bool:
        """Take in what was appended to the file; False if the rest is not what was read.

        Lines cost much more than bytes, and a cluster whose pods come and go leaves a hundred
        thousand. All bytes are looked at, since people correct lines in place.
        """
        data, read = self._data(), self._read
        if _digest(data[: read.size]) != read.digest:
            return False
        self.lines = read.lines
        self._take_from(data)
        return True

    def _data(self) -> bytes:
        try:
            return self.folder.read(LEDGER) if self.folder.exists() else b""
        except PEMNotFound:
            return b""

    def _take_from(self, data: bytes) -> None:
        """Take in the lines that were not read; the last one again, if it may not be whole yet."""
        self._empty = not data
        begin, end = self._read.size, data.rfind(b"\n") + 1
        lines = data[begin:].decode("utf-8", "replace").split("\n")
        for line in _parsed(lines, str(self.path), 1 + data.count(b"\n", 0, begin)):
            self.take(line)
        self._read = _Read(end, self.lines, _digest(data[:end]))

    def make(
        self,
        token: Token,
        role: str,
        *,
        uses: int = 1,
        expires: datetime.timedelta = datetime.timedelta(hours=1),
        lifetime: datetime.timedelta = datetime.timedelta(days=1),
        names: Sequence[str] = ("*",),
        about: str = "",
    ) -> Line:
        """Return the line of a new token. Raises `LedgerError` for what it cannot be."""
        if role not in ROLES:
            raise LedgerError(f"cannot make a token for {role!r}: roles are {', '.join(ROLES)}")
        if not 1 <= uses <= MOST_USES:
            raise LedgerError(f"cannot make a token of {uses} uses: give 1 to {MOST_USES}")
        for what, given in (("that is valid for", expires), ("whose certificates last", lifetime)):
            if not _SHORTEST <= given <= _LONGEST:
                raise LedgerError(
                    f"cannot make a token {what} {given}: give a minute to {_LONGEST.days} days"
                )
        bad = [name for name in names if not _PATTERN.fullmatch(name)]
        if bad or not names:
            raise LedgerError(
                f"cannot make a token for {bad[0] if bad else 'no'!r} names: a pattern has letters,"
                " digits and *?[]._:- only, such as *.lab.example or 10.0.0.*"
            )
        return Line(
            now(),
            "made",
            token.id,
            base64.b64encode(token.public).decode(),
            role,
            str(uses),
            (now() + expires).strftime(_FORMAT),
            str(round(lifetime.total_seconds())),
            " ".join(names),
            about[:_ABOUT],
        )

    def use(self, grant: Grant, key: str, until: datetime.datetime, name: str, peer: str) -> Line:
        """Return the line of a use by a key, for a certificate of that name in the journal."""
        ends = until.strftime(_FORMAT)
        return Line(now(), "used", grant.id, key, grant.role, "", ends, "", name, peer)

    def end(self, grant: Grant, event: str, about: str) -> Line:
        """Return the line of a token that is `revoked` or `expired`."""
        return Line(now(), event, grant.id, role=grant.role, about=about[:_ABOUT])

    def find(self, name: str) -> Grant:
        """Return the token of that name or a unique beginning of it. Raises `LedgerError`."""
        found = [each for each in self.grants.values() if name and each.id.startswith(name)]
        if len(found) != 1:
            why = f"{len(found)} tokens begin so" if found else "there is none of that name"
            raise LedgerError(
                f"cannot find the token {_clean(name)[:40]!r} in {self.path}: {why}; see: "
                "sealwire certs token --list"
            )
        return found[0]

    def write(self, lines: Iterable[Line]) -> list[Write]:
        """Return the write that appends lines."""
        text = (_HEADING if self._empty else "") + "".join(line.text() for line in lines)
        words = "what tokens there are"
        return [Write(self.path, text, words, private=True, append=True, folder=self.folder)]

    def take(self, line: Line) -> None:
        """Take in a line that the file has."""
        self._empty = False
        self.lines += 1
        if line.event == "made":
            grant = _grant(line)
            self.grants.setdefault(grant.id, grant)
            return
        known = self.grants.get(line.token)
        if known is None:  # of a ledger that was cut: nobody can use that token
            return
        if line.event == "used":
            known.used.setdefault(line.key, line)
            self.lifetimes[line.names] = known.lifetime
        elif line.event == "revoked":
            known.revoked = known.revoked or line
        elif line.event == "expired":
            known.expired = known.expired or line


def _clean(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in text)


def _grant(line: Line) -> Grant:
    public = base64.b64decode(line.key, validate=True)
    if len(public) != 32 or identifier(public) != line.token:
        raise ValueError("it has another token's key")
    if line.role not in ROLES:
        raise ValueError("there is no such role")
    return Grant(
        line.token,
        public,
        line.role,
        int(line.uses),
        line.time,
        time_of(line.until),
        float(int(line.lifetime)),
        tuple(line.names.split(" ")),
        line.about,
    )


class _Read(NamedTuple):
    """How far the file was read: bytes, lines in them, and their digest."""

    size: int
    lines: int
    digest: bytes


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def _parsed(lines: Iterable[str], path: str, first: int) -> Iterator[Line]:
    for number, text in enumerate(lines, first):
        columns = text.split("\t")
        if text.startswith("#") or len(columns) < _COLUMNS or columns[_COLUMNS - 1 :] == [""]:
            continue  # cut: nothing was done for it
        try:
            if columns[_COLUMNS - 1 :] != [_END] or columns[1] not in _EVENTS:
                raise ValueError("it is none of this release")
            when, event, token, *rest = columns[:-1]
            line = Line(
                time_of(when), event, token, *["" if each == "-" else each for each in rest]
            )
            if event == "made":
                _grant(line)
            elif event == "used" and not _KEY.fullmatch(line.key):
                raise ValueError("it names no key")
        except (ValueError, binascii.Error) as error:
            raise LedgerError(
                f"cannot use {path}: line {number} is damaged ({_clean(str(error))[:80]}), and may "
                "be a use or a revocation; correct it, or take the file from a copy"
            ) from None
        yield line


_EVENTS = frozenset({"made", "used", "revoked", "expired"})
