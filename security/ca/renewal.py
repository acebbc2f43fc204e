"""Renewing and revoking what a CA has issued: what comes of each, and the writes that do it."""

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
from .store import Held, Store

__all__ = ["Renewal", "renew", "revoke"]

_DAYS = 365.0  # validity where that of before says nothing
_DAILY = datetime.timedelta(hours=36)  # whoever renews by the clock comes once a day, about
_WORTH = datetime.timedelta(hours=1)  # a renewal for the sake of less is none


@dataclass(frozen=True)
class Renewal:
    """What comes of one identity.

    `status`: `renewed`; `kept` (not due, or not ours); `revoked` (left alone); `stuck` (due, but
    its CA ends as soon; or a link, which is not followed). `why` says more, `until` is the end of
    validity after it, None where that is not known.
    """

    path: Path
    status: str
    why: str
    until: datetime.datetime | None


def renew(
    store: Store,
    chosen: Sequence[Held] | None = None,
    *,
    within: datetime.timedelta | None = None,
    keep_key: bool = False,
    days: float | None = None,
) -> tuple[list[Renewal], list[Write]]:
    """Renew identities: same subject and names; a new key where the file holds the key.

    `chosen`, or all in the folder that are not revoked. With `within`, only what ends in that time
    or is of an outgoing CA whose successor signs already; without, all of them, by the newest CA.
    What lives no longer than `within` in all is due in the last third of its lifetime.
    The revocation lists are brought up to date in any case. Raises `AuthorityError` for a chosen
    one that cannot be renewed.
    """
    signer = store.signer(move=within is None)
    results: list[Renewal] = []
    writes: list[Write] = []
    records: list[Record] = []
    for held in store.identities() if chosen is None else chosen:
        found = held.certificate
        until = found.not_valid_after_utc
        issuer = store.issuer_of(found)
        if chosen is not None:
            _must_be_renewable(store, held, issuer, keep_key)
        elif issuer is None:
            results.append(Renewal(held.path, "kept", "issued by another CA", until))
            continue
        elif store.is_revoked(found):
            words = f"name it to issue it anew: sealwire certs renew {held.path.stem}"
            results.append(Renewal(held.path, "revoked", words, until))
            continue
        # What its CA's end has cut short must not stay short for ever.
        cut = issuer is not None and until >= issuer.parsed.not_valid_after_utc
        if (
            within is not None
            and issuer is signer
            and until - now() > (within if cut else _due(found, within))
        ):
            results.append(Renewal(held.path, "kept", "not due", until))
            continue
        lasts = _DAYS if days is None and cut else days
        certificate, write = _renewed(signer, held, keep_key, lasts)
        after = certificate.not_valid_after_utc
        if within is not None and issuer is signer and after - until < _WORTH:
            ends = signer.parsed.not_valid_after_utc
            status, words = "kept", "renewed within the hour, for less than the time asked for"
            if after >= ends:
                status = "stuck"
                words = f"its CA ends {ends:%Y-%m-%d} itself; run: sealwire certs rotate-ca"
            results.append(Renewal(held.path, status, words, until))
            continue
        records.append(store.journal.issue(certificate, signer.parsed, held.path))
        writes.append(write)
        results.append(Renewal(held.path, "renewed", write.words, after))
    if chosen is None:
        results += [Renewal(path, "stuck", why, None) for path, why in store.passed_over()]
    return results, [*store.journal.write(records), *store.crl(records), *writes]


def revoke(store: Store, what: str, reason: str) -> tuple[list[Record], list[Write]]:
    """Revoke an identity by its name here or its file, or one certificate by its serial.

    By name or file, every certificate that was issued into it and is still valid: whoever is shut
    out must not come back with last month's. `reason` is one of RFC 5280's. Returns the new
    records, none if all was revoked before. Raises `AuthorityError` for what is not ours.
    """
    revoked = store.journal.revoked()
    known = {record.serial: record for record in store.journal.issued()}
    serial = _serial(what)
    records = []
    if store.holds(what) or os.path.lexists(what) or serial is None:
        held = store.find(what)
        certificate = held.certificate
        issuer = store.issuer_of(certificate)
        if issuer is None:
            raise AuthorityError(
                f"cannot revoke {held.path}: no CA in {store.path} has issued it; "
                "name the folder of its CA with --dir"
            )
        file = store.journal.name(held.path)
        known.setdefault(
            certificate.serial_number, store.journal.issue(certificate, issuer.parsed, held.path)
        )
        wanted = [
            record
            for record in known.values()
            if record.serial == certificate.serial_number
            or (record.file == file and record.until > now())
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


def _due(certificate: x509.Certificate, within: datetime.timedelta) -> datetime.timedelta:
    """How long before its end a certificate is due."""
    lives = certificate.not_valid_after_utc - certificate.not_valid_before_utc
    if lives > within + _WORTH:
        return within
    return min(within, max(lives / 3, _DAILY))


def _must_be_renewable(store: Store, held: Held, issuer: Authority | None, keep_key: bool) -> None:
    if issuer is None:
        raise AuthorityError(
            f"cannot renew {held.path}: no CA in {store.path} has issued it; "
            "name the folder of its CA with --dir"
        )
    if store.is_revoked(held.certificate) and (keep_key or not held.has_plain_key):
        raise AuthorityError(
            f"cannot renew {held.path}: it is revoked, and its key would stay the same; "
            "issue a new one with: sealwire certs issue"
        )


def _renewed(
    signer: Authority, held: Held, keep_key: bool, days: float | None
) -> tuple[x509.Certificate, Write]:
    """The new certificate, and what writes its file."""
    old = held.certificate
    if keep_key or not held.has_plain_key:
        certificate = signer.renew(old, days=days)
        write = held.replaced(certificate, None, "new certificate, same key")
    else:
        key = keys.generate(keys.kind_of(old.public_key()))
        certificate = signer.renew(old, key.public_key(), days=days)
        write = held.replaced(certificate, keys.write(key), "new certificate, new key")
    return x509.load_pem_x509_certificate(certificate.encode()), write


def _serial(text: str) -> int | None:
    """A serial as `openssl x509 -serial` and `show` print it: hexadecimal, colons or not."""
    try:
        return int(text.replace(":", ""), 16)
    except ValueError:
        return None
