"""What the service decides: who may join, who may renew, and what is written before an answer.

Everything here is synchronous, for one thread, and happens under the lock of the CA's folder, so
that two services and the commands never decide at once. The folder's files are read again when they
have changed. What is written, in this order: the use of the token in the ledger, the certificate in
the journal; each is synced before what follows. A crash between them costs nothing: the same key
asks again. Only then is the answer given.

What is checked, in this order, so that a stranger costs a look-up: the token's name, the proof, the
token's state, the request, its names.
"""

from __future__ import annotations

import contextlib
import datetime
import itertools
import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from sealwire.security import AuthorityError, SecurityError
from sealwire.security.ca.atomic_files import Write, apply, locked
from sealwire.security.ca.authority import Authority
from sealwire.security.ca.folder import Folder
from sealwire.security.ca.journal import JOINED, JOURNAL, SERVICE, Journal
from sealwire.security.ca.store import CRL, KEYS, TRUST, Store
from sealwire.security.x509 import keys, names
from sealwire.security.x509.lineage import serial_in
from sealwire.security.x509.templates import BACKDATED, now

from .archive import LEAST, of_journal, of_ledger
from .errors import JoinError, Refused, Unavailable
from .given import Given, Own, Trust
from .ledger import LEDGER, Grant, Ledger, Line
from .lineages import Lineages
from .messages import AUTHORITY
from .requests import Asked, key_in, name_of, refusal, signed
from .tokens import verifies

__all__ = ["Desk", "Given", "Own", "Trust"]

logger = logging.getLogger("sealwire.joining")

_OWN = datetime.timedelta(days=7)  # validity of the service's own certificate
_KEPT = 1000  # certificates kept for those who ask again
_OFTEN, _LONGEST_WAIT = 120, 60.0  # times in a lifetime to renew at most; seconds
_PERIOD = datetime.timedelta(minutes=1)  # between two alarms about one token

_Stamp = tuple[int, int, int] | None


