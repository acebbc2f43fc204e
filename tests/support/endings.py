"""What tests of a comm's end share: the errors, and the table of docs/errors.md."""

from __future__ import annotations

import re
from collections.abc import Awaitable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from sealwire.comm import CommClosedError


class Row(NamedTuple):
    """What is told of an event: for each face the kinds at rest, and those of a busy comm."""

    kinds: dict[str, tuple[set[str], set[str]]]
    when: str


def told_of(event: str) -> Row:
    """The row of docs/errors.md whose first cell has these words."""
    table = DOCS.partition("<!-- told -->")[2].partition("<!-- end -->")[0]
    rows = [line.strip("| ").split(" | ") for line in table.strip().splitlines()[2:]]
    (found,) = [row for row in rows if event in row[0]]
    cells = [re.findall("`([a-z-]+)`", cell) for cell in found[1:4]]
    columns = [({kinds[0]}, set(kinds)) for kinds in cells]
    names = ("standalone-tcp", "standalone-tls", "dask-tcp", "dask-tls")
    return Row(dict(zip(names, [columns[0], *columns], strict=True)), found[4])


def kind_of(error: BaseException) -> str:
    """Of an error of either face."""
    ours = error if isinstance(error, CommClosedError) else error.__cause__
    assert isinstance(ours, CommClosedError)
    return ours.kind


async def error_of(awaitable: Awaitable[Any]) -> CommClosedError:
    with pytest.raises(CommClosedError) as caught:
        await awaitable
    return caught.value


DOCS = (Path(__file__).resolve().parents[2] / "docs" / "errors.md").read_text(encoding="utf-8")


def documented() -> list[tuple[str, int, str, str]]:
    """Kind, code, whether clean and whether another attempt may help, of each row."""
    table = DOCS.partition("<!-- endings -->")[2].partition("<!-- end -->")[0]
    rows = [line.strip("| ").split(" | ") for line in table.strip().splitlines()[2:]]
    return [(kind.strip("`"), int(code), clean, again) for _, kind, code, clean, again in rows]


def row(error: CommClosedError) -> tuple[str, int, str, str]:
    """The row of the documentation that an error belongs to."""
    clean = "yes" if error.clean else "no"
    return error.kind, error.code, clean, "may help" if error.retryable else "cannot help"
