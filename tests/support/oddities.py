"""Certificates of a good CA that say what nobody expects: names, dates, numbers, forms of names.

Each is put together from DER and signed again, since no library writes them.
"""

from __future__ import annotations

import ipaddress
import ssl
from collections.abc import Callable

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from support import certs
from support.certs import der

SHA256 = bytes.fromhex("300a06082a8648ce3d040302")  # ecdsa-with-SHA256


class Odd(certs.Node):
    """One that other libraries do not parse."""

    @property
    def pem(self) -> str:
        return ssl.DER_cert_to_PEM_cert(self.der)


def parts(body: bytes) -> list[bytes]:
    """The elements of a DER sequence's body, each with its header."""
    found = []
    while body:
        size, header = body[1], 2
        if size & 0x80:
            header += size & 0x7F
            size = int.from_bytes(body[2:header], "big")
        found.append(body[: header + size])
        body = body[header + size :]
    return found


def inside(element: bytes) -> bytes:
    return element[2 + (element[1] & 0x7F if element[1] & 0x80 else 0) :]


VERSION, SERIAL, ALGORITHM, ISSUER, VALIDITY, SUBJECT, KEY, EXTENSIONS = range(8)


def forged(ca: certs.Node, change: Callable[[list[bytes]], None]) -> certs.Node:
    """A leaf of `ca` whose fields were changed in place before it was signed."""
    node = certs.leaf(ca, "odd")
    fields = parts(inside(node.certificate.tbs_certificate_bytes))
    change(fields)
    signed = der(0x30, b"".join(fields))
    signature = ca.key.sign(signed, ec.ECDSA(hashes.SHA256()))
    return Odd(der(0x30, signed + SHA256 + der(0x03, b"\0" + signature)), node.key)


def with_names(ca: certs.Node, *names: bytes) -> certs.Node:
    """With these general names, in DER, as its subjectAltName."""
    extension = der(0x30, bytes.fromhex("0603551d11") + der(0x04, der(0x30, b"".join(names))))

    def change(fields: list[bytes]) -> None:
        kept = [
            e for e in parts(inside(inside(fields[EXTENSIONS]))) if b"\x06\x03\x55\x1d\x11" not in e
        ]
        fields[EXTENSIONS] = der(0xA3, der(0x30, b"".join([*kept, extension])))

    return forged(ca, change)


def with_extension(ca: certs.Node, identifier: bytes, value: bytes) -> certs.Node:
    def change(fields: list[bytes]) -> None:
        kept = parts(inside(inside(fields[EXTENSIONS])))
        more = der(0x30, identifier + der(0x04, value))
        fields[EXTENSIONS] = der(0xA3, der(0x30, b"".join([*kept, more])))

    return forged(ca, change)


def with_subject(ca: certs.Node, *attributes: tuple[bytes, int, bytes]) -> certs.Node:
    """Attributes as identifier in DER, tag of the string, and its bytes."""
    name = der(
        0x30,
        b"".join(der(0x31, der(0x30, kind + der(tag, text))) for kind, tag, text in attributes),
    )

    def change(fields: list[bytes]) -> None:
        fields[SUBJECT] = name

    return forged(ca, change)


def with_field(ca: certs.Node, index: int, value: bytes) -> certs.Node:
    def change(fields: list[bytes]) -> None:
        fields[index] = value

    return forged(ca, change)


def with_dates(ca: certs.Node, dates: bytes) -> certs.Node:
    return with_field(ca, VALIDITY, der(0x30, dates))


CN = bytes.fromhex("0603550403")
O_ = bytes.fromhex("060355040a")
UNKNOWN = bytes.fromhex("06032a0304")
NAME = der(0x30, der(0x31, der(0x30, CN + der(0x0C, b"dir"))))
OTHER_NAME = bytes.fromhex("060a2b060104018237140203")  # a user's principal name
PAST, FUTURE = der(0x17, b"200101000000Z"), der(0x17, b"400101000000Z")
GENERALIZED = 0x18
UTF8, PRINTABLE, T61, IA5, UNIVERSAL, BMP = 0x0C, 0x13, 0x14, 0x16, 0x1C, 0x1E
BAD = b"ZZ\xff\xfe\x00\x1b[31mZZ"


