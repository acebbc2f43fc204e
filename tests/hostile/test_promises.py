"""docs/security.md names a test for each promise, docs/bounds.md for each step: they exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from support.target import check

ROOT = Path(__file__).resolve().parents[2]
DOCS = (ROOT / "docs" / "security.md").read_text()
TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
NAMED = sorted(set(TEST.findall(DOCS + (ROOT / "docs" / "bounds.md").read_text())))


def test_every_promise_has_its_test() -> None:
    table = DOCS.partition("## What is promised")[2].partition("\n## ")[0]
    rows = [line for line in table.splitlines() if line.startswith("| ")][1:]
    named = TEST.findall(table)
    check(len(rows) == len(named) > 30, len(rows), len(named))


@pytest.mark.parametrize(("file", "name"), NAMED)
def test_the_test_of_a_promise_exists(file: str, name: str) -> None:
    tree = ast.parse((ROOT / file).read_text())
    names = {node.name for node in tree.body if hasattr(node, "name")}
    check(name in names, f"{file} has no {name}")
