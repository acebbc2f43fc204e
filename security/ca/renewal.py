"""Renewal and revocation of what a CA has issued: the outcome, and the writes it takes."""

from __future__ import annotations

import datetime
import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509

from ..errors import AuthorityError
from ..x509 import keys
from ..x509.templates import ends_early, now
from .atomic_files import Write
from .authority import Authority
from .journal import Record
from .store import IdentityFile, Store

__all__ = ["Renewal", "renew", "revoke"]

_YEAR = datetime.timedelta(days=365)  # validity if that of the old certificate is too short
_DAILY = datetime.timedelta(hours=36)  # a daily job comes once in this time, even if late
_WORTH = datetime.timedelta(hours=1)  # a renewal must gain at least this


@dataclass(frozen=True)
class Renewal:
    """The outcome for one identity.

    `status`: `renewed`; `kept` (not due, or not ours); `revoked` (left alone); `stuck` (due, but
    its CA ends as soon; or a damaged file, or a link, which is not followed). `why` explains it;
    `until` is the end of validity afterwards, None if unknown.
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
    them, by the newest CA. What lives no longer than `within` in all is due in the last third of
    its lifetime. CRLs are updated in any case. Raises `AuthorityError` for a chosen identity that
    cannot be renewed.
    """
    signer = store.signer(move=within is None)
    results: list[Renewal] = []
    writes: list[Write] = []
    records: list[Record] = []
    for file in store.identities() if chosen is None else chosen:
        found = file.certificate
        issuer = store.issuer_of(found)
        if chosen is not None:
            _must_be_renewable(store, file, issuer, keep_key)
        revoked = chosen is None and store.is_revoked(found)
        status, words = _left_alone(file, issuer, signer, revoked, within, keep_key, store.option)
        if not status:
            certificate, write = _renewed(signer, file, keep_key, _lasts(found, issuer, days))
            if within is not None and issuer is signer and not file.is_cut:
                status, words = _not_worth(certificate, found, signer, store.option)
        if status:
            results.append(Renewal(file.path, status, words, found.not_valid_after_utc))
            continue
        records.append(store.journal.issue(certificate, signer.parsed, file.path))
        writes.append(write)
        early = days is not None and ends_early(certificate, days)
        words = f", cut to the end of its CA instead of {days:g} days" if early else ""
        after = certificate.not_valid_after_utc
        results.append(Renewal(file.path, "renewed", write.words + words, after))
    if chosen is None:
        unread = [*store.damaged(), *store.passed_over()]
        results += [Renewal(path, "stuck", why, None) for path, why in unread]
    return results, [*store.journal.write(records), *store.crl(records), *writes]


def revoke(store: Store, what: str, reason: str) -> tuple[list[Record], list[Write]]:
    """Revoke an identity by name or file, or one certificate by its serial number.

    By name or file, every valid certificate that was ever issued into it is revoked, so that an old
    copy cannot be used; the file may be gone if the journal lists it. `reason` is one of RFC 5280.
    Returns the new records, none if all were revoked before. Raises `AuthorityError` for a
    certificate that is not ours.
    """
    revoked = store.journal.revoked()
    known = {record.serial: record for record in store.journal.issued()}
    serial = _serial(what)
    records = []
    there = store.holds(what) or os.path.lexists(what)
    gone = [] if there else store.journal.named(what)
    if gone:
        wanted = _issued_into(store, what, gone)
    elif there or serial is None:
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


def _due(
    certificate: x509.Certificate, issuer: Authority, within: datetime.timedelta
) -> datetime.timedelta:
    """How long before its end a certificate is due; cut short by its CA's, as soon as asked."""
    ends = certificate.not_valid_after_utc
    lives = ends - certificate.not_valid_before_utc
    if lives > within + _WORTH or ends >= issuer.parsed.not_valid_after_utc:
        return within
    return min(within, max(lives / 3, _DAILY))


