"""Every finding of `check`, by really breaking the thing it is about."""

from __future__ import annotations

import ast
import os
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sealwire.security import AuthorityError, config
from sealwire.security.ca import rotation
from sealwire.security.ca.atomic_files import apply
from sealwire.security.ca.authority import Authority
from sealwire.security.ca.bootstrap import configuration
from sealwire.security.ca.renewal import revoke
from sealwire.security.ca.store import Store
from sealwire.security.checks import certificates, findings, runner
from sealwire.security.checks.runner import check_configuration, check_folder
from sealwire.security.config import KEYS
from sealwire.security.pem import blocks
from support import certs, folders
from support.checking import (
    ROLES,
    configured,
    far,
    look,
    put,
    put_ca,
    put_node,
    said,
    without_crl,
)
from support.folders import DAY
from support.forking import sealwire


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return folders.found(tmp_path / "certs")


def test_all_fits(folder: Path) -> None:
    assert look(folder) == {}


def test_the_copy_on_another_machine_fits(folder: Path) -> None:
    """Without the CA's key, the journal, and other roles' identities."""
    for name in ("ca-key.pem", "journal.tsv", "client.pem", "scheduler.pem"):
        (folder / name).unlink()
    assert said(check_folder(folder)) == {}


def test_no_folder_of_certificates(tmp_path: Path) -> None:
    with pytest.raises(AuthorityError, match=r"there is no ca.pem in it; .*sealwire certs init"):
        check_folder(tmp_path)


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (lambda text: "", "unreadable"),
        (lambda text: "nothing", "unreadable"),
        (lambda text: text.replace("MII", "AAA"), "unreadable"),
        (lambda text: blocks(text)[0].text, "key-missing"),
        (lambda text: blocks(text)[0].text + certs.leaf(certs.root()).key_pem, "key-mismatch"),
        (lambda text: text.replace("KEY-----\nM", "KEY-----\nA"), "key-unreadable"),
    ],
    ids=["empty", "no PEM", "damaged", "no key", "other key", "damaged key"],
)
def test_what_a_file_holds(folder: Path, damage: Callable[[str], str], expected: str) -> None:
    path = folder / "worker.pem"
    path.write_text(damage(path.read_text()))
    found = said(check_configuration(configured(folder)))
    assert found == {expected: "error"}


def test_a_missing_file(folder: Path) -> None:
    gone = str(folder / "gone.pem")
    for field in ("tls_ca_file", "tls_worker_cert", "tls_worker_key", "tls_crl_file"):
        demanded = ["worker"] if field == "tls_worker_cert" else []
        found = check_configuration(configured(folder, **{field: gone}), demanded=demanded)
        assert said(found)["unreadable"] == "error"
        assert found[0].subject == gone
    found = check_configuration(configured(folder, tls_worker_cert=gone))
    assert said(found) == {"role-absent": "note"}
    assert found[0].subject == gone


def test_an_encrypted_key_without_a_password(folder: Path) -> None:
    put_ca(folder, ca := far(certs.root))
    for role in ROLES:
        put_node(folder, far(certs.leaf, ca, role), role)
    node = far(certs.leaf, ca, "worker")
    put(folder / "worker.pem", node.pem + node.encrypted_key_pem(b"secret"))
    values = without_crl(folder)
    found = check_configuration(values)
    assert said(found) == {"key-unreadable": "error"}
    assert "no password" in found[0].message
    for password in ("secret", {"worker": "secret"}):
        assert said(check_configuration({**values, "tls_key_password": password})) == {}
    wrong = check_configuration({**values, "tls_key_password": "wrong"})
    assert said(wrong) == {"key-unreadable": "error"}
    assert "the password does not open" in wrong[0].message
    assert wrong[0].advice == "correct sealwire.tls.key-password"


@pytest.mark.parametrize(
    ("mode", "severity"), [(0o640, "warning"), (0o604, "error"), (0o666, "error")]
)
def test_keys_that_others_can_read(folder: Path, mode: int, severity: str) -> None:
    (folder / "worker.pem").chmod(mode)
    assert look(folder) == {"key-exposed": severity}
    (folder / "worker.pem").chmod(0o600)
    (folder / "ca-key.pem").chmod(mode)
    assert look(folder) == {"key-exposed": severity}


