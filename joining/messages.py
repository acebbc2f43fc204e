"""What goes between a joining process and the service: texts as msgpack, and what is proved.

A connection is one question. The service's hello has the certificates of its CAs and a nonce, fresh
for each connection; then the question, and the answer. `proved` is what a token, or nobody else,
signs: it ends with the digest of the signing request, so that the proof is good for no other key;
before it stand the service's certificate and the nonce, so that it is good for no other service and
no other connection. No clock takes part.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any

import msgpack

from sealwire.comm.wire import hello
from sealwire.security.parameters import AUTHORITY

from .errors import BadMessage

__all__ = [
    "AUTHORITY",
    "HELLO",
    "LARGEST",
    "NONCE",
    "PART",
    "PORT",
    "decode",
    "encode",
    "field",
    "in_parts",
    "is_authority",
    "proved",
    "whole",
]

HELLO = hello.JOINING  # key in the hello of the service
PORT = 8788
NONCE = 32  # bytes
PART = 32 * 1024  # bytes of one message: a signing request of RSA 16384 has 4 KiB
LARGEST = 64 << 20  # bytes of an answer, in parts: revocation lists of a million certificates
_ROOM = 64  # bytes around a part

_CONTEXT = b"sealwire join, version 1\0"


def proved(service: bytes, nonce: bytes, request: bytes) -> bytes:
    """Return what a token signs: for the service's certificate and the request, both as DER."""
    parts = hashlib.sha256(service).digest(), hashlib.sha256(nonce).digest()
    return _CONTEXT + b"".join(parts) + hashlib.sha256(request).digest()


def encode(message: Mapping[str, Any]) -> bytes:
    """Encode a message as its only frame."""
    return bytes(msgpack.packb(dict(message)))


def decode(frames: Sequence[Any], who: str) -> dict[str, Any]:
    """Decode a message: a flat map of texts, bytes, numbers. Raises `BadMessage`."""
    try:
        if len(frames) != 1:
            raise ValueError(f"{len(frames)} frames instead of 1")
        found = msgpack.unpackb(
            frames[0], max_array_len=0, max_map_len=32, max_ext_len=0, strict_map_key=True
        )
        if not isinstance(found, dict):
            raise ValueError(f"a {type(found).__name__} instead of a map")
        nested = any(isinstance(value, (dict, list)) for value in found.values())
        if nested or not all(isinstance(key, str) for key in found):
            raise ValueError("a map within a map, or a key that is no text")
    except Exception as error:  # msgpack documents no base class of its exceptions
        raise BadMessage(f"bad message of {who}: {type(error).__name__} in it") from error
    return found


def in_parts(message: Mapping[str, Any]) -> Iterator[bytes]:
    """Encode an answer as messages of at most `PART` bytes, each as its only frame.

    What a service takes from a stranger is small, and a stream has one bound for both directions;
    revocation lists grow.
    """
    data = encode(message)
    if len(data) <= PART:
        yield data
        return
    for at in range(0, len(data), PART - _ROOM):
        part = data[at : at + PART - _ROOM]
        yield encode({"part": part, "left": len(data) - at - len(part)})


async def whole(read: Callable[[], Awaitable[Sequence[Any]]], who: str) -> dict[str, Any]:
    """Decode an answer, of which `read` reads the next message. Raises `BadMessage`."""
    found = decode(await read(), who)
    data, left = bytearray(), None
    while "part" in found:
        part, after = field(found, "part", bytes), field(found, "left", int)
        left = len(part) + after if left is None else left
        if not part or len(part) + after != left or not 0 <= after <= LARGEST:
            raise BadMessage(f"bad message of {who}: the parts of its answer do not fit together")
        data += part
        if not after:
            return decode([bytes(data)], who)
        left = after
        found = decode(await read(), who)
    if data:
        raise BadMessage(f"bad message of {who}: its answer ends within")
    return found


def field(message: Mapping[str, Any], name: str, kind: type) -> Any:
    """Return a field of a message. Raises `BadMessage` if it has none of that kind."""
    value = message.get(name)
    if type(value) is not kind:
        raise BadMessage(f"bad message: its {name} is {type(value).__name__}, not {kind.__name__}")
    return value


def is_authority(certificate: Mapping[str, Any] | None) -> bool:
    """Whether a certificate, as `ssl` parses it, is that of a service: its first common name."""
    for part in (certificate or {}).get("subject", ()):
        for key, value in part:
            if key == "commonName":
                return bool(value == AUTHORITY)
    return False
