"""What tests of a comm's end share: the errors, and the table of docs/errors.md."""

from __future__ import annotations

from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import pytest

from sealwire.comm import CommClosedError


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
