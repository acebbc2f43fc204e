"""The advice of `check` is followed as it is written, where the CA's key is and where it is not."""

from __future__ import annotations

import re
import shlex
import shutil
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from sealwire.security.checks.runner import check_folder
from support import certs, folders
from support.certs_cli import good, run
from support.checking import put
from support.folders import DAY

Findings = list[Any]


def authority(folder: Path) -> certs.Node:
    """The folder's CA, to issue by hand what `issue` would not."""
    der = ssl.PEM_cert_to_DER_cert((folder / "ca.pem").read_text())
    return certs.Node(der, load_pem_private_key((folder / "ca-key.pem").read_bytes(), None))


def put_worker(folder: Path, stray: certs.Node | None = None, **changes: Any) -> None:
    node = certs.leaf(authority(folder), "worker", **changes)
    put(folder / "worker.pem", node.pem + (stray or node).key_pem)


IDENTITIES: dict[str, Callable[[Path], None]] = {
    "expired": lambda folder: put_worker(folder, start=-9 * DAY, end=-DAY),
    "expires-soon": lambda folder: put_worker(folder, start=-80 * DAY, end=DAY),
    "weak-key": lambda folder: put_worker(folder, key=certs.rsa_key(1024)),
    "wrong-purpose": lambda folder: put_worker(folder, purposes=[certs.SERVER]),
    "key-mismatch": lambda folder: put_worker(folder, certs.root()),
}


def of(found: Findings, code: str) -> Any:
    (only,) = [each for each in found if each.code == code]
    return only


