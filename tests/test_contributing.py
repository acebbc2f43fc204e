"""What contributors are told: commands that exist, links that lead somewhere, hooks from .venv."""

from __future__ import annotations

import configparser
import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
PAGES = ["CONTRIBUTING.md", "RELEASING.md"]


@pytest.mark.parametrize("page", PAGES)
def test_its_commands_and_links_exist(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"[$`&] ?make (?!PYTHON)([\w-]+)", text))
    assert targets
    for target in targets:
        assert f"\n{target}:" in makefile, target
    links = re.findall(r"\]\(([^)#]+)\)", text)
    paths = re.findall(r"\b(?:tests|docs|benchmarks)/\w[\w./]*\w(?![\w*])", text)
    assert links
    assert paths
    for path in (*links, *paths):
        assert (ROOT / path).exists(), path


def test_the_hooks_download_nothing() -> None:
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    assert [repo["repo"] for repo in config["repos"]] == ["local"]
    hooks = config["repos"][0]["hooks"]
    assert {hook["id"] for hook in hooks} == {"ruff", "ruff-format", "mypy", "codespell"}
    for hook in hooks:
        assert hook["language"] == "system"
        assert hook["entry"].startswith((".venv/bin/", "make --silent --old-file=install "))


def test_what_the_hooks_check_is_checked_by_make_test() -> None:
    """Whoever installs no hooks is told too, and of every file that a hook would look at."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    commands = " ".join(re.findall(r"^(?:lint|types):.*\n((?:\t.*\n)+)", makefile, re.MULTILINE))
    (packages,) = re.findall(r"^PACKAGES := (.*)$", makefile, re.MULTILINE)
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    for hook in config["repos"][0]["hooks"]:
        tool = "mypy" if hook["id"] == "mypy" else " ".join(hook["entry"].split()[:2])
        assert tool.replace(".venv/bin", "$(BIN)") in commands, tool
        for package in packages.split():
            assert re.search(hook.get("files", ""), f"{package}/__init__.py"), (tool, package)


def test_coverage_is_measured_of_every_package() -> None:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    (packages,) = re.findall(r"(?m)^PACKAGES := (.*)$", (ROOT / "Makefile").read_text())
    assert config["coverage:run"]["source"].split(", ") == packages.split()


def test_a_bug_report_asks_for_what_tells_most() -> None:
    text = (ROOT / ".github" / "ISSUE_TEMPLATE" / "bug.md").read_text(encoding="utf-8")
    front, body = text.split("---\n", 2)[1:]
    assert {"name", "about"} <= set(yaml.safe_load(front))
    for asked in ("sealwire probe ", "sealwire certs check --json", "sealwire --version"):
        assert asked in body
