"""What holds for every command of `sealwire certs`: help, dry runs, JSON, failures, no open key."""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
from cryptography import x509

from sealwire.cli.certs.group import COMMANDS
from support import folders
from support.certs_cli import ROLES, WRITERS, good, run, texts, told


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_examples_and_exit_codes(name: str) -> None:
    command = importlib.import_module(COMMANDS[name]).command
    assert isinstance(command, click.Command)
    assert command.name == name
    options = {option for each in command.params for option in each.opts}
    assert "--json" in options
    assert ("--dry-run" in options) == (name in WRITERS)
    shown = good(name, "--help")
    assert f"  sealwire certs {name}" in shown
    assert re.search(r"Exit\s+codes:\s+0", shown)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_example_is_understood(name: str, tmp_path: Path) -> None:
    """The examples parse: no option in them is unknown or misplaced."""
    command = importlib.import_module(COMMANDS[name]).command
    help_text = command.help or ""
    examples = re.findall(rf"^\s*sealwire certs {name}\b(.*)$", help_text, re.MULTILINE)
    assert examples
    for name_of_file in (
        "node8.csr",
        "certs/worker.pem",
        "hosts.txt",
        ".ca-password",
        "worker.token",
    ):
        (tmp_path / name_of_file).parent.mkdir(exist_ok=True)
        (tmp_path / name_of_file).touch()
    for example in examples:
        words = re.split(r"\s{3,}|\s\|\s", example.replace("~", str(tmp_path)))[0]
        arguments = [word.strip('"') for word in re.findall(r'"[^"]*"|\S+', words)]
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(tmp_path)
            command.make_context(name, arguments)


@pytest.mark.parametrize("name", WRITERS)
def test_a_dry_run_says_the_same_and_writes_nothing(home: Path, name: str) -> None:
    before = {p: p.read_bytes() for p in home.rglob("*") if p.is_file()}
    dry = told(*WRITERS[name], "--dry-run")
    assert {p: p.read_bytes() for p in home.rglob("*") if p.is_file()} == before
    assert dry.pop("dry_run") is True
    assert dry["written"]
    assert "Would be written" in good(*WRITERS[name], "--dry-run")
    wet = told(*WRITERS[name])
    assert wet.pop("dry_run") is False
    assert wet["written"] == dry["written"]
    assert set(wet) == set(dry)
    after = {p for p in home.rglob("*") if p.is_file() and p.read_bytes() != before.get(p)}
    assert {str(p.relative_to(home)) for p in after if p.name != ".lock"} == {
        each["path"] for each in wet["written"]
    }


def test_the_folder_may_come_from_a_variable(home: Path, tmp_path: Path) -> None:
    other = folders.found(tmp_path / "other", name="other CA")
    said = told("issue", "client", "--out", "alice.pem", SEALWIRE_CERTS=str(other))
    assert said["issuer"] == "CN=other CA"
    done = run("renew", "--dir", "nowhere")
    assert done.exit_code == 1
    assert "there is no ca.pem in it; name the folder with --dir" in done.output


def test_it_is_a_command_of_dask_as_well(home: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "dask", "sealwire", "certs", "check", "--json"],
        env={**os.environ, "DASK_CONFIG": str(home / "certs/dask.yaml")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, json.loads(done.stdout)) == (0, []), done.stderr


@pytest.mark.parametrize("command", [["renew"], ["revoke"]], ids=str)
@pytest.mark.parametrize("name", ["ca", "certs/ca.pem", "elsewhere.pem"])
def test_the_ca_is_no_identity(home: Path, command: list[str], name: str) -> None:
    """To renew or to revoke it as one would leave everybody without a CA."""
    (home / "elsewhere.pem").write_text((home / "certs/ca.pem").read_text())
    before = texts(home / "certs")
    for option in ([], ["--dry-run"]):
        done = run(*command, name, *option)
        assert done.exit_code == 1
        assert "it is a CA's certificate, not an identity; to replace the CA" in done.output
    assert texts(home / "certs") == before


@pytest.mark.parametrize("option", [[], ["--dry-run"], ["--json"]], ids=str)
def test_a_file_in_the_way_stops_it_before_anything_is_written(
    home: Path, option: list[str]
) -> None:
    before = texts(home / "certs")
    for words in (
        ["issue", "worker"],
        ["sign", "node8.csr", "--role", "client", "--out", "certs/client.pem"],
    ):
        done = run(*words, *option)
        assert done.exit_code == 1
        assert "it exists already; name another file, or renew what is in this one" in done.output
    assert texts(home / "certs") == before, "the journal has what was never issued"


