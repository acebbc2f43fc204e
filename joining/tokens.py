"""Tokens: what a process is given so that it can join, instead of a key and a certificate.

    sealwire_join_ + base32, in small letters, of

        version (1)  n (1)  n digests of CAs (32 each)  seed (32)  CRC-32 of all before it (4)

The fixed beginning is for programs that look for secrets in code and logs. The alphabet needs no
quotes in shells, URLs and YAML, and a double click selects all of it. The checksum tells a token
that was cut off or mistyped before anything is dialled; it protects from nobody.

A digest is the SHA-256 of a CA's public key, as DER (SubjectPublicKeyInfo): a CA that is issued
again for the same key stays the same. A token made during a rotation names both CAs.

The seed is that of an Ed25519 key. The joining process signs its request with it, and the ledger
has the public half: it verifies, and whoever reads it cannot sign. A shared secret (an HMAC) would
have to be in the ledger itself.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import secrets
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from .errors import TokenError

__all__ = ["PREFIX", "Token", "digest", "identifier", "key_digest", "verifies"]

PREFIX = "sealwire_join_"

_VERSION = 1
_DIGEST, _SEED, _SUM = 32, 32, 4
_MOST = 4  # CAs that one token names: two are trusted during a rotation
_LONGEST = 400  # characters: of a token with four digests, and some
_SHAPE = re.compile(r"[a-z2-7]+")


@dataclass(frozen=True)
class Token:
    """A token; neither its repr nor its `str` has anything of the secret, and it does not pickle.

    Attributes
    ----------
    digests : tuple of bytes
        SHA-256 of the public keys of the CAs that a service may be of.
    seed : bytes
        The secret.
    """

    digests: tuple[bytes, ...]
    seed: bytes = field(repr=False)

    @classmethod
    def make(cls, authorities: Iterable[x509.Certificate]) -> Token:
        """Return a new token for services of these CAs."""
        digests = tuple(dict.fromkeys(digest(each) for each in authorities))
        if not 0 < len(digests) <= _MOST:
            raise TokenError(f"cannot make a token for {len(digests)} CAs: 1 to {_MOST} fit")
        return cls(digests, secrets.token_bytes(_SEED))

    @classmethod
    def parse(cls, text: str, place: str = "") -> Token:
        """Return the token that a text is. Raises `TokenError`, which does not quote it.

        `place` says where it was found, such as ``in worker.token``.
        """
        bad = f"bad token {place}".strip()
        if not isinstance(text, str):
            raise TokenError(f"{bad}: got {type(text).__name__}, need a text")
        body = text.strip()
        if not body:
            raise TokenError(f"{bad}: it is empty; give the line that `certs token` printed")
        if not body.startswith(PREFIX):
            raise TokenError(
                f"{bad}: it does not begin with {PREFIX}; "
                "give the line that `sealwire certs token` printed"
            )
        several = body.count(PREFIX)
        if several > 1:
            raise TokenError(f"{bad}: there are {several} tokens, and one is used; leave one")
        body = body.removeprefix(PREFIX)
        if len(body) > _LONGEST or not _SHAPE.fullmatch(body):
            raise TokenError(
                f"{bad}: what follows {PREFIX} are not small letters and the digits 2 to 7, "
                f"{_LONGEST} at most; copy it again, in one piece"
            )
        data = _decoded(body)
        if data is None or zlib.crc32(data[:-_SUM]) != int.from_bytes(data[-_SUM:], "big"):
            raise TokenError(
                f"{bad}: of its {len(body)} characters after {PREFIX} some are wrong or "
                "missing; copy it again, in one piece"
            )
        if data[0] != _VERSION:
            raise TokenError(
                f"{bad}: it is of version {data[0]}, and this sealwire knows {_VERSION}; "
                "install the release of the machine that made it"
            )
        count, rest = data[1], data[2:-_SUM]
        if not 0 < count <= _MOST or len(rest) != count * _DIGEST + _SEED:
            raise TokenError(f"{bad}: its parts do not fit together; have another one made")
        parts = [rest[at : at + _DIGEST] for at in range(0, count * _DIGEST, _DIGEST)]
        return cls(tuple(parts), rest[-_SEED:])

    def text(self) -> str:
        """Return the token as text: a secret."""
        data = bytes((_VERSION, len(self.digests))) + b"".join(self.digests) + self.seed
        return PREFIX + _encoded(data + zlib.crc32(data).to_bytes(_SUM, "big"))

    @property
    def public(self) -> bytes:
        """The public half, which the ledger has."""
        key = self._key().public_key()
        return key.public_bytes(Encoding.Raw, PublicFormat.Raw)

    @property
    def id(self) -> str:
        """The name of the token, for lists and logs: no secret."""
        return identifier(self.public)

    def names(self, authority: x509.Certificate) -> bool:
        """Whether a CA is one of those that the token is for."""
        return digest(authority) in self.digests

    def sign(self, what: bytes) -> bytes:
        """Return the signature that proves the token."""
        return self._key().sign(what)

    def _key(self) -> Ed25519PrivateKey:
        return Ed25519PrivateKey.from_private_bytes(self.seed)

    def __repr__(self) -> str:
        return f"<token {self.id}>"

    __str__ = __repr__

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError(f"cannot pickle {self!r}: it is a secret; pass its text on by other means")


def digest(authority: x509.Certificate) -> bytes:
    """Return the digest of a CA that tokens have."""
    return key_digest(authority.public_key())


def key_digest(key: Any) -> bytes:
    """Return the SHA-256 of a public key, as DER."""
    return hashlib.sha256(
        key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    ).digest()


def identifier(public: bytes) -> str:
    """Return the name of the token with this public half: 80 bits of its SHA-256."""
    return hashlib.sha256(public).hexdigest()[:20]


def verifies(public: bytes, signature: object, what: bytes) -> bool:
    """Whether the token with this public half has signed `what`."""
    if not isinstance(signature, bytes):
        return False
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, what)
    except (InvalidSignature, ValueError):
        return False
    return True


def _encoded(data: bytes) -> str:
    return base64.b32encode(data).decode().rstrip("=").lower()


def _decoded(text: str) -> bytes | None:
    """Return the bytes, None if no bytes have this text."""
    try:
        data = base64.b32decode(text.upper() + "=" * (-len(text) % 8))
    except (binascii.Error, ValueError):
        return None
    long_enough = len(data) > 2 + _SUM
    return data if long_enough and _encoded(data) == text else None
