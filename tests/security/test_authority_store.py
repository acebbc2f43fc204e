"""The folder of a CA: issuing, renewing, revoking, and changing the CA, also after crashes."""

from __future__ import annotations

import datetime
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509

from sealwire.security import AuthorityError, PEMError, Security
from sealwire.security.ca.atomic_files import apply, locked
from sealwire.security.ca.renewal import renew, revoke
from sealwire.security.ca.rotation import begin, complete, left_behind
from sealwire.security.ca.store import Store, load
from sealwire.security.checks.runner import check_folder
from support import folders
from support.folders import DAY
from support.handshakes import client_context, server_context, shake

ROLES = ("client", "scheduler", "worker")
MONTH = 30 * DAY


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return folders.found(tmp_path / "certs")


def security(folder: Path, worker: str = "worker") -> Security:
    return Security(
        tls_ca_file=folder / "ca.pem",
        tls_crl_file=folder / "crl.pem",
        tls_worker_cert=folder / f"{worker}.pem",
        tls_scheduler_cert=folder / "scheduler.pem",
    )


def meet(folder: Path, worker: str = "worker") -> bool:
    """Whether a worker and the scheduler of a folder accept each other."""
    sides = security(folder, worker)
    return shake(server_context(sides), client_context(sides)).accepted


def statuses(folder: Path, within: datetime.timedelta | None = None, *names: str) -> dict[str, str]:
    """Renew, and what came of each."""
    store = Store(folder)
    chosen = [store.find(name) for name in names] or None
    results, writes = renew(store, chosen, within=within)
    apply(writes)
    return {each.path.stem: each.status for each in results}


def test_a_renewed_identity_is_the_same_with_a_new_key(folder: Path) -> None:
    path = folders.issue(folder, "node7", "node7.lab", "10-0-0-7.lab", days=20)
    before, key = folders.certificate(path), folders.key(path)
    assert statuses(folder) == dict.fromkeys([*ROLES, "node7"], "renewed")
    after = folders.certificate(path)
    for kind in (x509.SubjectAlternativeName, x509.ExtendedKeyUsage, x509.KeyUsage):
        old, new = (c.extensions.get_extension_for_class(kind) for c in (before, after))
        assert old == new
    assert (after.subject, after.issuer) == (before.subject, before.issuer)
    assert after.serial_number != before.serial_number
    assert folders.key(path) != key
    minute = datetime.timedelta(minutes=1)
    assert abs(after.not_valid_after_utc - folders.now() - 20 * DAY) < minute
    assert meet(folder, "node7")


def test_a_key_can_be_kept(folder: Path) -> None:
    path = folder / "worker.pem"
    key, before = folders.key(path), folders.certificate(path)
    apply(renew(Store(folder), keep_key=True)[1])
    assert folders.key(path) == key
    assert folders.certificate(path).serial_number != before.serial_number
    assert meet(folder)


def test_a_key_elsewhere_is_kept_and_one_file_replaced(folder: Path) -> None:
    """The certificate alone: there is no moment at which it and the key differ."""
    path = folder / "worker.pem"
    held = load(path)
    (folder / "worker-key").touch(mode=0o600)
    (folder / "worker-key").write_text(folders.key(path))
    path.write_text(held.blocks[0].text)
    results, writes = renew(Store(folder), [load(path)])
    assert [each.why for each in results] == ["new certificate, same key"]
    assert [w.path.name for w in writes] == ["journal.tsv", "worker.pem"]
    apply(writes)
    assert "PRIVATE" not in path.read_text()
    assert folders.certificate(path).public_key() == held.certificate.public_key()


