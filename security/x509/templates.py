"""The form of an authority's certificates and CRLs, conforming to RFC 5280.

Every leaf may both dial and accept, whatever its role. Validity begins an hour in the past, to
allow for clock skew.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from ..errors import AuthorityError
from .keys import PrivateKey

__all__ = ["BACKDATED", "ends_early", "leaf", "now", "revocations", "root", "validity"]

BACKDATED = datetime.timedelta(hours=1)

_USAGES = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
    "encipher_only",
    "decipher_only",
)


def now() -> datetime.datetime:
    """Return the current time, in UTC."""
    return datetime.datetime.now(datetime.timezone.utc)


def validity(
    name: str, days: float, not_before: datetime.datetime | None
) -> tuple[datetime.datetime, datetime.datetime]:
    """Start and end of validity; `days` count from `not_before`, or from now and backdated.

    Raises `AuthorityError` for an unusable number of days.
    """
    try:
        if not days > 0:
            raise ValueError("days must be positive")
        end = (not_before or now()) + datetime.timedelta(days=days)
    except (OverflowError, ValueError) as error:
        raise AuthorityError(
            f"cannot issue {name!r}: validity of {days} days; "
            "give a positive number that ends before the year 10000"
        ) from error
    return not_before or now() - BACKDATED, end


def ends_early(certificate: x509.Certificate, days: float) -> bool:
    """Whether one just issued for so many days was cut to the end of its CA, which comes before."""
    wanted = now() + datetime.timedelta(days=days)
    return wanted - certificate.not_valid_after_utc > datetime.timedelta(minutes=1)


def root(
    subject: x509.Name,
    key: PrivateKey,
    constraints: x509.NameConstraints | None,
    start: datetime.datetime,
    end: datetime.datetime,
) -> x509.Certificate:
    """Return a self-signed CA that may sign leaves, no further CAs, within its name constraints."""
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    builder = (
        _builder(subject, key.public_key(), start, end)
        .issuer_name(subject)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage("key_cert_sign", "crl_sign"), critical=True)
        .add_extension(identifier, critical=False)
    )
    if constraints is not None:
        builder = builder.add_extension(constraints, critical=True)
    return builder.sign(key, hashes.SHA256())


def leaf(
    issuer: x509.Certificate,
    signer: PrivateKey,
    subject: x509.Name,
    public_key: Any,
    alternatives: Sequence[x509.GeneralName],
    start: datetime.datetime,
    end: datetime.datetime,
    serial: int | None = None,
) -> str:
    """Return a certificate for a process, as PEM text; it ends no later than its issuer."""
    purposes = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    end = min(end, issuer.not_valid_after_utc)
    builder = (
        _builder(subject, public_key, start, end, serial)
        .issuer_name(issuer.subject)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage("digital_signature"), critical=True)
        .add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        .add_extension(_identifier(signer), critical=False)
    )
    if alternatives:
        builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
    return builder.sign(signer, hashes.SHA256()).public_bytes(Encoding.PEM).decode()


def revocations(
    issuer: x509.Certificate,
    signer: PrivateKey,
    revoked: Sequence[tuple[int, datetime.datetime, str]],
    number: int,
    until: datetime.datetime,
) -> str:
    """Return a CRL as PEM text."""
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(issuer.subject)
        .last_update(now() - BACKDATED)
        .next_update(until)
        .add_extension(x509.CRLNumber(number), critical=False)
        .add_extension(_identifier(signer), critical=False)
    )
    for serial, when, reason in revoked:
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(when)
        flag = x509.ReasonFlags(reason)
        if flag != x509.ReasonFlags.unspecified:  # expressed by absence, RFC 5280
            entry = entry.add_extension(x509.CRLReason(flag), critical=False)
        builder = builder.add_revoked_certificate(entry.build())
    return builder.sign(signer, hashes.SHA256()).public_bytes(Encoding.PEM).decode()


def _identifier(signer: PrivateKey) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())


def _builder(
    subject: x509.Name,
    key: Any,
    start: datetime.datetime,
    end: datetime.datetime,
    serial: int | None = None,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .public_key(key)
        .serial_number(serial or x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
    )


def _usage(*granted: str) -> x509.KeyUsage:
    return x509.KeyUsage(**{usage: usage in granted for usage in _USAGES})
