"""Subjects of certificates: what is read without the library is what the library says."""

from __future__ import annotations

import datetime
from collections.abc import Sequence

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.name import _ASN1Type
from cryptography.x509.oid import NameOID

from sealwire.security import PEMError
from sealwire.security.der import subject_of
from sealwire.security.subjects import subject
from sealwire.security.x509.certinfo import CertificateInfo
from support import certs

CN, O, OU, L, ST = (  # noqa: E741
    NameOID.COMMON_NAME,
    NameOID.ORGANIZATION_NAME,
    NameOID.ORGANIZATIONAL_UNIT_NAME,
    NameOID.LOCALITY_NAME,
    NameOID.STATE_OR_PROVINCE_NAME,
)
Part = tuple[x509.ObjectIdentifier, str]
PLAIN = [
    [(CN, "scheduler")],
    [(CN, "worker"), (CN, "node-7.example.org")],
    [(O, "Lab"), (OU, "Team 4"), (CN, "worker")],
    [(ST, "Bavaria"), (L, "Bad Toelz"), (O, "a/b:c@d_e"), (CN, "x")],
    [(CN, "7")],
]
ODD = [
    [],
    [(CN, "a,b")],
    [(CN, "#1")],
    [(CN, " a")],
    [(CN, "a ")],
    [(CN, "a+b"), (O, 'say "it"')],
    [(CN, "a\\b;c<d>e")],
    [(CN, "a\nb")],
    [(CN, "a\x00b")],
    [(CN, "Jürgen")],
    [(CN, "工人")],
    [(NameOID.COUNTRY_NAME, "DE"), (CN, "a")],
    [(NameOID.EMAIL_ADDRESS, "a@b.example"), (CN, "a")],
    [(NameOID.DOMAIN_COMPONENT, "example"), (CN, "a")],
    [(NameOID.SERIAL_NUMBER, "12"), (CN, "a")],
]


def certificate(name: x509.Name) -> bytes:
    key = certs.p256()
    now = datetime.datetime.now(datetime.timezone.utc)
    builder = x509.CertificateBuilder(
        issuer_name=x509.Name([x509.NameAttribute(CN, "issuer")]),
        subject_name=name,
        public_key=key.public_key(),
        serial_number=1,
        not_valid_before=now,
        not_valid_after=now + certs.DAY,
    )
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def name_of(parts: Sequence[Part]) -> x509.Name:
    return x509.Name([x509.NameAttribute(kind, text) for kind, text in parts])


@pytest.mark.parametrize("parts", PLAIN)
def test_plain_subjects_need_no_library(parts: Sequence[Part]) -> None:
    der = certificate(name_of(parts))
    assert subject_of(der) == subject(der) == CertificateInfo.from_der(der).subject != ""


@pytest.mark.parametrize("parts", ODD)
def test_others_are_left_to_it(parts: Sequence[Part]) -> None:
    der = certificate(name_of(parts))
    assert subject_of(der) is None
    assert subject(der) == CertificateInfo.from_der(der).subject


def test_several_attributes_in_one_part_are_left_to_it() -> None:
    both = x509.RelativeDistinguishedName([
        x509.NameAttribute(CN, "a"), x509.NameAttribute(O, "b")
    ])  # fmt: skip
    der = certificate(x509.Name([both]))
    assert subject_of(der) is None
    assert subject(der) == CertificateInfo.from_der(der).subject == "CN=a+O=b"


@pytest.mark.parametrize("kind", [_ASN1Type.BMPString, _ASN1Type.UniversalString])
def test_wide_characters_are_left_to_it(kind: _ASN1Type) -> None:
    der = certificate(x509.Name([x509.NameAttribute(CN, "abcd", _type=kind)]))
    assert subject_of(der) is None
    assert subject(der) == CertificateInfo.from_der(der).subject


def test_cut_and_damaged_ones() -> None:
    """They are told from whole ones, or read as the library does; never another error."""
    whole = certificate(name_of(PLAIN[2]))
    for at in range(0, len(whole), 7):
        for damaged in (whole[:at], whole[:at] + bytes([whole[at] ^ 0x20]) + whole[at + 1 :]):
            try:
                found = subject(damaged)
            except PEMError:
                continue
            assert isinstance(found, str)
