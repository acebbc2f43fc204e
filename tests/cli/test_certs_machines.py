"""`sealwire certs` where certificates are used: one role's file, other paths, folders to copy."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import stat
import subprocess
import sys
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from sealwire.cli.certs.snippets import SNIPPETS
from sealwire.cli.main import main
from sealwire.security import config
from sealwire.security.x509.certinfo import CertificateInfo
from support import folders
from support.certs_cli import ROLES, codes, good, run, told
from support.forking import sealwire


@pytest.fixture
def machine(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Another machine, and on it the folder that the others' files are copied to."""
    there = home / "machine" / "certs"
    there.mkdir(parents=True, mode=0o700)
    for name in ("ca.pem", "crl.pem", "dask.yaml"):
        shutil.copy(home / "certs" / name, there / name)
    return there


@pytest.mark.parametrize("role", ROLES)
def test_check_judges_the_one_role_that_is_here(home: Path, machine: Path, role: str) -> None:
    shutil.copy(home / "certs" / f"{role}.pem", machine)
    good("config", "--dir", str(machine))
    others = [each for each in ROLES if each != role]
    assert codes(str(machine)) == {"role-absent": "note"}
    assert codes(str(machine / "dask.yaml")) == {"role-absent": "note"}
    assert codes(str(machine), "--role", role) == {"role-absent": "note"}
    assert codes(str(machine), "--role", others[0], code=2)["unreadable"] == "error"
    assert "all fits" in good("check", str(machine))
    assert f"only the role {role} was judged" in good("check", str(machine))
    # What is there is judged all the same.
    (machine / f"{role}.pem").write_text((home / "certs/ca.pem").read_text())
    assert codes(str(machine), code=2)["key-missing"] == "error"
    (machine / f"{role}.pem").unlink()
    assert codes(str(machine), code=2) == {"unreadable": "error"}, "no role's file at all"


def test_check_of_a_folder_without_a_configuration(home: Path, machine: Path) -> None:
    (machine / "dask.yaml").unlink()
    shutil.copy(home / "certs/worker.pem", machine / "mine.pem")
    assert codes(str(machine)) == {}
    assert codes(str(machine), "--role", "worker") == {}
    assert codes(str(machine), "--role", "client", code=2) == {"role-missing": "error"}


def test_check_finds_a_configuration_for_another_place(home: Path, machine: Path) -> None:
    """Only where it is used: in the CA's folder it is made for wherever it goes."""
    shutil.copy(home / "certs/worker.pem", machine)
    (home / "certs").rename(home / "moved")
    assert codes(str(machine), code=1) == {"elsewhere": "warning", "role-absent": "note"}
    done = run("check", str(machine))
    advice = re.search(r"sealwire certs (config .*)", done.output)
    assert advice
    good(*advice[1].split())
    assert codes(str(machine)) == {"role-absent": "note"}