@pytest.mark.parametrize("code", IDENTITIES)
def test_an_identity_is_issued_again_where_its_ca_is(
    tmp_path: Path, code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = folders.found(tmp_path / "its certs")
    IDENTITIES[code](folder)
    monkeypatch.chdir("/")
    advice = of(check_folder(folder), code).advice
    words = shlex.split(advice[advice.index("sealwire certs") :])
    good(*words[2:])
    assert check_folder(folder) == []


@pytest.mark.parametrize("code", IDENTITIES)
def test_elsewhere_it_is_asked_for(tmp_path: Path, code: str) -> None:
    """On a machine that was given a copy, and with a CA that others run."""
    folder = folders.found(tmp_path / "certs")
    IDENTITIES[code](folder)
    copy = tmp_path / "copy"
    copy.mkdir(0o700)
    for name in ("ca.pem", "crl.pem", "worker.pem"):
        shutil.copy(folder / name, copy)
    advice = of(check_folder(copy), code).advice
    assert "its CA's key is, and bring it here" in advice
    assert str(copy) not in advice, "there is no such command here"
    command = re.search(r"if that is a CA of sealwire, there: sealwire certs (.*)", advice)
    assert command
    good(*shlex.split(command[1]), "--dir", str(folder))
    shutil.copy(folder / "worker.pem", copy)
    assert check_folder(copy) == []


def test_an_identity_of_another_ca_cannot_be_renewed_beside_this_one(tmp_path: Path) -> None:
    folder = folders.found(tmp_path / "certs")
    node = certs.leaf(certs.root("others"), "worker", start=-9 * DAY, end=-DAY)
    put(folder / "worker.pem", node.pem + node.key_pem)
    assert "have it issued again" in of(check_folder(folder), "expired").advice
    assert run("renew", "worker", "--dir", str(folder)).exit_code == 1


def put_ca(folder: Path, **changes: Any) -> None:
    folders.found(folder)
    node = certs.root("CA", **changes)
    put(folder / "ca.pem", node.pem)
    put(folder / "ca-key.pem", node.key_pem)


CAS: dict[str, Callable[[Path], None]] = {
    "ca-expires-soon": lambda folder: put_ca(folder, start=-300 * DAY, end=5 * DAY),
    "weak-key": lambda folder: put_ca(folder, key=certs.rsa_key(1024)),
    "not-a-ca": lambda folder: put_ca(folder, key_usage=certs.usage("crl_sign")),
}


@pytest.mark.parametrize("code", CAS)
def test_a_ca_is_made_again_where_its_key_is(tmp_path: Path, code: str) -> None:
    folder = tmp_path / "certs"
    CAS[code](folder)
    advice = of(check_folder(folder), code).advice
    copy = tmp_path / "copy"
    copy.mkdir(0o700)
    shutil.copy(folder / "ca.pem", copy)
    elsewhere = of(check_folder(copy), code).advice
    assert "made again where its key is" in elsewhere
    assert f"--dir {copy}" not in elsewhere
    words = shlex.split(advice)
    assert words[:2] == ["sealwire", "certs"]
    good(*words[2:])
    good("renew", "--dir", str(folder))
    good("rotate-ca", "--complete", "--force", "--dir", str(folder))
    assert code not in {each.code for each in check_folder(folder)}


def replace_key(folder: Path) -> None:
    """Another CA's key, as where a copy was brought back into the wrong folder."""
    (folder / "ca-key.pem").unlink()
    put(folder / "ca-key.pem", certs.root("sealwire CA").key_pem)


def damage_key(folder: Path) -> None:
    put(folder / "ca-key.pem", (folder / "ca-key.pem").read_text()[:60])


def add_ca(folder: Path) -> None:
    """Trust a CA whose key is elsewhere beside our own, and have a worker of it."""
    other = certs.root("other", start=-300 * DAY, end=5 * DAY)
    put(folder / "ca.pem", (folder / "ca.pem").read_text() + other.pem)
    node = certs.leaf(other, "worker", start=-80 * DAY, end=DAY)
    put(folder / "worker.pem", node.pem + node.key_pem)


def spoil_others(folder: Path, spoil_key: Callable[[Path], None]) -> None:
    """An identity that ends soon, one that is cut off, one cut off in its key, and no list."""
    put_worker(folder, start=-80 * DAY, end=DAY)
    put(folder / "client.pem", (folder / "client.pem").read_text()[:90])
    text = (folder / "scheduler.pem").read_text()
    put(folder / "scheduler.pem", text[: text.index("-----BEGIN PRIVATE") + 5])
    put(folder / "crl.pem", "")
    spoil_key(folder)


BOTH = ["expires-soon", "key-missing", "unreadable", "unreadable"]
KEYS: dict[str, tuple[Callable[[Path], None], list[str]]] = {
    "another CA's key": (lambda folder: spoil_others(folder, replace_key), BOTH),
    "a damaged key": (lambda folder: spoil_others(folder, damage_key), BOTH),
    "another CA beside": (add_ca, ["ca-expires-soon", "crl-missing", "expires-soon"]),
}


@pytest.mark.parametrize("kind", KEYS)
def test_a_key_that_is_not_its_cas_carries_out_nothing(tmp_path: Path, kind: str) -> None:
    spoil, codes = KEYS[kind]
    folder = folders.found(tmp_path / "certs")
    spoil(folder)
    found = [each for each in check_folder(folder) if each.code in codes]
    assert sorted(each.code for each in found) == codes
    assert not [each.advice for each in found if str(folder) in each.advice]


def test_what_is_missing_beside_another_cas_key(tmp_path: Path) -> None:
    folder = folders.found(tmp_path / "certs")
    (folder / "worker.pem").unlink()
    demanded = ["worker"]
    assert f"--dir {folder}" in of(check_folder(folder, demanded=demanded), "role-missing").advice
    replace_key(folder)
    advice = of(check_folder(folder, demanded=demanded), "role-missing").advice
    assert "bring the worker's file here" in advice


def test_a_key_that_a_password_hides_is_taken_for_the_cas(tmp_path: Path) -> None:
    folder = folders.found(tmp_path / "certs", password=b"secret")
    found = check_folder(folder, soon=400 * DAY)
    assert "--password-file" in of(found, "ca-key-encrypted").advice
    advised = [each.advice for each in found if each.code == "expires-soon"]
    assert len(advised) == 3
    assert all(f"--dir {folder}" in advice for advice in advised)


def test_what_is_said_of_one_folder_names_it(tmp_path: Path) -> None:
    """Commands that are advised by commands."""
    folder = folders.found(tmp_path / "its certs")
    there = f"--dir '{folder}'"
    good("revoke", "worker", "--dir", str(folder))
    done = run("renew", "--dir", str(folder))
    assert f"sealwire certs renew worker {there}" in done.output
    good("renew", "worker", "--dir", str(folder))
    done = run("renew", str(folder / "ca.pem"), "--dir", str(folder))
    assert f"run: sealwire certs rotate-ca {there}" in done.output


def test_a_revoked_identity_on_a_machine_with_a_copy(tmp_path: Path) -> None:
    folder = folders.found(tmp_path / "certs")
    good("revoke", "worker", "--dir", str(folder))
    copy = tmp_path / "copy"
    copy.mkdir(0o700)
    for name in ("ca.pem", "crl.pem", "worker.pem"):
        shutil.copy(folder / name, copy)
    advice = of(check_folder(copy), "revoked").advice
    assert "bring it here" in advice
    assert advice.endswith("sealwire certs renew worker")
    good("renew", "worker", "--dir", str(folder))
    shutil.copy(folder / "worker.pem", copy)
    assert check_folder(copy) == []
