"""docs/deploying.md: its configurations can be read, and work with the files that they name."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import yaml

from sealwire.security import Security, config
from support import certs_cli
from support.handshakes import client_context, name_at
from support.processes import Programs

TEXT = (Path(__file__).resolve().parents[1] / "docs" / "deploying.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)
TREES = [tree for tree in map(yaml.safe_load, BLOCKS) if "distributed" in tree]


@pytest.mark.parametrize("tree", TREES, ids=["init", "cert-manager"])
def test_a_configuration_is_known_in_all_its_keys(tree: dict[str, object], tmp_path: Path) -> None:
    file = tmp_path / "dask.yaml"
    file.write_text(yaml.safe_dump(tree))
    assert config.unknown_keys(str(file)) == []
    assert config.without_preload(str(file)) == []
    assert config.read(str(file))["require_encryption"] is True


def test_the_names_of_cert_manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder for each role, as its secret is mounted; the others meet a scheduler's process."""
    certs_cli.good("init", str(tmp_path / "certs"))
    where = {}
    for role in certs_cli.ROLES:
        place = tmp_path / role
        place.mkdir()
        both = (tmp_path / "certs" / f"{role}.pem").read_text()
        at = both.index("-----BEGIN PRIVATE KEY-----")
        for name, text in (("tls.crt", both[:at]), ("tls.key", both[at:])):
            (place / name).touch(mode=0o600)
            (place / name).write_text(text)
        shutil.copy(tmp_path / "certs" / "ca.pem", place / "ca.crt")
        where[role] = place / "dask.yaml"
        where[role].write_text(BLOCKS[1].replace("/etc/sealwire", str(place)))
        assert certs_cli.run("check", str(where[role])).exit_code < 2
    with Programs(tmp_path) as programs:
        monkeypatch.setenv("DASK_CONFIG", str(where["scheduler"]))
        scheduler, address = programs.scheduler("tls")
        for role in ("client", "worker"):
            security = Security(**config.read(str(where[role])))
            assert name_at(address, client_context(security, role)) == "scheduler"
        assert "its own backend" in "".join(scheduler.output)


def test_every_test_that_it_names_is_there() -> None:
    for path in re.findall(r"`(tests/[\w/]+\.py)`", TEXT):
        assert (Path(__file__).resolve().parents[1] / path).exists()
