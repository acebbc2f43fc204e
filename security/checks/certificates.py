"""Checks of an identity: key, dates, purposes, and the path to a trusted CA."""

from __future__ import annotations

import datetime
import functools
from collections.abc import Iterator

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.x509.oid import ExtendedKeyUsageOID

from ..errors import PEMError
from ..pem import Source, blocks
from ..pem_shapes import contents_of
from ..x509 import keys
from ..x509.certinfo import CertificateInfo
from ..x509.templates import now
from .findings import (
    ERROR,
    WARNING,
    Certificates,
    Finding,
    changeable,
    dates,
    exposed,
    rewrite,
    strength,
    usage,
)
from .remedies import of_identity

__all__ = ["identity"]

_SIDES = {
    ExtendedKeyUsageOID.SERVER_AUTH: "accept connections",
    ExtendedKeyUsageOID.CLIENT_AUTH: "connect",
}


def identity(
    certificate: Source,
    key: Source | None,
    chain: Certificates,
    trusted: Certificates,
    soon: datetime.timedelta | None,
    password: str | bytes | None = None,
    owners: frozenset[int] = frozenset(),
) -> Iterator[Finding]:
    """Check an identity's key, dates, purposes and issuer.

    `chain` is what it presents; `owners` are further users who may own its files.
    """
    place = certificate.place
    info = CertificateInfo.of(chain[0])
    again = functools.partial(of_identity, certificate, chain[0], trusted)
    yield from _key(certificate, key, chain[0], password, trusted)
    for each in (certificate, key):
        if each is not None and each.path is not None:
            holds_key = each is key or key is None or key.path == each.path
            yield from changeable(each.path, of_key=holds_key, owners=owners)
    yield from dates(place, info, soon, "", again())
    sound = again(", with a key of P-256 or RSA of 2048 bits and more,")
    yield from strength(place, chain[0], sound)
    for purpose, side in _SIDES.items():
        if not _may(chain[0], purpose):
            has = ", ".join(info.purposes)
            yield Finding(
                ERROR,
                "wrong-purpose",
                place,
                f"its extendedKeyUsage ({has}) does not let it {side}; processes do both",
                again(" with serverAuth and clientAuth"),
            )
    granted = usage(chain[0])
    if granted is not None and not (granted.digital_signature or granted.key_agreement):
        yield Finding(
            ERROR,
            "wrong-purpose",
            place,
            "its keyUsage lacks digitalSignature, so it lets nobody show that the key is theirs: "
            "it will be refused",
            again(" with keyUsage digitalSignature"),
        )
    if info.is_ca:
        yield Finding(
            WARNING,
            "ca-as-identity",
            place,
            f"{info.subject} is a CA, and its key signs for everybody",
            f"give each process a certificate of its own; {again()}",
        )
    yield from _above(place, chain, trusted, soon)
    if trusted:
        yield from _path(place, chain, trusted)


def _key(
    certificate: Source,
    key: Source | None,
    leaf: x509.Certificate,
    password: str | bytes | None,
    trusted: Certificates,
) -> Iterator[Finding]:
    holder = key or certificate
    try:
        holder = holder.taken()
        text = holder.read()
    except PEMError as error:
        advice = rewrite(holder)
        yield Finding(ERROR, "unreadable", holder.place, str(error), advice)
        return
    block = next((each for each in blocks(text) if each.is_private_key), None)
    secret = password.encode() if isinstance(password, str) else password
    if block is None:
        yield Finding(
            ERROR,
            "key-missing",
            holder.place,
            f"there is no private key in it, {contents_of(blocks(text), holder.looks)}",
            f"append the key, or configure its file beside {certificate.place}",
        )
        return
    if holder.path is not None:
        yield from exposed(holder.path)
    own = keys.public_of(leaf)
    if own is None:  # that is told of the certificate
        return
    try:
        public = keys.public_half(block.text, holder.place, secret)
    except PEMError as error:
        locked = block.is_encrypted and secret is None
        code, message = "key-unreadable", str(error)
        if locked:
            message = "its private key is encrypted and the configuration has no password for it"
        advice = "set sealwire.tls.key-password" if locked else "write the key again"
        if block.is_encrypted and not locked:
            advice = "correct sealwire.tls.key-password"
        yield Finding(ERROR, code, holder.place, message, advice)
        return
    if not keys.same(public, own):
        yield Finding(
            ERROR,
            "key-mismatch",
            holder.place,
            "the private key is not that of the first certificate",
            "put the key of that certificate there; if it is lost: "
            + of_identity(certificate, leaf, trusted),
        )


def _above(
    place: str, chain: Certificates, trusted: Certificates, soon: datetime.timedelta | None
) -> Iterator[Finding]:
    """Whether the CAs above a leaf, up to a trusted one, let it be used on both sides, and last."""
    current, sent = chain[0], list(chain[1:])
    while current not in trusted:
        issuer = next((each for each in (*trusted, *sent) if _issued(current, each)), None)
        if issuer is None:
            return
        info = CertificateInfo.of(issuer)
        if not all(_may(issuer, purpose) for purpose in _SIDES):
            yield Finding(
                ERROR,
                "wrong-purpose",
                place,
                f"the extendedKeyUsage ({', '.join(info.purposes)}) of {info.subject}, a CA above "
                "it, does not let it both connect and accept connections; processes do both",
                "have that CA issued again without extendedKeyUsage, or with serverAuth and "
                "clientAuth",
            )
        if issuer not in trusted:  # of those is told with the CA file
            sent.remove(issuer)
            if info.is_ca and info.not_after > now():  # else `_path` tells of it
                again = "put the CA's new certificate in its place, behind the leaf"
                yield from dates(place, info, soon, "", again)
        current = issuer


def _path(place: str, chain: Certificates, trusted: Certificates) -> Iterator[Finding]:
    """Follow the issuers from the leaf to a trusted certificate."""
    current = chain[0]
    if current in trusted:
        return
    for _ in range(len(chain) + 1):
        if any(_issued(current, each) for each in trusted):
            return
        issuer = next((each for each in chain[1:] if _issued(current, each)), None)
        if issuer is None:
            break
        info = CertificateInfo.of(issuer)
        if not info.is_ca or info.not_after < now():
            why = "is not a CA" if not info.is_ca else f"expired {info.not_after:%Y-%m-%d}"
            yield Finding(
                ERROR,
                "bad-intermediate",
                place,
                f"its intermediate {info.subject} {why}",
                "have it issued again by a CA that is in force",
            )
            return
        current = issuer
    issuer_name = current.issuer.rfc4514_string()
    names = [each.subject.rfc4514_string() for each in trusted]
    why = "which is not trusted and not sent along"
    if issuer_name in names:
        why = "and the trusted CA of that name is another one"
    yield Finding(
        ERROR,
        "other-ca",
        place,
        f"its chain ends at {issuer_name}, {why}; trusted are {', '.join(names)}",
        "append the missing intermediate, trust its CA, or have it issued by one that is trusted",
    )


def _issued(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except UnsupportedAlgorithm:  # a key that OpenSSL may know
        return certificate.issuer == issuer.subject
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _may(certificate: x509.Certificate, purpose: x509.ObjectIdentifier) -> bool:
    try:
        usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return True
    return purpose in usage or ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE in usage
