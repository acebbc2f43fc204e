"""Findings of `check` about certificates, by really breaking their dates, purposes and keys."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from sealwire.security.checks.runner import check_configuration, check_folder
from support import certs, folders
from support.checking import ROLES, configured, far, put, put_ca, put_node, said, without_crl
from support.folders import DAY


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return folders.found(tmp_path / "certs")


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        (-2 * DAY, -DAY, ("expired", "error")),
        (DAY, 2 * DAY, ("not-yet-valid", "error")),
        (-70 * DAY, 20 * DAY, ("expires-soon", "warning")),
    ],
)
def test_dates(
    folder: Path, start: datetime.timedelta, end: datetime.timedelta, expected: tuple[str, str]
) -> None:
    ca = certs.root(end=100 * DAY, start=-3 * DAY)
    put_ca(folder, ca)
    for role in ROLES:
        put_node(folder, certs.leaf(ca, role, end=90 * DAY), role)
    put_node(folder, certs.leaf(ca, "worker", start=start, end=end))
    assert said(check_configuration(without_crl(folder))) == dict([expected])

    wrong = certs.root(start=start, end=end)
    put(folder / "ca.pem", wrong.pem)
    for role in ROLES:
        put_node(folder, certs.leaf(wrong, role, end=90 * DAY), role)
    code, severity = expected
    assert said(check_configuration(without_crl(folder))) == {f"ca-{code}": severity}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"purposes": [certs.SERVER]}, {"wrong-purpose": "error"}),
        ({"purposes": [certs.CLIENT]}, {"wrong-purpose": "error"}),
        ({"purposes": []}, {}),
        ({"key_usage": certs.usage("key_encipherment")}, {"wrong-purpose": "error"}),
        ({"key_usage": certs.usage("key_cert_sign", "crl_sign")}, {"wrong-purpose": "error"}),
        ({"key_usage": certs.usage("digital_signature")}, {}),
        ({"key_usage": certs.usage("key_agreement")}, {}),
        ({"constraints": x509.BasicConstraints(True, None)}, {"ca-as-identity": "warning"}),
        ({"key": certs.rsa_key(1024)}, {"weak-key": "error"}),
        (
            {"extra": [(x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3"), b""), True)]},
            {"handshake": "error"},
        ),
    ],
    ids=[
        "no client",
        "no server",
        "any",
        "to encipher",
        "to sign certificates",
        "to sign",
        "to agree",
        "a CA",
        "RSA-1024",
        "unknown extension",
    ],
)
def test_identities(folder: Path, change: dict[str, Any], expected: dict[str, str]) -> None:
    put_ca(folder, ca := far(certs.root))
    for role in ROLES:
        put_node(folder, far(certs.leaf, ca, role), role)
    put_node(folder, far(certs.leaf, ca, "worker", **change))
    assert said(check_configuration(without_crl(folder))) == expected


def test_a_signature_of_yesterday(folder: Path) -> None:
    ca = far(certs.root, key=certs.rsa_key(2048))
    put_ca(folder, ca)
    for role in ROLES:
        put_node(folder, far(certs.leaf, ca, role), role)
    put_node(folder, certs.with_sha1(far(certs.leaf, ca, "worker"), ca))
    assert said(check_configuration(without_crl(folder)))["weak-signature"] == "error"


@pytest.mark.parametrize(
    "changes",
    [
        {"constraints": None},
        {"key_usage": certs.usage("crl_sign")},
    ],
    ids=["unmarked", "may not sign"],
)
def test_a_trusted_certificate_that_is_no_ca(folder: Path, changes: dict[str, Any]) -> None:
    put_ca(folder, far(certs.root, **changes))
    assert said(check_folder(folder))["not-a-ca"] == "error"


@pytest.mark.parametrize(
    ("beside", "code"),
    [
        (lambda ca: certs.leaf(ca, "worker"), "leaf-as-ca"),
        (lambda ca: certs.root("root", start=-9 * DAY, end=-DAY), "ca-superseded"),
        (lambda ca: certs.root("root", key=ca.key, start=-9 * DAY, end=-DAY), "ca-superseded"),
    ],
    ids=["a leaf", "a former CA", "a former certificate of it"],
)
@pytest.mark.parametrize("first", [True, False], ids=["before it", "behind it"])
def test_what_stands_in_a_ca_file_beside_the_ca(
    folder: Path, beside: Callable[[certs.Node], certs.Node], code: str, first: bool
) -> None:
    ca = far(certs.root)
    other = beside(ca).pem
    put(folder / "ca.pem", other + ca.pem if first else ca.pem + other)
    for role in ROLES:
        put_node(folder, far(certs.leaf, ca, role), role)
    put(folder / "crl.pem", certs.crl(ca))
    assert said(check_configuration(configured(folder))) == {code: "warning"}


HOUR = DAY / 24


@pytest.mark.parametrize(
    ("start", "end", "soon", "expected"),
    [
        (-60 * DAY, 20 * HOUR, None, {"crl-expires-soon": "warning"}),
        (-60 * DAY, 2 * DAY, None, {}),
        (-19 * HOUR, 5 * HOUR, None, {"crl-expires-soon": "warning"}),
        (-12 * HOUR, 12 * HOUR, None, {}),
        (-60 * DAY, 20 * HOUR, 30 * DAY, {"crl-expires-soon": "warning"}),
        (-60 * DAY, 20 * HOUR, HOUR, {}),
        (-60 * DAY, 2 * DAY, 30 * DAY, {}),
    ],
)
def test_a_list_that_ends_soon(
    folder: Path,
    start: datetime.timedelta,
    end: datetime.timedelta,
    soon: datetime.timedelta | None,
    expected: dict[str, str],
) -> None:
    """As processes warn of it: a day before at most, since lists are made anew all the time."""
    ca = far(certs.root)
    put_ca(folder, ca)
    for role in ROLES:
        put_node(folder, far(certs.leaf, ca, role), role)
    put(folder / "crl.pem", certs.crl(ca, start=start, end=end))
    found = check_configuration(configured(folder), soon=soon)
    assert said(found) == expected
    assert all("hours, " in each.message for each in found)
    assert said(check_folder(folder, soon=soon)) == expected


def test_a_list_of_another_ca_cannot_be_renewed_here(folder: Path) -> None:
    """The command that makes a list needs the CA's key; where that is not, it is not advised."""
    ca = far(certs.root)
    put_ca(folder, ca)
    for lists in (
        certs.crl(ca, start=-2 * DAY, end=-DAY),
        certs.crl(ca, start=-2 * DAY, end=HOUR),
        certs.crl(far(certs.root, "other CA")),
        "nothing",
    ):
        put(folder / "crl.pem", lists)
        found = [
            each
            for each in check_configuration(configured(folder))
            if each.subject.endswith("crl.pem")
        ]
        assert len(found) == 1
        assert "sealwire certs renew" not in found[0].advice


