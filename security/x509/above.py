"""Revocation of the CAs in a chain that ends below a root, which OpenSSL cannot look up.

For each certificate of a chain, the last one too, OpenSSL wants the list of the one above it.
Above the last there is none if it is no root, and then no list is ever good. So where chains may
end there, OpenSSL looks up the leaf alone, and the CAs above it are looked up here: each in the
list of the one above, as far up as the trust set leads. As ever, a missing list lets nobody in.
"""

from __future__ import annotations

import datetime
import itertools
from collections.abc import Sequence

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding

from ..errors import ChainRefused, PEMError
from ..pem import Source, revocation_lists
from .keys import public_of, same

__all__ = ["CertificatesAbove", "has_signed", "issued"]

# X509_V_ERR_…, for who words them as those that OpenSSL gives
_UNREADABLE, _NO_LIST, _NOT_YET, _EXPIRED, _REVOKED = 1, 3, 11, 12, 23


class CertificatesAbove:
    """Looks up what stands above the leaf: `trusted` certificates in DER, `lists` as PEM.

    Raises `PEMError` for a list that cannot be read.
    """

    def __init__(self, trusted: Sequence[bytes], lists: Source) -> None:
        self._trusted = [x509.load_der_x509_certificate(der) for der in trusted]
        try:
            self._lists = [
                x509.load_pem_x509_crl(block.text.encode()) for block in revocation_lists(lists)
            ]
        except ValueError as error:
            raise PEMError(f"cannot use {lists}: a CRL in it is damaged; {lists.again}") from error
        self._signed: dict[tuple[int, bytes], bool] = {}  # by which list and which key

    def check(self, chain: Sequence[bytes]) -> None:
        """Raise `ChainRefused` if a CA above the leaf is revoked, or that cannot be told.

        `chain` is what OpenSSL has verified, in DER, from the leaf to the trusted certificate.
        """
        try:
            above = [x509.load_der_x509_certificate(der) for der in chain[1:]]
            above += self._further(above[-1]) if above else ()
            for certificate, issuer in itertools.pairwise(above):
                self._look_up(certificate, issuer)
        except ChainRefused:  # a ValueError too
            raise
        except (ValueError, TypeError, x509.DuplicateExtension) as error:
            raise ChainRefused(_UNREADABLE, f"a CA above it cannot be read ({error})") from error

    def _further(self, last: x509.Certificate) -> list[x509.Certificate]:
        """Return what stands above a trusted certificate in the trust set."""
        found: list[x509.Certificate] = []
        while len(found) < len(self._trusted):
            if any(_is_root_of(each, last) for each in self._trusted):
                break  # itself, or the root of which it is another certificate
            issuer = next((each for each in self._trusted if issued(last, each)), None)
            if issuer is None:
                break
            found.append(issuer)
            last = issuer
        return found

    def _look_up(self, certificate: x509.Certificate, issuer: x509.Certificate) -> None:
        name = certificate.subject.rfc4514_string()
        mine = [each for each in self._lists if self._is_of(each, issuer)]
        if not mine:
            raise ChainRefused(_NO_LIST, f"there is no revocation list that may name its CA {name}")
        now = datetime.datetime.now(datetime.timezone.utc)
        started = [each for each in mine if each.last_update_utc <= now]
        good = [each for each in started if each.next_update_utc and each.next_update_utc > now]
        for each in good:
            number = certificate.serial_number
            if each.get_revoked_certificate_by_serial_number(number) is not None:
                raise ChainRefused(_REVOKED, f"its CA {name} has been revoked")
        if not good:
            code = _EXPIRED if started else _NOT_YET
            state = "has expired" if started else "is not valid yet"
            raise ChainRefused(code, f"the revocation list that may name its CA {name} {state}")

    def _is_of(self, crl: x509.CertificateRevocationList, issuer: x509.Certificate) -> bool:
        """Whether it is a CA's list of all that it has revoked, which a name alone proves not."""
        if crl.issuer != issuer.subject or any(each.critical for each in crl.extensions):
            return False  # what is critical narrows it
        known = id(crl), issuer.public_bytes(Encoding.DER)
        if known not in self._signed:
            self._signed[known] = has_signed(issuer, crl)
        return self._signed[known]


def _is_root_of(root: x509.Certificate, other: x509.Certificate) -> bool:
    ours, its = public_of(root), public_of(other)
    return root.subject == root.issuer == other.subject and same(ours, its)


def issued(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    """Whether a CA has signed a certificate."""
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def has_signed(issuer: x509.Certificate, crl: x509.CertificateRevocationList) -> bool:
    """Whether a CA has signed a list, and may sign any."""
    try:
        return may_sign_lists(issuer) and crl.is_signature_valid(
            issuer.public_key()  # type: ignore[arg-type]
        )
    except (ValueError, TypeError, UnsupportedAlgorithm):  # of a kind that the library lacks
        return False


def may_sign_lists(issuer: x509.Certificate) -> bool:
    """Whether a CA's keyUsage lets it sign revocation lists."""
    try:
        return issuer.extensions.get_extension_for_class(x509.KeyUsage).value.crl_sign
    except x509.ExtensionNotFound:
        return True
