"""The subject of a certificate, in the form of RFC 4514."""

from __future__ import annotations

from .der import subject_of

__all__ = ["subject"]


def subject(der: bytes) -> str:
    """Return the subject of a certificate, "" if it is empty.

    Plain ones are read without the X.509 library, which takes as long to import as a process of
    Dask takes to make its contexts. Raises `PEMError` if the certificate cannot be read.
    """
    plain = subject_of(der)
    if plain is not None:
        return plain
    from .x509.certinfo import CertificateInfo

    return CertificateInfo.from_der(der).subject
