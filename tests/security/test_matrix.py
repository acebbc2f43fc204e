"""Which certificates are accepted and which refused: both directions, TLS 1.2 and 1.3.

Each row is a peer's certificate and what is trusted beside the good CA. The peer's context is made
without sealwire and verifies loosely, so that every refusal is ours.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import NamedTuple

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID

from support import certs
from support.certs import CLIENT, HOUR, SECOND, SERVER, Node
from support.handshakes import (
    VERSIONS,
    Outcome,
    client_context,
    foreign_context,
    security,
    server_context,
    shake,
)

# OpenSSL's verification results, X509_V_ERR_…
SIGNATURE, NOT_YET, EXPIRED, SELF_SIGNED = 7, 9, 10, 18
NO_ISSUER, INVALID_CA, PATH_LENGTH, PURPOSE = 20, 79, 25, 26
CRITICAL, NOT_PERMITTED, WEAK_KEY, WEAK_CA_KEY, WEAK_DIGEST = 34, 47, 66, 67, 68


class Peer(NamedTuple):
    node: Node | None
    trust: list[Node]


GOOD_CA = certs.root("good CA")
GOOD = certs.leaf(GOOD_CA, "good")


def own_root(**changes: object) -> Peer:
    """A sound leaf under a root of its own, which is trusted."""
    root = certs.root("own root", **changes)
    return Peer(certs.leaf(root), [root])


def via(*, root: Node = GOOD_CA, **changes: object) -> Peer:
    """A sound leaf that sends along the intermediate it stands under."""
    between = certs.intermediate(root, **changes)
    return Peer(certs.leaf(between, via=[between]), [])


def plain(**changes: object) -> Peer:
    return Peer(certs.leaf(GOOD_CA, **changes), [])


def under_leaf(**changes: object) -> Peer:
    issuer = certs.leaf(GOOD_CA, "issuing leaf", **changes)
    return Peer(certs.leaf(issuer, via=[issuer]), [])


def path_too_long() -> Peer:
    first = certs.intermediate(GOOD_CA, "first", constraints=x509.BasicConstraints(True, 0))
    second = certs.intermediate(first, "second")
    return Peer(certs.leaf(second, via=[second, first]), [])


def missing_intermediate() -> Peer:
    return Peer(certs.leaf(certs.intermediate(GOOD_CA)), [])


def outside_constraint() -> Peer:
    permitted = x509.NameConstraints([x509.DNSName("inside.example")], None)
    root = certs.root("constrained", extra=[(permitted, True)])
    return Peer(certs.leaf(root, "outside.example"), [root])


def version_1_root() -> Peer:
    plain_root = certs.make("version 1", key=certs.rsa_key(2048), subject_id=False)
    root = certs.as_version_1(plain_root, plain_root)
    return Peer(certs.leaf(root), [root])


def sha1() -> Peer:
    root = certs.root("RSA root", key=certs.rsa_key(2048))
    return Peer(certs.with_sha1(certs.leaf(root), root), [root])


def pinned() -> Peer:
    node = certs.self_signed_pin()
    return Peer(node, [node])


def under_pinned() -> Peer:
    issuer = certs.self_signed_pin()
    return Peer(certs.leaf(issuer), [issuer])


def from_trustme() -> Peer:
    authority = trustme.CA()
    identity = authority.issue_cert("worker.example")
    encoding = certs.serialization.Encoding.DER

    def node(pem: bytes) -> Node:
        return Node(x509.load_pem_x509_certificate(pem).public_bytes(encoding), None)

    worker = node(identity.cert_chain_pems[0].bytes())
    worker.key = load_pem_private_key(identity.private_key_pem.bytes(), None)
    return Peer(worker, [node(authority.cert_pem.bytes())])


def unknown_extension() -> Peer:
    extension = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00")
    return plain(extra=[(extension, True)])


NO_SIGNING = certs.usage("digital_signature")
SIGNING = certs.usage("digital_signature", "key_cert_sign")

REFUSED: dict[str, tuple[Callable[[], Peer], int]] = {
    "expired by a second": (lambda: plain(end=-SECOND), EXPIRED),
    "not yet valid": (lambda: plain(start=HOUR / 2), NOT_YET),
    "another CA": (lambda: Peer(certs.leaf(certs.root("other")), []), NO_ISSUER),
    "a CA of the same name": (lambda: Peer(certs.leaf(certs.root("good CA")), []), NO_ISSUER),
    "self-signed": (lambda: Peer(certs.make("alone", names=["alone"]), []), SELF_SIGNED),
    "flipped signature bit": (
        lambda: Peer(certs.with_flipped_signature(certs.leaf(GOOD_CA)), []),
        SIGNATURE,
    ),
    "signed by a leaf": (under_leaf, INVALID_CA),
    "signed by a leaf that may sign": (lambda: under_leaf(key_usage=SIGNING), INVALID_CA),
    "root not marked as CA": (lambda: own_root(constraints=None), NO_ISSUER),
    "root marked as nothing": (lambda: own_root(constraints=None, key_usage=None), INVALID_CA),
    "root marked as no CA": (
        lambda: own_root(constraints=x509.BasicConstraints(False, None)),
        INVALID_CA,
    ),
    "root of version 1": (version_1_root, NO_ISSUER),
    "root without keyCertSign": (lambda: own_root(key_usage=NO_SIGNING), INVALID_CA),
    "intermediate not marked as CA": (lambda: via(constraints=None), INVALID_CA),
    "intermediate without keyCertSign": (lambda: via(key_usage=NO_SIGNING), INVALID_CA),
    "under a pinned certificate": (under_pinned, INVALID_CA),
    "path length exceeded": (path_too_long, PATH_LENGTH),
    "expired intermediate": (lambda: via(end=-SECOND), EXPIRED),
    "missing intermediate": (missing_intermediate, NO_ISSUER),
    "expired root": (lambda: own_root(end=-SECOND), EXPIRED),
    "name constraint violated": (outside_constraint, NOT_PERMITTED),
    "for signing code": (lambda: plain(purposes=[ExtendedKeyUsageOID.CODE_SIGNING]), PURPOSE),
    "unknown critical extension": (unknown_extension, CRITICAL),
    "RSA-1024 leaf": (lambda: plain(key=certs.rsa_key(1024)), WEAK_KEY),
    "RSA-1024 root": (lambda: own_root(key=certs.rsa_key(1024)), WEAK_CA_KEY),
    "SHA-1 signature": (sha1, WEAK_DIGEST),
}

ACCEPTED: dict[str, Callable[[], Peer]] = {
    "plain": plain,
    "RSA-2048": lambda: plain(key=certs.rsa_key(2048)),
    "no purposes": lambda: plain(purposes=[]),
    "intermediate": via,
    "CA as `openssl req -x509` makes it": lambda: own_root(key_usage=None),
    "CA without identifiers": lambda: own_root(subject_id=False, constraints_critical=False),
    "leaf as `openssl x509 -req` makes it": lambda: plain(
        authority_id=False, subject_id=False, key_usage=None, purposes=[], names=[]
    ),
    "trusted as itself": pinned,
    "trustme": from_trustme,
}


def handshake(peer: Peer, peer_side: str, version: ssl.TLSVersion) -> Outcome:
    """The peer on its side, a good `Security` that trusts what the row says on the other."""
    theirs = foreign_context(peer_side, peer.node, [GOOD_CA], version=version)
    ours = security(GOOD, [GOOD_CA, *peer.trust])
    if peer_side == "client":
        return shake(server_context(ours), theirs)
    return shake(theirs, client_context(ours))


both = pytest.mark.parametrize("peer_side", ["client", "server"])
each_version = pytest.mark.parametrize("version", VERSIONS, ids=["TLS1.2", "TLS1.3"])


@each_version
@both
@pytest.mark.parametrize("row", REFUSED)
def test_refused(row: str, peer_side: str, version: ssl.TLSVersion) -> None:
    make, code = REFUSED[row]
    verifier = "server" if peer_side == "client" else "client"
    assert handshake(make(), peer_side, version).refused_by(verifier) == code


@each_version
@both
@pytest.mark.parametrize("row", ACCEPTED)
def test_accepted(row: str, peer_side: str, version: ssl.TLSVersion) -> None:
    outcome = handshake(ACCEPTED[row](), peer_side, version)
    assert outcome.accepted, (outcome.server.error, outcome.client.error)


@each_version
@both
def test_purpose_decides_by_side(peer_side: str, version: ssl.TLSVersion) -> None:
    right, wrong = (CLIENT, SERVER) if peer_side == "client" else (SERVER, CLIENT)
    assert handshake(plain(purposes=[right]), peer_side, version).accepted
    verifier = "server" if peer_side == "client" else "client"
    assert handshake(plain(purposes=[wrong]), peer_side, version).refused_by(verifier) == PURPOSE


@each_version
def test_a_client_without_a_certificate_is_refused(version: ssl.TLSVersion) -> None:
    outcome = handshake(Peer(None, []), "client", version)
    assert not outcome.server.received
    assert not outcome.client.received
    assert outcome.server.error is not None
    assert outcome.server.error.reason == "PEER_DID_NOT_RETURN_A_CERTIFICATE"
    assert outcome.client.error is not None


@each_version
def test_a_server_without_a_certificate_is_refused(version: ssl.TLSVersion) -> None:
    outcome = handshake(Peer(None, []), "server", version)
    assert not outcome.client.received
    assert outcome.client.error is not None


def test_a_certificate_left_out_of_the_trust_set_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    peer = own_root(constraints=None)
    client_context(security(GOOD, [GOOD_CA, *peer.trust]))
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "tls_ca_file (PEM text in memory)" in caplog.text
