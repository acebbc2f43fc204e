"""Fixtures for the tests of contexts that follow their files."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from following import Folder


@pytest.fixture
def folder(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Folder:
    caplog.set_level(logging.INFO, "sealwire")
    return Folder(tmp_path)
