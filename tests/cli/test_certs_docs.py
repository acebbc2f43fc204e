"""docs/certificates.md: its commands, in its order, as a reader would paste them.

Those of its cluster on a laptop are run in tests/test_new_user.py.
"""

from __future__ import annotations

import datetime
import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from sealwire.security.x509 import templates
from support import certs_cli

PAGE = (Path(__file__).resolve().parents[2] / "docs/certificates.md").read_text()
CONSOLE = "\n".join(re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL))
COMMANDS = re.findall(r"^\$ (.*)$", CONSOLE, re.MULTILINE)
PYTHON = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
HERE = ("sealwire ", "openssl ", "printf ")  # what can be run on one machine
ELSEWHERE = ("rsync ", "for role in ", "dask ", "export ")


def test_every_command_runs_in_the_order_of_the_page(tmp_path: Path) -> None:
    assert {line for line in COMMANDS if not line.startswith((*HERE, *ELSEWHERE))} == set()
    lines = [line for line in COMMANDS if line.startswith(HERE)]
    assert len(lines) > 12
    binary = tmp_path / "bin"
    binary.mkdir()
    (binary / "sealwire").write_text(f'#!/bin/sh\nexec {sys.executable} -m sealwire.cli "$@"\n')
    (binary / "sealwire").chmod(0o755)
    done = subprocess.run(
        ["bash", "-e", "-u", "-x", "-c", "\n".join(lines)],
        cwd=tmp_path,
        env={
            **os.environ,
            "PATH": f"{binary}:{os.environ['PATH']}",
            "HOME": str(tmp_path),
            "CA_PASSWORD": "s3cret",
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("all fits") == 3
    for path in tmp_path.rglob("*.pem"):
        if "PRIVATE KEY" in path.read_text():
            assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


def test_certificates_from_a_program(tmp_path: Path) -> None:
    code = next(block for block in PYTHON if "Authority" in block)
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, timeout=60)
    files = list((tmp_path / "made").iterdir())
    assert len(files) == 4
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}


def test_a_ca_that_has_expired_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As docs/certificates.md says: its runbook works all the same."""
    folder = tmp_path / "certs"
    certs_cli.good("init", str(tmp_path / "other"))  # everything is imported
    past = templates.now() - datetime.timedelta(days=4000)
    with monkeypatch.context() as patch:
        for module in list(sys.modules.values()):
            if getattr(module, "now", None) is templates.now:
                patch.setattr(module, "now", lambda: past)
        certs_cli.good("init", str(folder))
    assert certs_cli.codes(str(folder), code=2)["ca-expired"] == "error"
    for command in (["rotate-ca"], ["renew"], ["rotate-ca", "--complete"]):
        certs_cli.good(*command, "--dir", str(folder))
    assert certs_cli.run("check", str(folder)).exit_code == 0
