"""`sealwire certs` later on: identities handed on, cut off, revoked, or asked for for too long."""

from __future__ import annotations

import datetime
import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from sealwire.security.x509.certinfo import CertificateInfo, hexadecimal
from support import folders
from support.certs_cli import codes, good, run, told


def pasted(text: str, command: str) -> list[str]:
    """The arguments of the `sealwire certs` command that a text advises."""
    found = re.search(rf"sealwire certs ({command}[^;(\n]*)", text)
    assert found, text
    return found[1].split()


# What was handed on


@pytest.mark.parametrize("gone", [False, True], ids=["there", "gone"])
def test_a_rotation_with_an_identity_that_was_handed_on(home: Path, gone: bool) -> None:
    """Each step that is advised can be taken, and leads on."""
    good("issue", "client", "--name", "alice", "--out", "alice.pem")
    good("rotate-ca")
    refused = run("rotate-ca", "--complete")
    assert refused.exit_code == 1
    assert "4 certificates of the old CA are in use" in refused.output
    if gone:
        (home / "alice.pem").unlink()
    good(*pasted(refused.output, "renew"))
    again = run("rotate-ca", "--complete")
    assert "1 certificate of the old CA is in use" in again.output
    assert f"{home}/alice.pem" in again.output
    (note,) = json.loads(run("check", "--json").output)
    assert note["code"] == "rotation-open"
    good(*pasted(again.output, "rotate-ca --complete" if gone else "renew"))
    if not gone:
        good("rotate-ca", "--complete")
    assert len(folders.certificates(home / "certs/ca.pem")) == 1
    assert codes() == {}


@pytest.mark.parametrize("name", ["certs/alice.crt", "certs/sub/alice.pem"])
def test_one_in_the_folder_that_a_renewal_of_all_leaves_out(home: Path, name: str) -> None:
    (home / "certs/sub").mkdir()
    good("issue", "client", "--out", name)
    good("rotate-ca")
    good("renew")
    refused = run("rotate-ca", "--complete")
    assert refused.exit_code == 1
    good(*pasted(refused.output, "renew"))
    good("rotate-ca", "--complete")


@pytest.mark.parametrize("name", ["alice", "alice.pem", "./alice.pem", "{home}/alice.pem"])
def test_what_is_gone_has_a_name(home: Path, name: str) -> None:
    name = name.format(home=home)
    good("issue", "client", "--out", "alice.pem")
    (home / "alice.pem").unlink()
    good("rotate-ca")
    good("renew")
    good("rotate-ca", "--complete", "--gone", name)
    assert len(folders.certificates(home / "certs/ca.pem")) == 1


def test_what_was_only_shown_has_its_serial(home: Path) -> None:
    said = told("sign", "node8.csr", "--role", "worker", "--out", "-")
    good("rotate-ca")
    good("renew")
    refused = run("rotate-ca", "--complete")
    assert f"serial {said['serial']}" in refused.output
    good("rotate-ca", "--complete", "--gone", said["serial"])


@pytest.mark.parametrize(
    ("name", "why"), [("worker", "it is there"), ("bob", "none of those that hold up")]
)
def test_only_what_is_gone_can_be_left_out(home: Path, name: str, why: str) -> None:
    good("rotate-ca")
    done = run("rotate-ca", "--complete", "--gone", name)
    assert (done.exit_code, why in done.output) == (1, True), done.output
    assert run("rotate-ca", "--gone", name).exit_code == 2


@pytest.mark.parametrize(
    "name", ["alice", "{home}/alice.pem", "certs/worker-n1.lab", "worker-n1.lab"]
)
def test_what_is_gone_can_be_revoked_by_name(home: Path, name: str) -> None:
    path = "alice.pem" if "alice" in name else "certs/worker-n1.lab.pem"
    good("issue", "worker", "n1.lab", "--out", path)
    serial = folders.certificate(home / path).serial_number
    (home / path).unlink()
    said = told("revoke", name.format(home=home))
    assert [int(each["serial"], 16) for each in said["revoked"]] == [serial]
    assert folders.revoked(home / "certs") == {serial}
    assert "was revoked before" in good("revoke", name.format(home=home))