def test_a_folder_that_others_can_write_in(folder: Path) -> None:
    folder.chmod(0o777)
    assert look(folder) == {"folder-exposed": "error"}


@pytest.mark.parametrize("name", ["ca.pem", "crl.pem", "dask.yaml", "journal.tsv"])
@pytest.mark.parametrize(
    ("mode", "severity"), [(0o666, "error"), (0o622, "error"), (0o664, "warning"), (0o644, None)]
)
def test_files_that_others_can_write(
    folder: Path, name: str, mode: int, severity: str | None
) -> None:
    (folder / name).chmod(mode)
    found = check_folder(folder)
    assert said(found) == ({"writable": severity} if severity else {})
    if severity:
        assert found[0].subject == str(folder / name)
        assert found[0].advice == f"chmod go-w {folder / name}"
    seen = check_configuration(configured(folder), files=[str(folder / "dask.yaml")])
    known = severity if name != "journal.tsv" else None  # which no process reads
    assert said(seen) == ({"writable": known} if known else {})


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("mode", [0o622, 0o666, 0o620])
def test_identities_that_others_can_write(folder: Path, role: str, mode: int) -> None:
    (folder / f"{role}.pem").chmod(mode)
    assert look(folder) == {"key-exposed": "error" if mode & 0o007 else "warning"}


def test_a_certificate_apart_from_its_key_that_others_can_write(folder: Path) -> None:
    certificate, key = blocks((folder / "worker.pem").read_text())[:2]
    put(folder / "worker.pem", certificate.text + "\n").chmod(0o666)
    put(folder / "worker.key", key.text + "\n")
    found = check_configuration(configured(folder, tls_worker_key=str(folder / "worker.key")))
    assert said(found) == {"writable": "error"}


def test_files_of_other_users(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    us = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: us + 1234)
    found = check_folder(folder)
    if us:  # else they are root's, whom everybody trusts
        assert said(found) == {"foreign-owner": "warning"}
        assert f"number {us}" in found[0].message
        monkeypatch.setattr(os, "geteuid", lambda: 0)  # root looks after this folder
    else:
        assert said(found) == {}
        for path in (folder, *folder.iterdir()):
            os.chown(path, 1234, -1)
        assert said(check_folder(folder)) == {}
        assert said(check_configuration(configured(folder))) == {}
        os.chown(folder / "ca.pem", 4321, -1)
        assert said(check_folder(folder)) == {"foreign-owner": "warning"}
        monkeypatch.setattr(os, "geteuid", lambda: 0)
        os.chown(folder / "ca.pem", 1234, -1)
    assert said(check_folder(folder)) == {}


def test_a_file_that_is_half_written_is_named(folder: Path) -> None:
    text = (folder / "ca.pem").read_text()
    put(folder / "ca.pem", text + text[:200])
    found = check_configuration(configured(folder))
    assert said(found) == {"unreadable": "error"}
    assert "is cut short" in found[0].message


def test_no_list_where_one_is_configured(folder: Path) -> None:
    (folder / "crl.pem").write_text("")
    assert look(folder)["unreadable"] == "error"
    other = folders.found(folder.parent / "other", name="other CA")
    (folder / "crl.pem").write_text((other / "crl.pem").read_text())
    assert look(folder)["crl-missing"] == "error"
    namesake = folders.found(folder.parent / "namesake")
    (folder / "crl.pem").write_text((namesake / "crl.pem").read_text())
    found = check_configuration(configured(folder))
    assert said(found) == {"crl-missing": "error"}
    assert "another's signature" in found[0].message


def test_a_list_that_has_run_out(folder: Path) -> None:
    (authority,) = Store(folder).authorities
    text = authority.revoke([], number=1, until=folders.now() - DAY / 48)
    (folder / "crl.pem").write_text(text)
    assert look(folder) == {"crl-expired": "error", "crl-behind": "error"}