def test_check_looks_at_certs_by_itself(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "all fits in certs" in good("check")
    (home / "certs/worker.pem").chmod(0o644)
    assert codes(code=2) == {"key-exposed": "error"}
    good("init", "other")
    monkeypatch.setenv("SEALWIRE_CERTS", "other")
    assert "all fits in other" in good("check")
    monkeypatch.setenv("SEALWIRE_CERTS", "nowhere")
    assert "cannot check" in run("check").output
    assert run("check").exit_code == 2


def test_check_without_a_folder_is_of_the_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert codes(code=2) == {"no-tls": "error"}


@pytest.mark.parametrize("name", ["worker.pem", "crl.pem", "ca.pem", "chain.crt", "key-and-more"])
def test_check_of_a_pem_file_shows_it(home: Path, name: str) -> None:
    path = home / "certs" / name
    if not path.exists():
        shutil.copy(home / "certs/worker.pem", path)
    assert good("check", str(path)) == good("show", str(path))
    assert told("check", str(path)) == told("show", str(path))


def test_check_of_an_empty_pem_file(home: Path) -> None:
    (home / "certs/new.pem").touch()
    done = run("check", "certs/new.pem")
    assert done.exit_code == 2
    assert "no certificate and no CRL in it" in done.output


@pytest.mark.parametrize(
    ("branch", "key", "severity", "nearest"),
    [
        ("limits", "handshake-timeot", "error", "sealwire.limits.handshake-timeout"),
        ("limits", "max_frame", "error", "sealwire.limits.max-frames"),
        ("limits", "zzz", "warning", None),
        ("gil", "intervall", "error", "sealwire.gil.interval"),
        ("unix", "alow-plain", "error", "sealwire.unix.allow-plain"),
        ("limit", "max-frames", "error", "sealwire.limits"),
        ("qqqqqq", "x", "warning", None),
    ],
)
def test_check_finds_unknown_keys_of_ours(
    home: Path, branch: str, key: str, severity: str, nearest: str | None
) -> None:
    file = home / "certs/dask.yaml"
    read = yaml.safe_load(file.read_text())
    read["sealwire"][branch] = {key: 5}
    file.write_text(yaml.safe_dump(read))
    done = run("check", "--json")
    (about,) = json.loads(done.output)
    assert (about["code"], about["severity"]) == ("unknown-key", severity)
    assert about["subject"].startswith(f"sealwire.{branch}")
    if nearest:
        assert about["advice"] == f"rename it to {nearest}"
    read["sealwire"][branch] = 5
    file.write_text(yaml.safe_dump(read))
    assert run("check").exit_code > 0


def test_known_keys_of_ours_are_no_finding(home: Path) -> None:
    file = home / "certs/dask.yaml"
    read = yaml.safe_load(file.read_text())
    read["sealwire"] |= {"limits": {"max_frames": 9, "stop-timeout": "1 s"}, "gil": {"linger": 1}}
    file.write_text(yaml.safe_dump(read))
    assert codes() == {}


@pytest.mark.parametrize("role", ["worker", "scheduler"])
def test_probe_shows_the_one_role_that_is_here(home: Path, machine: Path, role: str) -> None:
    shutil.copy(home / "certs" / f"{role}.pem", machine)
    good("config", "--dir", str(machine))

    def probed(*options: str) -> Any:
        command = ("probe", "tls://127.0.0.1:1", "--json", *options)
        configured = {"DASK_CONFIG": str(machine / "dask.yaml"), "HOME": str(home)}
        return json.loads(sealwire(*command, folder=home, **configured)[1])

    said = probed()
    assert (said["role"], said["outcome"]) == (role, "unreachable")
    assert said["certificates"]["ours"]["subject"] == f"CN={role}"
    if role == "worker":  # what is asked for is looked at before what is here
        assert probed("--as", "client")["outcome"] == "here"


NAMES = ["/etc/sealwire", "/etc/my certs", "/x: y/#z", "/it's"]


@pytest.mark.parametrize("there", NAMES)
def test_the_configuration_again_for_another_path(home: Path, there: str) -> None:
    file = home / "certs/dask.yaml"
    edited = file.read_text().replace(
        "  tls:\n    crl-file", "  limits: {max-frames: 9}  # ours\n  tls:\n    crl-file"
    )
    file.write_text(edited)
    good("config", "--seen-at", there, "--out", "elsewhere.yaml")
    assert file.read_text() == edited
    text = (home / "elsewhere.yaml").read_text()
    assert "limits: {max-frames: 9}  # ours" in text
    values, before = config.read(str(home / "elsewhere.yaml")), config.read(str(file))
    for field, value in values.items():
        if isinstance(value, str) and value.endswith(".pem"):
            assert value == f"{there}/{Path(before[field]).name}"
        else:
            assert value == before[field]
    assert good("config", "--seen-at", there, "--out", "-") == text
    good("config", "--seen-at", there)
    assert file.read_text() == text
    good("config")
    assert file.read_text() == edited


def test_paths_that_cannot_be_told_are_not_guessed(home: Path) -> None:
    file = home / "certs/dask.yaml"
    here = home / "certs"
    file.write_text(f"distributed: {{comm: {{tls: {{ca-file: {here}/ca.pem}}}}}}\n")
    done = run("config", "--seen-at", "/etc/sealwire")
    assert done.exit_code == 1
    assert "in a form that is not known here" in done.output
    file.write_text("distributed: [\n")
    assert "it is no YAML, line 2" in run("config", "--seen-at", "/etc/sealwire").output
    file.unlink()
    good("config", "--seen-at", "/etc/sealwire")
    assert config.read(str(file))["tls_ca_file"] == "/etc/sealwire/ca.pem"


def test_an_identity_and_a_folder_for_each_of_many_hosts(home: Path) -> None:
    (home / "hosts.txt").write_text(
        "node1.lab 10.0.0.1\n10.0.0.2 node2.lab n2  # as in /etc/hosts\n\n# none\n10.0.0.3\n"
    )
    options = ["--to", "deploy", "--seen-at", "/etc/sealwire"]
    dry = told("issue", "worker", "--hosts", "hosts.txt", *options, "--dry-run")
    assert not (home / "deploy").exists()
    said = told("issue", "worker", "--hosts", "hosts.txt", *options)
    for each in (*dry["identities"], *said["identities"]):
        assert each.pop("not_after")  # of another second
    assert {**dry, "dry_run": False} == said
    names = {"node1.lab": ("10.0.0.1",), "node2.lab": ("n2", "10.0.0.2"), "10.0.0.3": ()}
    assert {path.name for path in (home / "deploy").iterdir()} == set(names)
    for node, more in names.items():
        place = home / "deploy" / node
        assert {path.name for path in place.iterdir()} == {
            "ca.pem",
            "crl.pem",
            "dask.yaml",
            "worker.pem",
        }
        assert stat.S_IMODE((place / "worker.pem").stat().st_mode) == 0o600
        assert config.read(str(place / "dask.yaml"))["tls_ca_file"] == "/etc/sealwire/ca.pem"
        text = (place / "worker.pem").read_text()
        assert text == (home / "certs" / f"worker-{node}.pem").read_text()
        info = CertificateInfo.of(folders.certificate(place / "worker.pem"))
        assert (info.common_name, info.node) == ("worker", node)
        assert info.names == (
            *([node] if node[0] == "n" else []),
            *more,
            *([node] * (node[0] == "1")),
        )
    assert codes("certs") == {}
    assert codes("deploy/node1.lab", code=1) == {"elsewhere": "warning", "role-absent": "note"}
    again = told("issue", "worker", "--each", "node2.lab", "node4.lab", "--to", "deploy")
    assert {each["name"]: each["status"] for each in again["identities"]} == {
        "worker-node2.lab": "kept",
        "worker-node4.lab": "issued",
    }
    assert (home / "deploy/node4.lab/worker.pem").is_file()


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--each"], 1, "no host was named"),
        (["--each", "a.lab", "--out", "x.pem"], 2, "are for one identity"),
        (["--each", "a.lab", "--name", "x"], 2, "are for one identity"),
        (["a.lab", "--to", "d"], 2, "go with --each"),
        (["--each", "a.lab", "scheduler"], 1, "is that of a role"),
        (["--each", "a.lab", "not a host"], 1, "is not a DNS name"),
        (["--name", "scheduler"], 1, "is that of a role"),
        (["--name", "Client"], 1, "is that of a role"),
        (["--name", "x" * 65], 1, "1 to 64 characters"),
        (["--name", "a\nb"], 1, "printable"),
        (["alice@lab.example"], 2, "give the name of a person with --name"),
    ],
)
def test_issue_refuses(home: Path, arguments: list[str], code: int, words: str) -> None:
    before = sorted(path.name for path in (home / "certs").iterdir())
    done = run("issue", "worker", *arguments)
    assert (done.exit_code, words in done.output) == (code, True), done.output
    assert {*(path.name for path in (home / "certs").iterdir())} <= {*before, ".lock"}


