"""The CA of a folder is replaced: nobody is locked out meanwhile, also after a crash."""

from __future__ import annotations

import datetime
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509

from sealwire.security import AuthorityError, PEMError
from sealwire.security.ca.atomic_files import apply, locked
from sealwire.security.ca.renewal import revoke
from sealwire.security.ca.rotation import begin, complete, left_behind
from sealwire.security.ca.store import Store
from sealwire.security.checks.runner import check_folder
from support import folders
from support.folders import MONTH, ROLES, meet, sides, statuses
from support.handshakes import client_context, server_context, shake


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return folders.found(tmp_path / "certs")


def test_a_rotation_locks_no_peer_out_at_any_step(folder: Path, tmp_path: Path) -> None:
    """A process that has read everything, and one that has not yet, accept each other."""
    folders.issue(folder, "revoked")
    apply(revoke(Store(folder), "revoked", "unspecified")[1])
    texts = {path.name: path.read_text() for path in folder.iterdir()}
    late = tmp_path / "late"
    late.mkdir(mode=0o700)

    def catch_up() -> None:
        for path in folder.iterdir():
            (late / path.name).touch(mode=0o600)
            (late / path.name).write_text(path.read_text())

    def both_ways() -> bool:
        one, other = sides(folder), sides(late)
        return (
            shake(server_context(one), client_context(other)).accepted
            and shake(server_context(other), client_context(one)).accepted
        )

    catch_up()
    apply(begin(Store(folder)))
    assert [c.subject.rfc4514_string() for c in folders.certificates(folder / "ca.pem")] == [
        "CN=sealwire CA 2",
        "CN=sealwire CA",
    ]
    assert (folder / "worker.pem").read_text() == texts["worker.pem"]
    assert both_ways()
    # Who joins now is issued by the CA that everybody knows, and cron waits as well.
    joined = folders.issue(folder, "joined")
    assert folders.certificate(joined).issuer.rfc4514_string() == "CN=sealwire CA"
    assert statuses(folder, MONTH)["worker"] == "kept"
    catch_up()
    assert not meet(folder, "revoked")
    assert "renewed" in statuses(folder).values()
    assert folders.certificate(joined).issuer.rfc4514_string() == "CN=sealwire CA 2"
    assert both_ways()
    assert left_behind(Store(folder)) == []
    catch_up()
    apply(complete(Store(folder)))
    assert both_ways()
    catch_up()
    assert both_ways()
    (folder / "old.pem").write_text(texts["worker.pem"])
    assert not meet(folder, "old")
    assert len(folders.lists(folder)) == 1
    assert complete(Store(folder)) == [], "once more does nothing"


