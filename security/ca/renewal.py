"""Renewal and revocation of what a CA has issued: the outcome, and the writes it takes."""

from __future__ import annotations

import datetime
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509

from ..errors import AuthorityError
from ..x509 import keys
from ..x509.templates import now
from .atomic_files import Write
from .authority import Authority
from .journal import Record
from .store import IdentityFile, Store

__all__ = ["Renewal", "renew", "revoke"]

_DAYS = 365.0  # validity if that of the old certificate gives none
_WORTH = datetime.timedelta(hours=1)  # a renewal must gain at least this


@dataclass(frozen=True)
class Renewal:
    """The outcome for one identity.

    `status`: `renewed`; `kept` (not due, or not ours); `revoked` (left alone); `stuck` (due, but
    its CA ends as soon; or a link, which is not followed). `why` explains it; `until` is the end of
    validity afterwards, None if unknown.
    """

    path: Path
    status: str
    why: str
    until: datetime.datetime | None


def renew(
    store: Store,
    chosen: Sequence[IdentityFile] | None = None,
    *,
    within: datetime.timedelta | None = None,
    keep_key: bool = False,
    days: float | None = None,
) -> tuple[list[Renewal], list[Write]]:
    """Renew identities, with the same subject and names, and a new key if the file holds the key.

    Either those `chosen`, or all in the folder that are not revoked. With `within`, only those that
    end in that time or belong to an outgoing CA whose successor signs already; without, all of
    them, by the newest CA. CRLs are updated in any case. Raises `AuthorityError` for a chosen
    identity that cannot be renewed.
    """
    signer = store.signer(move=within is None)
    results: list[Renewal] = []
    writes: list[Write] = []
    records: list[Record] = []
    for file in store.identities() if chosen is None else chosen:
        found = file.certificate
        until = found.not_valid_after_utc
        issuer = store.issuer_of(found)
        if chosen is not None:
            _must_be_renewable(store, file, issuer, keep_key)
        elif issuer is None:
            results.append(Renewal(file.path, "kept", "issued by another CA", until))
            continue
        elif store.is_revoked(found):
            words = f"name it to issue it anew: sealwire certs renew {file.path.stem}"
            results.append(Renewal(file.path, "revoked", words, until))
            continue
        if within is not None and issuer is signer and until - now() > within:
            results.append(Renewal(file.path, "kept", "not due", until))
            continue
        # A validity cut short by the end of its CA must not stay short for ever.
        cut = issuer is not None and until >= issuer.parsed.not_valid_after_utc
        lasts = _DAYS if days is None and cut else days
        certificate, write = _renewed(signer, file, keep_key, lasts)
        after = certificate.not_valid_after_utc
        if within is not None and issuer is signer and after - until < _WORTH:
            ends = signer.parsed.not_valid_after_utc
            status, words = "kept", "renewed within the hour, for less than the time asked for"
            if after >= ends:
                status = "stuck"
                words = f"its CA ends {ends:%Y-%m-%d} itself; run: sealwire certs rotate-ca"
            results.append(Renewal(file.path, status, words, until))
            continue
        records.append(store.journal.issue(certificate, signer.parsed, file.path))
        writes.append(write)
        results.append(Renewal(file.path, "renewed", write.words, after))
    if chosen is None:
        results += [Renewal(path, "stuck", why, None) for path, why in store.passed_over()]
    return results, [*store.journal.write(records), *store.crl(records), *writes]


def revoke(store: Store, what: str, reason: str) -> tuple[list[Record], list[Write]]:
    """Revoke an identity by name or file, or one certificate by its serial number.

    By name or file, every valid certificate that was ever issued into it is revoked, so that an old
    copy cannot be used. `reason` is one of RFC 5280. Returns the new records, none if all were
    revoked before. Raises `AuthorityError` for a certificate that is not ours.
    """
    revoked = store.journal.revoked()
    known = {record.serial: record for record in store.journal.issued()}
    serial = _serial(what)
    records = []
    if store.holds(what) or os.path.lexists(what) or serial is None:
        file = store.find(what)
        certificate = file.certificate
        issuer = store.issuer_of(certificate)
        if issuer is None:
            raise AuthorityError(
                f"cannot revoke {file.path}: no CA in {store.path} has issued it; "
                "name the folder of its CA with --dir"
            )
        name = store.journal.name(file.path)
        known.setdefault(
            certificate.serial_number, store.journal.issue(certificate, issuer.parsed, file.path)
        )
        wanted = [
            record
            for record in known.values()
            if record.serial == certificate.serial_number
            or (record.file == name and record.until > now())
        ]
    elif serial in known:
        wanted = [known[serial]]
    else:
        raise AuthorityError(
            f"cannot revoke {what}: {store.journal.path} knows no such serial; "
            "give the certificate's file instead"
        )
    for record in wanted:
        if record.serial not in revoked:
            about = (record.issuer, reason, record.subject, record.file)
            records.append(store.journal.revoke(record.serial, *about))
    return records, [*store.journal.write(records), *store.crl(records)]


def _must_be_renewable(
    store: Store, file: IdentityFile, issuer: Authority | None, keep_key: bool
) -> None:
    if issuer is None:
        raise AuthorityError(
            f"cannot renew {file.path}: no CA in {store.path} has issued it; "
            "name the folder of its CA with --dir"
        )
    if store.is_revoked(file.certificate) and (keep_key or not file.has_plain_key):
        raise AuthorityError(
            f"cannot renew {file.path}: it is revoked, and its key would stay the same; "
            "issue a new one with: sealwire certs issue"
        )


def _renewed(
    signer: Authority, file: IdentityFile, keep_key: bool, days: float | None
) -> tuple[x509.Certificate, Write]:
    """Return the new certificate, and the write that replaces the file."""
    old = file.certificate
    if keep_key or not file.has_plain_key:
        certificate = signer.renew(old, days=days)
        write = file.replaced(certificate, None, "new certificate, same key")
    else:
        key = keys.generate(keys.kind_of(old.public_key()))
        certificate = signer.renew(old, key.public_key(), days=days)
        write = file.replaced(certificate, keys.write(key), "new certificate, new key")
    return x509.load_pem_x509_certificate(certificate.encode()), write


def _serial(text: str) -> int | None:
    """Parse a serial as `openssl x509 -serial` and `show` print it: hexadecimal, colons or not."""
    try:
        return int(text.replace(":", ""), 16)
    except ValueError:
        return None
