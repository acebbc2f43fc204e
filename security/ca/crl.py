"""Revocation lists (CRLs): read, judged, and made again in time.

A list that has run out closes the cluster, for everybody at once. The lists here reach their
readers as files, by the hand that brings the certificates; a near end would protect nobody and be
one more thing to forget. So a list outlives its CA, and with it every certificate that it may speak
of; one with a nearer end is made again together with the certificate that would outlive it.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping, Sequence

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from ..pem import blocks
from ..x509 import keys
from ..x509.templates import now
from .authority import Authority
from .journal import Record

__all__ = ["read_lists", "reason_of", "signed_by", "updated"]

#: how much longer a list lives than its CA
MARGIN = datetime.timedelta(days=30)

_REASONS = {flag.value for flag in x509.ReasonFlags} - {"removeFromCRL"}


def read_lists(text: str) -> list[x509.CertificateRevocationList]:
    """The sound lists in PEM text; damaged ones are left out."""
    found = []
    for block in blocks(text):
        if block.label == "X509 CRL":
            try:
                found.append(x509.load_pem_x509_crl(block.text.encode()))
            except ValueError:
                continue
    return found


def signed_by(crl: x509.CertificateRevocationList, issuer: x509.Certificate) -> bool:
    """Whether a list is that of a CA; a name alone proves nothing."""
    try:
        valid = crl.is_signature_valid(issuer.public_key())  # type: ignore[arg-type]
    except TypeError:
        return False
    return crl.issuer == issuer.subject and valid


def updated(
    known: Sequence[x509.CertificateRevocationList],
    authorities: Iterable[Authority],
    former: Iterable[x509.Certificate],
    revoked: Mapping[int, Record],
    latest: datetime.datetime,
) -> str | None:
    """The text of a CRL file with one list for each authority; None if `known` will do.

    Lists of the CAs in `former` are dropped, those of others kept as they are. A list holds what
    `revoked` says of its CA and what it held before; a new one outlives the CA. `latest` is the end
    of the certificate that is valid longest.
    """
    texts, due, used = [], False, 0
    for authority in authorities:
        old = next((crl for crl in known if signed_by(crl, authority.parsed)), None)
        used += old is not None
        entries = _entries(authority, revoked, old)
        number = int(now().timestamp())  # grows even if the file was lost
        until = _after(max(latest, authority.parsed.not_valid_after_utc))
        if old is None:
            due = True
        else:
            number = max(number, _number(old) + 1)
            ends = old.next_update_utc
            short = ends is None or (ends <= latest and ends < until)
            due |= short or len(entries) > len(old)
        texts.append(authority.revoke(entries, number=number, until=until))
    ours = [*(each.parsed for each in authorities), *former]
    others = [crl for crl in known if not any(signed_by(crl, each) for each in ours)]
    texts += [crl.public_bytes(Encoding.PEM).decode() for crl in others]
    due |= len(known) != used + len(others)
    return "".join(texts) if due else None


def _after(latest: datetime.datetime) -> datetime.datetime:
    """The end of a list; certificates that are to last for ever end with the last year."""
    last = datetime.datetime(9999, 12, 31, 23, 59, 59, tzinfo=datetime.timezone.utc)
    return last if latest > last - MARGIN else latest + MARGIN


def _entries(
    authority: Authority,
    revoked: Mapping[int, Record],
    old: x509.CertificateRevocationList | None,
) -> list[tuple[int, datetime.datetime, str]]:
    mine = keys.identifier(authority.parsed.public_key())
    found = {
        serial: (record.time, record.detail if record.detail in _REASONS else "unspecified")
        for serial, record in revoked.items()
        if record.issuer == mine
    }
    for entry in old or ():
        found.setdefault(entry.serial_number, (entry.revocation_date_utc, reason_of(entry)))
    return [(serial, *what) for serial, what in found.items()]


def _number(crl: x509.CertificateRevocationList) -> int:
    try:
        return crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
    except x509.ExtensionNotFound:
        return 0


def reason_of(entry: x509.RevokedCertificate) -> str:
    """Why a certificate was revoked, in the words of RFC 5280."""
    try:
        reason = entry.extensions.get_extension_for_class(x509.CRLReason).value.reason
    except x509.ExtensionNotFound:
        return "unspecified"
    return str(reason.value)
