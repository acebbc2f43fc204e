"""The source archive and the wheel made of it, built once in a run."""

from __future__ import annotations

import os
import shutil
import site
import subprocess
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest
from build import ProjectBuilder
from build.env import DefaultIsolatedEnv

from support.once import once

ROOT = Path(__file__).resolve().parent.parent.parent
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


def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel, and with the source archive's content in `source`.

    The wheel is made of the archive, and that of a `copy`, so that nothing of an earlier build gets
    into them; both with what pyproject.toml asks for, and nothing else.
    """

    def build(folder: Path) -> None:
        copy = folder / "copy"
        left_out = shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "__pycache__")
        shutil.copytree(ROOT, copy, ignore=left_out)
        with DefaultIsolatedEnv() as environment:
            of_copy = ProjectBuilder.from_isolated_env(environment, copy)
            environment.install(of_copy.build_system_requires)
            archive = of_copy.build("sdist", folder)
            with tarfile.open(archive) as tar:
                tar.extraction_filter = getattr(tarfile, "data_filter", None)  # not in 3.11.2
                tar.extractall(folder / "unpacked")
            (source,) = (folder / "unpacked").iterdir()
            shutil.copytree(source, folder / "source")
            ProjectBuilder.from_isolated_env(environment, source).build("wheel", folder)

    return once(tmp_path_factory, "released", build)


def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel."""
    (wheel,) = released(tmp_path_factory).glob("*.whl")
    return wheel


def interpreter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One that finds the wheel, as users install it, and all else where we have it.

    Nothing is downloaded. What it finds of ours is the wheel: no editable installation applies.
    """

    def install(folder: Path) -> None:
        venv.create(folder, symlinks=os.name != "nt")
        (packages,) = folder.rglob("site-packages")
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(packages)
        (packages / "others.pth").write_text("\n".join(site.getsitepackages()))

    wheel = built(tmp_path_factory)
    return once(tmp_path_factory, "installed", install) / PYTHON
