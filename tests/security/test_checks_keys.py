"""What `check` says of a private key, whatever is in its place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from sealwire.security.checks.runner import check_configuration
from support import certs, folders
from support.checking import ROLES, far, put, put_ca, put_node, said, without_crl


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return folders.found(tmp_path / "certs")


def other_forms(key: Any) -> dict[str, tuple[bytes, str]]:
    """What people give as the private key, and what is said of it."""
    half = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    whole = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    return {
        "DER": (whole, "it looks like a DER file of a key; a DER file must be converted"),
        "public": (half, "only PUBLIC KEY; give the certificate that was issued for it"),
        "empty PEM": (b"# the key\n", "it must have a line with -----BEGIN"),
    }


@pytest.mark.parametrize("form", ["DER", "public", "empty PEM"])
def test_what_is_there_in_place_of_a_key(form: str, folder: Path) -> None:
    values = without_crl(folder)
    key = load_pem_private_key((folder / "worker.pem").read_bytes(), None)
    content, words = other_forms(key)[form]
    (folder / "key").write_bytes(content)
    (folder / "key").chmod(0o600)
    found = check_configuration({**values, "tls_worker_key": str(folder / "key")})
    (finding,) = [each for each in found if each.subject == str(folder / "key")]
    assert finding.code == "key-missing"
    assert words in finding.message


def test_a_key_that_signs_no_certificates_is_one_for_tls(folder: Path) -> None:
    put_ca(folder, ca := far(certs.root))
    for role in ROLES:
        put_node(folder, far(certs.leaf, ca, role), role)
    key = ed25519.Ed25519PrivateKey.generate()
    node = far(certs.leaf, ca, "worker", key=key)
    put(folder / "worker.pem", node.pem + node.key_pem)
    assert said(check_configuration(without_crl(folder))) == {}
