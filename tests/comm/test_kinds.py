"""The kinds of errors: one list, which the documentation explains and every error keeps to."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest

from sealwire.comm import ErrorKind, errors
from sealwire.comm.calls.errors import RefusalKind
from sealwire.comm.kinds import KINDS
from sealwire.comm.tls_errors import _ALERTS, _PROTOCOL, _VERDICTS

ROOT = Path(__file__).resolve().parents[2]
DOCS = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")


def explained() -> set[str]:
    """Every kind in a column of that name."""
    kinds: set[str] = set()
    column = None
    for line in DOCS.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not line.startswith("|"):
            column = None
        elif "kind" in cells:
            column = cells.index("kind")
        elif column is not None:
            kinds.update(re.findall("`([a-z-]+)`", cells[column]))
    return kinds


def test_the_documentation_has_every_kind_and_no_other() -> None:
    assert explained() == set(KINDS)
    assert len(set(KINDS)) == len(KINDS) > 40


def test_the_type_of_every_kind_is_the_list() -> None:
    classes = [
        each
        for each in vars(errors).values()
        if isinstance(each, type) and issubclass(each, errors.CommError)
    ]
    assert len(classes) == 11
    for each in classes:
        assert get_type_hints(each)["kind"] == ErrorKind
        assert each.kind in KINDS


@pytest.mark.parametrize("table", [_ALERTS, _PROTOCOL, _VERDICTS], ids=["alert", "ours", "verdict"])
def test_what_tls_reports_is_of_the_list(table: dict[object, object]) -> None:
    assert {cause.kind for cause in table.values()} <= set(KINDS)  # type: ignore[attr-defined]


@pytest.mark.parametrize("table", [_ALERTS, _PROTOCOL, _VERDICTS], ids=["alert", "ours", "verdict"])
def test_the_documentation_has_every_text_of_tls(table: dict[object, Any]) -> None:
    """So that whoever looks for the words of a log finds them."""
    words = {
        part
        for cause in table.values()
        for part in (cause.why.removeprefix("we refused its certificate: "), cause.remedy)
    }
    assert {each for each in words if each not in DOCS} == set()


def test_the_code_names_no_kind_that_is_not_in_the_list() -> None:
    """As the type checker sees it, for values that are written out."""
    named = {
        kind
        for folder in ("comm", "dask_backend", "cli")
        for path in sorted((ROOT / folder).rglob("*.py"))
        if path.parent.name not in ("config", "dashboard")  # with kinds of other things
        for kind in re.findall(r'\.kind (?:=|==|!=|in) "([a-z-]+)"', path.read_text("utf-8"))
    }
    assert len(named) >= 10
    assert named <= {*KINDS, *get_args(RefusalKind)}  # a refused call has its own