def oddities(ca: certs.Node) -> dict[str, certs.Node]:
    """By what is odd."""
    return {
        **{
            f"{kind} {what}": with_names(ca, der(tag, text))
            for kind, tag in (("DNS", 0x82), ("e-mail", 0x81), ("URI", 0x86))
            for what, text in {
                "no UTF-8": BAD,
                "null": b"good\0.evil",
                "empty": b"",
                "4 KB": b"a" * 4000,
                "newline": b"a\nTraceback (most recent call last)",
                "Latin-1": b"caf\xe9",
                "surrogate": b"\xed\xa0\x80",
            }.items()
        },
        "64 KB": with_names(ca, der(0x86, b"a" * 65000)),
        "IP of 3 bytes": with_names(ca, der(0x87, b"\x7f\0\0")),
        "IP of nothing": with_names(ca, der(0x87, b"")),
        "IP of 4000": with_names(ca, der(0x87, b"\x7f" * 4000)),
        "IPv6": with_names(ca, der(0x87, ipaddress.ip_address("fd00::1").packed)),
        "registered ID": with_names(ca, b"\x88\x03\x2a\x03\x04"),
        "registered ID of 4000": with_names(ca, der(0x88, b"\x2a" + b"\x03" * 4000)),
        "registered ID unending": with_names(ca, der(0x88, b"\x2a" + b"\x83" * 40)),
        "directory name": with_names(ca, der(0xA4, NAME)),
        "directory name, empty": with_names(ca, der(0xA4, der(0x30, b""))),
        "directory name, no UTF-8": with_names(
            ca, der(0xA4, der(0x30, der(0x31, der(0x30, CN + der(UTF8, BAD)))))
        ),
        "other name": with_names(ca, der(0xA0, OTHER_NAME + der(0xA0, der(UTF8, b"a@b")))),
        "other name, no UTF-8": with_names(ca, der(0xA0, OTHER_NAME + der(0xA0, der(UTF8, BAD)))),
        "other name, unknown": with_names(ca, der(0xA0, UNKNOWN + der(0xA0, der(0x04, BAD)))),
        "X.400 address": with_names(ca, der(0xA3, der(0x30, b""))),
        "EDI party": with_names(ca, der(0xA5, der(0xA1, der(UTF8, b"edi")))),
        "no alternative name": with_names(ca),
        "5000 names": with_names(ca, *[der(0x82, b"n%d" % i) for i in range(5000)]),
        "names that do not parse": with_names(ca, b"\x82\x7f"),
        "subject empty": with_field(ca, SUBJECT, der(0x30, b"")),
        "subject of 20 KB": with_subject(ca, (CN, UTF8, b"x" * 20000)),
        "subject of 2000 parts": with_subject(ca, *[(O_, UTF8, b"x")] * 2000),
        "subject with null": with_subject(ca, (CN, UTF8, b"good\0evil")),
        "subject, no UTF-8": with_subject(ca, (CN, UTF8, BAD)),
        "subject, IA5 of 8 bits": with_subject(ca, (CN, IA5, BAD)),
        "subject, T61": with_subject(ca, (CN, T61, b"caf\xe9")),
        "subject, BMP cut short": with_subject(ca, (CN, BMP, b"\0a\0")),
        "subject, BMP surrogates": with_subject(ca, (CN, BMP, b"\xd8\0\xdc\0")),
        "subject, universal beyond": with_subject(ca, (CN, UNIVERSAL, b"\x7f\xff\xff\xff")),
        "subject, an integer": with_subject(ca, (CN, 0x02, b"\x05")),
        "subject, a sequence": with_subject(ca, (CN, 0x30, b"\x05\0")),
        "subject, of unknown kind": with_subject(ca, (UNKNOWN, UTF8, b"x"), (CN, UTF8, b"odd")),
        "subject, control characters": with_subject(ca, (CN, UTF8, b"\x1b[31m\r\nlet in\xc2\x9b")),
        "serial negative": with_field(ca, SERIAL, b"\x02\x01\x80"),
        "serial zero": with_field(ca, SERIAL, b"\x02\x01\x00"),
        "serial of 2 KB": with_field(ca, SERIAL, der(0x02, b"\x01" * 2000)),
        "serial of nothing": with_field(ca, SERIAL, b"\x02\x00"),
        "until 9999": with_field(
            ca, VALIDITY, der(0x30, PAST + der(GENERALIZED, b"99991231235959Z"))
        ),
        "until 10000": with_field(
            ca, VALIDITY, der(0x30, PAST + der(GENERALIZED, b"100000101000000Z"))
        ),
        "from 0000": with_field(
            ca, VALIDITY, der(0x30, der(GENERALIZED, b"00000101000000Z") + FUTURE)
        ),
        "until month 13": with_dates(ca, PAST + der(0x17, b"401301000000Z")),
        "until text": with_field(
            ca, VALIDITY, der(0x30, PAST + der(0x17, b"\xff\xfe\0\0\0\0\0\0\0\0\0\0Z"))
        ),
        "dates turned round": with_dates(ca, FUTURE + PAST),
        "version 9": with_field(ca, VERSION, bytes.fromhex("a003020109")),
        **{
            f"{what}, no UTF-8": with_extension(ca, identifier, value)
            for what, identifier, value in (
                (
                    "CRL distribution point",
                    bytes.fromhex("0603551d1f"),
                    der(0x30, der(0x30, der(0xA0, der(0xA0, der(0x86, BAD))))),
                ),
                (
                    "OCSP",
                    bytes.fromhex("06082b06010505070101"),
                    der(0x30, der(0x30, bytes.fromhex("06082b06010505073001") + der(0x86, BAD))),
                ),
                (
                    "issuer's address",
                    bytes.fromhex("06082b06010505070101"),
                    der(0x30, der(0x30, bytes.fromhex("06082b06010505073002") + der(0x86, BAD))),
                ),
            )
        },
    }