def test_a_revoked_identity(folder: Path) -> None:
    apply(revoke(Store(folder), "worker", "unspecified")[1])
    assert look(folder) == {"revoked": "error"}, "processes would show it"
    assert said(check_folder(folder)) == {"revoked": "note"}
    (folder / "ca-key.pem").unlink()
    assert said(check_folder(folder)) == {"revoked": "error"}, "it is not kept here, it is used"


def test_a_list_without_what_the_journal_knows(folder: Path) -> None:
    before = (folder / "crl.pem").read_text()
    apply(revoke(Store(folder), "worker", "unspecified")[1])
    (folder / "crl.pem").write_text(before)
    assert look(folder) == {"crl-behind": "error", "revoked": "note"}


def test_a_ca_key_that_fits_nothing(folder: Path) -> None:
    (folder / "ca-key.pem").write_text(Authority.create().key())
    assert look(folder) == {"ca-key-mismatch": "error"}


def test_an_encrypted_ca_key(tmp_path: Path) -> None:
    folder = folders.found(tmp_path / "certs", password=b"secret")
    assert look(folder) == {"ca-key-encrypted": "note"}
    assert said(check_folder(folder, password=b"secret")) == {}
    assert said(check_folder(folder, password=b"wrong")) == {"ca-key-mismatch": "error"}


def test_rotations(folder: Path) -> None:
    first, *others = rotation.begin(Store(folder))
    apply([first])
    found = check_folder(folder)
    assert said(found) == {"rotation-broken-off": "warning"}
    assert found[0].advice == f"sealwire certs rotate-ca --dir {folder}"
    apply(others)
    (finding,) = check_folder(folder)
    assert said([finding]) == {"rotation-open": "note"}
    assert "3 certificates of the old CA are in use" in finding.message
    *before, last = rotation.complete(Store(folder), force=True)
    apply(before)
    found = check_folder(folder)
    assert said(found)["rotation-broken-off"] == "warning"
    assert f"sealwire certs rotate-ca --dir {folder} --complete" in {x.advice for x in found}
    apply([last])
    assert set(said(check_folder(folder))) == {"other-ca"}


@pytest.mark.parametrize("left_out", ["scheduler", "worker", "nanny", "client"])
def test_a_protection_that_a_process_would_not_load(folder: Path, left_out: str) -> None:
    """Told of where a role is configured and has something to lose."""
    file = folder / "dask.yaml"
    text = file.read_text()
    section = f"  {left_out}:\n    preload: [sealwire.dask_backend.preload]\n"
    assert section in text
    file.write_text(text.replace(section, ""))
    lacking = config.without_preload(str(file))
    assert lacking == [f"distributed.{left_out}.preload"]

    def told(**changes: Any) -> list[Any]:
        values = configured(folder, **changes)
        found = check_configuration(values, without_preload=lacking)
        return [each for each in found if each.code == "not-preloaded"]

    (finding,) = told()
    assert finding.severity == "warning"
    assert finding.subject == lacking[0]
    assert "sealwire.tls.crl-file and sealwire.tls.allowed-peers" in finding.message
    (finding,) = told(tls_allowed_peers=None)
    assert "allowed-peers" not in finding.message
    assert told(tls_allowed_peers=None, tls_crl_file=None) == []
    role = "worker" if left_out == "nanny" else left_out
    assert told(**{f"tls_{role}_cert": None, f"tls_{role}_key": None}) == []


def test_settings(folder: Path) -> None:
    assert look(folder, require_encryption=False) == {"encryption-off": "warning"}
    assert look(folder, tls_min_version="1.1") == {"bad-value": "error"}
    assert look(folder, tls_ciphers="NULL") == {"bad-value": "error"}
    assert look(folder, tls_client_cert=None) == {"role-unset": "note"}
    alone = dict.fromkeys(f"tls_{role}_cert" for role in ROLES)
    assert look(folder, **alone) == {"role-unset": "warning"}
    assert look(folder, tls_ca_file=None)["bad-value"] == "error"
    for listed, expected in (
        (["client", "scheduler", "worker"], {}),
        ({"scheduler": ["worker"]}, {"peer-not-allowed": "warning"}),
    ):
        assert look(folder, tls_allowed_peers=listed) == expected
    worker = str(folder / "worker.pem")
    wrong = {"wrong-role": "warning"}
    assert look(folder, tls_scheduler_cert=worker, tls_allowed_peers=None) == wrong
    # As it is configured, nobody takes a worker for the scheduler.
    wrong |= {"peer-not-allowed": "warning"}
    assert look(folder, tls_scheduler_cert=worker) == wrong
    assert said(check_configuration(dict.fromkeys(KEYS))) == {"no-tls": "error"}


