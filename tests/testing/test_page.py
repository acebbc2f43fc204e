"""docs/testing.md: its examples run, with the fixtures, as somebody's tests."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from sealwire.testing import fixtures

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "testing.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


def test_its_examples_run(tmp_path: Path) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\nfilterwarnings = error::ResourceWarning\n")
    (tmp_path / "test_page.py").write_text("\n".join(BLOCKS))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--basetemp=tmp"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    count = len(re.findall(r"^def test_", "\n".join(BLOCKS), re.MULTILINE))
    assert re.search(rf"^{count} passed in", done.stdout, re.MULTILINE), done.stdout
    assert count == 8


def test_its_table_has_every_fixture() -> None:
    assert re.findall(r"^\| `(\w+)` \|", TEXT, re.MULTILINE) == [
        "sealwire_security",
        "sealwire_dask_security",
        "make_sealwire_certificates",
        "sealwire_cluster",
        "make_sealwire_cluster",
    ]
    assert sorted(re.findall(r"^\| `(\w+)` \|", TEXT, re.MULTILINE)) == sorted(fixtures.__all__)