class Desk:
    """The CA in a folder, asked by processes that join or renew.

    Raises `SecurityError` or `JoinError` if the folder, its keys or its ledger cannot be used.
    `password` decrypts the CA's keys, and is kept: a rotation brings others.
    """

    def __init__(self, folder: Path, password: bytes | None = None) -> None:
        self._folder = Folder(folder)
        self._password = password
        self._store: Store | None = None
        self._ledger: Ledger | None = None
        self._stamps: dict[str, _Stamp] = {}
        self._keys: list[keys.PrivateKey] = []
        self._crl = ""
        self._lineages = Lineages()
        self._recent: dict[tuple[str, str], Given] = {}
        self._order: deque[tuple[str, str]] = deque()
        self._alarms: dict[str, datetime.datetime] = {}
        self._asked: dict[str, float] = {}  # key that joined -> when; the oldest first
        self._most = {JOURNAL: LEAST, LEDGER: LEAST}  # lines, before some are moved away
        Store(self._folder)  # says what is missing, before anything is made to lock it
        with self._open() as store:
            store.signer()
            self._tokens()

    # For everybody

    def trust(self) -> Trust:
        """Return the CAs and revocation lists."""
        with self._open() as store:
            return self._trusted(store)

    def own(self, before: Own | None = None) -> Own:
        """Return an identity for the service, the one of `before` as long as it is good.

        It is of the oldest CA that is valid: those who have not heard of the newer one know it.
        """
        with self._open() as store:
            signer = _oldest(store)
            der = signer.parsed.public_bytes(Encoding.DER)
            if before is not None and before.authority == der and before.lasts(_OWN / 3):
                return before
            made = signer.issue(
                AUTHORITY, days=_OWN.days, kind=keys.kind_of(signer.parsed.public_key())
            )
            certificate = x509.load_pem_x509_certificate(made.certificate.encode())
            self._record(store, certificate, signer, SERVICE)
            return Own(
                made.certificate,
                made.key,
                certificate.public_bytes(Encoding.DER),
                certificate.not_valid_before_utc,
                certificate.not_valid_after_utc,
                der,
            )

    # Joining

    def join(
        self, token: str, proof: bytes, what: bytes, request: bytes, role: str, peer: str
    ) -> Given:
        """Return what a process is given for a token, or raise `Refused`.

        `what` is what the proof must be a signature of, `request` the signing request as DER,
        `role` the one that the process expects, or "" for any. The same key may ask again.
        """
        with self._open() as store:
            ledger = self._tokens()
            grant = ledger.grants.get(token)
            if grant is None:
                raise Refused(
                    "the service knows no such token; have one made in the folder that it serves",
                    "unknown",
                )
            if not verifies(grant.public, proof, what):
                raise Refused("the token was not proved", "proof")
            self._must_be_valid(ledger, grant)
            if role and role != grant.role:
                raise Refused(
                    f"the token is for a {grant.role}, and a {role} asks; use one made for it",
                    "role",
                )
            asked = Asked(request)
            if asked.digest not in grant.used and len(grant.used) >= grant.uses:
                self._raise_alarm(grant, peer)
                raise Refused(
                    f"the token was used before, by {grant.users}, and is good for "
                    f"{_times(grant.uses)}; if that was not you, revoke it and them",
                    "used",
                )
            return self._joined(store, ledger, grant, asked, peer)

    def _joined(self, store: Store, ledger: Ledger, grant: Grant, asked: Asked, peer: str) -> Given:
        asked.must_fit(grant)
        name = asked.name(grant.role)
        if asked.short in self._lineages.revoked:
            raise Refused(f"{name} is revoked; have another token made", "revoked")
        known = self._recent.get((grant.id, asked.digest))
        trust = self._trusted(store)
        if known is not None and known.trust.signer == trust.signer and known.is_fresh:
            return replace(known, trust=trust)
        if asked.digest in grant.used:  # of many keys, each may ask for its own for ever
            self._must_wait(asked.short, grant.lifetime)
        signer = store.signer()
        # Signed before the use is written, so that a request that cannot be granted uses nothing,
        # and handed out after: nobody has seen it before both lines are on the disk.
        text = signed(signer, asked, grant)
        certificate = x509.load_pem_x509_certificate(text.encode())
        if asked.digest not in grant.used:
            until = certificate.not_valid_after_utc
            self._write(ledger, ledger.use(grant, asked.digest, until, name, peer))
        self._record(store, certificate, signer, name)
        logger.info("%s joined from %s with token %s", name, peer, grant.id)
        given = self._given(store, certificate, grant.role, grant.lifetime)
        self._keep((grant.id, asked.digest), given)
        return given

    def _must_be_valid(self, ledger: Ledger, grant: Grant) -> None:
        error = refusal(grant)
        if error is None:
            return
        if error.kind == "expired" and grant.expired is None:
            self._write(ledger, ledger.end(grant, "expired", "asked for when it was over"))
        raise error

    def _raise_alarm(self, grant: Grant, peer: str) -> None:
        last = self._alarms.get(grant.id)
        if last is not None and abs(now() - last) < _PERIOD:
            return
        self._alarms[grant.id] = now()
        logger.warning(
            "token %s was presented by %s with a key of its own, and had been used by %s: it may "
            "be stolen; if they are strangers: sealwire certs token --revoke %s, and revoke them",
            grant.id,
            peer,
            grant.users,
            grant.id,
        )

    # Renewing

    def renew(self, present: bytes, request: bytes) -> Given:
        """Return a new certificate for the holder of `present`, which TLS has verified.

        With its subject and names, for the key of `request`. Raises `Refused`.
        """
        with self._open() as store:
            old = x509.load_der_x509_certificate(present)
            name = self._lineages.names.get(old.serial_number) or name_of(old)
            if store.issuer_of(old) is None:
                raise Refused(
                    "the CA that signed the certificate is no longer trusted here", "foreign"
                )
            if name is None or not name.startswith(f"{JOINED}/"):
                raise Refused(
                    "the certificate was not given to a process that joined; "
                    "renew it where it was issued: sealwire certs renew",
                    "foreign",
                )
            if (
                key_in(name) in self._lineages.revoked
                or old.serial_number in self._lineages.revoked
            ):
                raise Refused(f"{name} is revoked", "revoked")
            if old.not_valid_after_utc < now():
                raise Refused("the certificate has expired; join again", "expired")
            asked = Asked(request)
            lifetime = self._lifetime(name, old)
            self._must_wait(key_in(name), lifetime)
            signer = store.signer()
            try:
                serial = serial_in(int(key_in(name), 16))
                public = asked.csr.public_key()
                text = signer.renew(old, public, days=lifetime / 86400, serial=serial)
            except (AuthorityError, ValueError) as error:
                raise Refused(str(error), "request") from None
            certificate = x509.load_pem_x509_certificate(text.encode())
            self._record(store, certificate, signer, name)
            return self._given(store, certificate, names.common_name(old.subject), lifetime)

    def _must_wait(self, key: str, lifetime: float) -> None:
        """Raise `Unavailable` for one who asks all the time, and would fill the journal."""
        present = time.monotonic()
        for other, when in list(itertools.islice(self._asked.items(), 2)):  # the oldest
            if present - when >= _LONGEST_WAIT:
                del self._asked[other]
        last = self._asked.get(key)
        if last is not None and present - last < min(lifetime / _OFTEN, _LONGEST_WAIT):
            raise Unavailable("it was given a certificate a moment ago")
        self._asked.pop(key, None)
        self._asked[key] = present

    def _lifetime(self, name: str, old: x509.Certificate) -> float:
        """Seconds that a renewal is valid: as its token says, else as long as the last."""
        with contextlib.suppress(JoinError, SecurityError):
            self._tokens()
        if self._ledger is not None and name in self._ledger.lifetimes:
            return self._ledger.lifetimes[name]
        lasted = old.not_valid_after_utc - old.not_valid_before_utc - BACKDATED
        return max(60.0, lasted.total_seconds())

    def member(self, present: bytes) -> bool:
        """Whether a certificate that TLS has verified is of one who may ask for the lists."""
        with self._open() as store:
            return store.issuer_of(x509.load_der_x509_certificate(present)) is not None

    # The folder

    @contextlib.contextmanager
    def _open(self) -> Iterator[Store]:
        """Lock the folder; yield what is in it, read again where it has changed."""
        if not self._folder.is_at(self._folder.path):  # another one has taken its place
            self._folder = Folder(self._folder.path)
            self._store = self._ledger = None
            self._stamps.clear()
            self._keys = []
            self._recent.clear()
            self._order.clear()
        with locked(self._folder):
            seen = {name: _stamp(self._folder, name) for name in (TRUST, KEYS, CRL, JOURNAL)}
            changed = any(self._stamps.get(name) != stamp for name, stamp in seen.items())
            if self._store is None or changed or self._lineages.since > now():
                self._read(seen)
            assert self._store is not None
            self._tidy(self._store)
            yield self._store

    def _tokens(self) -> Ledger:
        """Return the ledger of the open folder, read again where it has changed.

        Only those who join need it: one that is damaged keeps nobody from renewing.
        """
        stamp = _stamp(self._folder, LEDGER)
        if self._ledger is None or stamp != self._stamps.get(LEDGER):
            if self._ledger is None or not self._ledger.follow():
                self._ledger = Ledger(self._folder)
            self._stamps[LEDGER] = stamp
        ledger = self._ledger
        if ledger.lines >= self._most[LEDGER]:
            self._rewrite(LEDGER, lambda: of_ledger(ledger))
            self._ledger = Ledger(self._folder)
            self._most[LEDGER] = max(LEAST, 2 * self._ledger.lines)
        return self._ledger

    def _tidy(self, store: Store) -> None:
        """Move away lines that are over, once there are many, and read what is left."""
        if len(store.journal.records) >= self._most[JOURNAL]:
            self._rewrite(JOURNAL, lambda: of_journal(store.journal, self._lineages.revoked))
            store.journal = Journal(self._folder)
            self._lineages.note_all(store.journal)
            self._most[JOURNAL] = max(LEAST, 2 * len(store.journal.records))

    def _rewrite(self, name: str, writes: Callable[[], list[Write]]) -> None:
        try:
            self._apply(writes(), name)
        except (SecurityError, OSError) as error:  # a full disk must not keep anybody out
            logger.warning("cannot rewrite %s: %s", name, error)

    def _read(self, seen: dict[str, _Stamp]) -> None:
        store = Store(self._folder, self._password)
        if self._keys and seen[KEYS] == self._stamps.get(KEYS):
            store.private_keys = self._keys  # decrypting them takes a while, by design
        self._keys = store.private_keys
        _oldest(store)
        self._crl = self._lists(store)
        seen = {**seen, CRL: _stamp(self._folder, CRL)}
        self._lineages = Lineages()
        self._lineages.note_all(store.journal)
        self._lineages.note_lists(self._crl, [each.parsed for each in store.authorities])
        self._store = store
        self._stamps.update(seen)

    def _lists(self, store: Store) -> str:
        """Return the lists that the journal demands, also where the file is lost, or behind.

        A command may have been killed before it wrote them. A disk that takes no file keeps nobody
        from hearing of them.
        """
        writes = store.crl()
        if not writes:
            return self._folder.text(CRL)
        self._rewrite(CRL, lambda: writes)
        return writes[0].text

    def _record(
        self, store: Store, certificate: x509.Certificate, signer: Authority, name: str
    ) -> None:
        """Write a certificate into the journal."""
        record = store.journal.issue(certificate, signer.parsed, store.path / name)
        self._apply(store.journal.write([record]), JOURNAL)
        store.journal.take(record)
        self._lineages.note(record)

    def _write(self, ledger: Ledger, line: Line) -> None:
        self._apply(ledger.write([line]), LEDGER)
        ledger.take(line)

    def _apply(self, writes: Sequence[Write], name: str) -> None:
        try:
            apply(writes)
        except BaseException:
            self._stamps.pop(name, None)  # read again what the disk has
            raise
        self._stamps[name] = _stamp(self._folder, name)

    def _trusted(self, store: Store) -> Trust:
        cas = "".join(each.public_bytes(Encoding.PEM).decode() for each in store.trusted)
        return Trust(cas, self._crl, keys.identifier(store.signer().parsed.public_key()))

    def _given(
        self, store: Store, certificate: x509.Certificate, role: str, lifetime: float
    ) -> Given:
        text = certificate.public_bytes(Encoding.PEM).decode()
        ends = certificate.not_valid_after_utc
        return Given(text, self._trusted(store), role, lifetime, ends)

    def _keep(self, name: tuple[str, str], given: Given) -> None:
        self._recent[name] = given
        self._order.append(name)
        if len(self._order) > _KEPT:
            self._recent.pop(self._order.popleft(), None)


def _oldest(store: Store) -> Authority:
    valid = [each for each in store.authorities if each.parsed.not_valid_after_utc > now()]
    if not valid:
        raise JoinError(
            f"cannot serve {store.path}: its CA has expired; make another one with: "
            f"sealwire certs rotate-ca{store.option}"
        )
    return valid[-1]


def _stamp(folder: Folder, name: str) -> _Stamp:
    found = folder.look(name)
    return None if found is None else (found.st_ino, found.st_size, found.st_mtime_ns)


def _times(uses: int) -> str:
    return "one key" if uses == 1 else f"{uses} keys"
