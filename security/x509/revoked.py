"""Which certificates, of connections that are open already, stand on revocation lists.

OpenSSL looks at the lists in a handshake only. Here a list counts whether it is in force or not:
what it names was revoked. It counts for what its signer has issued, not for whom its name says; and
where the serial number on it is of a `lineage`, for all of that one, also of an earlier CA, if its
signer is trusted.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator

from cryptography import x509

from ..errors import PEMError
from ..pem import Source, certificates, revocation_lists
from .above import has_signed, issued
from .certinfo import hexadecimal
from .lineage import lineage_of

__all__ = ["revoked_among"]

_Certificates = list[x509.Certificate]


def revoked_among(
    shown: Iterable[bytes], trust: Source, lists: Source
) -> dict[bytes, tuple[str, str]]:
    """Return subject and serial number of each certificate in DER that is revoked.

    `shown` are those of the connections' chains, `trust` and `lists` the files. Raises `PEMError`
    if a file cannot be read; what cannot be read of the others is not revoked.
    """
    of_der: dict[x509.Certificate, bytes] = {}
    for der in set(shown):
        try:
            of_der[x509.load_der_x509_certificate(der)] = der
        except ValueError:
            continue
    known = _Known(list(of_der), _trusted(trust))
    found = (each for crl in _read(lists) for each in known.named_by(crl))
    return {
        of_der[each]: (each.subject.rfc4514_string(), hexadecimal(each.serial_number))
        for each in found
    }


class _Known:
    """The certificates that were shown, and those that are trusted."""

    def __init__(self, shown: _Certificates, trusted: _Certificates) -> None:
        self._of_issuer: dict[x509.Name, _Certificates] = defaultdict(list)
        self._of_lineage: dict[int | None, _Certificates] = defaultdict(list)
        for each in shown:
            self._of_issuer[each.issuer].append(each)
            self._of_lineage[lineage_of(each.serial_number)].append(each)
        self._of_lineage.pop(None, None)
        self._all = [*shown, *trusted]
        self._trusted = trusted

    def named_by(self, crl: x509.CertificateRevocationList) -> Iterator[x509.Certificate]:
        """Yield the certificates that a list names, of those that its signer may revoke."""
        ours = self._of_issuer.get(crl.issuer, ())
        if not (ours or self._of_lineage) or any(each.critical for each in crl.extensions):
            return  # what is critical narrows it
        serials = {entry.serial_number for entry in crl}
        named = [each for each in ours if each.serial_number in serials]
        if named:
            signers = _signers(crl, self._all)
            yield from (c for c in named if any(issued(c, signer) for signer in signers))
        if self._of_lineage:
            hit = {lineage_of(each) for each in serials} & self._of_lineage.keys()
            if hit and _signers(crl, self._trusted):
                for lineage in hit:
                    yield from self._of_lineage[lineage]


def _trusted(trust: Source) -> _Certificates:
    found = []
    for block in certificates(trust):
        try:
            found.append(x509.load_pem_x509_certificate(block.text.encode()))
        except ValueError:
            continue
    return found


def _read(lists: Source) -> Iterator[x509.CertificateRevocationList]:
    for block in revocation_lists(lists):
        try:
            yield x509.load_pem_x509_crl(block.text.encode())
        except ValueError as error:
            raise PEMError(f"cannot use {lists}: a CRL in it is damaged; {lists.again}") from error


def _signers(crl: x509.CertificateRevocationList, among: _Certificates) -> _Certificates:
    return [each for each in among if each.subject == crl.issuer and has_signed(each, crl)]
