"""What a certificate says, as plain values and as one line for people."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import TypeVar

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import ExtendedKeyUsageOID

from ..errors import PEMError
from ..pem import Source, certificates
from ..text import visible
from .keys import describe
from .names import common_name

__all__ = ["CertificateInfo", "hexadecimal", "read_certificates"]

_PURPOSES = {
    ExtendedKeyUsageOID.SERVER_AUTH: "serverAuth",
    ExtendedKeyUsageOID.CLIENT_AUTH: "clientAuth",
    ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE: "anyExtendedKeyUsage",
    ExtendedKeyUsageOID.CODE_SIGNING: "codeSigning",
    ExtendedKeyUsageOID.EMAIL_PROTECTION: "emailProtection",
}

#: what the library raises for what it cannot read in a certificate that it has parsed
UNREADABLE = (
    ValueError,
    TypeError,
    OverflowError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)

_ExtensionT = TypeVar("_ExtensionT", bound=x509.ExtensionType)


@dataclass(frozen=True)
class CertificateInfo:
    """The contents of one certificate. Times are in UTC, names as RFC 4514 writes them."""

    subject: str
    issuer: str
    #: subjectAltName: DNS names, then IP addresses
    names: tuple[str, ...]
    serial: int
    not_before: datetime.datetime
    not_after: datetime.datetime
    #: SHA-256 of the DER form, lower-case hexadecimal
    fingerprint: str
    #: basicConstraints says so
    is_ca: bool
    #: extendedKeyUsage, such as "serverAuth", or dotted numbers; empty means any
    purposes: tuple[str, ...]
    #: commonName of the subject, which is a process's role; "" if there is none
    common_name: str = ""
    #: kind and size of the public key, such as "P-256" or "RSA 3072"
    key: str = ""

    @classmethod
    def from_der(cls, data: bytes) -> CertificateInfo:
        """Read a DER certificate, as `getpeercert(binary_form=True)` gives it.

        Raises `PEMError` if it is not one.
        """
        try:
            return cls.of(x509.load_der_x509_certificate(data))
        except ValueError as error:
            raise PEMError(
                f"cannot read {len(data)} bytes as a DER certificate: {_brief(error)}"
            ) from error

    @classmethod
    def of(cls, certificate: x509.Certificate) -> CertificateInfo:
        """What a certificate of the library `cryptography` says.

        Raises `PEMError` for one that has names, dates or extensions which nobody can read: the
        library looks at them only when they are asked for.
        """
        try:
            return cls._of(certificate)
        except UNREADABLE as error:
            raise PEMError(f"cannot read a certificate: {_brief(error)}") from error

    @classmethod
    def _of(cls, certificate: x509.Certificate) -> CertificateInfo:
        constraints = _extension(certificate, x509.BasicConstraints)
        usage = _extension(certificate, x509.ExtendedKeyUsage)
        return cls(
            subject=certificate.subject.rfc4514_string(),
            issuer=certificate.issuer.rfc4514_string(),
            names=_names(_extension(certificate, x509.SubjectAlternativeName)),
            serial=certificate.serial_number,
            not_before=certificate.not_valid_before_utc,
            not_after=certificate.not_valid_after_utc,
            fingerprint=certificate.fingerprint(hashes.SHA256()).hex(),
            is_ca=constraints is not None and constraints.ca,
            purposes=tuple(_purpose(oid) for oid in usage or ()),
            common_name=common_name(certificate.subject),
            key=describe(certificate.public_key()),
        )

    def __str__(self) -> str:
        """One line: `CN=worker, issued by CN=lab CA, valid until 2027-01-01`."""
        now = datetime.datetime.now(datetime.timezone.utc)
        by = "self-signed" if self.subject == self.issuer else f"issued by {self.issuer}"
        if self.not_after < now:
            when = f"expired {self.not_after:%Y-%m-%d}"
        elif self.not_before > now:
            when = f"not valid before {self.not_before:%Y-%m-%d}"
        else:
            when = f"valid until {self.not_after:%Y-%m-%d}"
        return f"{self.subject or 'no subject'}, {by}, {when}"


def hexadecimal(serial: int) -> str:
    """A serial as OpenSSL prints it, in whole bytes."""
    text = f"{serial:x}"
    return text.zfill(len(text) + len(text) % 2)


def read_certificates(source: Source) -> list[CertificateInfo]:
    """What the certificates of a PEM source say, in order.

    Raises `PEMError` if the source cannot be read, has no certificate, or a damaged one.
    """
    found = []
    for number, block in enumerate(certificates(source), 1):
        try:
            found.append(CertificateInfo.of(x509.load_pem_x509_certificate(block.text.encode())))
        except (ValueError, PEMError) as error:
            raise PEMError(
                f"cannot use {source}: certificate {number} in it is damaged; {source.again}"
            ) from error
    return found


def _extension(certificate: x509.Certificate, kind: type[_ExtensionT]) -> _ExtensionT | None:
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def _names(alternatives: x509.SubjectAlternativeName | None) -> tuple[str, ...]:
    if alternatives is None:
        return ()
    return (
        *alternatives.get_values_for_type(x509.DNSName),
        *map(str, alternatives.get_values_for_type(x509.IPAddress)),
    )


def _brief(error: Exception) -> str:
    """The library's words; some of them quote what they could not read."""
    return visible(str(error) or type(error).__name__, longest=200)


def _purpose(oid: x509.ObjectIdentifier) -> str:
    return _PURPOSES.get(oid, oid.dotted_string)
