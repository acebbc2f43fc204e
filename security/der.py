"""What of a certificate or a CRL can be read from its DER form without a library.

`ssl` tells nothing of a certificate that is merely loaded, and a library takes longer to import
than the contexts take to make. What cannot be read here is None, never an error.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterable
from typing import NamedTuple

__all__ = ["Facts", "end_of", "facts_of", "has_common_key", "lifetime_of", "subject_of"]

_INTEGER, _BITS, _OCTETS, _OID, _SEQUENCE = 0x02, 0x03, 0x04, 0x06, 0x30
_TIMES = (0x17, 0x18)  # UTCTime, GeneralizedTime
_TEXTS = (0x0C, 0x13, 0x14, 0x16)  # UTF8String, PrintableString, T61String, IA5String
_UTF8, _PRINTABLE = _TEXTS[:2]
_VERSION, _EXTENSIONS, _KEY_ID = 0xA0, 0xA3, 0x80

_SUBJECT_ID = bytes.fromhex("551d0e")
_AUTHORITY_ID = bytes.fromhex("551d23")
_CONSTRAINTS = bytes.fromhex("551d13")
_KEY_USAGE = bytes.fromhex("551d0f")
_KEY_CERT_SIGN = 0x04  # in the first byte of the bits

#: Keys that every TLS library takes: RSA (also for PSS alone), Ed25519 and Ed448, three curves.
_RSA = (bytes.fromhex("2a864886f70d010101"), bytes.fromhex("2a864886f70d01010a"))
_EDWARDS = (bytes.fromhex("2b6570"), bytes.fromhex("2b6571"))
_CURVES = (
    bytes.fromhex("2a8648ce3d030107"),
    bytes.fromhex("2b81040022"),
    bytes.fromhex("2b81040023"),
)
_LEAST_RSA = 2048 // 8

#: The attributes of most subjects, by their last byte in 2.5.4; short names are those of RFC 4514.
_ATTRIBUTES = {3: "CN", 7: "L", 8: "ST", 10: "O", 11: "OU"}
_MOMENT = re.compile(r"(\d{4})(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)Z")
_UNESCAPED = re.compile(r"[A-Za-z0-9]([A-Za-z0-9 ._:@/-]*[A-Za-z0-9._:@/-])?")

Name = tuple[tuple[bytes, bytes], ...]


class Facts(NamedTuple):
    """What decides whether a certificate may stand at the top of a chain.

    Names are normalised: equal ones are equal to OpenSSL, which looks at neither case nor the kind
    of a text. Times are in seconds since the epoch.
    """

    subject: Name
    issuer: Name
    start: float
    end: float
    subject_id: bytes | None
    authority_id: bytes | None
    #: marked by basicConstraints, and not kept from signing by its keyUsage
    is_ca: bool

    @property
    def is_self_signed(self) -> bool:
        """Whether OpenSSL takes it for one that has signed itself."""
        return self.may_be_of(self)

    def may_be_of(self, issuer: Facts) -> bool:
        """Whether names and key identifiers let `issuer` have signed it; no proof that it has."""
        if self.issuer != issuer.subject:
            return False
        return None in (self.authority_id, issuer.subject_id) or (
            self.authority_id == issuer.subject_id
        )


def facts_of(der: bytes) -> Facts | None:
    """Return the facts of a certificate; None if it cannot be read."""
    try:
        fields = list(_children(der, _signed(der)))
        if fields[0][0] == _VERSION:
            del fields[0]
        _, _, (_, issuer), (_, validity), (_, subject), *rest = fields
        start, end = (_seconds(der, *time) for time in _children(der, validity))
        found = dict(_extensions(der, rest))
        return Facts(
            subject=_name(der, subject),
            issuer=_name(der, issuer),
            start=start,
            end=end,
            subject_id=_content(found.get(_SUBJECT_ID), _OCTETS),
            authority_id=_authority_id(found.get(_AUTHORITY_ID)),
            is_ca=_is_ca(found.get(_CONSTRAINTS), found.get(_KEY_USAGE)),
        )
    except (ValueError, IndexError):
        return None


def subject_of(der: bytes) -> str | None:
    """Return the subject in the form of RFC 4514, last part first.

    None if it is empty, or has anything but single attributes of the usual kinds, of letters,
    digits and signs that need no escape.
    """
    try:
        fields = list(_children(der, _signed(der)))
        subject = fields[5 if fields[0][0] == _VERSION else 4][1]
        parts = []
        for _, relative in _children(der, subject):
            ((_, attribute),) = _children(der, relative)
            (_, kind), (tag, value) = _children(der, attribute)
            text = _bytes(der, value).decode("ascii")
            if tag not in (_UTF8, _PRINTABLE) or not _UNESCAPED.fullmatch(text):
                return None
            oid = _bytes(der, kind)
            if oid[:-1] != b"\x55\x04" or oid[-1] not in _ATTRIBUTES:
                return None
            parts.append(f"{_ATTRIBUTES[oid[-1]]}={text}")
        return ",".join(reversed(parts)) or None
    except (ValueError, IndexError):
        return None


def has_common_key(der: bytes) -> bool:
    """Whether a certificate's key is of a kind and size that every TLS library takes.

    True also for one that cannot be read.
    """
    try:
        fields = list(_children(der, _signed(der)))
        (_, algorithm), (_, key) = _children(der, fields[6 if fields[0][0] == _VERSION else 5][1])
        (_, kind), *parameters = _children(der, algorithm)
        oid = _bytes(der, kind)
        if oid in _RSA:
            return len(key) > _LEAST_RSA
        named = [_bytes(der, content) for tag, content in parameters if tag == _OID]
        return oid in _EDWARDS or any(curve in _CURVES for curve in named)
    except (ValueError, IndexError):
        return True


def lifetime_of(der: bytes) -> tuple[float, float] | None:
    """When a certificate or CRL begins and ends, in seconds since the epoch.

    None if there is no such time, or it is neither.
    """
    try:
        times: list[tuple[int, range]] = []
        for tag, content in _children(der, _signed(der)):
            if tag in _TIMES:  # thisUpdate and nextUpdate stand in a CRL as they are
                times.append((tag, content))
            elif tag == _SEQUENCE and not times:
                inner = list(_children(der, content))
                if len(inner) == 2 and all(kind in _TIMES for kind, _ in inner):  # validity
                    times = inner
        if len(times) < 2:
            return None
        return _seconds(der, *times[0]), _seconds(der, *times[1])
    except (ValueError, IndexError):
        return None


def end_of(der: bytes) -> float | None:
    """Return the end of a certificate or CRL (nextUpdate); None as for `lifetime_of`."""
    lifetime = lifetime_of(der)
    return None if lifetime is None else lifetime[1]


def _signed(der: bytes) -> range:
    """Return the part of a certificate or CRL that its issuer has signed."""
    tag, whole, _ = _element(der, 0)
    inner, content, _ = _element(der, whole.start)
    if (tag, inner) != (_SEQUENCE, _SEQUENCE):
        raise ValueError("another type")
    return content


def _element(der: bytes, at: int) -> tuple[int, range, int]:
    """Tag and content of the element at a position, and where the next one begins."""
    length, start = der[at + 1], at + 2
    if length >= 0x80:
        size = length & 0x7F
        length, start = int.from_bytes(der[start : start + size], "big"), start + size
    if start + length > len(der):
        raise ValueError("cut short")
    return der[at], range(start, start + length), start + length


def _children(der: bytes, content: range) -> Iterable[tuple[int, range]]:
    at = content.start
    while at < content.stop:
        tag, inner, at = _element(der, at)
        yield tag, inner


def _bytes(der: bytes, content: range) -> bytes:
    return der[content.start : content.stop]


def _seconds(der: bytes, tag: int, content: range) -> float:
    text = _bytes(der, content).decode("ascii")
    if tag == 0x17:  # two digits of the year: 1950 to 2049
        text = ("19" if text >= "50" else "20") + text
    if found := _MOMENT.fullmatch(text):  # as DER has it; `strptime` takes ten times as long
        year, month, day, hour, minute, second = map(int, found.groups())
        moment = datetime.datetime(year, month, day, hour, minute, second)
    else:
        moment = datetime.datetime.strptime(text, "%Y%m%d%H%M%SZ")
    return moment.replace(tzinfo=datetime.timezone.utc).timestamp()


def _name(der: bytes, content: range) -> Name:
    parts = []
    for _, relative in _children(der, content):
        for _, attribute in _children(der, relative):
            (_, kind), (tag, value) = _children(der, attribute)
            text = _bytes(der, value)
            if tag in _TEXTS:
                text = b" ".join(text.lower().split())
            parts.append((_bytes(der, kind), text))
    return tuple(parts)


def _extensions(der: bytes, fields: list[tuple[int, range]]) -> Iterable[tuple[bytes, bytes]]:
    """Yield identifier and value of each extension."""
    for tag, content in fields:
        if tag != _EXTENSIONS:
            continue
        for _, found in _children(der, _element(der, content.start)[1]):
            (_, kind), *_, (_, value) = _children(der, found)
            yield _bytes(der, kind), _bytes(der, value)


def _content(value: bytes | None, tag: int) -> bytes | None:
    if value is None:
        return None
    found, content, _ = _element(value, 0)
    if found != tag:
        raise ValueError("another type")
    return _bytes(value, content)


def _authority_id(value: bytes | None) -> bytes | None:
    inner = _content(value, _SEQUENCE)
    for tag, content in _children(inner, range(len(inner))) if inner else ():
        if tag == _KEY_ID:
            return _bytes(inner or b"", content)
    return None


def _is_ca(constraints: bytes | None, usage: bytes | None) -> bool:
    marked = _content(constraints, _SEQUENCE)
    if not marked or marked[:3] not in (b"\x01\x01\xff", b"\x01\x01\x01"):
        return False
    bits = _content(usage, _BITS)
    return bits is None or (len(bits) > 1 and bool(bits[1] & _KEY_CERT_SIGN))
