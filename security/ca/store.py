"""The folder of a certificate authority, as plain files, and the operations on it.

    ca.pem        the CA certificates to trust: one, or during a rotation two, newest first
    ca-key.pem    the CA's private key (two during a rotation); needed nowhere else
    crl.pem       the revoked certificates, one list per CA
    NAME.pem      an identity: certificate and private key in one file
    journal.tsv   what was issued and revoked
    dask.yaml     configuration that refers to all this

Certificate and key share a file so that one rename replaces both: a process that follows its files
never finds a certificate with another's key. Where the key is stored elsewhere (a CSR, a separate
file), a renewal keeps the key, so that again one file is replaced.

Methods return `Write`s and change nothing: the caller holds `atomic_files.locked` from reading the
store until they are applied.
"""

from __future__ import annotations

import datetime
import os
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from cryptography import x509

from ..errors import AuthorityError, PEMError, PEMNotFound
from ..pem import Block, blocks
from ..security import ROLES
from ..x509 import keys, names
from ..x509.certinfo import CertificateInfo
from ..x509.templates import BACKDATED, now
from .atomic_files import Write
from .authority import Authority
from .crl import is_listed, read_lists, updated
from .folder import Folder, no_folder
from .journal import Journal, Record

__all__ = ["CONFIG", "CRL", "KEYS", "TRUST", "IdentityFile", "Store", "load"]

TRUST, KEYS, CRL, CONFIG = "ca.pem", "ca-key.pem", "crl.pem", "dask.yaml"

_BEGIN = "-----BEGIN CERTIFICATE"

#: how long the outgoing CA goes on signing, unless the identities are moved explicitly: time for
#: the new ca.pem to reach every process
SETTLING = datetime.timedelta(days=1)


@dataclass(frozen=True)
class IdentityFile:
    """A file with an identity: its first certificate, and all PEM blocks in it."""

    path: Path
    certificate: x509.Certificate
    blocks: tuple[Block, ...]
    #: the folder in which it was found by name; None if the user gave its path
    folder: Folder | None = field(default=None, repr=False, compare=False)
    #: whether the file ends within what was its private key
    is_cut: bool = False

    @property
    def has_plain_key(self) -> bool:
        """Whether the file holds the private key, unencrypted."""
        return any(block.is_private_key and not block.is_encrypted for block in self.blocks)

    def replaced(self, certificate: str, key: str | None, words: str) -> Write:
        """Return the write that replaces the certificate, without the old chain.

        A `key` of None keeps the current key.
        """
        rest = [block.text + "\n" for block in self.blocks if not block.is_certificate]
        text = certificate + (key if key is not None else "".join(rest))
        private = key is not None or any(block.is_private_key for block in self.blocks)
        return Write(self.path, text, words, private=private, folder=self.folder)


def load(path: Path) -> IdentityFile:
    """Load an identity from a path that the user gave, following links.

    Raises `PEMError` if it cannot be read, has no certificate or a damaged one.
    """
    real = Path(os.path.realpath(path))
    found = _loaded(Folder(real.parent), real.name, path)
    return replace(found, folder=None)


def _loaded(folder: Folder, name: str, path: Path) -> IdentityFile:
    text = folder.text(name)
    found = blocks(text)
    first = next((block for block in found if block.is_certificate), None)
    if first is None:
        raise PEMError(f"cannot use {path}: {_lack(text)}")
    certificate = _certificate(first, path)
    return IdentityFile(path, certificate, tuple(found), folder, _ends_within_key(text, found))


def _lack(text: str) -> str:
    """Why there is no certificate in a text."""
    if not text.strip():
        return "it is empty"
    return "it is cut off" if _BEGIN in text else "there is no certificate in it"


def _ends_within_key(text: str, found: Sequence[Block]) -> bool:
    """Whether what follows the last whole block is the beginning of a private key."""
    rest = text[text.rindex(found[-1].text) + len(found[-1].text) :].strip()
    has_key = any(block.is_private_key for block in found)
    return rest.startswith("-") and not has_key and not rest.startswith(_BEGIN)


