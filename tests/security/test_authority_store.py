"""The folder of a CA: issuing, renewing, revoking, and changing the CA, also after crashes."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest
from cryptography import x509

from sealwire.security import AuthorityError
from sealwire.security.ca.atomic_files import apply
from sealwire.security.ca.renewal import renew, revoke
from sealwire.security.ca.rotation import begin, complete
from sealwire.security.ca.store import Store, load
from sealwire.security.checks.runner import check_folder
from support import folders
from support.folders import DAY, MONTH, ROLES, meet, statuses


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return folders.found(tmp_path / "certs")


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


def test_revoking_an_identity_revokes_its_older_certificates(folder: Path) -> None:
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
def test_a_lost_list_revokes_no_revocation(folder: Path, damage: str | None) -> None:
    folders.issue(folder, "node7")
    apply(revoke(Store(folder), "node7", "unspecified")[1])
    if damage is None:
        (folder / "crl.pem").unlink()
    else:
        (folder / "crl.pem").write_text(damage)
    statuses(folder, MONTH)
    assert not meet(folder, "node7")
    assert meet(folder)


def test_a_lost_journal_revokes_no_revocation(folder: Path) -> None:
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
