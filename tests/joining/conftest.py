"""What the tests of joining share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.joined_cluster import SECRET, Cluster
from support.joining import CA


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A CA with its service in a process, for tests that leave it whole."""
    made = Cluster(tmp_path_factory.mktemp("service"))
    try:
        yield made
        assert not SECRET.search(made.output)
        assert "Traceback" not in made.output
    finally:
        made.end()


@pytest.fixture
def ca(tmp_path: Path) -> CA:
    """A new CA of the test's own."""
    return CA(tmp_path / "ca")