@pytest.mark.parametrize(
    ("arguments", "node"),
    [
        (["node7.lab", "10.0.0.7"], "node7.lab"),
        (["10.0.0.7"], "10.0.0.7"),
        (["*.pool.lab", "head.lab"], "head.lab"),
        (["*.pool.lab"], ""),
        ([f"{'a' * 60}.lab.example"], ""),
        (["worker"], ""),
        ([], ""),
        (["node7.lab", "--name", "rack 3"], "rack 3"),
        (["--name", "alice@lab.example"], "alice@lab.example"),
    ],
)
def test_an_identity_carries_its_nodes_name_next_to_the_role(
    home: Path, arguments: list[str], node: str
) -> None:
    good("issue", "worker", *arguments, "--out", "made.pem")
    info = CertificateInfo.of(folders.certificate(home / "made.pem"))
    assert (info.common_name, info.node) == ("worker", node)
    good("renew", "made.pem")
    assert CertificateInfo.of(folders.certificate(home / "made.pem")).node == node


def test_pack_leaves_the_revoked_out(home: Path) -> None:
    good("issue", "worker", "--each", "a.lab", "b.lab")
    good("revoke", "worker-a.lab")
    said = told("pack", "--to", "deploy")
    names = {"client", "scheduler", "worker", "b.lab"}
    assert {Path(each).name for each in said["folders"]} == names
    assert [Path(each).name for each in said["left_out"]] == ["worker-a.lab.pem"]
    (home / "certs/worker-b.lab.pem").write_text("")
    done = run("pack", "--to", "deploy")
    assert done.exit_code == 1
    assert "it is empty" in done.output


