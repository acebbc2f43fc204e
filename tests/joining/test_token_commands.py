"""`certs token`: what it prints, writes and leaves, without a service."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from sealwire.joining import Token
from support.certs_cli import good, run, told
from support.joined_cluster import SECRET
from support.joining import CA, token_of


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    good("init", str(tmp_path / "ca"))
    return tmp_path / "ca"


def test_a_token_is_alone_on_standard_output(folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "sealwire.cli", "certs", "token", "--role", "worker"],
        cwd=folder.parent, env={**os.environ, "SEALWIRE_CERTS": str(folder)}, check=True,
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    token = Token.parse(done.stdout)
    assert done.stdout == f"{token.text()}\n"
    assert token.id in done.stderr
    assert not SECRET.search(done.stderr)


def test_tokens_are_listed_and_revoked_without_their_secrets(folder: Path) -> None:
    where = ("--dir", str(folder))
    text = token_of(folder, "--uses", "2", "--names", "*.lab", "--about", "job 4711")
    token = Token.parse(text)
    (row,) = told("token", "--list", *where)["tokens"]
    assert (row["id"], row["role"], row["status"]) == (token.id, "worker", "valid")
    assert (row["names"], row["about"], row["uses"], row["used"]) == (["*.lab"], "job 4711", 2, [])
    assert good("token", "--revoke", token.id[:8], *where, "--dry-run").count("would be revoked")
    assert told("token", "--list", *where)["tokens"][0]["status"] == "valid"
    assert "is revoked" in good("token", "--revoke", token.id[:8], *where)
    assert "was revoked before" in good("token", "--revoke", token.id, *where)
    head, line = good("token", "--list", *where).splitlines()
    assert re.split("  +", head) == [
        "ID", "ROLE", "STATUS", "USED", "UNTIL", "NAMES", "USED BY", "ABOUT"
    ]  # fmt: skip
    assert re.split("  +", line)[:4] == [token.id, "worker", "revoked", "0 of 2"]
    assert re.split("  +", line)[5:] == ["*.lab", "-", "job 4711"]
    listed = line + good("token", "--list", *where, "--json")
    assert not SECRET.search(listed)
    assert run("token", "--revoke", "zzz", *where).exit_code == 1


@pytest.mark.parametrize(
    "arguments",
    [
        [], ["--role", "worker", "--list"], ["--list", "--revoke", "a"],
        ["--role", "authority"], ["--role", "worker", "--expires", "soon"],
        ["--role", "worker", "--lifetime", "-1h"], ["--role", "worker", "--uses", "many"],
    ],
)  # fmt: skip
def test_wrong_usage(folder: Path, arguments: list[str]) -> None:
    assert run("token", *arguments, "--dir", str(folder)).exit_code == 2
    assert not (folder / "tokens.tsv").exists()


@pytest.mark.parametrize(
    "arguments",
    [["--uses", "0"], ["--expires", "9999w"], ["--names", "a b"], ["--lifetime", "0m"]],
)
def test_values_that_fail(folder: Path, arguments: list[str]) -> None:
    done = run("token", "--role", "worker", *arguments, "--dir", str(folder))
    assert done.exit_code == 1
    assert "cannot make a token" in done.output
    assert not (folder / "tokens.tsv").exists()


def test_a_dry_run_makes_nothing(folder: Path) -> None:
    done = run("token", "--role", "worker", "--dry-run", "--dir", str(folder))
    assert done.exit_code == 0
    assert not SECRET.search(done.output)
    assert not (folder / "tokens.tsv").exists()


def test_a_token_in_a_file_is_private_and_never_replaced(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "worker.token"
    arguments = ("token", "--role", "worker", "--dir", str(folder), "--out", str(out))
    umask = os.umask(0)
    try:
        assert not SECRET.search(run(*arguments).output)
    finally:
        os.umask(umask)
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    text = out.read_text()
    assert Token.parse(text)
    again = run(*arguments)
    assert (again.exit_code, out.read_text()) == (1, text)
    assert len(told("token", "--list", "--dir", str(folder))["tokens"]) == 1


def test_a_token_is_made_where_it_can_be_served(tmp_path: Path) -> None:
    """Not in a folder that `join` made, or that was copied to a machine: nobody would know it."""
    ca = CA(tmp_path / "ca")
    (ca.path / "ca-key.pem").unlink()
    for option in ("--dry-run", "--json"):
        done = run("token", "--role", "worker", "--dir", str(ca.path), option)
        assert done.exit_code == 1
        assert "run this where the CA's key is" in done.output
    assert not (ca.path / "tokens.tsv").exists()
    assert good("token", "--list", "--dir", str(ca.path)), "of a copy it can be seen"
