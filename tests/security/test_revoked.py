"""Which certificates a list names, of those that are shown on open connections."""

from __future__ import annotations

import secrets

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from sealwire.security.ca.authority import Authority
from sealwire.security.pem import source
from sealwire.security.x509 import keys
from sealwire.security.x509.lineage import lineage_of, serial_in
from sealwire.security.x509.revoked import revoked_among
from sealwire.security.x509.templates import now
from support import certs

CA = Authority.create("ca")
NEXT = Authority.create("ca")  # after a rotation: the same name, another key
OTHER = Authority.create("other")


def der(authority: Authority, serial: int | None = None) -> bytes:
    """A certificate with that number."""
    old = x509.load_pem_x509_certificate(authority.issue("worker").certificate.encode())
    text = authority.renew(old, keys.generate().public_key(), serial=serial)
    return x509.load_pem_x509_certificate(text.encode()).public_bytes(Encoding.DER)


def number(shown: bytes) -> int:
    return x509.load_der_x509_certificate(shown).serial_number


def crl(authority: Authority, *serials: int) -> str:
    entries = [(serial, now(), "keyCompromise") for serial in serials]
    return authority.revoke(entries, number=1, until=now() + certs.DAY)


def named(shown: list[bytes], trusted: list[Authority], *lists: str) -> set[bytes]:
    trust = source("tls_ca_file", "".join(each.certificate for each in trusted))
    given = source("tls_crl_file", "".join(lists))
    assert trust is not None
    assert given is not None
    return set(revoked_among(shown, trust, given))


def test_numbers_of_a_lineage() -> None:
    for lineage in (0, 1, 2**64 - 1, secrets.randbits(64)):
        made = {serial_in(lineage) for _ in range(50)}
        assert len(made) == 50
        assert {lineage_of(each) for each in made} == {lineage}
        assert all(0 < each < 1 << 159 for each in made), "20 octets, and positive"
    for bad in (-1, 2**64):
        with pytest.raises(ValueError, match="64 bits"):
            serial_in(bad)
    others = [1, 2**64, 2**128 + 7, 2**159 - 1, *(x509.random_serial_number() for _ in range(500))]
    assert {lineage_of(each) for each in others} == {None}


def test_one_of_a_lineage_means_all_of_it() -> None:
    first, later, after = der(CA, serial_in(7)), der(CA, serial_in(7)), der(NEXT, serial_in(7))
    other, plain = der(CA, serial_in(8)), der(CA)
    shown = [first, later, after, other, plain]
    assert named(shown, [CA, NEXT], crl(CA, number(later))) == {first, later, after}
    # The first CA is gone, and with it its list
    assert named(shown, [NEXT], crl(NEXT, serial_in(7))) == {first, later, after}
    assert named(shown, [NEXT], crl(NEXT, number(plain), serial_in(9))) == set()
    assert named(shown, [CA], crl(CA, number(plain))) == {plain}


def test_a_list_that_nobody_trusted_has_signed_means_no_lineage() -> None:
    shown = [der(CA, serial_in(7))]
    assert named(shown, [CA], crl(OTHER, serial_in(7)), crl(NEXT, serial_in(7))) == set()
    assert named(shown, [CA, OTHER], crl(OTHER, serial_in(7))) == set(shown)


@pytest.mark.parametrize("serial", [1, 2, 255, 2**64, 2**128])
def test_numbers_that_only_look_alike(serial: int) -> None:
    """Of a CA that counts, or begins each with the same."""
    shown = [der(CA, serial + 1)]
    assert named(shown, [CA], crl(CA, serial)) == set()
    assert named(shown, [CA], crl(CA, serial + 1)) == set(shown)


def test_what_cannot_be_read_is_not_revoked() -> None:
    good = der(CA)
    assert named([b"", b"\x30\x00", good[:-9], good], [CA], crl(CA, number(good))) == {good}
    assert named([], [CA], crl(CA, 7)) == set()
