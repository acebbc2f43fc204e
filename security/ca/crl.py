"""Certificate revocation lists (CRLs): reading them, and updating them in time.

An expired CRL makes every handshake fail, for everybody at once. The lists here reach their readers
as files, distributed like the certificates; an early nextUpdate would protect nobody and would be
one more thing to forget. So a CRL outlives its CA, and with it every certificate it may list. One
that ends earlier is issued again together with a certificate that would outlive it.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping, Sequence

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding

from ..pem import blocks
from ..x509 import keys
from ..x509.templates import now
from .authority import Authority
from .journal import Record

__all__ = ["is_listed", "read_lists", "reason_of", "signed_by", "updated"]

#: how much longer a CRL is valid than its CA
MARGIN = datetime.timedelta(days=30)

_REASONS = {flag.value for flag in x509.ReasonFlags} - {"removeFromCRL"}


def read_lists(text: str) -> list[x509.CertificateRevocationList]:
    """Return the intact CRLs in PEM text; damaged ones are skipped."""
    found = []
    for block in blocks(text):
        if block.label == "X509 CRL":
            try:
                found.append(x509.load_pem_x509_crl(block.text.encode()))
            except ValueError:
                continue
    return found


def signed_by(crl: x509.CertificateRevocationList, issuer: x509.Certificate) -> bool:
    """Whether a CA has signed a CRL; its issuer name proves nothing."""
    try:
        valid = crl.is_signature_valid(issuer.public_key())  # type: ignore[arg-type]
    except (TypeError, UnsupportedAlgorithm):
        return False
    return crl.issuer == issuer.subject and valid


def is_listed(
    certificate: x509.Certificate, lists: Iterable[x509.CertificateRevocationList]
) -> bool:
    """Whether a list of a certificate's issuer has it."""
    return any(
        crl.issuer == certificate.issuer
        and crl.get_revoked_certificate_by_serial_number(certificate.serial_number) is not None
        for crl in lists
    )


def updated(
    known: Sequence[x509.CertificateRevocationList],
    authorities: Iterable[Authority],
    former: Iterable[x509.Certificate],
    revoked: Mapping[int, Record],
    latest: datetime.datetime,
) -> str | None:
    """Return the text of a CRL file with one list per authority; None if `known` is up to date.

    Lists of the CAs in `former` are dropped, those of other CAs kept as they are. A list contains
    the CA's certificates in `revoked` and the entries it had before; a new one outlives the CA.
    `latest` is the latest end of validity of any certificate.
    """
    texts, due, used = [], False, 0
    for authority in authorities:
        old = next((crl for crl in known if signed_by(crl, authority.parsed)), None)
        used += old is not None
        entries = _entries(authority, revoked, old)
        number = int(now().timestamp())  # increases even if the file was lost
        until = _after(max(latest, authority.parsed.not_valid_after_utc))
        if old is None:
            due = True
        else:
            number = max(number, _number(old) + 1)
            ends = old.next_update_utc
            short = ends is None or (ends <= latest and ends < until)
            early = old.last_update_utc > now()  # of a clock that was ahead: nobody would take it
            due |= short or early or len(entries) > len(old)
        texts.append(authority.revoke(entries, number=number, until=until))
    ours = [*(each.parsed for each in authorities), *former]
    others = [crl for crl in known if not any(signed_by(crl, each) for each in ours)]
    texts += [crl.public_bytes(Encoding.PEM).decode() for crl in others]
    due |= len(known) != used + len(others)
    return "".join(texts) if due else None


def _after(latest: datetime.datetime) -> datetime.datetime:
    """Return the nextUpdate of a list, at most the last representable year."""
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
