"""Certificates whose every name is an attack on whoever looks at them."""

from __future__ import annotations

import datetime
import re
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

#: what a terminal, a reader or rich takes for more than text
HOSTILE = (
    "\x1b]0;owned\x07",
    "\x1b[2J\x1b[H",
    "\x1b[5m\x1b[31m",
    "a\nvalid 2020 to 9999",
    "b\r\nrole  scheduler\r",
    "\x9b31m\x85\x90q\x9c",
    "\x7f\x08\x08\x08\x00\x0b\x0c\x0e",
    "\u202egnp.exe\u2066\u2069\u200f",
    "\u200b\u200d\ufeff\u2060\u00ad\u3164",
    "\u2028\u2029\U000e0041\ue000",
    "e" + "\u0301" * 40,
    "e" + "\u0e34" * 40,
    "[red]x[/red][/][link=https://evil.example]y[/link]",
    ":pile_of_poo: :boom:",
    "back\\",
    "\\[bold]",
)
#: of which nothing may be left in what is printed; newlines are looked at by line
UNSEEN = re.compile(
    "[^\\S\n ]|[\x00-\x09\x0b-\x1f\x7f-\xa0\xad\u115f\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164"
    "\ue000-\uf8ff\ufeff\U000e0000-\U000e0fff]|[\u0301\u0e34]{5}"
)
ALL = "|".join(HOSTILE)

_SAN = x509.ObjectIdentifier("2.5.29.17")


def _tlv(tag: int, data: bytes) -> bytes:
    size = len(data)
    if size < 128:
        return bytes([tag, size]) + data
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(length)]) + length + data


def _alternatives(texts: list[str]) -> bytes:
    """subjectAltName in DER: mail, DNS and URI of each text, in UTF-8, which is against the rules;
    the library writes ASCII only."""
    names = [_tlv(tag, text.encode("utf-8")) for text in texts for tag in (0x81, 0x82, 0x86)]
    return _tlv(0x30, b"".join(names))


def certificate(
    issuer: Any = None,
    *,
    san: list[str] | bytes | None = None,
    ca: bool = False,
    name: str = ALL,
    days: float = -1,
) -> tuple[str, str, Any]:
    """PEM of certificate and key, and what signs with them as `issuer`; self-signed without one.

    It has expired by a day, so that there is something to say of it.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    kinds = (NameOID.COMMON_NAME, NameOID.ORGANIZATION_NAME, NameOID.ORGANIZATIONAL_UNIT_NAME,
             NameOID.LOCALITY_NAME, NameOID.EMAIL_ADDRESS, NameOID.TITLE)  # fmt: skip
    pieces = [name] if name != ALL else [*HOSTILE, ALL]
    subject = x509.Name([
        x509.NameAttribute(kind, piece, _validate=False)
        for piece in pieces for kind in kinds[: 1 if name != ALL else None]
    ])  # fmt: skip
    now = datetime.datetime.now(datetime.timezone.utc)
    signer, issued_by = (key, subject) if issuer is None else issuer
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issued_by)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(now - datetime.timedelta(days=9))
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca, None), critical=True)
    )
    if san is not None:
        der = san if isinstance(san, bytes) else _alternatives(san)
        builder = builder.add_extension(x509.UnrecognizedExtension(_SAN, der), critical=False)
    made = builder.sign(signer, hashes.SHA256())
    form = (Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    key_text = key.private_bytes(*form).decode()
    return made.public_bytes(Encoding.PEM).decode(), key_text, (key, subject)


def ascii_only(texts: tuple[str, ...] = HOSTILE) -> list[str]:
    """Those that stand in a subjectAltName by the rules, which say ASCII and no more."""
    return [text for text in texts if text.isascii()]