def test_only_what_is_due_is_renewed_and_once(folder: Path) -> None:
    (authority,) = Store(folder).authorities
    for name, age in (("soon", 3), ("gone", 40), ("fresh", 0)):
        made = authority.issue("worker", not_before=folders.now() - age * DAY, days=21)
        (folder / f"{name}.pem").touch(mode=0o600)
        (folder / f"{name}.pem").write_text(made.certificate + made.key)
    assert not meet(folder, "gone")
    others = dict.fromkeys([*ROLES, "fresh"], "kept")
    assert statuses(folder, 19 * DAY) == {**others, "soon": "renewed", "gone": "renewed"}
    assert meet(folder, "gone")
    texts = {path: path.read_text() for path in folder.iterdir()}
    for within in (19 * DAY, MONTH):  # less than a month in all, but renewed within the hour
        assert statuses(folder, within) == {**others, "soon": "kept", "gone": "kept"}
    assert {path: path.read_text() for path in folder.iterdir()} == texts


def test_what_ends_with_its_ca_is_stuck(tmp_path: Path) -> None:
    folder = folders.found(tmp_path / "certs", ca_days=20)
    assert statuses(folder, MONTH) == dict.fromkeys(ROLES, "stuck")
    assert statuses(folder, 10 * DAY) == dict.fromkeys(ROLES, "kept")
    apply(begin(Store(folder)))
    assert statuses(folder) == dict.fromkeys(ROLES, "renewed")
    apply(complete(Store(folder)))
    assert statuses(folder, MONTH) == dict.fromkeys(ROLES, "kept")
    assert check_folder(folder) == []


def test_a_certificate_of_another_ca_is_left_alone(folder: Path, tmp_path: Path) -> None:
    other = folders.found(tmp_path / "other")
    (folder / "guest.pem").write_text((other / "worker.pem").read_text())
    assert statuses(folder)["guest"] == "kept"
    with pytest.raises(AuthorityError, match=r"cannot renew .*guest.pem: no CA in .* has issued"):
        statuses(folder, None, "guest")
    with pytest.raises(AuthorityError, match=r"cannot revoke .*guest.pem: no CA in"):
        revoke(Store(folder), "guest", "unspecified")
    with pytest.raises(
        AuthorityError, match=r"cannot find 'nobody': .*; there are client, guest, "
    ):
        Store(folder).find("nobody")


def test_whoever_is_revoked_is_out_with_all_older_certificates(folder: Path) -> None:
    path = folders.issue(folder, "node7")
    (folder / "old.pem").write_text(path.read_text())
    assert statuses(folder, None, "node7") == {"node7": "renewed"}
    assert meet(folder, "node7")
    assert meet(folder, "old")
    records, writes = revoke(Store(folder), "node7", "keyCompromise")
    apply(writes)
    assert len(records) == 2
    assert not meet(folder, "node7")
    assert not meet(folder, "old")
    assert meet(folder)
    reasons = [
        entry.extensions.get_extension_for_class(x509.CRLReason).value.reason
        for crl in folders.lists(folder)
        for entry in crl
    ]
    assert reasons == [x509.ReasonFlags.key_compromise] * 2
    assert revoke(Store(folder), "node7", "keyCompromise") == ([], [])

    (folder / "old.pem").unlink()
    assert statuses(folder)["node7"] == "revoked", "cron must not let it in again"
    with pytest.raises(AuthorityError, match="it is revoked, and its key would stay the same"):
        renew(Store(folder), [Store(folder).find("node7")], keep_key=True)
    assert statuses(folder, None, "node7") == {"node7": "renewed"}
    assert meet(folder, "node7")


@pytest.mark.parametrize("form", ["{:x}", "{:X}", "0x{:x}", "colons"])
def test_a_serial_is_one_certificate(folder: Path, form: str) -> None:
    before = folders.certificate(folder / "worker.pem").serial_number
    statuses(folder)
    digits = f"{before:040x}"
    text = ":".join(digits[i : i + 2] for i in range(0, 40, 2)) if form == "colons" else ""
    records, writes = revoke(Store(folder), text or form.format(before), "superseded")
    apply(writes)
    assert folders.revoked(folder) == {before}
    assert [each.subject for each in records] == ["CN=worker"]
    assert meet(folder)
    with pytest.raises(AuthorityError, match=r"journal.tsv knows no such serial; give the cert"):
        revoke(Store(folder), "abcdef0123", "superseded")