def snippet(*arguments: str) -> str:
    return good("snippet", *arguments)


def test_snippets_are_right_for_the_path_they_are_for(home: Path) -> None:
    good("issue", "worker", "node7.lab")
    assert set(told("snippet")) == set(SNIPPETS)
    places = ("/etc/sealwire", "/run/my tls", "/x, y {z}/ #")
    for name, at in product(("kubernetes", "compose"), places):
        text = snippet(name, "--seen-at", at)
        tree = yaml.safe_load(text[re.search(r"^(spec|services):", text, re.M).start() :])  # type: ignore[union-attr]
        assert f"{at}/dask.yaml" in re.findall(r"'([^']*)'", str(tree))
        assert f"--seen-at {shlex.quote(at)}" in text
    text = snippet("ssh")
    assert f'"$host":{home}/certs/' in text
    assert "for host in node7.lab; do" in text
    assert f"renew --dir {home}/certs " in snippet("cron")
    for odd in ("/", "/etc/a:b", "/etc/$x", "/etc/a\nb"):  # which no container mounts
        refused = [run("snippet", name, "--seen-at", odd) for name in ("compose", "kubernetes")]
        assert all("such as --seen-at /etc/sealwire" in each.stderr for each in refused)
    good("config", "--seen-at", "/etc/sealwire")
    for name in ("kubernetes", "compose", "ssh"):
        text = snippet(name)
        assert "/etc/sealwire" in text
        assert "--seen-at" not in text, "dask.yaml is for it already"


@pytest.mark.parametrize(
    ("name", "folder"),
    [("ssh", "certs"), *((name, "it's my $HOME") for name in ("kubernetes", "compose", "ssh"))],
)
def test_what_a_snippet_brings_is_whole(home: Path, name: str, folder: str) -> None:
    """Its commands are run, with those of other machines in the place of kubectl and rsync."""
    if folder != "certs":
        good("init", folder)
    good("issue", "worker", "node7.lab", "--dir", folder)
    text = snippet(name, "--seen-at", "/etc/sealwire", "--dir", folder)
    shell = text.split("\n\n")[0]
    binary = home / "bin"
    binary.mkdir()
    for command, body in {
        "sealwire": f'exec {sys.executable} -m sealwire.cli "$@"',
        "kubectl": 'for a in "$@"; do case "$a" in --from-file=*) f="${a#--from-file=}"; '
        'cp "${f#dask.yaml=}" got/ ;; esac; done; cat > /dev/null',
        "ssh": ":",
        "rsync": 'cp "$2"* got/',
    }.items():
        (binary / command).write_text(f"#!/bin/sh\n{body}\n")
        (binary / command).chmod(0o755)
    (home / "got").mkdir(mode=0o700)
    done = subprocess.run(
        ["bash", "-e", "-u", "-c", shell],
        env={"PATH": f"{binary}:/usr/bin:/bin", "HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    places = [home / "got"] if name != "compose" else list((home / "deploy").iterdir())
    for place in places:
        names = {path.name for path in place.iterdir()}
        assert {"ca.pem", "crl.pem"} < names
        (configured,) = (path for path in place.iterdir() if path.name.endswith("dask.yaml"))
        assert config.read(str(configured))["tls_ca_file"] == "/etc/sealwire/ca.pem"


@pytest.mark.parametrize(
    "command", [["renew"], ["revoke", "worker"], ["issue", "worker", "n1.lab"], ["rotate-ca"]]
)
def test_what_needs_the_ca_key_says_where_to_run(
    home: Path, machine: Path, command: list[str]
) -> None:
    shutil.copy(home / "certs/worker.pem", machine)
    done = run(*command, "--dir", str(machine))
    assert done.exit_code == 1
    assert "there is no ca-key.pem in it" in done.output
    assert "run this where the CA's key is" in done.output


def test_the_list_of_commands_names_each(home: Path) -> None:
    shown = CliRunner().invoke(main, ["certs", "--help"]).output
    for name in ("list", "pack", "config", "snippet"):
        assert re.search(rf"^  {name} ", shown, re.MULTILINE)
