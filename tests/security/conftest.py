"""Fixtures for the tests of contexts that follow their files."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from following import Folder


@pytest.fixture(autouse=True)
def default_level() -> Iterator[None]:
    """What another test has installed in this process may have set another level."""
    logger = logging.getLogger("sealwire")
    level = logger.level
    logger.setLevel(logging.NOTSET)
    yield
    logger.setLevel(level)


@pytest.fixture
def folder(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Folder:
    caplog.set_level(logging.INFO, "sealwire")
    return Folder(tmp_path)
