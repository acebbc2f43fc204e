"""A certificate authority in memory, and the identities it issues.

```python
authority = Authority.create("lab CA", days=3650)
worker = authority.issue("worker", names=["node7.lab"], ips=["10.0.0.7"])
Security(tls_ca_file=authority.certificate,
         tls_worker_cert=worker.certificate, tls_worker_key=worker.key)
```

Keys are P-256. Certificates follow RFC 5280 to the letter, so that the strictest verifiers take
them. Every identity may both dial and accept (EKU serverAuth and clientAuth), whatever its role: a
scheduler and a worker do both, and Dask lets a process dial with the role it listens with.
Validity begins an hour in the past, for machines whose clocks disagree.
"""

from __future__ import annotations

import datetime
import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from .errors import AuthorityError, CertificateExpired

__all__ = ["Authority", "Identity"]

_BACKDATED = datetime.timedelta(hours=1)
_DNS_NAME = re.compile(r"[A-Za-z0-9_*-]+(\.[A-Za-z0-9_-]+)*")
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


@dataclass(frozen=True)
class Identity:
    """A certificate and its private key, both as PEM text; the key is left out of the repr.

    `certificate` holds the leaf first, then any intermediates, without the root.
    """

    certificate: str
    key: str = field(repr=False)


class Authority:
    """A certificate authority: a self-signed certificate, and the key that signs others."""

    def __init__(self, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
        self._certificate = certificate
        self._key = key

    @classmethod
    def create(
        cls,
        name: str = "sealwire CA",
        *,
        days: float = 3650,
        not_before: datetime.datetime | None = None,
    ) -> Authority:
        """A new authority with a new key, valid from an hour ago until `days` from now.

        It may sign leaves only, no further authorities. `not_before` sets another beginning, from
        which `days` then count. Raises `AuthorityError` for an unusable name or number of days.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        subject = _name(name)
        start, end = _validity(name, days, not_before)
        identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        builder = (
            _builder(subject, key.public_key(), start, end)
            .issuer_name(subject)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage("key_cert_sign", "crl_sign"), critical=True)
            .add_extension(identifier, critical=False)
        )
        return cls(builder.sign(key, hashes.SHA256()), key)

    @property
    def certificate(self) -> str:
        """The authority's own certificate as PEM text: what the others are told to trust."""
        return self._certificate.public_bytes(Encoding.PEM).decode()

    def issue(
        self,
        common_name: str,
        *,
        days: float = 365,
        names: Iterable[str] = (),
        ips: Iterable[str] = (),
        not_before: datetime.datetime | None = None,
    ) -> Identity:
        """Issue a certificate for a new key, valid from an hour ago until `days` from now.

        `common_name` is a role or any other name; `names` (DNS) and `ips` become its alternative
        names, and where neither is given the common name does, if it can. `not_before` sets
        another beginning, from which `days` then count. The end is never later than the
        authority's own.

        Raises `AuthorityError` for an unusable name, address or number of days, and
        `CertificateExpired` if the authority has expired.
        """
        ends = self._certificate.not_valid_after_utc
        if ends < _now():
            raise CertificateExpired(
                f"cannot issue {common_name!r}: the authority expired {ends:%Y-%m-%d %H:%M} UTC; "
                "create a new one"
            )
        start, end = _validity(common_name, days, not_before)
        key = ec.generate_private_key(ec.SECP256R1())
        signer = self._key.public_key()
        purposes = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        builder = (
            _builder(_name(common_name), key.public_key(), start, min(end, ends))
            .issuer_name(self._certificate.subject)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage("digital_signature"), critical=True)
            .add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
            )
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(signer), critical=False
            )
        )
        alternatives = _alternatives(common_name, names, ips)
        if alternatives:
            builder = builder.add_extension(
                x509.SubjectAlternativeName(alternatives), critical=False
            )
        certificate = builder.sign(self._key, hashes.SHA256())
        return Identity(
            certificate.public_bytes(Encoding.PEM).decode(),
            key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode(),
        )


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.timezone.utc)


def _name(common_name: str) -> x509.Name:
    if not 1 <= len(common_name) <= 64:  # RFC 5280; older releases of cryptography do not look
        raise AuthorityError(
            f"cannot issue {common_name!r}: a common name has 1 to 64 characters, "
            f"got {len(common_name)}"
        )
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _validity(
    name: str, days: float, not_before: datetime.datetime | None
) -> tuple[datetime.datetime, datetime.datetime]:
    """First and last moment; `days` count from `not_before`, or from now and backdated."""
    now = _now()
    try:
        if not days > 0:
            raise ValueError("days must be positive")
        end = (not_before or now) + datetime.timedelta(days=days)
    except (OverflowError, ValueError) as error:
        raise AuthorityError(
            f"cannot issue {name!r}: validity of {days} days; "
            "give a positive number that ends before the year 10000"
        ) from error
    return not_before or now - _BACKDATED, end


def _builder(
    subject: x509.Name,
    key: ec.EllipticCurvePublicKey,
    start: datetime.datetime,
    end: datetime.datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
    )


def _usage(*granted: str) -> x509.KeyUsage:
    return x509.KeyUsage(**{usage: usage in granted for usage in _USAGES})


def _alternatives(
    common_name: str, names: Iterable[str], ips: Iterable[str]
) -> list[x509.GeneralName]:
    found: list[x509.GeneralName] = []
    for name in names:
        if not _DNS_NAME.fullmatch(name):
            raise AuthorityError(
                f"cannot issue {common_name!r}: {name!r} is not a DNS name; "
                "write international names in their xn-- form and addresses as ips"
            )
        found.append(x509.DNSName(name))
    for ip in ips:
        try:
            found.append(x509.IPAddress(ipaddress.ip_address(ip)))
        except ValueError as error:
            raise AuthorityError(
                f"cannot issue {common_name!r}: {ip!r} is not an IP address"
            ) from error
    if not found and _DNS_NAME.fullmatch(common_name):
        found.append(x509.DNSName(common_name))
    return found
