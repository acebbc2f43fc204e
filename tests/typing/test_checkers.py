"""What type checkers make of the installed wheel: the examples, right uses, and wrong ones.

pyright's rules are run by basedpyright, which comes as one package and needs no network.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from support.once import once
from support.wheels import PYTHON, ROOT, built, installed

HERE = Path(__file__).resolve().parent
PATIENCE = 300  # seconds until a checker counts as hung
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))

#: line number -> what a checker says about it
Said = dict[int, str]


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter with the wheel."""
    wheel = built(tmp_path_factory)
    return (
        once(tmp_path_factory, "checked", lambda folder: installed(wheel, folder) and None) / PYTHON
    )


def mypy(python: Path, path: Path, cwd: Path) -> Said:
    """What ``mypy --strict`` reports, and `unused-awaitable`, which is not part of it."""
    options = (
        "--config-file=",
        f"--python-executable={python}",
        f"--cache-dir={python.parent / 'cache'}",
        "--strict",
        "--enable-error-code=unused-awaitable",
        "--no-pretty",
    )
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *options, path.name],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    found = re.findall(rf"^{re.escape(path.name)}:(\d+): error: (.*)$", done.stdout, re.MULTILINE)
    assert found or not done.returncode, done.stdout
    return {int(line): text for line, text in found}


def pyright(python: Path, path: Path, cwd: Path) -> Said:
    """What pyright reports in its strict mode."""
    config = {"typeCheckingMode": "strict", "include": [path.name]}
    (cwd / "pyrightconfig.json").write_text(json.dumps(config))
    done = subprocess.run(
        [sys.executable, "-m", "basedpyright", "--outputjson", f"--pythonpath={python}"],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert report["summary"]["filesAnalyzed"] == 1
    return {
        found["range"]["start"]["line"] + 1: found["message"]
        for found in report["generalDiagnostics"]
        if found["severity"] == "error"
    }


CHECKERS = [mypy, pyright]


@pytest.mark.parametrize("checker", CHECKERS)
@pytest.mark.parametrize("path", [HERE / "right_uses.py", *EXAMPLES], ids=lambda path: path.name)
def test_right_uses(
    checker: Callable[[Path, Path, Path], Said], path: Path, python: Path, tmp_path: Path
) -> None:
    shutil.copy(path, tmp_path)
    assert checker(python, path, tmp_path) == {}


@pytest.mark.parametrize("checker", CHECKERS)
def test_wrong_uses(
    checker: Callable[[Path, Path, Path], Said], python: Path, tmp_path: Path
) -> None:
    path = HERE / "wrong_uses.py"
    shutil.copy(path, tmp_path)
    marks = (" # wrong\n", f" # wrong for {checker.__name__}\n")
    lines = enumerate(path.read_text().splitlines(keepends=True), 1)
    wrong = {number: line.strip() for number, line in lines if line.endswith(marks)}
    assert len(wrong) > 80
    said = checker(python, path, tmp_path)
    assert [line for number, line in wrong.items() if number not in said] == []
    assert {number: text for number, text in said.items() if number not in wrong} == {}
