"""A certificate authority in memory, and the identities it issues.

```python
authority = Authority.create("lab CA", days=3650)
worker = authority.issue("worker", names=["node7.lab"], ips=["10.0.0.7"])
Security(tls_ca_file=authority.certificate,
         tls_worker_cert=worker.certificate, tls_worker_key=worker.key)
```

Keys are P-256 unless RSA is asked for. Certificates follow RFC 5280 to the letter, so that the
strictest verifiers take them. Every identity may both dial and accept (EKU serverAuth and
clientAuth), whatever its role: a scheduler and a worker do both, and Dask lets a process dial with
the role it listens with. Validity begins an hour in the past, for machines whose clocks disagree.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import Encoding

from ..errors import AuthorityError, CertificateExpired, KeyMismatch, PEMError
from ..x509 import keys, names, templates
from ..x509.names import subject as subject_of

__all__ = ["Authority", "Identity"]


@dataclass(frozen=True)
class Identity:
    """A certificate and its private key, both as PEM text; the key is left out of the repr.

    `certificate` holds the leaf first, then any intermediates, without the root.
    """

    certificate: str
    key: str = field(repr=False)


class Authority:
    """A certificate authority: a self-signed certificate, and the key that signs others."""

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
        """A new authority with a new key, valid from an hour ago until `days` from now.

        It may sign leaves only, no further authorities. `not_before` sets another beginning, from
        which `days` then count. `kind` is that of the key, `p256` or `rsa3072`; `key` is one that
        is there already. `permitted` are the domains (`lab.example`) and networks (`10.0.0.0/8`)
        that certificates may name; all, if there are none. Raises `AuthorityError` for an unusable
        name, number of days, kind or domain.
        """
        constraints = names.constraints(permitted)
        subject = subject_of(name)
        start, end = templates.validity(name, days, not_before)
        key = key or keys.generate(kind)
        return cls(templates.root(subject, key, constraints, start, end), key)

    @classmethod
    def load(cls, certificate: str, key: str, *, password: bytes | None = None) -> Authority:
        """The authority of a certificate and its key, both PEM text.

        Raises `PEMError` if either cannot be read, also for want of a password, and `KeyMismatch`
        if they do not belong together.
        """
        try:
            parsed = x509.load_pem_x509_certificate(certificate.encode())
        except ValueError as error:
            raise PEMError("cannot use the authority's certificate: it is damaged") from error
        private = keys.read(key, "the authority's key", password)
        if not keys.same(parsed.public_key(), private.public_key()):
            raise KeyMismatch("cannot use the authority's key: it is not that of its certificate")
        return cls(parsed, private)

    @property
    def certificate(self) -> str:
        """The authority's own certificate as PEM text: what the others are told to trust."""
        return self._certificate.public_bytes(Encoding.PEM).decode()

    @property
    def parsed(self) -> x509.Certificate:
        """The authority's own certificate as the library has it."""
        return self._certificate

    def key(self, password: bytes | None = None) -> str:
        """The private key as PEM text, encrypted if there is a password: keep it from all eyes."""
        return keys.write(self._key, password)

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
        """Issue a certificate for a new key, valid from an hour ago until `days` from now.

        `common_name` is a role or any other name; `names` (DNS) and `ips` become its alternative
        names, and where neither is given the common name does, if it can. `node` is the name of
        the process's node, or a person's: a second common name, by which links and logs tell apart
        who has the same role. `not_before` sets
        another beginning, from which `days` then count. The end is never later than the
        authority's own. `kind` is that of the key, `p256` or `rsa3072`.

        Raises `AuthorityError` for an unusable name, address or number of days, or one that the
        authority may not sign for, and `CertificateExpired` if the authority has expired.
        """
        found, validity = self._prepared(common_name, days, names, ips, not_before)
        subject = subject_of(common_name, node)
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
    ) -> str:
        """Issue a certificate for the key of a request (CSR), whose holder keeps the key.

        Name and alternative names are the request's where they are not given; all else that it
        asks for is passed over. Raises as `issue` does, and if the request is not signed by its
        own key, has a key too weak, or alternative names other than DNS and IP.
        """
        name = common_name or _name_in(request)
        asked = _alternatives(name, request) if names is None else (names, ips)
        found, validity = self._prepared(name, days, *asked, None)
        subject = subject_of(name, node)
        if not request.is_signature_valid:
            raise AuthorityError(
                f"cannot issue {name!r}: the request is not signed by the key it is for; "
                "make the request again"
            )
        return self._signed(subject, _sound(name, request.public_key()), found, *validity)

    def renew(
        self, old: x509.Certificate, public_key: Any = None, *, days: float | None = None
    ) -> str:
        """Issue a certificate again: same subject and alternative names, valid as long from now.

        For another key if `public_key` is given; for `days`, if they are. Raises as `issue` does.
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
        key = _sound(name, public_key or old.public_key())
        return self._signed(old.subject, key, alternatives, start, end)

    def revoke(
        self,
        revoked: Iterable[tuple[int, datetime.datetime, str]],
        *,
        number: int,
        until: datetime.datetime,
    ) -> str:
        """The authority's CRL as PEM text: serial, time and reason of each revoked certificate.

        `until` is its nextUpdate, after which verifiers refuse everybody; `number` must grow from
        one CRL to the next. A reason is one of RFC 5280's, such as `keyCompromise`.
        """
        return templates.revocations(self._certificate, self._key, list(revoked), number, until)

    def issued(self, certificate: x509.Certificate) -> bool:
        """Whether this authority has signed a certificate; a name alone proves nothing."""
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
    ) -> str:
        own = self._certificate, self._key
        return templates.leaf(*own, subject, public_key, alternatives, start, end)


def _name_in(request: x509.CertificateSigningRequest) -> str:
    """The common name that a request asks for. Raises `AuthorityError` if it has none."""
    name = names.common_name(request.subject)
    if not name:
        raise AuthorityError("cannot sign the request: it has no common name; give a role for it")
    return name


def _sound(name: str, key: Any) -> Any:
    why = keys.weakness(key)
    if why:
        raise AuthorityError(
            f"cannot issue {name!r}: its key is {why}; use P-256 or RSA of 2048 bits or more"
        )
    return key


def _alternatives(
    name: str, request: x509.CertificateSigningRequest
) -> tuple[list[str], list[str]]:
    found = names.extension(request)
    for each in found:
        if not isinstance(each, x509.DNSName | x509.IPAddress):
            raise AuthorityError(
                f"cannot issue {name!r}: the request asks for a {type(each).__name__}; "
                "only DNS names and IP addresses can be had"
            )
    hosts = [each.value for each in found if isinstance(each, x509.DNSName)]
    return hosts, [str(each.value) for each in found if isinstance(each, x509.IPAddress)]