@pytest.mark.parametrize("name", COMMANDS)
def test_a_failure_is_json_as_well(home: Path, name: str) -> None:
    arguments = {
        "check": ["certs/nothing"],
        "config": ["--dir", "nowhere"],
        "list": ["--dir", "nowhere"],
        "pack": ["nobody", "--to", "deploy"],
        "snippet": ["ssh", "--dir", "nowhere"],
        "init": ["certs"],
        "issue": ["worker"],
        "join": ["127.0.0.1:1", "--token", "none"],
        "serve": ["--dir", "nowhere"],
        "token": ["--list", "--dir", "nowhere"],
        "renew": ["nobody"],
        "revoke": ["nobody"],
        "rotate-ca": ["--name", "sealwire CA"],
        "show": ["node8.csr"],
        "sign": ["certs/ca.pem", "--role", "worker"],
    }[name]
    done = run(name, *arguments, "--json")
    assert done.exit_code == (2 if name == "check" else 1)
    said = json.loads(done.stdout)
    assert set(said) == {"error"}
    assert f"Error: {said['error']}" in done.stderr


def test_a_signed_certificate_is_json_as_well(home: Path) -> None:
    said = told("sign", "node8.csr", "--role", "worker", "--out", "-")
    made = x509.load_pem_x509_certificate(said["certificate"].encode())
    assert int(said["serial"], 16) == made.serial_number
    assert [Path(each["path"]).name for each in said["written"]] == ["journal.tsv"]


def test_a_dry_run_with_nothing_to_do_says_so(home: Path) -> None:
    assert "there is one CA only" in good("rotate-ca", "--complete", "--dry-run")


WATCHED = """
import os, stat, sys
os.umask(0)
seen, inside = {}, False
public = ("ca.pem", "crl.pem", "dask.yaml", "journal.tsv")
def hook(event, arguments):
    global inside
    if inside or not (event == "open" or event.startswith("os.")):
        return
    inside = True
    try:
        for entry in os.scandir("."):
            if entry.is_dir():
                for file in os.scandir(entry.path):
                    plain = file.name.lstrip(".")
                    if not any(plain.startswith(name) for name in public):
                        mode = stat.S_IMODE(file.stat().st_mode)
                        seen.setdefault((plain.split(".pem")[0], mode), set()).add(file.name)
    except FileNotFoundError:
        pass
    finally:
        inside = False
sys.addaudithook(hook)
from sealwire.cli.main import main
for line in sys.argv[1:]:
    main(["certs", *line.split()], standalone_mode=False)
for (name, mode), files in sorted(seen.items()):
    print("seen", name, oct(mode), "temporary" if any("tmp" in f for f in files) else "")
"""


def test_no_key_is_open_to_others_for_an_instant(tmp_path: Path) -> None:
    """With umask 000, at every file operation of the process, the first after creation included."""
    commands = ["init certs", "issue worker n.lab", "renew", "rotate-ca", "renew"]
    done = subprocess.run(
        [sys.executable, "-c", WATCHED, *commands, "rotate-ca --complete", "renew worker"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines() if line.startswith("seen ")]
    keys = {"ca-key", "worker-n.lab", *ROLES}
    assert {name for _, name, mode, *_ in lines if mode == "0o600"} == keys | {"lock"}
    assert {mode for _, _, mode, *_ in lines} == {"0o600"}
    assert {name for _, name, _, *rest in lines if rest} == keys, "seen while being written"
    assert "PRIVATE KEY" not in done.stdout + done.stderr


@pytest.mark.parametrize("name", WRITERS)
def test_a_failure_half_way_leaves_nothing_behind(
    home: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever replacement fails: no temporary, no new file, and again it works."""
    replace = os.replace
    count = sum(1 for each in told(*WRITERS[name], "--dry-run")["written"]
                if not each["path"].endswith(".tsv"))  # fmt: skip
    assert count
    for failing in range(count):
        left = failing
        folder = home / ("new" if name == "init" else "certs")
        before = texts(folder) if folder.is_dir() else {}

        def fail(source: str, target: str, **at: int) -> None:
            nonlocal left
            if left == 0:
                raise OSError(28, "No space left on device")
            left -= 1
            replace(source, target, **at)

        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", fail)
            done = run(*WRITERS[name])
        assert done.exit_code == 1
        assert "no space left on device" in done.output
        after = texts(folder) if folder.is_dir() else {}
        assert set(after) == set(before)
    good(*WRITERS[name])
    assert run("check", "certs").exit_code == (2 if name == "revoke" else 0)


@pytest.mark.parametrize("journal", ["lost", "of before"])
def test_who_is_revoked_is_so_without_the_journal(journal: str, home: Path) -> None:
    """As where it came back from a backup: neither renewed with all others, nor packed."""
    good("issue", "worker", "a.lab")
    before = (home / "certs/journal.tsv").read_bytes()
    good("revoke", "worker-a.lab")
    if journal == "lost":
        (home / "certs/journal.tsv").unlink()
    else:
        (home / "certs/journal.tsv").write_bytes(before)
    left = told("pack", "--to", "deploy")["left_out"]
    assert [Path(each).name for each in left] == ["worker-a.lab.pem"]
    renewed = {Path(each["path"]).name: each["status"] for each in told("renew")["identities"]}
    assert renewed.pop("worker-a.lab.pem") == "revoked"
    assert set(renewed.values()) == {"renewed"}
    assert "revoked" in run("check", "certs").output
