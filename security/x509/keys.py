"""Private and public keys: the supported kinds, generating, writing and reading."""

from __future__ import annotations

import hashlib

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from ..errors import AuthorityError, PEMError

__all__ = [
    "KINDS",
    "PrivateKey",
    "describe",
    "fit",
    "generate",
    "has_nameless_curve",
    "kind_of",
    "public_half",
    "public_of",
    "read",
    "same",
    "shortness",
    "weakness",
    "write",
]

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey

#: the kinds that `generate` supports
KINDS = ("p256", "rsa3072")

_CURVES = {"secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521"}
_EDWARDS = ed25519.Ed25519PublicKey | ed448.Ed448PublicKey
# OpenSSL's security level 2, which every context here requires.
_RSA_BITS, _CURVE_BITS = 2048, 224
#: the identifier of keys on curves, and behind it a sequence where the curve's name should be
_NAMELESS = bytes.fromhex("06072a8648ce3d020130")


def generate(kind: str = "p256") -> PrivateKey:
    """Generate a private key: `p256`, or `rsa3072` for peers without elliptic curves."""
    if kind == "p256":
        return ec.generate_private_key(ec.SECP256R1())
    if kind == "rsa3072":
        return rsa.generate_private_key(65537, 3072)
    raise AuthorityError(f"cannot make a key of kind {kind!r}; use one of {', '.join(KINDS)}")


def kind_of(key: object) -> str:
    """Return the kind in `KINDS` most similar to a public key."""
    return "rsa3072" if isinstance(key, rsa.RSAPublicKey) else "p256"


def describe(key: object) -> str:
    """Return a public key's kind and size for people: `P-256`, `RSA 3072`."""
    if key is None:
        return "of an unknown kind"
    if isinstance(key, rsa.RSAPublicKey):
        return f"RSA {key.key_size}"
    if isinstance(key, ec.EllipticCurvePublicKey):
        return _CURVES.get(key.curve.name, key.curve.name)
    return type(key).__name__.removeprefix("_").removesuffix("PublicKey")


def weakness(key: object) -> str | None:
    """Why a public key is too weak for TLS, or of no kind for it; None if it is not."""
    short = shortness(key)
    if short:
        return short
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name not in _CURVES:
        return f"of the curve {key.curve.name}, which not every peer takes in TLS"
    if not isinstance(key, rsa.RSAPublicKey | ec.EllipticCurvePublicKey | _EDWARDS):
        return f"{describe(key)}, which is no kind for TLS here"
    return None


def fit(name: str, key: object) -> PrivateKey:
    """Return the private key for a CA. Raises `AuthorityError` for one that others would refuse."""
    if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        raise AuthorityError(
            f"cannot create {name!r}: its key is of type {type(key).__name__}, need a P-256 or RSA "
            "private key"
        )
    why = weakness(key.public_key())
    if why:
        raise AuthorityError(
            f"cannot create {name!r}: its key is {why}; use P-256 or RSA of 2048 bits or more"
        )
    return key


def shortness(key: object) -> str | None:
    """Why a public key is too short, also for a CA's, which may be of any kind; None if it is not.

    Chains are verified with keys that do no handshake.
    """
    if isinstance(key, rsa.RSAPublicKey | dsa.DSAPublicKey) and key.key_size < _RSA_BITS:
        return f"{describe(key).split()[0]} of {key.key_size} bits, below {_RSA_BITS}"
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.key_size < _CURVE_BITS:
        return f"of the curve {key.curve.name}, of less than {_CURVE_BITS} bits"
    return None


def public_of(certificate: x509.Certificate | x509.CertificateSigningRequest) -> object:
    """Return the public key of a certificate or a request; None if its kind is unknown."""
    try:
        return certificate.public_key()
    except (ValueError, UnsupportedAlgorithm):
        return None


def has_nameless_curve(certificate: x509.Certificate) -> bool:
    """Whether a key describes its curve by numbers instead of its name, which OpenSSL refuses."""
    return _NAMELESS in certificate.tbs_certificate_bytes


def write(key: PrivateKey, password: bytes | None = None) -> str:
    """Return a private key as PEM text (PKCS #8), encrypted if there is a password."""
    how: KeySerializationEncryption = NoEncryption()
    if password is not None:
        how = BestAvailableEncryption(password)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, how).decode()


_ON_A_COMMAND_LINE = "give --password-file or SEALWIRE_CA_PASSWORD"


def read(
    text: str, place: str, password: bytes | None = None, instead: str = _ON_A_COMMAND_LINE
) -> PrivateKey:
    """Read a PEM private key that signs certificates.

    Raises `PEMError`, naming `place` and no part of the key; `instead` says how to give a password.
    """
    key = _loaded(text, place, password, instead)
    if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        raise PEMError(f"cannot use {place}: a key of this kind cannot sign here; use P-256 or RSA")
    return key


def public_half(text: str, place: str, password: bytes | None = None) -> object:
    """Return the public key of a PEM private key of any kind; raises as `read`."""
    return _loaded(text, place, password, _ON_A_COMMAND_LINE).public_key()


def _loaded(text: str, place: str, password: bytes | None, instead: str) -> PrivateKeyTypes:
    if password is not None and "ENCRYPTED" not in text:
        password = None  # the library rejects a password that is not needed
    try:
        return load_pem_private_key(text.encode(), password)
    except TypeError as error:
        raise PEMError(
            f"cannot use {place}: the private key is encrypted and no password was given; {instead}"
        ) from error
    except UnsupportedAlgorithm:
        raise PEMError(f"cannot use {place}: its private key is of an unknown kind") from None
    except ValueError:  # its message could quote the key
        why = "the password does not open the private key" if password else "damaged private key"
        raise PEMError(f"cannot use {place}: {why}") from None


def identifier(key: object) -> str:
    """Return a public key's short name in lists: 16 hexadecimal digits of its SHA-256."""
    return hashlib.sha256(_bytes(key)).hexdigest()[:16]


def same(one: object, other: object) -> bool:
    """Whether two public keys are equal; one of an unknown kind is equal to none."""
    return _bytes(one) == _bytes(other) != b""


def _bytes(key: object) -> bytes:
    if key is None:
        return b""
    data = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)  # type: ignore[attr-defined]
    return bytes(data)
