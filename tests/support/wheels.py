"""The wheel, built once in a run."""

from __future__ import annotations

import os
import shutil
import site
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from support.once import once

ROOT = Path(__file__).resolve().parent.parent.parent
LEFT_OUT = shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "__pycache__", "tests")
PYTHON = "Scripts/python.exe" if os.name == "nt" else "bin/python"
PATIENCE = 300  # seconds until an installation counts as hung


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    """Run a command to its end in `cwd`; return what it printed. Its error is the test's."""
    kept = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**kept, "PIP_DISABLE_PIP_VERSION_CHECK": "1", **environment},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, f"{command} ended with {done.returncode}:\n{done.stderr}"
    return done.stdout


def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel, built from a copy so that nothing of an earlier build gets into it."""

    def build(folder: Path) -> None:
        shutil.copytree(ROOT, folder / "source", ignore=LEFT_OUT)
        pip = (sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps")
        run(*pip, "--wheel-dir", folder, folder / "source", cwd=folder)

    (wheel,) = once(tmp_path_factory, "wheel", build).glob("*.whl")
    return wheel


def installed(wheel: Path, folder: Path) -> Path:
    """An interpreter that finds the wheel, as users install it, and all else where we have it.

    Nothing is downloaded. What it finds of ours is the wheel: no editable installation applies.
    """
    venv.create(folder, symlinks=os.name != "nt")
    (packages,) = folder.rglob("site-packages")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(packages)
    (packages / "others.pth").write_text("\n".join(site.getsitepackages()))
    return folder / PYTHON
