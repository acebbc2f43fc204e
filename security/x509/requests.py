"""What a certificate signing request asks for, and whether it can be had."""

from __future__ import annotations

from typing import Any

from cryptography import x509

from ..errors import AuthorityError
from . import keys, names

__all__ = ["alternatives_in", "name_in", "sound"]


def name_in(request: x509.CertificateSigningRequest) -> str:
    """Return the common name that a request asks for. Raises `AuthorityError` if it has none."""
    name = names.common_name(request.subject)
    if not name:
        raise AuthorityError("cannot sign the request: it has no common name; give a role for it")
    return name


def sound(name: str, key: Any) -> Any:
    """Return a public key. Raises `AuthorityError` if it is weak."""
    why = keys.weakness(key)
    if why:
        raise AuthorityError(
            f"cannot issue {name!r}: its key is {why}; use P-256 or RSA of 2048 bits or more"
        )
    return key


def alternatives_in(
    name: str, request: x509.CertificateSigningRequest
) -> tuple[list[str], list[str]]:
    """Return the DNS names and addresses that a request asks for. Raises `AuthorityError`."""
    found = names.extension(request)
    for each in found:
        if not isinstance(each, x509.DNSName | x509.IPAddress):
            raise AuthorityError(
                f"cannot issue {name!r}: the request asks for a {type(each).__name__}; "
                "only DNS names and IP addresses can be had"
            )
    hosts = [each.value for each in found if isinstance(each, x509.DNSName)]
    return hosts, [str(each.value) for each in found if isinstance(each, x509.IPAddress)]
