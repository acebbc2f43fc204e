"""A context's files in words, for errors: which they are, until when, and what is wrong with them.

Only made when something has failed: it reads X.509 in Python, and takes as long as a handshake.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from ..errors import PEMError
from ..pem import Source
from .trust import chosen

if TYPE_CHECKING:
    from ..x509.certinfo import CertificateInfo

__all__ = ["describe", "fault_above"]

_SIDES = ("serverAuth", "clientAuth")
_PURPOSE = 26  # X509_V_ERR_INVALID_PURPOSE
# X509_V_ERR_… of a certificate's own contents, and which of the faults here is meant.
_MEANT = {9: "not valid before", 10: "expired", 24: "is no CA", 79: "is no CA", _PURPOSE: "is for"}


def describe(trust: Source, certificate: Source, crl: Source | None) -> dict[str, str]:
    """Our ``certificate``, ``ca`` and ``crl``: field, file, validity, and faults above the leaf.

    Where the files themselves are the reason to refuse whoever comes, ``fault`` says so.
    """
    from ..x509.certinfo import read_certificates

    words = {}
    for name, where in (("ca", trust), ("certificate", certificate)):
        try:
            found = read_certificates(where)
        except PEMError:  # the file has gone since
            words[name] = str(where)
            continue
        words[name] = f"{where}, {_validity(found[0])}"
        if name == "certificate":
            for index, fault in _faults(found):
                if index:
                    words[name] += f", and above it {fault}"
        elif fault := _fault_of_trust(where, found):
            words["fault"] = f"{where}: {fault}"
    if crl is not None:
        words["crl"] = str(crl)
    return words


def fault_above(chain: Sequence[bytes], trust: Source, code: int, server: bool) -> str:
    """Which certificate above the leaf is at fault, "" if that cannot be told.

    `chain` is what a peer has sent, in DER, `code` OpenSSL's verdict (X509_V_ERR_…), and `server`
    whether the peer is one.
    """
    from ..x509.certinfo import CertificateInfo, read_certificates

    meant = _MEANT.get(code)
    if meant is None:
        return ""
    try:
        infos = [CertificateInfo.from_der(der) for der in chain]
        known = read_certificates(trust)
    except PEMError:
        return ""
    sides = _SIDES[:1] if server else _SIDES[1:]
    path = infos[:1]
    while len(path) <= len(infos) + len(known):
        above = [each for each in (*known, *infos) if each.subject == path[-1].issuer]
        if not above or above[0] in path:
            break
        path.append(above[0])
    if any(meant in fault for index, fault in _faults(path, sides) if not index):
        return ""
    return next((fault for _, fault in _faults(path, sides) if meant in fault), "")


def _validity(info: CertificateInfo) -> str:
    return str(info).rpartition(", ")[2]


def _faults(
    chain: Sequence[CertificateInfo], sides: Sequence[str] = _SIDES
) -> Iterator[tuple[int, str]]:
    """Yield what is wrong with the certificates of a chain, by number."""
    now = datetime.datetime.now(datetime.timezone.utc)
    for index, info in enumerate(chain):
        name = info.subject or "a certificate without a name"
        if not info.not_before <= now < info.not_after:
            yield index, f"{name} {_validity(info)}"
        if index and not info.is_ca:
            yield index, f"{name} is no CA"
        purposes = info.purposes
        if purposes and not ({*sides} <= {*purposes} or "anyExtendedKeyUsage" in purposes):
            yield index, f"{name} is for {', '.join(purposes)} alone"


def _fault_of_trust(trust: Source, found: Sequence[CertificateInfo]) -> str:
    """Why a CA file admits nobody, or fewer than it seems to; "" if there is no reason."""
    judged = chosen(trust)
    used = [found[each.number - 1] for each in judged if not each.why_not]
    faults = [fault for _, fault in _faults(used) if "is no CA" not in fault]
    for each in judged:
        if each.why_not and each.number <= len(found):
            name = found[each.number - 1].subject
            faults.append(f"{name} in it is not used, since {each.why_not.partition(';')[0]}")
    more = len(faults) - 2
    return "; ".join([*faults[:2], *([f"and {more} more"] if more > 0 else [])])
