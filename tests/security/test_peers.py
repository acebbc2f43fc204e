"""The allow-list: which names match, and in which words others are refused."""

from __future__ import annotations

import ipaddress
import pickle
import ssl
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from sealwire.security import ConfigError, PeerNotAllowed, Security
from sealwire.security.contexts.allowlist import AllowedPeers
from support import certs
from support.handshakes import (
    VERSIONS,
    client_context,
    foreign_context,
    security,
    server_context,
    shake,
)

CA = certs.root()
OURS = certs.leaf(CA, "ours", names=["ours"])


def named(common_name: str, *alternatives: x509.GeneralName) -> certs.Node:
    extra = [(x509.SubjectAlternativeName(alternatives), False)] if alternatives else []
    return certs.make(
        common_name,
        CA,
        key_usage=certs.usage("digital_signature"),
        purposes=[certs.SERVER, certs.CLIENT],
        extra=extra,  # type: ignore[arg-type]
    )


NODE = named(
    "Worker 7",
    x509.DNSName("Node7.Lab.example"),
    x509.IPAddress(ipaddress.ip_address("10.0.0.7")),
    x509.IPAddress(ipaddress.ip_address("fd00::7")),
    x509.UniformResourceIdentifier("spiffe://lab/worker/7"),
)
PIN = "sha256:" + NODE.certificate.fingerprint(hashes.SHA256()).hex()
COLONS = "sha256:" + NODE.certificate.fingerprint(hashes.SHA256()).hex(":").upper()

versions = pytest.mark.parametrize("version", VERSIONS, ids=["TLS1.2", "TLS1.3"])
MATCHING = {
    "CN": "Worker 7",
    "CN *": "Worker*",
    "CN ? []": "W?rker [0-9]",
    "anyone": "*",
    "DNS": "node7.lab.example",
    "DNS *": "NODE*.lab.EXAMPLE",
    "IP": "10.0.0.7",
    "IP *": "10.0.*",
    "IPv6": "fd00::7",
    "IPv6 *": "FD00::*",
    "URI": "spiffe://lab/worker/*",
    "pin": PIN,
    "pin with colons": COLONS,
}
OTHERS = [
    "worker 7", "Worker", "orker*", "node7", "lab.example", "node7.lab.example.*", "10.0.0.70",
    "spiffe://LAB/worker/7", "spiffe://lab/worker", "sha256:" + 64 * "0", "CN=Worker 7",
]  # fmt: skip


def list_of(*patterns: str, **fields: Any) -> Security:
    return security(OURS, [CA], tls_allowed_peers=list(patterns), **fields)


@pytest.mark.parametrize("kind", MATCHING)
def test_names_that_match(kind: str) -> None:
    ours, peer = list_of("nobody", MATCHING[kind]), security(NODE, [CA])
    assert shake(server_context(ours), client_context(peer)).accepted
    assert shake(server_context(peer), client_context(ours)).accepted


@pytest.mark.parametrize("pattern", OTHERS)
def test_names_that_do_not_match(pattern: str) -> None:
    ours, peer = list_of(pattern), security(NODE, [CA])
    as_client = shake(server_context(ours), client_context(peer))
    as_server = shake(server_context(peer), client_context(ours))
    for side in (as_client.server, as_server.client):
        assert isinstance(side.error, PeerNotAllowed)
        assert side.error.verify_code == 50
        assert side.received == b""
    assert as_client.client.received == as_server.server.received == b""


@versions
def test_the_list_admits_no_peer_of_another_ca(version: ssl.TLSVersion) -> None:
    """It comes on top of the CA, never instead."""
    other = certs.root()
    foreign = certs.leaf(other, "foreign")
    pin = "sha256:" + foreign.certificate.fingerprint(hashes.SHA256()).hex()
    ours = list_of("*", pin, tls_max_version=version)
    theirs = security(foreign, [CA])
    assert shake(server_context(ours), client_context(theirs)).refused_by("server") in (18, 19, 20)
    without = foreign_context("client", None, [CA])
    assert not shake(server_context(ours), without).accepted


