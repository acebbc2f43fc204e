"""The content of a certificate, as plain values and as one line for people."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import TypeVar

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import ExtendedKeyUsageOID

from ..errors import PEMError
from ..pem import Source, certificates
from ..text import visible
from .keys import describe, public_of
from .names import common_name, node_name

__all__ = ["CertificateInfo", "hexadecimal", "read_certificates", "subject_and_key"]

_PURPOSES = {
    ExtendedKeyUsageOID.SERVER_AUTH: "serverAuth",
    ExtendedKeyUsageOID.CLIENT_AUTH: "clientAuth",
    ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE: "anyExtendedKeyUsage",
    ExtendedKeyUsageOID.CODE_SIGNING: "codeSigning",
    ExtendedKeyUsageOID.EMAIL_PROTECTION: "emailProtection",
}

#: raised by `cryptography` for what it cannot read in a certificate that it has parsed
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
    """The content of one certificate (RFC 5280).

    Attributes
    ----------
    subject, issuer : str
        Names in the form of RFC 4514.
    names : tuple of str
        subjectAltName: DNS names, then IP addresses.
    serial : int
        The serial number.
    not_before, not_after : datetime.datetime
        Start and end of validity, in UTC.
    fingerprint : str
        SHA-256 of the DER form, in lower-case hexadecimal.
    is_ca : bool
        According to basicConstraints.
    purposes : tuple of str
        extendedKeyUsage, such as ``serverAuth``, or dotted numbers; empty means any.
    common_name : str
        commonName of the subject, which is a process's role; empty if there is none.
    node : str
        The second commonName, which is that of the process's node; empty if there is none.
    key : str
        Kind and size of the public key, such as ``P-256`` or ``RSA 3072``.
    """

    subject: str
    issuer: str
    names: tuple[str, ...]
    serial: int
    not_before: datetime.datetime
    not_after: datetime.datetime
    fingerprint: str
    is_ca: bool
    purposes: tuple[str, ...]
    common_name: str = ""
    node: str = ""
    key: str = ""

    @classmethod
    def from_der(cls, data: bytes) -> CertificateInfo:
        """Parse a certificate.

        Parameters
        ----------
        data : bytes
            DER, as returned by ``getpeercert(binary_form=True)``.

        Returns
        -------
        CertificateInfo

        Raises
        ------
        PEMError
            If it is not a certificate, or as for `of`.
        """
        try:
            return cls.of(x509.load_der_x509_certificate(data))
        except ValueError as error:
            raise PEMError(
                f"cannot read {len(data)} bytes as a DER certificate: {_brief(error)}"
            ) from error

    @classmethod
    def of(cls, certificate: x509.Certificate) -> CertificateInfo:
        """Read a parsed certificate.

        Parameters
        ----------
        certificate : cryptography.x509.Certificate

        Returns
        -------
        CertificateInfo

        Raises
        ------
        PEMError
            For unreadable names, dates or extensions: the library parses them only on access.
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
            node=node_name(certificate.subject),
            key=describe(public_of(certificate)),
        )

    def __str__(self) -> str:
        """One line: `CN=worker, issued by CN=lab CA, valid until 2027-01-01`."""
        now = datetime.datetime.now(datetime.timezone.utc)
        by = "self-signed" if self.subject == self.issuer else f"issued by {self.issuer}"
        if self.not_after < now:
            when = f"expired {_day(self.not_after, now)}"
        elif self.not_before > now:
            when = f"not valid before {_day(self.not_before, now)}"
        else:
            when = f"valid until {_day(self.not_after, now)}"
        return f"{self.subject or 'no subject'}, {by}, {when}"


def _day(when: datetime.datetime, now: datetime.datetime) -> str:
    """Return a date, with its time if it is near: clocks differ, and some live for hours."""
    near = abs(when - now) < datetime.timedelta(days=2)
    return f"{when:%Y-%m-%d %H:%M:%S UTC}" if near else f"{when:%Y-%m-%d}"


def subject_and_key(data: bytes) -> tuple[bytes, bytes]:
    """Name and public key of a DER certificate: a CA that was renewed still has both.

    Raises `ValueError` if it is not one.
    """
    parsed = x509.load_der_x509_certificate(data)
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    try:
        key = parsed.public_key().public_bytes(serialization.Encoding.DER, form)
    except UnsupportedAlgorithm:
        raise ValueError("the key is of an unknown kind") from None
    return parsed.subject.public_bytes(), key


def hexadecimal(serial: int) -> str:
    """Return a serial number as OpenSSL prints it, in whole bytes."""
    text = f"{serial:x}"
    return text.zfill(len(text) + len(text) % 2)


def read_certificates(source: Source) -> list[CertificateInfo]:
    """Parse the certificates of a PEM source, in order.

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
    """Return the library's message, shortened: some quote what they could not read."""
    return visible(str(error) or type(error).__name__, longest=200)


def _purpose(oid: x509.ObjectIdentifier) -> str:
    return _PURPOSES.get(oid, oid.dotted_string)