class Store:
    """The folder, read once.

    Raises `AuthorityError` if it holds no CA, `PEMError` for a file that is damaged or a link.
    Private keys are read when first needed, with `password` if encrypted. `links` follows links,
    for read-only callers (see `Folder`).
    """

    def __init__(
        self, place: Path | Folder, password: bytes | None = None, *, links: bool = False
    ) -> None:
        self.folder = place if isinstance(place, Folder) else Folder(place, links=links)
        self.path = self.folder.path
        self.password = password
        self.trusted = self._trusted()
        self.journal = Journal(self.folder)

    def _trusted(self) -> list[x509.Certificate]:
        why = no_folder(self.path)
        if why is not None or not self.folder.exists() or not self.folder.has(TRUST):
            why = why or f"there is no {TRUST} in it"
            raise AuthorityError(
                f"cannot use {self.path}: {why}; "
                "name the folder with --dir, or make one with: sealwire certs init"
            )
        path = self.path / TRUST
        found = blocks(self.folder.text(TRUST))
        return [_certificate(block, path) for block in found if block.is_certificate]

    @cached_property
    def private_keys(self) -> list[keys.PrivateKey]:
        """The keys in `ca-key.pem`, newest first, including those without a certificate."""
        try:
            text = self.folder.text(KEYS)
        except PEMNotFound as error:
            raise PEMNotFound(
                f"cannot use {self.path}: there is no {KEYS} in it, without which nothing can be "
                "issued or revoked; run this where the CA's key is"
            ) from error
        found = [block for block in blocks(text) if block.is_private_key]
        return [keys.read(block.text, str(self.path / KEYS), self.password) for block in found]

    @cached_property
    def authorities(self) -> list[Authority]:
        """The CAs whose key is here, newest first: at least one.

        Raises `PEMError` or `AuthorityError` if there is none.
        """
        found = [
            Authority(certificate, key)
            for certificate in self.trusted
            for key in self.private_keys
            if keys.same(keys.public_of(certificate), key.public_key())
        ]
        if not found:
            raise AuthorityError(
                f"cannot use {self.path}: no key in {KEYS} is that of a CA in {TRUST}; "
                "bring the key back from a copy, or make a new CA"
            )
        return found

    @property
    def foreign(self) -> list[x509.Certificate]:
        """Trusted certificates whose key is not here."""
        ours = [each.parsed for each in self.authorities]
        return [certificate for certificate in self.trusted if certificate not in ours]

    def identities(self) -> list[IdentityFile]:
        """Return the identities in the folder, by name."""
        found = []
        for name in self._names():
            try:
                file = _loaded(self.folder, name, self.path / name)
                if not CertificateInfo.of(file.certificate).is_ca:
                    found.append(file)
            except PEMError:
                continue  # a separate key, or not ours
        return found

    def damaged(self) -> list[tuple[Path, str]]:
        """Return files that should be identities and cannot be read: why, and what to do.

        Files that hold something else are not among them, such as a separate key.
        """
        known = self.journal.files()
        found = []
        for name in self._names():
            path = self.path / name
            if self.folder.unfit(name) is not None:
                continue  # see `passed_over`
            try:
                CertificateInfo.of(_loaded(self.folder, name, path).certificate)
            except PEMError as error:
                if name in known or self._is_remnant(name):
                    why = str(error).removeprefix(f"cannot use {path}: ")
                    found.append((path, f"{why}; {self.again(name)}"))
        return found

    def _is_remnant(self, name: str) -> bool:
        """Whether a file without a readable certificate is empty, or had one."""
        try:
            text = self.folder.text(name)
        except PEMError:  # who knows
            return False
        return _BEGIN in text or not text.strip()

    def again(self, name: str) -> str:
        """Say how to issue the identity in a file here again."""
        path, stem = self.path / name, name.removesuffix(".pem")
        record = self.journal.files().get(name)
        roles = [
            role for role in ROLES if record and record.subject.partition(",")[0] == f"CN={role}"
        ]
        role, _, host = stem.partition("-")
        role = roles[0] if roles else role if role in ROLES else "ROLE"
        words = f"sealwire certs issue {role}{f' {shlex.quote(host)}' if host else ''}{self.option}"
        if stem not in (role, f"{role}-{host}"):
            words = f"{words} --out {shlex.quote(str(path))}"
        return f"remove it and issue it again: rm {shlex.quote(str(path))} && {words}"

    @property
    def option(self) -> str:
        """What names this folder in a command, with a blank before it; nothing for `certs`."""
        return "" if str(self.path) == "certs" else f" --dir {shlex.quote(str(self.path))}"

    def passed_over(self) -> list[tuple[Path, str]]:
        """Entries named like PEM files that were skipped, such as links, and why."""
        unfit = [(self.path / name, self.folder.unfit(name)) for name in self._names()]
        return [(path, why) for path, why in unfit if why is not None]

    def _names(self) -> list[str]:
        """Return the names that an identity may have."""
        names = [name for name in self.folder.names() if name.endswith(".pem")]
        return [n for n in names if not n.startswith(".") and n not in (TRUST, KEYS, CRL)]

    def find(self, name: str) -> IdentityFile:
        """Return an identity by its name here, or by a path.

        Raises `AuthorityError` if there is none, and for a CA: treating it as an identity would
        leave everybody without a CA.
        """
        path = self.path / f"{name}.pem" if self.holds(name) else Path(name)
        if not os.path.lexists(path):
            known = ", ".join(file.path.stem for file in self.identities())
            raise AuthorityError(
                f"cannot find {name!r}: it is neither a file nor an identity in {self.path}; "
                f"there are {known or 'none'}"
            )
        here = self.here(path)
        try:
            file = load(path) if here is None else _loaded(here, path.name, here.path / path.name)
        except PEMError as error:
            ours = here is not None and path.name in self.journal.files()
            raise PEMError(f"{error}; {self.again(path.name)}" if ours else str(error)) from error
        if CertificateInfo.of(file.certificate).is_ca:
            raise AuthorityError(
                f"cannot use {path}: it is a CA's certificate, not an identity; to replace the CA "
                f"run: sealwire certs rotate-ca{self.option}"
            )
        return file

    def holds(self, name: str) -> bool:
        """Whether there is a file NAME.pem here."""
        try:
            return self.folder.has(f"{name}.pem")
        except OSError:  # a path, or not a valid name
            return False

    def here(self, path: Path) -> Folder | None:
        """Return the folder if a path denotes an entry of it; its links are then not followed."""
        return self.folder if self.folder.is_at(path.parent) else None

    def issuer_of(self, certificate: x509.Certificate) -> Authority | None:
        """Return the CA of ours that has signed a certificate."""
        return next((each for each in self.authorities if each.issued(certificate)), None)

    def is_revoked(self, certificate: x509.Certificate) -> bool:
        """Whether a certificate is revoked, by the journal or, where that was lost, by the list."""
        known = certificate.serial_number in self.journal.revoked()
        return known or is_listed(certificate, self._lists)

    @cached_property
    def _lists(self) -> Sequence[x509.CertificateRevocationList]:
        return read_lists(self.folder.text(CRL)) if self.folder.has(CRL) else []

    def signer(self, *, move: bool = False) -> Authority:
        """Return the CA that signs now: an outgoing one until the newest is known everywhere.

        The newest is considered known after a day, on request (`move`), or once an identity here
        is signed by it.
        """
        newest, *older = self.authorities
        valid = [each for each in older if each.parsed.not_valid_after_utc > now()]
        made = newest.parsed.not_valid_before_utc + BACKDATED
        if move or not valid or now() - made >= SETTLING:
            return newest
        moved = any(newest.issued(file.certificate) for file in self.identities())
        return newest if moved else valid[0]

    def issue(
        self,
        role: str,
        hosts: Sequence[str],
        ips: Sequence[str],
        *,
        days: float,
        path: Path | None,
        node: str | None = None,
        request: x509.CertificateSigningRequest | None = None,
        own_names: bool = False,
    ) -> tuple[x509.Certificate, str, list[Write]]:
        """Issue an identity, or with `request` a certificate for the key of a CSR.

        `node` is the name of the process's node, its second common name; if None, the first of its
        names that is suitable. `own_names` keeps the alternative names of the request. `path` is
        None if the text is to be printed. Returns the certificate, the text, and the writes. Raises
        `AuthorityError`.
        """
        signer = self.signer()
        asked_for = [*hosts, *(names.hosts_of(request) if request and own_names else ())]
        constraints = names.constraints_of(signer.parsed)
        node = node or names.node_among([*asked_for, *ips], constraints)
        if node is not None and node.lower() in ROLES:
            if node not in asked_for:
                raise AuthorityError(
                    f"cannot issue {role!r}: the name {node!r} is that of a role; name the node or "
                    "the person that is to have it"
                )
            node = None
        for host in asked_for:
            if host.lower() in ROLES and host.lower() != role:
                raise AuthorityError(
                    f"cannot issue {role!r}: the host name {host!r} is that of a role, and whoever "
                    "allows peers by their names would take the one for the other; leave it out"
                )
        if request is not None:
            asked = None if own_names else hosts
            text = signer.sign(request, role or None, days=days, names=asked, ips=ips, node=node)
        else:
            kind = keys.kind_of(signer.parsed.public_key())
            identity = signer.issue(role, days=days, names=hosts, ips=ips, node=node, kind=kind)
            text = identity.certificate + identity.key
        certificate = x509.load_pem_x509_certificate(text.encode())
        record = self.journal.issue(certificate, signer.parsed, path)
        writes = self.journal.write([record]) + self.crl([record])
        if path is not None:
            private = request is None
            words = "certificate and key" if private else "certificate"
            here = self.here(path)
            writes.append(Write(path, text, words, private=private, new=True, folder=here))
        return certificate, text, writes

    def crl(
        self, new: Iterable[Record] = (), authorities: Sequence[Authority] | None = None
    ) -> list[Write]:
        """Return the writes that update `crl.pem` after `new` records of the journal; often none.

        `authorities` replace the current ones, as in a rotation.
        """
        kept = self.authorities if authorities is None else authorities
        new = list(new)
        revoked = self.journal.revoked()
        for record in new:
            if record.event == "revoked":
                revoked.setdefault(record.serial, record)
        issued = [record.until for record in (*self.journal.issued(), *_issued(new))]
        present = [file.certificate.not_valid_after_utc for file in self.identities()]
        former = [each.parsed for each in self.authorities if each not in kept]
        text = updated(self._lists, kept, former, revoked, max([now(), *issued, *present]))
        return [] if text is None else [self.write(CRL, text, "revocation lists")]

    def write(self, name: str, text: str, words: str, *, private: bool = False) -> Write:
        """Return the write of a file in the folder."""
        return Write(self.path / name, text, words, private=private, folder=self.folder)


def _issued(records: Iterable[Record]) -> list[Record]:
    return [record for record in records if record.event == "issued"]


def _certificate(block: Block, path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(block.text.encode())
    except ValueError as error:
        raise PEMError(f"cannot use {path}: a certificate in it is damaged") from error
