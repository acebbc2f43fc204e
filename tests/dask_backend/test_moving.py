"""docs/moving.md, done: a worker of a running cluster changes over, and goes back."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest
import yaml

from support import certs_cli, forking
from support.processes import HANG, Program, Programs

PAGE = (Path(__file__).resolve().parents[2] / "docs/moving.md").read_text(encoding="utf-8")
(SCRIPT,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
PRELOADS, PROTECTIONS = (
    yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
)


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, object]:
    """A configuration of distributed's own TLS, with the certificates of `certs init`."""
    folder = tmp_path / "certs"
    certs_cli.good("init", str(folder))
    roles = {
        role: {"cert": str(folder / f"{role}.pem"), "key": str(folder / f"{role}.pem")}
        for role in certs_cli.ROLES
    }
    return {"tls": {"ca-file": str(folder / "ca.pem"), **roles}, "require-encryption": True}


def configured(file: Path, settings: object, more: dict[str, dict[str, object]]) -> str:
    """Write a configuration, and return its path."""
    tree = {"distributed": {"comm": settings, **more.get("distributed", {})}}
    file.write_text(yaml.safe_dump({**tree, **{k: more[k] for k in more if k == "sealwire"}}))
    return str(file)


def test_there_and_back(
    tmp_path: Path, settings: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = configured(tmp_path / "before.yaml", settings, {})
    moved = configured(tmp_path / "moved.yaml", settings, PRELOADS)
    monkeypatch.setenv("DASK_CONFIG", before)

    with Programs(tmp_path, forked=True) as programs:
        _, address = programs.scheduler("tls")
        stays = joined(programs, address, before, monkeypatch, "stays")
        for config in (moved, before):
            worker = joined(programs, address, config, monkeypatch, "moves")
            assert ("its own backend" in "".join(worker.output)) == (config == moved)
            if config == moved:
                assert asked(tmp_path, address) == ["distributed", "sealwire"]
            worker.process.terminate()
            assert worker.process.wait(HANG) == 0
        assert stays.process.poll() is None


def joined(
    programs: Programs, address: str, config: str, patch: pytest.MonkeyPatch, name: str
) -> Program:
    patch.setenv("DASK_CONFIG", config)
    worker = programs.worker(address, "--no-nanny", "--name", name)
    worker.wait_for("Registered to")
    return worker


def asked(folder: Path, address: str) -> list[str]:
    """What the page's script says, of the workers; the scheduler's line is checked here."""
    code = SCRIPT.replace("tls://127.0.0.1:8786", address)
    done = forking.run([sys.executable, "-c", code], folder, dict(os.environ))
    assert done.returncode == 0, done.stderr
    first, *rest = done.stdout.splitlines()
    assert first == "scheduler: distributed"
    return sorted(line.split()[1] for line in rest)


def test_the_preloads_are_those_of_the_command() -> None:
    (command,) = re.findall(r"^\$ dask worker (.*)$", PAGE, re.MULTILINE)
    for role, option in (("worker", "--preload "), ("nanny", "--preload-nanny ")):
        (module,) = PRELOADS["distributed"][role]["preload"]
        assert f"{option}{module}" in command


def test_the_protections_are_those_of_init(tmp_path: Path) -> None:
    certs_cli.good("init", str(tmp_path / "certs"))
    made = yaml.safe_load((tmp_path / "certs" / "dask.yaml").read_text(encoding="utf-8"))
    tls = PROTECTIONS["sealwire"]["tls"]
    assert tls.keys() == made["sealwire"]["tls"].keys()
    assert tls["allowed-peers"] == made["sealwire"]["tls"]["allowed-peers"]


def test_the_tests_that_it_names_exist() -> None:
    root = Path(__file__).resolve().parents[2]
    for path, name in re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", PAGE):
        text = (root / path).read_text(encoding="utf-8")
        assert not name or f"def {name}(" in text
