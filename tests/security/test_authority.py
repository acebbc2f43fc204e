"""The authority: what it issues, what it refuses, and that others agree with it."""

from __future__ import annotations

import datetime
import ipaddress
import re
import ssl
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.oid import ExtensionOID, NameOID

from sealwire.security import (
    Authority,
    AuthorityError,
    CertificateExpired,
    CertificateInfo,
    Identity,
    PEMError,
    Security,
)
from sealwire.security.pem import Source
from sealwire.security.x509.certinfo import read_certificates
from support import certs
from support.folders import now
from support.handshakes import VERSIONS, client_context, foreign_context, server_context, shake

DAY = datetime.timedelta(days=1)


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority.create("lab CA")


def asked(key: ec.EllipticCurvePrivateKey, *names: x509.GeneralName) -> Any:
    """A signing request."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "worker")])
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(key, hashes.SHA256())


def parsed(identity: Identity) -> x509.Certificate:
    return x509.load_pem_x509_certificate(identity.certificate.encode())


def info(text: str) -> CertificateInfo:
    (only,) = read_certificates(Source("certificate", text, in_memory=True))
    return only


def security(authority: Authority, identity: Identity) -> Security:
    return Security(
        tls_ca_file=authority.certificate,
        tls_worker_cert=identity.certificate,
        tls_worker_key=identity.key,
    )


def test_what_an_identity_says(authority: Authority) -> None:
    identity = authority.issue("worker", days=30, names=["node7.lab"], ips=["10.0.0.7", "::1"])
    said = info(identity.certificate)
    assert said.subject == "CN=worker"
    assert said.issuer == "CN=lab CA"
    assert said.names == ("node7.lab", "10.0.0.7", "::1")
    assert said.purposes == ("serverAuth", "clientAuth")
    assert not said.is_ca
    assert said.serial.bit_length() > 100
    assert now() - said.not_before >= datetime.timedelta(minutes=5)
    assert abs(said.not_after - now() - 30 * DAY) < datetime.timedelta(minutes=1)
    assert str(said) == f"CN=worker, issued by CN=lab CA, valid until {said.not_after:%Y-%m-%d}"
    der = ssl.PEM_cert_to_DER_cert(identity.certificate)
    assert CertificateInfo.from_der(der) == said
    assert len(bytes.fromhex(said.fingerprint)) == 32


def test_critical_extensions_are_marked(authority: Authority) -> None:
    for certificate in (
        parsed(authority.issue("x")),
        x509.load_pem_x509_certificate(authority.certificate.encode()),
    ):
        critical = {each.oid for each in certificate.extensions if each.critical}
        assert critical == {ExtensionOID.BASIC_CONSTRAINTS, ExtensionOID.KEY_USAGE}


def test_the_common_name_is_an_alternative_name_only_if_it_can_be(authority: Authority) -> None:
    assert info(authority.issue("node-1.lab").certificate).names == ("node-1.lab",)
    assert info(authority.issue("Zoë's laptop").certificate).names == ()
    assert info(authority.issue("node-1", ips=["::1"]).certificate).names == ("::1",)


def test_every_certificate_is_its_own(authority: Authority) -> None:
    issued = [authority.issue("worker") for _ in range(20)]
    assert len({parsed(each).serial_number for each in issued}) == 20
    assert len({each.key for each in issued}) == 20
    assert all(each.key not in repr(each) for each in issued)


@pytest.mark.parametrize("version", VERSIONS, ids=["TLS1.2", "TLS1.3"])
@pytest.mark.parametrize("strict", [True, False], ids=["strict", "as usual"])
def test_others_accept_it(authority: Authority, version: ssl.TLSVersion, strict: bool) -> None:
    """A foreign peer under `VERIFY_X509_STRICT`, the pickiest there is in `ssl`."""
    ours = security(authority, authority.issue("worker"))
    issued = authority.issue("peer")
    key = load_pem_private_key(issued.key.encode(), None)
    encoding = certs.serialization.Encoding.DER
    peer = certs.Node(parsed(issued).public_bytes(encoding), key)
    root = certs.Node(ssl.PEM_cert_to_DER_cert(authority.certificate), None)
    for side in ("server", "client"):
        theirs = foreign_context(side, peer, [root], version=version)
        if strict:
            theirs.verify_flags |= ssl.VERIFY_X509_STRICT
        if side == "server":
            outcome = shake(theirs, client_context(ours, "worker"))
        else:
            outcome = shake(server_context(ours, "worker"), theirs)
        assert outcome.accepted, (outcome.server.error, outcome.client.error)


@pytest.mark.parametrize(
    ("start", "days", "code", "words"),
    [(-3 * DAY, 2, 10, "expired "), (DAY / 2, 2, 9, "not valid before ")],
    ids=["expired", "not yet valid"],
)
def test_other_times_can_be_asked_for(
    authority: Authority, start: datetime.timedelta, days: float, code: int, words: str
) -> None:
    wrong = authority.issue("worker", not_before=now() + start, days=days)
    assert words in str(info(wrong.certificate))
    outcome = shake(
        server_context(security(authority, authority.issue("worker")), "worker"),
        client_context(security(authority, wrong), "worker"),
    )
    assert outcome.refused_by("server") == code


def test_an_identity_ends_with_its_authority() -> None:
    authority = Authority.create(days=10)
    ends = info(authority.certificate).not_after
    assert info(authority.issue("worker", days=365).certificate).not_after == ends
    assert info(authority.certificate).is_ca
    assert str(info(authority.certificate)).startswith("CN=sealwire CA, self-signed, valid until ")


def test_an_expired_authority_issues_nothing() -> None:
    authority = Authority.create(not_before=now() - 3 * DAY, days=2)
    with pytest.raises(CertificateExpired, match="cannot issue 'worker': the authority expired 20"):
        authority.issue("worker")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"common_name": ""}, "1 to 64 characters, got 0"),
        ({"common_name": "x" * 65}, "1 to 64 characters, got 65"),
        ({"days": 0}, "validity of 0 days"),
        ({"days": -1}, "validity of -1 days"),
        ({"days": float("nan")}, "validity of nan days"),
        ({"days": 1e9}, "validity of 1000000000.0 days"),
        ({"names": ["müsli.lab"]}, "'müsli.lab' is not a DNS name"),
        ({"names": ["10.0.0.1/8"]}, "is not a DNS name"),
        ({"ips": ["node7"]}, "'node7' is not an IP address"),
    ],
)
def test_what_is_refused(authority: Authority, fields: dict[str, Any], words: str) -> None:
    with pytest.raises(AuthorityError, match=f"^cannot issue .*{words}"):
        authority.issue(**{"common_name": "worker", **fields})


@pytest.mark.parametrize("days", [0, -1, 1e9])
def test_temporary_refuses_unusable_days(days: float) -> None:
    with pytest.raises(AuthorityError, match="validity of"):
        Security.temporary(days=days)


def test_what_is_no_certificate() -> None:
    damaged = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
    with pytest.raises(PEMError, match=r"cannot use ca .*: certificate 2 in it is damaged"):
        read_certificates(Source("ca", Authority.create().certificate + damaged, in_memory=True))
    with pytest.raises(PEMError, match="cannot read 3 bytes as a DER certificate"):
        CertificateInfo.from_der(b"xyz")


def test_purposes_without_a_name_are_shown_as_numbers() -> None:
    unknown = x509.ObjectIdentifier("1.2.3.4")
    node = certs.leaf(certs.root(), purposes=[certs.CLIENT, unknown])
    assert CertificateInfo.from_der(node.der).purposes == ("clientAuth", "1.2.3.4")
    assert CertificateInfo.from_der(certs.make("bare").der).purposes == ()


@pytest.mark.parametrize("field", ["names", "ips"])
@pytest.mark.parametrize("text", ["node7", "7", "", b"node7"])
def test_one_text_is_no_list_of_names(authority: Authority, field: str, text: Any) -> None:
    """It would be taken for a name of each character."""
    request = asked(certs.p256())
    for issue in (authority.issue, lambda name, **named: authority.sign(request, name, **named)):
        with pytest.raises(AuthorityError, match=re.escape(f"need a list of them, as [{text!r}]")):
            issue("worker", **{"names": [], field: text})


@pytest.mark.parametrize("text", ["lab", "10.0.0.0/8", "", b"lab"])
def test_one_text_is_no_list_of_constraints(text: Any) -> None:
    with pytest.raises(AuthorityError, match=re.escape(f"need a list of them, as [{text!r}]")):
        Authority.create("lab CA", permitted=text)


@pytest.mark.parametrize("password", ["pässword", b"\xff"])
def test_a_password_is_text_or_bytes(authority: Authority, password: Any) -> None:
    encrypted = authority.key(password)
    assert "ENCRYPTED" in encrypted
    again = Authority.load(authority.certificate, encrypted, password=password)
    assert again.issued(parsed(again.issue("worker")))
    for wrong, words in ((None, "no password was given; pass password=…"), ("x", "does not open")):
        with pytest.raises(PEMError, match=words):
            Authority.load(authority.certificate, encrypted, password=wrong)


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ({}, ("old.lab", "10.0.0.1")),
        ({"names": ["new.lab"]}, ("new.lab",)),
        ({"ips": ["10.0.0.2"]}, ("10.0.0.2",)),
        ({"names": [], "ips": iter(["10.0.0.2"])}, ("10.0.0.2",)),
        ({"names": ["new.lab"], "ips": ["10.0.0.2"]}, ("new.lab", "10.0.0.2")),
        ({"names": []}, ("worker",)),
    ],
)
def test_names_of_either_kind_replace_those_of_a_request(
    authority: Authority, given: dict[str, Any], names: tuple[str, ...]
) -> None:
    request = asked(
        certs.p256(),
        x509.DNSName("old.lab"),
        x509.IPAddress(ipaddress.ip_address("10.0.0.1")),
    )
    signed = x509.load_pem_x509_certificate(authority.sign(request, **given).encode())
    assert CertificateInfo.of(signed).names == names


@pytest.mark.parametrize(
    ("key", "words"),
    [
        (certs.rsa_key(1024), "RSA of 1024 bits, below 2048"),
        (ec.generate_private_key(ec.SECP256K1()), "the curve secp256k1"),
        (ed25519.Ed25519PrivateKey.generate(), "need a P-256 or RSA"),
        (ec.generate_private_key(ec.SECP256R1()).public_key(), "need a P-256 or RSA"),
        ("key", "need a P-256 or RSA"),
    ],
    ids=["rsa", "curve", "kind", "public", "text"],
)
def test_an_authority_with_a_key_that_others_refuse(key: Any, words: str) -> None:
    with pytest.raises(AuthorityError, match=f"cannot create 'lab CA': .*{words}"):
        Authority.create("lab CA", key=key)


@pytest.mark.parametrize("key", [certs.p256(), certs.rsa_key(2048)], ids=["p256", "rsa"])
def test_an_authority_with_a_key_of_its_own(key: Any) -> None:
    authority = Authority.create("lab CA", key=key)
    assert authority.issued(parsed(authority.issue("worker")))