def test_the_list_outlives_every_certificate(folder: Path) -> None:
    def ends() -> datetime.datetime:
        (crl,) = folders.lists(folder)
        assert crl.next_update_utc is not None
        return crl.next_update_utc

    def latest() -> datetime.datetime:
        held = Store(folder).identities()
        return max(each.certificate.not_valid_after_utc for each in held)

    assert ends() > latest()
    number = folders.lists(folder)[0].extensions.get_extension_for_class(x509.CRLNumber).value
    folders.issue(folder, "long", days=3000)
    assert ends() > latest() > folders.now() + 2900 * DAY
    after = folders.lists(folder)[0].extensions.get_extension_for_class(x509.CRLNumber).value
    assert after == number, "it outlived its CA before, so nobody has to be given another"

    # One that is about to run out all the same is made again by the daily renewal.
    (authority,) = Store(folder).authorities
    (folder / "crl.pem").write_text(authority.revoke([], number=1, until=folders.now() + DAY))
    assert set(statuses(folder, MONTH).values()) == {"kept"}
    assert ends() > latest()


@pytest.mark.parametrize("damage", ["", "nonsense", None])
def test_a_lost_list_pardons_nobody(folder: Path, damage: str | None) -> None:
    folders.issue(folder, "node7")
    apply(revoke(Store(folder), "node7", "unspecified")[1])
    if damage is None:
        (folder / "crl.pem").unlink()
    else:
        (folder / "crl.pem").write_text(damage)
    statuses(folder, MONTH)
    assert not meet(folder, "node7")
    assert meet(folder)


def test_a_lost_journal_pardons_nobody(folder: Path) -> None:
    folders.issue(folder, "node7")
    apply(revoke(Store(folder), "node7", "unspecified")[1])
    (folder / "journal.tsv").unlink()
    folders.issue(folder, "long", days=3000)
    assert not meet(folder, "node7")


def test_a_torn_line_in_the_journal_harms_no_other(folder: Path) -> None:
    path = folder / "journal.tsv"
    path.write_text(path.read_text() + "2026-11-24T15:00:00Z\trevok")
    folders.issue(folder, "node7")
    assert len(Store(folder).journal.records) == 4
    assert Store(folder).journal.records[-1].file == "node7.pem"


def test_a_name_cannot_write_lines_of_its_own(folder: Path) -> None:
    for name in ("worker\n2026", "wor\tker", "wor\rker"):
        with pytest.raises(AuthorityError, match="printable characters only"):
            Store(folder).issue(name, [], [], days=1, path=folder / "x.pem")


def test_a_rotation_leaves_nobody_out_at_any_step(folder: Path, tmp_path: Path) -> None:
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
        one, other = security(folder), security(late)
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


def test_the_new_ca_has_the_bounds_of_the_old(tmp_path: Path) -> None:
    permitted = ["lab.example", "10.0.0.0/8"]
    folder = folders.found(tmp_path / "certs", permitted=permitted, kind="rsa3072")
    apply(begin(Store(folder)))
    new, old = folders.certificates(folder / "ca.pem")
    for kind in (x509.NameConstraints, x509.BasicConstraints, x509.KeyUsage):
        assert new.extensions.get_extension_for_class(
            kind
        ) == old.extensions.get_extension_for_class(kind)
    assert [each.public_key().key_size for each in (new, old)] == [3072, 3072]  # type: ignore[union-attr]
    with pytest.raises(AuthorityError, match=r"evil.example is outside .*, lab.example, 10.0.0.0"):
        folders.issue(folder, "node", "evil.example")
    folders.issue(folder, "node", "node7.lab.example")
    assert meet(folder, "node")


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
