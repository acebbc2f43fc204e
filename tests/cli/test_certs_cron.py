"""`sealwire certs snippet cron`: its line does what it says where cron runs it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from sealwire.cli.certs import snippets
from support.certs_cli import good


def as_cron(line: str, home: Path) -> str:
    """Run the command of a crontab's line as crond does; return what it would mail."""
    found = re.fullmatch(r"(?:\S+ +){5}(.*)", line)
    assert found, line
    # `%` is the end of the command, unless it is escaped.
    command = re.split(r"(?<!\\)%", found[1])[0].replace(r"\%", "%")
    done = subprocess.run(
        ["/bin/sh", "-c", command], cwd=home, env={"HOME": str(home), "PATH": "/usr/bin:/bin"},
        text=True, stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", ["certs", "it's 100% mine"])
def test_it_is_found_and_names_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    good("init", name)
    text = good("snippet", "cron", "--dir", name)
    (line,) = [each for each in text.splitlines() if each.endswith(" --if-expires-within 30d")]
    monkeypatch.chdir("/")
    assert as_cron(line, tmp_path).count("not due") == 3


def test_a_password_is_asked_for_by_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "password").write_text("s3cret\n")
    good("init", "--password-file", "password")
    assert " --password-file FILE " in good("snippet", "cron")


def test_where_the_program_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside the interpreter, on the path, or as a module."""
    python = tmp_path / "venv/bin/python"
    monkeypatch.setattr(sys, "executable", str(python))
    monkeypatch.setenv("PATH", "/nowhere")
    assert snippets.program() == f"{python} -m sealwire.cli"
    for place, path in ((tmp_path / "local/bin", "on the path"), (python.parent, "beside")):
        place.mkdir(parents=True)
        (place / "sealwire").write_text("")
        (place / "sealwire").chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path / "local/bin"))
        assert snippets.program() == os.fspath(place / "sealwire"), path
