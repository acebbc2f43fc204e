"""The group: its words, its exit codes, and how little it loads."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import entry_points, version
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from sealwire.cli.main import COMMANDS, main

PROMPTLY = 60  # seconds until a command counts as hung


def python(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=PROMPTLY,
        check=False,
    )


def test_version() -> None:
    said = f"sealwire {version('sealwire')}\n"
    done = python("-m", "sealwire.cli", "--version")
    assert (done.returncode, done.stdout) == (0, said)
    (registered,) = entry_points(group="dask_cli", name="sealwire")  # `dask sealwire`
    assert CliRunner().invoke(registered.load(), ["--version"]).stdout == said


@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help_lists_every_command(option: str) -> None:
    done = CliRunner().invoke(main, [option])
    assert done.exit_code == 0
    for name in COMMANDS:
        assert f"\n  {name} " in done.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name: str) -> None:
    command = main.get_command(click.Context(main), name)
    assert command is not None
    assert command.name == name
    assert command.help
    done = CliRunner().invoke(main, [name, "--help"])
    assert done.exit_code == 0
    for option in command.params:
        assert option.opts[0] in done.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nonsense"], "No such command 'nonsense'"),
        (["demo", "--workers", "1"], "1 is not in the range"),
        (["demo", "--scale", "0"], "0.0 is not in the range"),
    ],
)
def test_wrong_usage_ends_with_2(arguments: list[str], words: str) -> None:
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 2
    assert words in done.stderr


def test_wrong_usage_ends_a_process_with_2() -> None:
    done = python("-m", "sealwire.cli", "nonsense")
    assert (done.returncode, done.stdout) == (2, "")
    assert "No such command 'nonsense'" in done.stderr


@pytest.mark.parametrize(
    ("script", "unwanted"),
    [
        (
            "import sealwire.cli.demo.observations, sealwire.cli.demo.computations",
            ["click", "rich", "distributed"],
        ),
        (
            "import sealwire.cli.main",
            ["rich", "distributed", "tornado", "sealwire.cli.demo.command"],
        ),
        (
            "from sealwire.cli.main import main; main(['--help'], standalone_mode=False)",
            ["distributed", "tornado", "cryptography"],
        ),
    ],
)
def test_little_is_loaded(script: str, unwanted: list[str], tmp_path: Path) -> None:
    always = ["sealwire.dask_backend", "sealwire.comm", "sealwire.security"]
    script += f"; import sys; print([m for m in {unwanted + always} if m in sys.modules])"
    done = python("-c", script, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"


# In one process: the command line as a script, a service or a shell's `>&-` starts it.
CLOSED = """
import sys
from sealwire.cli.main import main
lines = ("--version", "config", "certs show one.pem", "certs list --dir .", "certs check .")
streams = {name: getattr(sys, name) for name in ("stdin", "stdout", "stderr")}
for closed in ("out", "err", "in", "all"):
    codes = []
    for name, stream in streams.items():
        setattr(sys, name, None if closed in (name[3:], "all") else stream)
    for line in lines:
        try:
            main(line.split())
        except SystemExit as end:
            codes.append(end.code)
        except Exception as error:
            codes.append(repr(error))
    print("RESULT", closed, *codes, file=streams["stderr"])
"""


def test_closed_streams_are_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "one.pem").write_text("no certificate\n")
    done = python("-c", CLOSED, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    found = [line.split() for line in done.stderr.splitlines() if line.startswith("RESULT")]
    assert {closed: codes for _, closed, *codes in found} == {
        closed: ["0", "0", "1", "1", "2"] for closed in ("out", "err", "in", "all")
    }
