"""Certificates for tests, made at run time: good ones, and every kind of bad one.

`root`, `intermediate` and `leaf` make sound certificates; their keyword arguments, those of `make`,
break them one by one. What no library agrees to sign is put together by `resigned` from DER.
"""

from __future__ import annotations

import datetime
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

HOUR = datetime.timedelta(hours=1)
DAY = datetime.timedelta(days=1)
SECOND = datetime.timedelta(seconds=1)
CLIENT = ExtendedKeyUsageOID.CLIENT_AUTH
SERVER = ExtendedKeyUsageOID.SERVER_AUTH

_PKCS8 = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8)
_USAGES = [
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
    "encipher_only",
    "decipher_only",
]


@dataclass
class Node:
    """A certificate with its key; `chain` are the intermediates its holder sends along."""

    der: bytes
    key: Any
    chain: list[Node] = field(default_factory=list)

    @property
    def certificate(self) -> x509.Certificate:
        return x509.load_der_x509_certificate(self.der)

    @property
    def pem(self) -> str:
        """The certificate and its chain."""
        encode = serialization.Encoding.PEM
        own = self.certificate.public_bytes(encode).decode()
        return own + "".join(node.pem for node in self.chain)

    @property
    def key_pem(self) -> str:
        return self.key.private_bytes(*_PKCS8, serialization.NoEncryption()).decode()

    def encrypted_key_pem(self, password: bytes) -> str:
        encryption = serialization.BestAvailableEncryption(password)
        return self.key.private_bytes(*_PKCS8, encryption).decode()


def usage(*granted: str) -> x509.KeyUsage:
    return x509.KeyUsage(**{name: name in granted for name in _USAGES})


def p256() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


@functools.cache  # it takes a tenth of a second, and now and then three
def rsa_key(bits: int) -> rsa.RSAPrivateKey:
    """The same for all that ask for one of that size."""
    return rsa.generate_private_key(65537, bits)


def make(
    common_name: str,
    issuer: Node | None = None,
    *,
    key: Any = None,
    start: datetime.timedelta = -HOUR,
    end: datetime.timedelta = 90 * DAY,  # none is warned of
    constraints: x509.BasicConstraints | None = None,
    constraints_critical: bool = True,
    key_usage: x509.KeyUsage | None = None,
    purposes: Sequence[x509.ObjectIdentifier] = (),
    names: Sequence[str] = (),
    subject_id: bool = True,
    authority_id: bool = True,
    extra: Sequence[tuple[x509.ExtensionType, bool]] = (),
) -> Node:
    """A certificate with just these extensions, self-signed without an issuer."""
    key = key or p256()
    now = datetime.datetime.now(datetime.timezone.utc)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    signer = issuer.key if issuer else key
    extensions: list[tuple[x509.ExtensionType, bool]] = list(extra)
    if constraints:
        extensions.append((constraints, constraints_critical))
    if key_usage:
        extensions.append((key_usage, True))
    if purposes:
        extensions.append((x509.ExtendedKeyUsage(purposes), False))
    if names:
        extensions.append((x509.SubjectAlternativeName([x509.DNSName(n) for n in names]), False))
    if subject_id:
        extensions.append((x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False))
    if authority_id and issuer:
        identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())
        extensions.append((identifier, False))
    builder = x509.CertificateBuilder(
        issuer_name=issuer.certificate.subject if issuer else subject,
        subject_name=subject,
        public_key=key.public_key(),
        serial_number=x509.random_serial_number(),
        not_valid_before=now + start,
        not_valid_after=now + end,
    )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    signed = builder.sign(signer, hashes.SHA256())
    return Node(signed.public_bytes(serialization.Encoding.DER), key)


def root(common_name: str = "root", **changes: Any) -> Node:
    sound = {
        "constraints": x509.BasicConstraints(True, None),
        "key_usage": usage("key_cert_sign", "crl_sign"),
    }
    return make(common_name, **{**sound, **changes})


def intermediate(issuer: Node, common_name: str = "intermediate", **changes: Any) -> Node:
    return root(common_name, issuer=issuer, **changes)


def leaf(
    issuer: Node, common_name: str = "leaf", *, via: Sequence[Node] = (), **changes: Any
) -> Node:
    """An end-entity certificate; `via` are the intermediates sent along, its issuer first."""
    sound = {
        "key_usage": usage("digital_signature"),
        "purposes": [SERVER, CLIENT],
        "names": [common_name],
    }
    node = make(common_name, issuer, **{**sound, **changes})
    node.chain = list(via)
    return node


def self_signed_pin(common_name: str = "dask-internal") -> Node:
    """A certificate that is trusted as itself and marked as nothing, as Dask's `temporary()`."""
    return make(common_name, names=[common_name], subject_id=False, key=rsa_key(2048))


def crl(
    issuer: Node,
    *revoked: Node,
    start: datetime.timedelta = -HOUR,
    end: datetime.timedelta = 90 * DAY,
    key: Any = None,
) -> str:
    """A certificate revocation list as PEM text; `end` is its nextUpdate."""
    now = datetime.datetime.now(datetime.timezone.utc)
    builder = x509.CertificateRevocationListBuilder(
        issuer_name=issuer.certificate.subject,
        last_update=now + start,
        next_update=now + end,
    ).add_extension(
        x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.key.public_key()), False
    )
    for node in revoked:
        entry = x509.RevokedCertificateBuilder(node.certificate.serial_number, now - HOUR)
        builder = builder.add_revoked_certificate(entry.build())
    signed = builder.sign(key or issuer.key, hashes.SHA256())
    return signed.public_bytes(serialization.Encoding.PEM).decode()


def with_flipped_signature(node: Node) -> Node:
    return Node(node.der[:-1] + bytes([node.der[-1] ^ 1]), node.key, node.chain)


def resigned(node: Node, issuer: Node, change: Callable[[bytes], bytes], digest: Any) -> Node:
    """The certificate with its signed part changed and signed again by an RSA issuer."""
    certificate = node.certificate
    signed = change(certificate.tbs_certificate_bytes)
    algorithm = change(der(0x30, bytes.fromhex("06092a864886f70d01010b0500")))
    signature = issuer.key.sign(signed, padding.PKCS1v15(), digest)
    body = signed + algorithm + der(0x03, b"\0" + signature)
    return Node(der(0x30, body), node.key, node.chain)


def with_sha1(node: Node, issuer: Node) -> Node:
    """The same certificate, signed with SHA-1."""
    sha256, sha1 = bytes.fromhex("2a864886f70d01010b"), bytes.fromhex("2a864886f70d010105")
    return resigned(node, issuer, lambda data: data.replace(sha256, sha1), hashes.SHA1())


def as_version_1(node: Node, issuer: Node) -> Node:
    """The same certificate, without extensions, as X.509 version 1."""
    version = bytes.fromhex("a003020102")

    def change(data: bytes) -> bytes:
        before, found, after = data.partition(version)
        return der(0x30, after) if found and len(before) <= 4 else data

    return resigned(node, issuer, change, hashes.SHA256())


def der(tag: int, body: bytes) -> bytes:
    size = len(body)
    if size < 128:
        return bytes([tag, size]) + body
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(length)]) + length + body
