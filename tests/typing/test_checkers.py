"""What type checkers make of the installed wheel: the examples, right uses, and wrong ones.

pyright's rules are run by basedpyright, which comes as one package and needs no network.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from support.wheels import ROOT, interpreter

HERE = Path(__file__).resolve().parent
PATIENCE = 300  # seconds until a checker counts as hung
EXAMPLES = [*ROOT.glob("examples/*.py"), *ROOT.glob("examples/farm/*.py")]

#: name of a file -> line number -> what a checker says about it
Said = dict[str, dict[int, str]]


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With the wheel."""
    return interpreter(tmp_path_factory)


#: What our types stand on in distributed is its Security, and nothing of what that imports.
SKIP_THE_REST = """
[mypy]
[mypy-dask.*,distributed.*]
follow_imports = skip
[mypy-distributed.security]
follow_imports = normal
"""


def mypy(python: Path, names: list[str], cwd: Path) -> Said:
    """What ``mypy --strict`` reports, and `unused-awaitable`, which is not part of it."""
    config = python.parent / "mypy.ini"
    config.write_text(SKIP_THE_REST)
    options = (
        f"--config-file={config}",
        f"--python-executable={python}",
        f"--cache-dir={python.parent / 'cache'}",
        "--strict",
        "--enable-error-code=unused-awaitable",
        "--no-pretty",
    )
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *options, *names],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    found = re.findall(r"^(.+?):(\d+): error: (.*)$", done.stdout, re.MULTILINE)
    assert found or not done.returncode, done.stdout
    return by_file((name, int(line), text) for name, line, text in found)


def pyright(python: Path, names: list[str], cwd: Path) -> Said:
    """What pyright reports in its strict mode."""
    config = {"typeCheckingMode": "strict", "include": names}
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
    assert report["summary"]["filesAnalyzed"] == len(names)
    return by_file(
        (Path(found["file"]).name, found["range"]["start"]["line"] + 1, found["message"])
        for found in report["generalDiagnostics"]
        if found["severity"] == "error"
    )


def by_file(found: Iterable[tuple[str, int, str]]) -> Said:
    said: Said = {}
    for name, line, text in found:
        said.setdefault(name, {})[line] = text
    return said


@pytest.mark.parametrize("checker", [mypy, pyright])
def test_uses(
    checker: Callable[[Path, list[str], Path], Said], python: Path, tmp_path: Path
) -> None:
    """Right ones and the examples are let through; of wrong ones each marked line is told.

    In one run: most of what a checker does is to read the wheel and what that imports.
    """
    wrong_uses = HERE / "wrong_uses.py"
    paths = {path.name: path for path in (HERE / "right_uses.py", wrong_uses)}
    paths |= {f"{path.parent.name}_{path.name}": path for path in EXAMPLES}
    assert len(paths) > 6
    for name, path in paths.items():
        shutil.copy(path, tmp_path / name)
    said = checker(python, list(paths), tmp_path)
    of_wrong = said.pop(wrong_uses.name)
    assert said == {}
    marks = (" # wrong\n", f" # wrong for {checker.__name__}\n")
    lines = enumerate(wrong_uses.read_text().splitlines(keepends=True), 1)
    wrong = {number: line.strip() for number, line in lines if line.endswith(marks)}
    assert len(wrong) > 150
    assert [line for number, line in wrong.items() if number not in of_wrong] == []
    assert {number: text for number, text in of_wrong.items() if number not in wrong} == {}
