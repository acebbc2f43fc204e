"""A certificate authority in memory, and the identities it issues.

```python
authority = Authority.create("lab CA", days=3650)
worker = authority.issue("worker", names=["node7.lab"], ips=["10.0.0.7"])
Security(tls_ca_file=authority.certificate,
         tls_worker_cert=worker.certificate, tls_worker_key=worker.key)
```

Keys are P-256 unless RSA is requested. Certificates conform to RFC 5280, so that the strictest
verifiers accept them. Every identity may both dial and accept (EKU serverAuth and clientAuth),
whatever its role: a scheduler and a worker do both, and Dask lets a process dial with the role it
listens with. Validity begins an hour in the past, to allow for clock skew.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import Encoding

from ..errors import AuthorityError, CertificateExpired, KeyMismatch, PEMError
from ..x509 import keys, names, requests, templates
from ..x509.names import subject as subject_of

__all__ = ["Authority", "Identity"]

Password: TypeAlias = "str | bytes"


@dataclass(frozen=True)
class Identity:
    """A certificate and its private key, both as PEM text; the repr omits the key.

    Attributes
    ----------
    certificate : str
        The leaf first, then any intermediates, without the root.
    key : str
        The private key.
    """

    certificate: str
    key: str = field(repr=False)


class Authority:
    """A certificate authority: a self-signed certificate and its private key.

    Create one with `create` or `load`. The certificates and CRLs it signs conform to RFC 5280.
    """

    def __init__(self, certificate: x509.Certificate, key: keys.PrivateKey) -> None:
        self._certificate = certificate
        self._key = key

    @classmethod
    def create(
        cls,
        name: str = "sealwire CA",
        *,
        days: float = 3650,
        not_before: datetime.datetime | None = None,
        kind: str = "p256",
        permitted: Iterable[str] = (),
        key: keys.PrivateKey | None = None,
    ) -> Authority:
        """Create an authority.

        It may sign leaf certificates only, no further authorities.

        Parameters
        ----------
        name : str
            The common name.
        days : float, default 3650
            Days of validity, counted from `not_before` if given, else from now.
        not_before : datetime.datetime, optional
            Start of the validity, with a time zone; an hour ago by default.
        kind : {"p256", "rsa3072"}
            Kind of the new key.
        permitted : iterable of str
            Domains (``lab.example``) and networks (``10.0.0.0/8``) that its certificates may name
            (name constraints); empty means no constraint.
        key : private key, optional
            An existing key to use instead of a new one.

        Returns
        -------
        Authority

        Raises
        ------
        AuthorityError
            For an unusable name, number of days, kind, domain or key.
        """
        constraints = names.constraints(permitted)
        subject = subject_of(name)
        start, end = templates.validity(name, days, not_before)
        key = keys.generate(kind) if key is None else keys.fit(name, key)
        return cls(templates.root(subject, key, constraints, start, end), key)

    @classmethod
    def load(cls, certificate: str, key: str, *, password: Password | None = None) -> Authority:
        """Load an authority from its certificate and key.

        Parameters
        ----------
        certificate, key : str
            PEM text.
        password : str or bytes, optional
            Decrypts the key; not used if that is not encrypted.

        Returns
        -------
        Authority

        Raises
        ------
        PEMError
            If either cannot be read, also for want of a password.
        KeyMismatch
            If they do not belong together.
        """
        try:
            parsed = x509.load_pem_x509_certificate(certificate.encode())
        except ValueError as error:
            raise PEMError("cannot use the authority's certificate: it is damaged") from error
        place, how = "the authority's key", "pass password=…"
        private = keys.read(key, place, _as_bytes(password), how)
        if not keys.same(parsed.public_key(), private.public_key()):
            raise KeyMismatch("cannot use the authority's key: it is not that of its certificate")
        return cls(parsed, private)

    @property
    def certificate(self) -> str:
        """The CA certificate as PEM text, for others to trust."""
        return self._certificate.public_bytes(Encoding.PEM).decode()

    @property
    def parsed(self) -> x509.Certificate:
        """The CA certificate as an object of `cryptography`."""
        return self._certificate

    def key(self, password: Password | None = None) -> str:
        """Return the private key as PEM text (PKCS #8). Keep it secret.

        Parameters
        ----------
        password : str or bytes, optional
            Encrypts it. Raises `ValueError` for an empty one.
        """
        return keys.write(self._key, _as_bytes(password))

    def issue(
        self,
        common_name: str,
        *,
        days: float = 365,
        names: Iterable[str] = (),
        ips: Iterable[str] = (),
        node: str | None = None,
        not_before: datetime.datetime | None = None,
        kind: str = "p256",
    ) -> Identity:
        """Issue a certificate for a new key.

        Parameters
        ----------
        common_name : str
            A role or any other name.
        days : float, default 365
            Days of validity, counted from `not_before` if given, else from now. The end is never
            later than that of the authority.
        names, ips : iterable of str
            DNS names and IP addresses for subjectAltName. If both are empty it holds the common
            name, if that is a valid DNS name or address.
        node : str, optional
            A second common name: the process's node, or a person. Links and logs tell processes of
            the same role apart by it.
        not_before : datetime.datetime, optional
            Start of the validity, with a time zone; an hour ago by default.
        kind : {"p256", "rsa3072"}
            Kind of the new key.

        Returns
        -------
        Identity

        Raises
        ------
        AuthorityError
            For an unusable name, address or number of days, and for names outside the authority's
            name constraints.
        CertificateExpired
            If the authority has expired.
        """
        found, validity = self._prepared(common_name, days, names, ips, not_before)
        subject = self._subject(common_name, node)
        key = keys.generate(kind)
        return Identity(self._signed(subject, key.public_key(), found, *validity), keys.write(key))

    def sign(
        self,
        request: x509.CertificateSigningRequest,
        common_name: str | None = None,
        *,
        days: float = 365,
        names: Iterable[str] | None = None,
        ips: Iterable[str] = (),
        node: str | None = None,
        serial: int | None = None,
    ) -> str:
        """Issue a certificate for a certificate signing request (CSR), whose sender has the key.

        Parameters
        ----------
        request : cryptography.x509.CertificateSigningRequest
            Only its key, common name and alternative names are used.
        common_name : str, optional
            Replaces the request's.
        days : float, default 365
            Days of validity from now. The end is never later than that of the authority.
        names, ips : iterable of str, optional
            Replace the request's alternative names, of both kinds.
        node : str, optional
            A second common name, as for `issue`.
        serial : int, optional
            Its serial number; a random one by default.

        Returns
        -------
        str
            The certificate as PEM text.

        Raises
        ------
        AuthorityError
            As for `issue`, and for a request not signed by its own key, with a weak key, or with
            alternative names other than DNS names and IP addresses.
        CertificateExpired
            If the authority has expired.
        """
        name = common_name or requests.name_in(request)
        if names is None:
            names, ips = ((), ips) if ips else requests.alternatives_in(name, request)
        found, validity = self._prepared(name, days, names, ips, None)
        subject = self._subject(name, node)
        key = requests.sound(name, keys.public_of(request))
        if not request.is_signature_valid:
            raise AuthorityError(
                f"cannot issue {name!r}: the request is not signed by the key it is for; "
                "make the request again"
            )
        return self._signed(subject, key, found, *validity, serial)

    def renew(
        self,
        old: x509.Certificate,
        public_key: Any = None,
        *,
        days: float | None = None,
        serial: int | None = None,
    ) -> str:
        """Issue a certificate again, with the same subject and alternative names.

        Parameters
        ----------
        old : cryptography.x509.Certificate
            The certificate to renew.
        public_key : optional
            A new public key; by default that of `old`.
        days : float, optional
            Days of validity from now; by default as long as `old` was valid.
        serial : int, optional
            Its serial number; a random one by default.

        Returns
        -------
        str
            The certificate as PEM text.

        Raises
        ------
        AuthorityError, CertificateExpired
            As for `issue`.
        """
        name = names.common_name(old.subject)
        self._must_be_valid(name)
        if days is None:
            lasts = old.not_valid_after_utc - old.not_valid_before_utc
            start = templates.now() - templates.BACKDATED
            end = start + lasts
        else:
            start, end = templates.validity(name, days, None)
        alternatives = names.extension(old)
        constraints = names.constraints_of(self._certificate)
        for each in names.outside(alternatives, constraints):
            raise AuthorityError(
                f"cannot issue {name!r}: {each} is outside the names that the CA may sign for; "
                "issue a new certificate with other names"
            )
        key = requests.sound(name, public_key or old.public_key())
        return self._signed(old.subject, key, alternatives, start, end, serial)

    def revoke(
        self,
        revoked: Iterable[tuple[int, datetime.datetime, str]],
        *,
        number: int,
        until: datetime.datetime,
    ) -> str:
        """Issue the authority's certificate revocation list (CRL).

        Parameters
        ----------
        revoked : iterable of tuple
            Serial number, time and reason of each revoked certificate. A reason is one of RFC 5280,
            such as ``keyCompromise``.
        number : int
            The CRL number, which must increase from one CRL to the next.
        until : datetime.datetime
            nextUpdate, after which verifiers refuse every certificate of the authority.

        Returns
        -------
        str
            The CRL as PEM text.

        Raises
        ------
        ValueError
            For a reason, serial number, CRL number or time that a CRL cannot have.

        Times without a time zone are taken to be in UTC.
        """
        return templates.revocations(self._certificate, self._key, list(revoked), number, until)

    def issued(self, certificate: x509.Certificate) -> bool:
        """Whether this authority has signed a certificate; its issuer name proves nothing."""
        try:
            certificate.verify_directly_issued_by(self._certificate)
        except (ValueError, TypeError, InvalidSignature):
            return False
        return True

    def _prepared(
        self,
        name: str,
        days: float,
        hosts: Iterable[str],
        ips: Iterable[str],
        not_before: datetime.datetime | None,
    ) -> tuple[Sequence[x509.GeneralName], tuple[datetime.datetime, datetime.datetime]]:
        self._must_be_valid(name)
        validity = templates.validity(name, days, not_before)
        found = names.alternatives(name, hosts, ips, names.constraints_of(self._certificate))
        return found, validity

    def _subject(self, name: str, node: str | None) -> x509.Name:
        constraints = names.constraints_of(self._certificate)
        if node is not None and names.is_node_outside(node, constraints):
            raise AuthorityError(
                f"cannot issue {name!r}: {node!r} is outside the names that the CA may sign for; "
                "give the node another name"
            )
        return subject_of(name, node)

    def _must_be_valid(self, name: str) -> None:
        ends = self._certificate.not_valid_after_utc
        if ends < templates.now():
            raise CertificateExpired(
                f"cannot issue {name!r}: the authority expired {ends:%Y-%m-%d %H:%M} UTC; "
                "create a new one"
            )

    def _signed(
        self,
        subject: x509.Name,
        public_key: Any,
        alternatives: Sequence[x509.GeneralName],
        start: datetime.datetime,
        end: datetime.datetime,
        serial: int | None = None,
    ) -> str:
        own = self._certificate, self._key
        return templates.leaf(*own, subject, public_key, alternatives, start, end, serial)


def _as_bytes(password: Password | None) -> bytes | None:
    return password.encode() if isinstance(password, str) else password