@pytest.mark.parametrize(
    ("line", "severity", "key"),
    [
        ("      ca_fle: x\n", "error", "distributed.comm.tls.ca-fle"),
        ("      zzzzzz: x\n", "warning", "distributed.comm.tls.zzzzzz"),
    ],
)
def test_misspelt_keys(folder: Path, line: str, severity: str, key: str) -> None:
    file = folder / "dask.yaml"
    file.write_text(file.read_text().replace("    tls:\n", f"    tls:\n{line}", 1))
    found = check_configuration({}, config.unknown_keys(str(file)))
    assert said(found)["unknown-key"] == severity
    (about,) = [each for each in found if each.code == "unknown-key"]
    assert about.subject == key
    if severity == "error":
        assert about.advice == "rename it to distributed.comm.tls.ca-file"


def test_the_configuration_names_any_path(tmp_path: Path) -> None:
    for name in ("plain", "with space", "it's", "#hash: {x}", "[list]", "ünï"):
        home = folders.found(tmp_path / name)
        assert config.read(str(home / "dask.yaml"))["tls_ca_file"] == str(home / "ca.pem")
        assert look(home) == {}
    assert "ca-file: /etc/sealwire/ca.pem" in configuration("/etc/sealwire")


def test_a_configuration_that_was_appended_to_another(folder: Path) -> None:
    """What the first of two sections of a name has is lost."""
    file = folder / "dask.yaml"
    before = check_configuration(without_crl(folder), files=[str(file)])
    assert "name-twice" not in said(before)
    file.write_text(f"distributed: {{worker: {{preload: []}}}}\n{file.read_text()}")
    found = check_configuration(without_crl(folder), files=[str(file)])
    assert said(found)["name-twice"] == "warning"


def test_every_finding_has_its_test() -> None:
    codes = set()
    for module in (runner, findings, certificates):
        for node in ast.walk(ast.parse(Path(module.__file__).read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Finding":
                texts = [each for each in ast.walk(node.args[1]) if isinstance(each, ast.Constant)]
                codes.update(str(each.value) for each in texts)
    assert len(codes) > 20
    tested = "".join(each.read_text() for each in Path(__file__).parent.glob("test_check*.py"))
    assert {code for code in codes if f'"{code}"' not in tested} == set()


@pytest.mark.parametrize("name", ["certs", "my certs", "it's"])
def test_the_advice_can_be_pasted(tmp_path: Path, name: str, monkeypatch: Any) -> None:
    """What can be mended by a command is mended by that command, from any folder."""
    folder = folders.found(tmp_path / name, days=20)
    before = (folder / "crl.pem").read_text()
    folders.issue(folder, "out")
    apply(revoke(Store(folder), "out", "unspecified")[1])
    (folder / "out.pem").unlink()
    (folder / "crl.pem").write_text(before)
    (folder / "client.pem").chmod(0o644)
    folder.chmod(0o777)
    found = check_folder(folder, soon=30 * DAY)
    assert set(said(found)) == {"expires-soon", "crl-behind", "key-exposed", "folder-exposed"}
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    for each in found:
        words = shlex.split(each.advice)
        if words[0] == "sealwire":
            if each.code == "expires-soon":
                words += ["--days", "100"]
            code, *_, errors = sealwire(*words[1:], folder=Path.cwd())
            assert code == 0, errors
        else:
            subprocess.run(words, check=True, timeout=60, stdout=subprocess.DEVNULL)
    assert check_folder(folder, soon=30 * DAY) == []