def test_the_words() -> None:
    error = refusal(["scheduler*", "client"], NODE)
    assert error.verify_message == (
        "its names (CN=Worker 7, DNS Node7.Lab.example, IP 10.0.0.7, IP fd00::7, "
        "URI spiffe://lab/worker/7) match none of the allowed peers (scheduler*, client)"
    )
    assert str(error) == (
        f"[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: {error.verify_message}"
    )
    assert (error.library, error.reason) == ("SSL", "CERTIFICATE_VERIFY_FAILED")
    assert error.args[0] == ssl.SSL_ERROR_SSL
    copy = pickle.loads(pickle.dumps(error))
    assert (copy.verify_code, copy.verify_message) == (50, error.verify_message)
    pinned = refusal(["sha256:" + 64 * "0"], NODE)
    assert f"/7) and {PIN} match none" in pinned.verify_message


def test_names_cannot_forge_a_log() -> None:
    node = named("evil\nINFO: let in\x1b[31m", *(x509.DNSName(f"n{i}") for i in range(40)))
    message = refusal(["x" * 300], node).verify_message
    assert message.isprintable()
    assert "CN=evil?INFO: let in?[31m, DNS n0" in message
    assert "and 33 more" in message
    assert "x" * 100 + "…)" in message


def refusal(patterns: list[str], node: certs.Node) -> PeerNotAllowed:
    outcome = shake(server_context(list_of(*patterns)), client_context(security(node, [CA])))
    error = outcome.server.error
    assert isinstance(error, PeerNotAllowed)
    return error


def test_a_certificate_without_names() -> None:
    with pytest.raises(PeerNotAllowed, match=r"its names \(none\) match none"):
        AllowedPeers(("*",)).check({}, b"der")
    with pytest.raises(PeerNotAllowed):
        AllowedPeers(("*", PIN)).check(None, None)


# By role


def test_the_role_is_ours() -> None:
    roles = {"worker": ["sched*"], "client": "sched*"}
    ours = security(OURS, [CA], tls_allowed_peers=roles, tls_client_cert=OURS.pem + OURS.key_pem)
    assert ours.tls_allowed_peers == {"worker": ("sched*",), "client": ("sched*",)}
    peer = security(certs.leaf(CA, "sched-1"), [CA])
    other = security(certs.leaf(CA, "worker-1"), [CA])
    for role, admits in (("worker", False), ("client", False), ("scheduler", True)):
        for get in (server_context, client_context):
            context = get(ours, role)
            against = {
                who: shake(context, client_context(who))
                if get is server_context
                else shake(server_context(who), context)
                for who in (peer, other)
            }
            assert against[peer].accepted
            assert against[other].accepted is admits


def test_a_list_is_for_all_roles() -> None:
    assert Security(tls_allowed_peers=["a", "b"]).tls_allowed_peers == dict.fromkeys(
        ("client", "scheduler", "worker"), ("a", "b")
    )
    assert Security(tls_allowed_peers="a, b*").tls_allowed_peers["worker"] == ("a, b*",)  # type: ignore[index]
    assert Security(tls_allowed_peers={}).tls_allowed_peers is None
    assert Security(tls_allowed_peers={"worker": None}).tls_allowed_peers is None


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ([], "tls_allowed_peers: an empty list admits nobody; leave it out to admit everyone"),
        ({"worker": []}, "tls_allowed_peers of worker: an empty list admits nobody"),
        (["a", " "], "tls_allowed_peers: an empty pattern admits nobody"),
        ({"wroker": ["a"]}, "tls_allowed_peers: unknown role 'wroker'; expected client, sched"),
        (["a", "b\nc"], "tls_allowed_peers: a pattern is one line of printable text"),
        (7, "tls_allowed_peers: expected a list of patterns, got 7"),
        ({"worker": [7]}, r"tls_allowed_peers of worker: expected a list of patterns, got \[7\]"),
        ("sha256:12", "'sha256:12' is not a fingerprint; write sha256: and 64 hexadecimal digits"),
        ("SHA256:" + 64 * "g", "is not a fingerprint"),
    ],
)
def test_what_is_no_list(value: object, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Security(tls_allowed_peers=value)


def test_the_list_cannot_be_taken_from_a_context() -> None:
    ours = list_of("nobody")
    for context in (server_context(ours), client_context(ours)):
        for name, value in (("sslsocket_class", ssl.SSLSocket), ("sslobject_class", ssl.SSLObject)):
            with pytest.raises(ConfigError, match=name):
                setattr(context, name, value)
    # A setting that was refused is not made again with the next files either.
    assert ours.reload() == []
    assert not shake(server_context(ours), client_context(security(NODE, [CA]))).accepted
