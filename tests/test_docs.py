"""The README, the first steps and the examples: what they show is what runs."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
from pathlib import Path

import pytest

from sealwire.comm import Limits
from sealwire.security.config import KEYS
from support import certs_cli
from support.kernel import free_port

ROOT = Path(__file__).resolve().parent.parent
README, START, STANDALONE, SETTINGS = (
    (ROOT / name).read_text(encoding="utf-8")
    for name in ("README.md", "docs/start.md", "docs/standalone.md", "docs/configuration.md")
)
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


def python(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", page, re.DOTALL)


PATIENCE = 60  # seconds


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_a_page_shows_the_example(path: Path) -> None:
    assert f"# examples/{path.name}\n{path.read_text()}" in python(STANDALONE)


def run(*command: str, cwd: Path) -> str:
    done = subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the certificates that the first steps make."""
    assert "$ sealwire certs init\n" in START
    certs_cli.good("init", str(tmp_path / "certs"))
    return tmp_path


def test_server_and_client(folder: Path) -> None:
    """On a free port in place of the page's, and on loopback alone."""
    port = str(free_port())
    for name in ("server.py", "client.py"):
        text = (ROOT / "examples" / name).read_text()
        assert text.count("8786") == 1
        (folder / name).write_text(text.replace("8786", port).replace("0.0.0.0", "127.0.0.1"))
    with subprocess.Popen([sys.executable, "server.py"], cwd=folder) as server:
        try:
            # The client tries until the server is there.
            assert run(sys.executable, "client.py", cwd=folder) == "42 67108864 TLSv1.3\n"
        finally:
            server.terminate()


def test_the_cluster_in_memory() -> None:
    """It is that of the first steps, which a new user runs."""
    (code,) = [block for block in python(README) if "LocalCluster(" in block]
    assert code in python(START)


def test_ten_lines_without_dask(tmp_path: Path) -> None:
    (code,) = [block for block in python(README) if "sealwire.comm import" in block]
    assert code.replace("temporary()\n", "temporary()  # certificates in memory\n") in python(START)
    (tmp_path / "ten_lines.py").write_text(code)
    assert run(sys.executable, "ten_lines.py", cwd=tmp_path) == "42\n"


def test_every_setting_is_in_a_table() -> None:
    for field in dataclasses.fields(Limits):
        if field.name != "write_ahead":  # in Dask nothing waits for it
            assert f"| `{field.name.replace('_', '-')}` |" in SETTINGS
    for name, key in KEYS.items():
        own = f"| `{key.rpartition('.')[2]}` |" if key.startswith("sealwire.") else f"| `{key}` |"
        assert own in SETTINGS, key
        assert f"`{name}`" in SETTINGS, name


def test_the_makefile_has_the_commands_of_the_readme() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^\$ make (\w+)", README, re.MULTILINE):
        assert f"\n{target}:" in makefile