def _left_alone(
    file: IdentityFile,
    issuer: Authority | None,
    signer: Authority,
    revoked: bool,
    within: datetime.timedelta | None,
    keep_key: bool,
    option: str,
) -> tuple[str, str]:
    """Status and reason of an identity that is not to be renewed; both empty for one that is."""
    if issuer is None:
        return "kept", "issued by another CA"
    if revoked:
        name = shlex.quote(file.path.stem)
        return "revoked", f"name it to issue it anew: sealwire certs renew {name}{option}"
    if file.is_cut:
        words = "its key is cut off, so that it cannot be kept; renew it without --keep-key"
        return ("stuck", words) if keep_key else ("", "")
    left = file.certificate.not_valid_after_utc - now()
    if within is not None and issuer is signer and left > _due(file.certificate, issuer, within):
        return "kept", "not due"
    return "", ""


def _lasts(found: x509.Certificate, issuer: Authority | None, days: float | None) -> float | None:
    """For how many days an identity is renewed; None for as long as before.

    A validity cut short by the end of its CA must not stay short for ever.
    """
    lasted = found.not_valid_after_utc - found.not_valid_before_utc
    cut = issuer is not None and found.not_valid_after_utc >= issuer.parsed.not_valid_after_utc
    return _YEAR.days if days is None and cut and lasted < _YEAR else days


def _not_worth(
    certificate: x509.Certificate, found: x509.Certificate, signer: Authority, option: str
) -> tuple[str, str]:
    """Status and reason where a renewal would gain next to nothing; both empty where it does."""
    after, ends = certificate.not_valid_after_utc, signer.parsed.not_valid_after_utc
    if after - found.not_valid_after_utc >= _WORTH:
        return "", ""
    if after >= ends:
        return "stuck", f"its CA ends {ends:%Y-%m-%d} itself; run: sealwire certs rotate-ca{option}"
    return "kept", "renewed within the hour, for less than the time asked for"


def _issued_into(store: Store, what: str, files: Sequence[str]) -> list[Record]:
    """Return what was issued into a file that is gone, and is still valid; else the last."""
    if len(files) > 1:
        raise AuthorityError(
            f"cannot revoke {what}: {store.journal.path} knows several files of that name, "
            f"{', '.join(files)}; give one of these"
        )
    into = [record for record in store.journal.issued() if record.file == files[0]]
    return [record for record in into if record.until > now()] or into[-1:]


def _must_be_renewable(
    store: Store, file: IdentityFile, issuer: Authority | None, keep_key: bool
) -> None:
    if issuer is None:
        raise AuthorityError(
            f"cannot renew {file.path}: no CA in {store.path} has issued it; "
            "name the folder of its CA with --dir"
        )
    keeps = keep_key or not (file.has_plain_key or file.is_cut)
    if store.is_revoked(file.certificate) and keeps:
        raise AuthorityError(
            f"cannot renew {file.path}: it is revoked, and its key would stay the same; "
            "issue a new one with: sealwire certs issue"
        )


def _renewed(
    signer: Authority, file: IdentityFile, keep_key: bool, days: float | None
) -> tuple[x509.Certificate, Write]:
    """Return the new certificate, and the write that replaces the file."""
    old = file.certificate
    if keep_key or not (file.has_plain_key or file.is_cut):
        certificate = signer.renew(old, days=days)
        write = file.replaced(certificate, None, "new certificate, same key")
    else:
        key = keys.generate(keys.kind_of(keys.public_of(old)))
        certificate = signer.renew(old, key.public_key(), days=days)
        words = ", for one that was cut off" if file.is_cut else ""
        write = file.replaced(certificate, keys.write(key), f"new certificate, new key{words}")
    return x509.load_pem_x509_certificate(certificate.encode()), write


def _serial(text: str) -> int | None:
    """Parse a serial as `openssl x509 -serial` and `show` print it: hexadecimal, colons or not."""
    try:
        return int(text.replace(":", ""), 16)
    except ValueError:
        return None
