"""What the tests of joining share."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.joining import CA


@pytest.fixture
def ca(tmp_path: Path) -> CA:
    """A new CA of the test's own."""
    return CA(tmp_path / "ca")
