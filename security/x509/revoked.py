"""Which certificates, of connections that are open already, stand on revocation lists.

OpenSSL looks at the lists in a handshake only. Here a list counts whether it is in force or not:
what it names was revoked. It counts for what its signer has issued, not for whom its name says.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator

from cryptography import x509

from ..errors import PEMError
from ..pem import Source, certificates, revocation_lists
from .above import issued, may_sign_lists
from .certinfo import hexadecimal

__all__ = ["revoked_among"]

_By = dict[x509.Name, list[x509.Certificate]]


def revoked_among(
    shown: Iterable[bytes], trust: Source, lists: Source
) -> dict[bytes, tuple[str, str]]:
    """Return subject and serial number of each certificate in DER that is revoked.

    `shown` are those of the connections' chains, `trust` and `lists` the files. Raises `PEMError`
    if a file cannot be read; what cannot be read of the others is not revoked.
    """
    of_issuer: _By = defaultdict(list)
    by_subject: _By = defaultdict(list)
    of_der: dict[x509.Certificate, bytes] = {}
    for der in set(shown):
        try:
            certificate = x509.load_der_x509_certificate(der)
            of_issuer[certificate.issuer].append(certificate)
            by_subject[certificate.subject].append(certificate)
        except ValueError:
            continue
        of_der[certificate] = der
    for certificate in _trusted(trust):
        by_subject[certificate.subject].append(certificate)
    return {
        of_der[each]: (each.subject.rfc4514_string(), hexadecimal(each.serial_number))
        for crl in _read(lists)
        for each in _named_by(crl, of_issuer, by_subject)
    }


def _trusted(trust: Source) -> Iterator[x509.Certificate]:
    for block in certificates(trust):
        try:
            yield x509.load_pem_x509_certificate(block.text.encode())
        except ValueError:
            continue


def _read(lists: Source) -> Iterator[x509.CertificateRevocationList]:
    for block in revocation_lists(lists):
        try:
            yield x509.load_pem_x509_crl(block.text.encode())
        except ValueError as error:
            raise PEMError(f"cannot use {lists}: a CRL in it is damaged; {lists.again}") from error


def _named_by(
    crl: x509.CertificateRevocationList, of_issuer: _By, by_subject: _By
) -> Iterator[x509.Certificate]:
    """Yield the certificates that a list names, of those that its signer has issued."""
    ours = of_issuer.get(crl.issuer, ())
    if not ours or any(each.critical for each in crl.extensions):  # what is critical narrows it
        return
    named = {entry.serial_number for entry in crl} & {each.serial_number for each in ours}
    if not named:
        return
    signers = [each for each in by_subject[crl.issuer] if _has_signed(each, crl)]
    for certificate in ours:
        if certificate.serial_number in named and any(issued(certificate, s) for s in signers):
            yield certificate


def _has_signed(issuer: x509.Certificate, crl: x509.CertificateRevocationList) -> bool:
    try:
        return may_sign_lists(issuer) and crl.is_signature_valid(
            issuer.public_key()  # type: ignore[arg-type]
        )
    except (ValueError, TypeError):  # a kind of key or signature that the library does not know
        return False