@pytest.mark.parametrize("purposes", [[certs.SERVER], [certs.CLIENT]], ids=["server", "client"])
@pytest.mark.parametrize("trusted", [True, False], ids=["trusted", "sent"])
def test_a_ca_above_for_one_side_only(folder: Path, purposes: list[Any], trusted: bool) -> None:
    """The CA is named, not the leaf in whose file it stands."""
    root = far(certs.root)
    above = far(certs.intermediate, root, "the narrow one", purposes=purposes)
    put_ca(folder, above if trusted else root)
    for role in ROLES:
        put_node(folder, far(certs.leaf, above, role, via=[above]), role)
    found = check_configuration(without_crl(folder))
    assert said(found) == {"wrong-purpose": "error"}
    assert all("of CN=the narrow one, a CA above it" in each.message for each in found)


def test_an_intermediate_that_ends_soon(folder: Path) -> None:
    root = far(certs.root)
    above = certs.intermediate(root, "short", start=-90 * DAY, end=9 * DAY)
    put_ca(folder, root)
    for role in ROLES:
        put_node(folder, far(certs.leaf, above, role, via=[above]), role)
    found = check_configuration(without_crl(folder))
    assert said(found) == {"expires-soon": "warning"}
    assert all(each.message.startswith("CN=short expires in") for each in found)


def test_another_ca(folder: Path) -> None:
    put_node(folder, far(certs.leaf, far(certs.root), "worker"))
    found = check_configuration(configured(folder))
    assert said(found) == {"other-ca": "error"}
    assert "CN=root, which is not trusted" in found[0].message
    put_node(folder, far(certs.leaf, far(certs.root, "sealwire CA"), "worker"))
    (same,) = check_configuration(configured(folder))
    assert "the trusted CA of that name is another one" in same.message


@pytest.mark.parametrize(
    ("changes", "sent", "expected"),
    [
        ({}, True, {}),
        ({}, False, {"other-ca": "error"}),
        ({"end": -DAY / 24, "start": -DAY}, True, {"bad-intermediate": "error"}),
        (
            {"constraints": x509.BasicConstraints(False, None)},
            True,
            {"bad-intermediate": "error"},
        ),
    ],
    ids=["sound", "missing", "expired", "no CA"],
)
def test_intermediates(
    folder: Path, changes: dict[str, Any], sent: bool, expected: dict[str, str]
) -> None:
    put_ca(folder, ca := far(certs.root))
    for role in ROLES:
        put_node(folder, far(certs.leaf, ca, role), role)
    via = certs.intermediate(ca, **{"end": 90 * DAY, **changes})
    put_node(folder, far(certs.leaf, via, "worker", via=[via] if sent else []))
    assert said(check_configuration(without_crl(folder))) == expected