def test_after_a_day_the_new_ca_signs_by_itself(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    apply(begin(Store(folder)))
    assert set(statuses(folder, MONTH).values()) == {"kept"}
    monkeypatch.setattr("sealwire.security.ca.store.SETTLING", datetime.timedelta(0))
    assert set(statuses(folder, MONTH).values()) == {"renewed"}
    assert set(statuses(folder, MONTH).values()) == {"kept"}
    apply(complete(Store(folder)))
    assert check_folder(folder) == []


def test_an_old_ca_in_use_is_not_dropped(folder: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere.pem"
    apply(Store(folder).issue("worker", [], [], days=9, path=elsewhere)[2])
    apply(begin(Store(folder)))
    with pytest.raises(AuthorityError, match=r"4 certificates of the old CA are in use, client\."):
        complete(Store(folder))
    statuses(folder)
    with pytest.raises(
        AuthorityError,
        match=f"1 certificate of the old CA is .* sealwire certs renew --dir .* {elsewhere} ",
    ):
        complete(Store(folder))
    assert statuses(folder, None, str(elsewhere)) == {"elsewhere": "renewed"}
    apply(complete(Store(folder)))
    assert len(folders.certificates(folder / "ca.pem")) == 1


def test_it_can_be_dropped_by_force(folder: Path) -> None:
    apply(begin(Store(folder)))
    apply(complete(Store(folder), force=True))
    assert not meet(folder)
    assert statuses(folder) == dict.fromkeys(ROLES, "kept"), "of another CA now"


def test_other_cas_stay_trusted(folder: Path, tmp_path: Path) -> None:
    other = folders.found(tmp_path / "other", name="partner CA")
    with open(folder / "ca.pem", "a") as trust, open(folder / "crl.pem", "a") as lists:
        trust.write((other / "ca.pem").read_text())
        lists.write((other / "crl.pem").read_text())
    (folder / "guest.pem").write_text((other / "worker.pem").read_text())
    assert meet(folder, "guest")
    apply(begin(Store(folder)))
    statuses(folder)
    assert meet(folder, "guest")
    apply(complete(Store(folder)))
    assert meet(folder, "guest")
    assert meet(folder)


def test_a_password_covers_old_and_new_keys(tmp_path: Path) -> None:
    folder = folders.found(tmp_path / "certs", password=b"secret")
    text = (folder / "ca-key.pem").read_text()
    assert "BEGIN ENCRYPTED" in text
    with pytest.raises(PEMError, match="encrypted and no password was given; give --password"):
        begin(Store(folder))
    with pytest.raises(PEMError, match="the password does not open the private key"):
        begin(Store(folder, b"wrong"))
    apply(begin(Store(folder, b"secret")))
    assert (folder / "ca-key.pem").read_text().count("BEGIN ENCRYPTED") == 2


def test_the_new_ca_has_the_bounds_of_the_old(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = shutil.copytree(folders.found_of_rsa(tmp_path_factory), tmp_path / "certs")
    apply(begin(Store(folder)))
    new, old = folders.certificates(folder / "ca.pem")
    for kind in (x509.NameConstraints, x509.BasicConstraints, x509.KeyUsage):
        assert new.extensions.get_extension_for_class(
            kind
        ) == old.extensions.get_extension_for_class(kind)
    assert [each.public_key().key_size for each in (new, old)] == [3072, 3072]  # type: ignore[union-attr]
    with pytest.raises(AuthorityError, match=r"evil.example is outside .*, lab.example, 10.0.0.0"):
        folders.issue(folder, "node", "evil.example")
    folders.issue(folder, "node8", "node8.lab.example")
    assert meet(folder, "node8")


KILL = """
import os, sys
from pathlib import Path
from sealwire.security.ca import atomic_files, rotation, store
left = int(sys.argv[2])
replace = os.replace
def killed(*paths, **at):
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), 9)
    replace(*paths, **at)
os.replace = killed
folder = Path(sys.argv[1])
plan = {"begin": rotation.begin, "complete": rotation.complete}[sys.argv[3]](store.Store(folder))
atomic_files.apply(plan)
"""


@pytest.mark.parametrize("at", [0, 1, 2])
@pytest.mark.parametrize("step", ["begin", "complete"])
def test_a_rotation_that_is_killed_can_be_repeated(folder: Path, step: str, at: int) -> None:
    steps: dict[str, Callable[[Store], list]] = {"begin": begin, "complete": complete}  # type: ignore[type-arg]
    if step == "complete":
        apply(begin(Store(folder)))
        statuses(folder)
    killed = subprocess.run([sys.executable, "-c", KILL, folder, str(at), step], check=False)
    assert killed.returncode == -9
    assert list(folder.glob(".*.sealwire-tmp"))
    assert meet(folder), "the folder works as it was left"
    assert set(statuses(folder, MONTH).values()) == {"kept"}
    with locked(folder):
        assert not list(folder.glob(".*.sealwire-tmp"))
        apply(steps[step](Store(folder)))
    assert len(folders.certificates(folder / "ca.pem")) == (2 if step == "begin" else 1)
    assert (folder / "ca-key.pem").read_text().count("BEGIN") == (2 if step == "begin" else 1)
    if step == "begin":
        statuses(folder)
        apply(complete(Store(folder)))
    assert check_folder(folder) == []
    assert meet(folder)