def test_a_name_of_several_files_is_asked_for(home: Path) -> None:
    for place in ("a", "b"):
        (home / place).mkdir()
        good("issue", "client", "--out", f"{place}/alice.pem")
        (home / place / "alice.pem").unlink()
    done = run("revoke", "alice")
    assert done.exit_code == 1
    assert "several files of that name" in done.output
    good("revoke", f"{home}/a/alice.pem")


# What was cut off


def cuts(text: str) -> dict[str, str]:
    certificate, key = text.index("-----END CERTIFICATE"), text.index("-----BEGIN PRIVATE")
    return {
        "empty": "",
        "blank": "\n \n",
        "first mark": text[:20],
        "within the certificate": text[: certificate // 2],
        "before its end": text[: certificate + 9],
        "other text": "nothing\n",
        "after the first mark of the key": text[: key + 9],
        "within the key": text[: key + 100],
        "before the key's end": text[:-20],
    }


KINDS = list(cuts("-----END CERTIFICATE-----BEGIN PRIVATE"))


WITHIN = {"all": [], "cron": ["--if-expires-within", "30d"]}


@pytest.mark.parametrize(
    ("name", "kind", "when"),
    [  # every two of them meet
        (name, kind, tuple(WITHIN)[(one + other) % 2])
        for one, name in enumerate(("worker", "worker-n1.lab"))
        for other, kind in enumerate(KINDS)
    ],
)
def test_an_identity_that_is_cut_off_is_repaired_or_named(
    home: Path, kind: str, name: str, when: str
) -> None:
    within = WITHIN[when]
    good("issue", "worker", "n1.lab")
    path = home / "certs" / f"{name}.pem"
    whole = path.read_text()
    before = CertificateInfo.of(folders.certificate(path))
    path.write_text(cuts(whole)[kind])
    assert codes(code=2).keys() & {"unreadable", "key-missing"}
    done = run("renew", *within)
    if "key" in kind:
        assert done.exit_code == 0, done.output
        after = CertificateInfo.of(folders.certificate(path))
        assert (after.subject, after.names) == (before.subject, before.names)
    else:
        assert done.exit_code == 1, done.output
        assert path.read_text() == cuts(whole)[kind], "it is left to the user"
        (stuck,) = (e for e in json.loads(run("renew", *within, "--json").stdout)["identities"]
                    if e["status"] == "stuck")  # fmt: skip
        assert stuck["path"] == f"certs/{name}.pem"
        for part in stuck["why"].partition(": ")[2].split(" && "):
            if part.startswith("rm "):
                (home / part[3:]).unlink()
            else:
                good(*part.removeprefix("sealwire certs ").split())
        assert CertificateInfo.of(folders.certificate(path)).subject == before.subject
    assert codes() == {}


@pytest.mark.parametrize("host", ["n1.lab", "a-rather-long-host-name.in-a-lab.example"])
def test_a_renewal_breaks_no_path_on_a_narrow_terminal(
    home: Path, host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is to be pasted stands on a line of its own; the terminal alone wraps it."""
    good("issue", "worker", host)
    (home / f"certs/worker-{host}.pem").write_text("")
    monkeypatch.setattr("sealwire.cli.demo.report.PLAIN_WIDTH", 80)
    shown = run("renew").output
    assert f"rm certs/worker-{host}.pem && sealwire certs issue worker {host}" in shown
    assert re.search(r"^certs/worker.pem +renewed", shown, re.MULTILINE)
    if host == "n1.lab":
        assert re.search(r"^certs/worker-n1.lab.pem +stuck", shown, re.MULTILINE)


def test_a_cut_key_cannot_be_kept(home: Path) -> None:
    path = home / "certs/worker.pem"
    path.write_text(path.read_text()[:-20])
    done = run("renew", "--keep-key")
    assert done.exit_code == 1
    assert "renew it without --keep-key" in " ".join(done.output.split())


def test_other_files_are_no_identities(home: Path) -> None:
    key = folders.key(home / "certs/worker.pem")
    (home / "certs/own-key.pem").touch(mode=0o600)
    (home / "certs/own-key.pem").write_text(key)
    (home / "certs/notes.pem").write_text("nothing of ours")
    good("renew")
    assert codes() == {}


@pytest.mark.parametrize("name", ["other", "worker"])
def test_a_file_beyond_all_size_is_named_if_it_was_an_identity(home: Path, name: str) -> None:
    """It is not read a second time, nor is what was never ours a reason to fail."""
    with open(home / f"certs/{name}.pem", "wb") as file:
        file.truncate((64 << 20) + 1)
    done = run("renew")
    assert done.exit_code == (1 if name == "worker" else 0)
    assert ("it has more than 64 MiB" in done.output) == (name == "worker")


# What was revoked


def test_what_to_do_after_a_revocation(home: Path) -> None:
    good("issue", "worker", "n1.lab")
    serial = hexadecimal(folders.certificate(home / "certs/worker-n1.lab.pem").serial_number)
    said = good("revoke", "worker-n1.lab", "--reason", "keyCompromise")
    assert "rsync certs/crl.pem HOST:certs/" in said
    assert f"0x{int(serial, 16):x}" in good(*pasted(said, "snippet drop"))
    assert codes() == {"revoked": "note"}
    for form in ("worker-n1.lab", "2026-", "keyCompromise"):
        assert form.replace("2026", str(folders.now().year)) in good("show", "certs/crl.pem")
    shown = good("show", "certs/worker-n1.lab.pem")
    assert f"revoked {folders.now():%Y-%m-%d}, keyCompromise" in shown
    (entry,) = told("show", "certs/worker-n1.lab.pem")
    assert entry["revoked"].startswith(f"{folders.now():%Y-%m-%d}")
    (listed,) = (each for each in told("list") if each["name"] == "worker-n1.lab")
    assert (listed["status"], listed["why"]) == ("revoked", "keyCompromise")
    # Neither its end nor that of its CA makes it an error again.
    good("rotate-ca")
    good("renew")
    good("rotate-ca", "--complete")
    assert codes() == {"revoked": "note"}
    (home / "certs/worker-n1.lab.pem").unlink()
    assert codes() == {}


def test_one_that_is_configured_stays_an_error_until_it_is_renewed(home: Path) -> None:
    good("revoke", "worker")
    assert codes(code=2) == {"revoked": "error"}
    good("renew", "worker")
    assert codes() == {}


def test_a_file_elsewhere_is_shown_as_revoked(home: Path) -> None:
    good("issue", "client", "--out", "alice.pem")
    good("revoke", "alice.pem")
    (entry,) = told("show", "alice.pem")
    assert entry["revoked"] is not None


# What is left to do elsewhere


@pytest.mark.parametrize("place", ["certs", "my certs", "certs/.", "."])
def test_what_is_to_be_copied_can_be_pasted(
    home: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """Of a revocation and of both ends of a rotation: files that are there, to a folder's copy."""
    name = "certs"
    if place == "my certs":
        name = (home / "certs").rename(home / place).name
    if place == ".":
        monkeypatch.chdir(home / name)
    where = ("--dir", place)
    for command, files in {
        ("revoke", "worker"): {"crl.pem"},
        ("rotate-ca",): {"ca.pem", "crl.pem"},
        ("rotate-ca", "--complete", "--force"): {"ca.pem", "crl.pem"},
    }.items():
        assert "rsync" not in good(*command, *where, "--dry-run"), "nothing has changed"
        said = good(*command, *where)
        (line,) = re.findall(r"^ *(rsync .*?)(?:  .*)?$", said, re.MULTILINE)
        _, *sent, there = shlex.split(line)
        assert there == f"HOST:{name}/"
        assert {Path(each).name for each in sent} == files
        assert all(Path(each).is_file() for each in sent)


# One line each


def test_the_list_has_a_line_for_each(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good("issue", "worker", "node7.lab", "10.0.0.7")
    good("issue", "client", "--name", "alice", "--out", "alice.pem")
    good("issue", "client", "--name", "bob", "--out", "bob.pem")
    good("sign", "node8.csr", "--role", "worker", "--out", "-")
    (home / "bob.pem").unlink()
    good("revoke", "worker-node7.lab")
    (home / "certs/client.pem").write_text("")
    lines = good("list").splitlines()
    rows = {tuple(line.split()[:2]): line for line in lines}
    assert set(rows) == {
        ("NAME", "ROLE"),
        ("ca", "CA"),
        ("client", "client"),
        ("scheduler", "scheduler"),
        ("worker", "worker"),
        ("worker-node7.lab", "worker"),
        (f"{home}/alice.pem", "client"),
        (f"{home}/bob.pem", "client"),
        ("-", "worker"),
    }
    assert "revoked 20" in rows["worker-node7.lab", "worker"]
    assert rows["worker-node7.lab", "worker"].endswith("node7.lab, 10.0.0.7")
    assert "damaged" in rows["client", "client"]
    assert "364 days, elsewhere" in rows[f"{home}/alice.pem", "client"]
    assert "364 days, gone" in rows[f"{home}/bob.pem", "client"]
    assert {each["name"]: each["place"] for each in told("list")}["worker"] == "here"
    for name in ("ca-key.pem", "journal.tsv"):
        (home / "certs" / name).unlink()
    assert len(good("list").splitlines()) == 6, "a copy, where neither is"
    (home / "certs/crl.pem").write_text("damaged")
    assert len(good("list").splitlines()) == 6


# Asked for too long


def ends(path: Path) -> datetime.datetime:
    return folders.certificate(path).not_valid_after_utc


@pytest.mark.parametrize(
    "command",
    [
        ["issue", "worker", "n1.lab"],
        ["issue", "worker", "--each", "n1.lab"],
        ["sign", "node8.csr", "--role", "worker", "--out", "certs/worker-n1.lab.pem"],
        ["renew", "worker-n1.lab"],
    ],
    ids=lambda command: " ".join(command[:3]),
)
@pytest.mark.parametrize("days", ["100", "3000", "5000"])
def test_more_days_than_the_ca_has_are_cut_and_said_so(
    home: Path, command: list[str], days: str
) -> None:
    if command[0] == "renew":
        good("issue", "worker", "n1.lab")
    crl = (home / "certs/crl.pem").read_text()
    last = ends(home / "certs/ca.pem")
    others = {path: ends(path) for path in (home / "certs").glob("[cw]*.pem") if path.stem in
              ("ca", "client", "worker")}  # fmt: skip
    said = good(*command, "--days", days)
    until = ends(home / "certs/worker-n1.lab.pem")
    cut = "cut to the end of its CA" in said
    assert cut == (days == "5000")
    assert (until == last) == cut
    assert (home / "certs/crl.pem").read_text() == crl
    assert {path: ends(path) for path in others} == others


def test_init_says_that_it_cuts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "cut to the end of its CA" in good("init", "--days", "400", "--ca-days", "30")
    assert ends(tmp_path / "certs/worker.pem") == ends(tmp_path / "certs/ca.pem")
    assert "cut to" not in good("init", "other")


def test_one_that_was_cut_is_renewed_for_as_long_as_before(home: Path) -> None:
    good("issue", "worker", "n1.lab", "--days", "5000")
    good("renew", "worker-n1.lab")
    assert ends(home / "certs/worker-n1.lab.pem") == ends(home / "certs/ca.pem")


def test_a_short_list_of_before_is_made_again_in_time(home: Path) -> None:
    """One with a nearer end serves until a certificate would outlive it."""
    from sealwire.security.ca.store import Store

    (authority,) = Store(home / "certs").authorities
    until = folders.now() + 400 * folders.DAY
    (home / "certs/crl.pem").write_text(authority.revoke([], number=1, until=until))
    assert codes() == {}
    good("issue", "worker", "n1.lab", "--days", "500")
    (crl,) = folders.lists(home / "certs")
    end: Any = crl.next_update_utc
    assert end > ends(home / "certs/ca.pem")
