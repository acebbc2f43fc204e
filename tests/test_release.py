"""What a release says of itself, in several files: one version, the same requirements."""

from __future__ import annotations

import configparser
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
#: names on conda's channels that differ from those on PyPI
ON_CONDA = {"msgpack": "msgpack-python", "prometheus-client": "prometheus_client"}


@pytest.fixture(scope="module")
def declared() -> configparser.ConfigParser:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    return config


def read(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))
    return found


def bounds(lines: str) -> dict[str, str]:
    """Library -> lowest version, of a list of requirements."""
    found = dict(re.findall(r"^([\w-]+)\s*>=([\d.]+)", lines, re.MULTILINE))
    assert len(found) == len(lines.split("\n")) - lines.startswith("\n"), lines
    return found


def test_every_file_has_the_same_version(declared: configparser.ConfigParser) -> None:
    version = declared["metadata"]["version"]
    assert re.fullmatch(r"\d+\.\d+\.\d+(?:(?:a|b|rc|\.dev)\d+)?", version)
    assert read("CITATION.cff")["version"] == version
    assert read("conda/recipe.yaml")["context"]["version"] == version
    released = re.findall(r"^## \[(.*?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert released[0] == "Unreleased"
    assert released[1:2] in ([], [version])


def test_every_file_has_the_same_licence(declared: configparser.ConfigParser) -> None:
    licence = declared["metadata"]["license"]
    assert read("CITATION.cff")["license"] == licence
    about = read("conda/recipe.yaml")["about"]
    assert about["license"] == licence
    assert (ROOT / about["license_file"]).read_text().startswith("BSD 3-Clause License")


def test_the_recipe_needs_what_the_wheel_needs(declared: configparser.ConfigParser) -> None:
    recipe = read("conda/recipe.yaml")
    python = declared["options"]["python_requires"].removeprefix(">=")
    assert recipe["context"]["python_min"] == python
    needed = bounds("\n".join(recipe["requirements"]["run"][1:]))
    wheel = bounds(declared["options"]["install_requires"])
    assert needed == {ON_CONDA.get(name, name): version for name, version in wheel.items()}
    extras = declared["options.extras_require"]
    optional = [line for name in _for_users(extras) for line in extras[name].strip().splitlines()]
    constrained = bounds("\n".join(recipe["requirements"]["run_constraints"]))
    allowed = bounds("\n".join(line.partition(";")[0].rstrip() for line in optional))
    assert constrained == {ON_CONDA.get(name, name): version for name, version in allowed.items()}
    host = bounds("\n".join(recipe["requirements"]["host"][2:]))
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    (build,) = re.findall(r'requires = \["setuptools>=(\d+)"\]', project)
    assert host == {"setuptools": build}


def _for_users(extras: configparser.SectionProxy) -> list[str]:
    """The extras that are not for developers."""
    return [name for name in extras if name not in ("test", "benchmark", "docs")]


def test_what_is_examined_is_the_wheel_with_all_its_extras(
    declared: configparser.ConfigParser,
) -> None:
    (installed,) = re.findall(r"\{wheel\}\[([\w,]+)\]", (ROOT / "noxfile.py").read_text())
    assert set(installed.split(",")) == set(_for_users(declared["options.extras_require"]))


def test_the_recipe_installs_the_commands_that_the_wheel_installs(
    declared: configparser.ConfigParser,
) -> None:
    scripts = declared["options.entry_points"]["console_scripts"].strip().splitlines()
    recipe = read("conda/recipe.yaml")
    assert recipe["build"]["python"]["entry_points"] == scripts
    assert recipe["tests"][1]["script"][0] == "sealwire --version"
