"""Fixtures for the tests of contexts that follow their files."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.following import Folder, give_checks_time


@pytest.fixture(autouse=True)
def default_level() -> Iterator[None]:
    """What another test has installed in this process may have set another level."""
    logger = logging.getLogger("sealwire")
    level = logger.level
    logger.setLevel(logging.NOTSET)
    yield
    logger.setLevel(level)


@pytest.fixture(autouse=True)
def time_for_checks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A check of files may take as long as a busy machine needs, but where that is the matter."""
    if request.path.stem not in ("test_background", "test_expired_material"):
        give_checks_time(monkeypatch)


@pytest.fixture
def folder(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Folder:
    caplog.set_level(logging.INFO, "sealwire")
    return Folder(tmp_path)
