"""Chains that end below a root: what a CA in the CA file may vouch for, and what it may not.

Each row is a peer and what is trusted. Both directions, TLS 1.2 and 1.3; the peer's context is made
without sealwire and verifies loosely, so that every refusal is ours.
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from cryptography import x509

from sealwire.security import Security
from support import certs
from support.certs import CLIENT, DAY, HOUR, SECOND, SERVER, Node
from support.handshakes import (
    VERSIONS,
    client_context,
    foreign_context,
    security,
    server_context,
    shake,
)

# OpenSSL's verification results, X509_V_ERR_…
NO_CRL, SIGNATURE, EXPIRED, CRL_EXPIRED, SELF_SIGNED, UNTRUSTED = 3, 7, 10, 12, 18, 19
NO_ISSUER, REVOKED, PATH_LENGTH, PURPOSE, CRITICAL, NOT_PERMITTED = 20, 23, 25, 26, 34, 47

ROOT = certs.root("root")
ISSUING = certs.intermediate(ROOT, "issuing")
SISTER = certs.intermediate(ROOT, "sister")
BELOW = certs.intermediate(ISSUING, "below")
OWN_CA = certs.root("own CA")  # of the side that verifies
OWN = certs.leaf(OWN_CA, "own")


class Row(NamedTuple):
    peer: Node
    trust: list[Node]


def under(issuer: Node, *via: Node, **changes: Any) -> Node:
    return certs.leaf(issuer, "peer", via=via, **changes)


def alone(**changes: Any) -> Row:
    """Trusted is an issuing CA alone, of a root that nobody here knows."""
    issuing = certs.intermediate(ROOT, "issuing", **changes)
    return Row(under(issuing), [issuing])


def constrained() -> Row:
    permitted = x509.NameConstraints([x509.DNSName("inside.example")], None)
    return alone(extra=[(permitted, True)])


def path_length() -> Row:
    issuing = certs.intermediate(ROOT, "issuing", constraints=x509.BasicConstraints(True, 0))
    below = certs.intermediate(issuing, "below")
    return Row(under(below, below), [issuing])


def cross_signed(**of_other_root: Any) -> list[Node]:
    """A root, the same key certified by another root, and that other root."""
    other = certs.root("old root", **of_other_root)
    root = certs.root("new root")
    cross = certs.intermediate(other, "new root", key=root.key)
    return [root, cross, other]


def below_cross(order: str, **of_other_root: Any) -> Row:
    made = dict(zip("rco", cross_signed(**of_other_root), strict=True))
    issuing = certs.intermediate(made["r"], "issuing")
    return Row(under(issuing, issuing), [made[each] for each in order])


def two_roots(first: str) -> Row:
    """An expired root and its successor: one name, and one key or two."""
    new = certs.root("the root")
    key = new.key if first == "same key" else None
    old = certs.root("the root", key=key, start=-9 * DAY, end=-SECOND)
    return Row(under(new, authority_id=first != "no identifiers"), [old, new])


def unmarked(**changes: Any) -> Row:
    return alone(constraints=None, **changes)


def leaf_trusted() -> Row:
    peer = under(ROOT)
    return Row(peer, [peer])


def leaf_trusted_beside(other: Node) -> Row:
    peer = under(ROOT)
    return Row(peer, [peer, other])


def under_trusted_leaf() -> Row:
    issuer = certs.leaf(ROOT, "a leaf")
    return Row(under(issuer, issuer), [issuer, ISSUING])


def forged_issuer() -> Row:
    """Of a CA that has no more than the name of the trusted one."""
    forged = certs.intermediate(certs.root("root"), "issuing")
    return Row(under(forged, forged), [ISSUING])


def forged_issuer_without_identifiers() -> Row:
    forged = certs.intermediate(certs.root("root"), "issuing", subject_id=False)
    return Row(under(forged, forged, authority_id=False), [ISSUING])


ACCEPTED: dict[str, Callable[[], Row]] = {
    "the issuing CA alone": alone,
    "the issuing CA alone, sent along too": lambda: Row(under(ISSUING, ISSUING), [ISSUING]),
    "sent along with the root": lambda: Row(under(ISSUING, ISSUING, ROOT), [ISSUING]),
    "without identifiers": lambda: alone(subject_id=False, authority_id=False),
    "without keyUsage": lambda: alone(key_usage=None),
    "two below, one sent": lambda: Row(under(BELOW, BELOW), [ISSUING]),
    "the middle one of three": lambda: Row(under(BELOW), [BELOW]),
    "root and issuing CA, leaf alone sent": lambda: Row(under(ISSUING), [ROOT, ISSUING]),
    "issuing CA and root": lambda: Row(under(ISSUING, ISSUING), [ISSUING, ROOT]),
    "one of two issuing CAs": lambda: Row(under(SISTER), [ISSUING, SISTER]),
    "expired root above": lambda: expired_root(),
    "root before its cross-signed twin": lambda: below_cross("rc"),
    "cross-signed twin before the root": lambda: below_cross("cr"),
    "all three": lambda: below_cross("cor"),
    "all three, old root expired": lambda: below_cross("cor", start=-9 * DAY, end=-SECOND),
    "old root expired and first": lambda: below_cross("ocr", start=-9 * DAY, end=-SECOND),
    "old root expired and last": lambda: below_cross("rco", start=-9 * DAY, end=-SECOND),
    "expired twin of the root, same key": lambda: two_roots("same key"),
    "expired twin of the root, own key": lambda: two_roots("own key"),
    "expired twin of the root, no identifiers": lambda: two_roots("no identifiers"),
    "a leaf beside its CA": lambda: leaf_trusted_beside(ROOT),
}


def expired_root() -> Row:
    root = certs.root("gone", start=-9 * DAY, end=-SECOND)
    issuing = certs.intermediate(root, "issuing")
    return Row(under(issuing), [root, issuing])


REFUSED: dict[str, tuple[Callable[[], Row], set[int]]] = {
    "of a sister CA": (lambda: Row(under(SISTER, SISTER), [ISSUING]), {NO_ISSUER}),
    "of a sister CA, with the root": (
        lambda: Row(under(SISTER, SISTER, ROOT), [ISSUING]),
        {UNTRUSTED},
    ),
    "of the root above": (lambda: Row(under(ROOT), [ISSUING]), {NO_ISSUER}),
    "self-signed": (lambda: Row(certs.make("alone"), [ISSUING]), {SELF_SIGNED}),
    "of a CA of the same name": (forged_issuer, {NO_ISSUER}),
    "of one without identifiers": (forged_issuer_without_identifiers, {SIGNATURE, NO_ISSUER}),
    "the issuing CA has expired": (lambda: alone(start=-9 * DAY, end=-SECOND), {EXPIRED}),
    "its name constraint": (constrained, {NOT_PERMITTED}),
    "its path length": (path_length, {PATH_LENGTH}),
    "not marked as a CA": (unmarked, {NO_ISSUER}),
    "marked as no CA": (
        lambda: alone(constraints=x509.BasicConstraints(False, None)),
        {NO_ISSUER},
    ),
    "marked as nothing": (lambda: unmarked(key_usage=None), {NO_ISSUER}),
    "without keyCertSign": (
        lambda: alone(key_usage=certs.usage("digital_signature", "crl_sign")),
        {NO_ISSUER},
    ),
    "for signing code": (
        lambda: alone(purposes=[x509.oid.ExtendedKeyUsageOID.CODE_SIGNING]),
        {PURPOSE},
    ),
    "with an unknown critical extension": (
        lambda: alone(
            extra=[(x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\5\0"), True)]
        ),
        {CRITICAL},
    ),
    "a leaf, trusted as itself": (leaf_trusted, {NO_ISSUER}),
    "a leaf beside a CA that ends chains": (
        lambda: leaf_trusted_beside(SISTER),
        {NO_ISSUER},
    ),
    "under a leaf that is trusted": (under_trusted_leaf, {NO_ISSUER}),
    "expired itself": (
        lambda: Row(under(ISSUING, start=-2 * HOUR, end=-SECOND), [ISSUING]),
        {EXPIRED},
    ),
}

each_version = pytest.mark.parametrize("version", VERSIONS, ids=["TLS1.2", "TLS1.3"])
both = pytest.mark.parametrize("peer_side", ["client", "server"])


def meet(ours: Security, peer: Node, peer_side: str, version: ssl.TLSVersion) -> int | None:
    """Our verdict on a peer, X509_V_ERR_…; None if it is let in."""
    theirs = foreign_context(peer_side, peer, [OWN_CA], version=version)
    if peer_side == "client":
        outcome, verifier = shake(server_context(ours), theirs), "server"
    else:
        outcome, verifier = shake(theirs, client_context(ours)), "client"
    return None if outcome.accepted else outcome.refused_by(verifier)


@each_version
@both
@pytest.mark.parametrize("name", ACCEPTED)
def test_accepted(name: str, peer_side: str, version: ssl.TLSVersion) -> None:
    row = ACCEPTED[name]()
    assert meet(security(OWN, row.trust), row.peer, peer_side, version) is None


@each_version
@both
@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str, peer_side: str, version: ssl.TLSVersion) -> None:
    make, codes = REFUSED[name]
    row = make()
    assert meet(security(OWN, [OWN_CA, *row.trust]), row.peer, peer_side, version) in codes


@each_version
@both
def test_a_purpose_of_the_issuing_ca_decides_by_side(
    peer_side: str, version: ssl.TLSVersion
) -> None:
    right, wrong = (CLIENT, SERVER) if peer_side == "client" else (SERVER, CLIENT)
    for purpose, expected in ((right, None), (wrong, PURPOSE)):
        row = alone(purposes=[purpose])
        assert meet(security(OWN, row.trust), row.peer, peer_side, version) == expected


@each_version
def test_where_the_set_leads_to_a_root_its_constraints_count(version: ssl.TLSVersion) -> None:
    """What is named besides does not end a chain that can go on."""
    permitted = x509.NameConstraints([x509.DNSName("inside.example")], None)
    root = certs.root("bounded", extra=[(permitted, True)])
    issuing = certs.intermediate(root, "issuing")
    ours = security(OWN, [root, issuing, OWN_CA])
    assert meet(ours, under(issuing), "client", version) == NOT_PERMITTED


# What lists say

CRLS = {
    "issuing": certs.crl(ISSUING),
    "root": certs.crl(ROOT),
    "below": certs.crl(BELOW),
}
GOOD, BAD = under(ISSUING), under(ISSUING)
DEEP = under(BELOW, BELOW)
PARTIAL = [ISSUING]
MIXED = [ROOT, ISSUING, certs.intermediate(certs.root("gone"), "third")]

LISTS: dict[str, tuple[list[Node], Node, list[str], int | None]] = {
    "not revoked": (PARTIAL, GOOD, [CRLS["issuing"]], None),
    "revoked": (PARTIAL, BAD, [certs.crl(ISSUING, BAD)], REVOKED),
    "no list": (PARTIAL, GOOD, [CRLS["root"]], NO_CRL),
    "expired list": (PARTIAL, GOOD, [certs.crl(ISSUING, end=-SECOND)], CRL_EXPIRED),
    "a forged list": (PARTIAL, GOOD, [certs.crl(ISSUING, key=SISTER.key)], 8),
    "the root's list too": (PARTIAL, GOOD, [CRLS["issuing"], CRLS["root"]], None),
    "deep, all lists": (PARTIAL, DEEP, [CRLS["issuing"], CRLS["below"]], None),
    "deep, none for the CA between": (PARTIAL, DEEP, [CRLS["below"]], NO_CRL),
    "deep, none for the leaf": (PARTIAL, DEEP, [CRLS["issuing"]], NO_CRL),
    "deep, the CA between is revoked": (
        PARTIAL,
        DEEP,
        [certs.crl(ISSUING, BELOW), CRLS["below"]],
        REVOKED,
    ),
    "deep, expired list of the CA between": (
        PARTIAL,
        DEEP,
        [certs.crl(ISSUING, end=-SECOND), CRLS["below"]],
        CRL_EXPIRED,
    ),
    "deep, list of the CA between not yet valid": (
        PARTIAL,
        DEEP,
        [certs.crl(ISSUING, start=DAY), CRLS["below"]],
        11,
    ),
    "deep, forged list of the CA between": (
        PARTIAL,
        DEEP,
        [certs.crl(ISSUING, key=SISTER.key), CRLS["below"]],
        NO_CRL,
    ),
    "root and issuing CA": ([ROOT, ISSUING], GOOD, [CRLS["issuing"], CRLS["root"]], None),
    "root has revoked the issuing CA": (
        [ROOT, ISSUING],
        GOOD,
        [CRLS["issuing"], certs.crl(ROOT, ISSUING)],
        REVOKED,
    ),
    "a third CA ends chains": (MIXED, GOOD, [CRLS["issuing"], CRLS["root"]], None),
    "a third CA, the issuing one is revoked": (
        MIXED,
        GOOD,
        [CRLS["issuing"], certs.crl(ROOT, ISSUING)],
        REVOKED,
    ),
    "a third CA, no list of the root": (MIXED, GOOD, [CRLS["issuing"]], NO_CRL),
}


@each_version
@both
@pytest.mark.parametrize("name", LISTS)
def test_what_a_list_decides(name: str, peer_side: str, version: ssl.TLSVersion) -> None:
    trust, peer, lists, expected = LISTS[name]
    ours = security(OWN, trust, tls_crl_file="".join(lists))
    theirs = security(peer, [OWN_CA], tls_max_version=version, tls_min_version=version)
    if peer_side == "client":
        outcome, verifier = shake(server_context(ours), client_context(theirs)), "server"
    else:
        outcome, verifier = shake(server_context(theirs), client_context(ours)), "client"
    error = getattr(outcome, verifier).error
    assert (error and error.verify_code) == expected, error
    assert outcome.accepted is (expected is None)
    assert bool(getattr(outcome, verifier).received) is (expected is None)


def test_cross_signed_with_a_list_of_the_root_alone() -> None:
    row = below_cross("cr")
    root = row.trust[1]
    (issuing,) = row.peer.chain
    lists = certs.crl(root) + certs.crl(issuing)
    ours = security(OWN, row.trust, tls_crl_file=lists)
    assert meet(ours, row.peer, "client", VERSIONS[1]) is None
    revoked = certs.crl(root, issuing) + certs.crl(issuing)
    ours = security(OWN, row.trust, tls_crl_file=revoked)
    error = shake(
        server_context(ours), foreign_context("client", row.peer, [OWN_CA], version=VERSIONS[1])
    ).server.error
    assert isinstance(error, ssl.SSLCertVerificationError)
    assert error.verify_code == REVOKED


# A context that follows its files


def test_the_root_may_come_and_go(tmp_path: Path) -> None:
    """And what was set on the context is kept whatever the files hold."""
    path = tmp_path / "ca.pem"

    def write(*nodes: Node) -> None:
        (tmp_path / "new").write_text("".join(node.pem for node in nodes))
        (tmp_path / "new").replace(path)

    write(ISSUING)
    for lists in (None, CRLS["issuing"] + CRLS["root"]):
        ours = Security(
            tls_ca_file=path,
            tls_scheduler_cert=OWN.pem,
            tls_scheduler_key=OWN.key_pem,
            tls_crl_file=lists,
            tls_reload_interval=0,
        )
        context = server_context(ours)
        peer = foreign_context("client", GOOD, [OWN_CA])
        strange = foreign_context("client", under(SISTER, SISTER), [OWN_CA])
        assert shake(context, peer).accepted
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        for nodes in ([ISSUING, ROOT], [ISSUING], [ROOT, ISSUING], [ISSUING]):
            write(*nodes)
            ours.reload()  # a handshake on a busy machine may not wait for it
            outcome = shake(context, peer)
            assert outcome.accepted, (nodes, outcome.server.error)
            assert context.verify_flags & ssl.VERIFY_X509_STRICT
            assert not context.verify_flags & ssl.VERIFY_X509_PARTIAL_CHAIN
            known = lists is None and ROOT in nodes
            assert shake(context, strange).accepted is known


def test_what_is_left_out_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "sealwire.security")
    leaf = certs.leaf(ROOT, "named by mistake")
    old = certs.root("root", start=-9 * DAY, end=-SECOND)
    for _ in range(2):
        server_context(security(OWN, [leaf, ROOT, old, OWN_CA]))
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 2, said
    assert said[0].startswith("certificate 1 in tls_ca_file (PEM text in memory) is left out: it")
    assert "no CA that may sign" in said[0]
    assert said[1].startswith("certificate 3 in tls_ca_file (PEM text in memory) is left out: it")
    assert "has expired, and another of its name is in force" in said[1]
