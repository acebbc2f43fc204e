"""docs/certificates.md: its commands, in its order, as a reader would paste them.

Those of its cluster on a laptop are run in tests/test_new_user.py.
"""

from __future__ import annotations

import datetime
import os
import re
import shlex
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from sealwire.security.x509 import templates
from support import certs_cli

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGE = (DOCS / "certificates.md").read_text()
CONSOLE = "\n".join(re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL))
COMMANDS = re.findall(r"^\$ (.*)$", CONSOLE, re.MULTILINE)
PYTHON = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
HERE = ("sealwire ", "openssl ", "printf ")  # what can be run on one machine
ELSEWHERE = ("rsync ", "for role in ", "dask ", "export ")


def in_a_shell(line: str, folder: Path) -> str:
    """What a line says on standard output, with `sealwire` on the path."""
    binary = folder / "bin" / "sealwire"
    binary.parent.mkdir(exist_ok=True)
    binary.write_text(f'#!/bin/sh\nexec {sys.executable} -m sealwire.cli "$@"\n')
    binary.chmod(0o755)
    path = f"{binary.parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-e", "-u", "-c", line],
        cwd=folder, env={**os.environ, "PATH": path, "CA_PASSWORD": "s3cret"}, text=True,
        capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, (line, done.stdout + done.stderr)
    return done.stdout


def test_every_command_runs_in_the_order_of_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ours in this process, unless the shell has more to do than to split them."""
    assert {line for line in COMMANDS if not line.startswith((*HERE, *ELSEWHERE))} == set()
    lines = [line for line in COMMANDS if line.startswith(HERE)]
    assert len(lines) > 12
    monkeypatch.chdir(tmp_path)
    said = ""
    for line in lines:
        words = shlex.split(line)
        if words[:2] == ["sealwire", "certs"]:
            said += certs_cli.good(*words[2:])
        else:
            said += in_a_shell(line, tmp_path)
    assert said.count("all fits") == 3
    assert "ENCRYPTED" in (tmp_path / "hpc/ca-key.pem").read_text()
    for path in tmp_path.rglob("*.pem"):
        if "PRIVATE KEY" in path.read_text():
            assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


def test_what_is_pasted_is_what_the_command_prints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each block that `snippet` has as well, for a folder that was made as on the page."""
    monkeypatch.chdir(tmp_path)
    certs_cli.good("init", "certs", "--seen-at", "/etc/sealwire")
    for name, block in {
        "kubernetes": re.findall(r"```yaml\n(spec:\n.*?)```", PAGE, re.DOTALL)[0],
        "slurm": re.findall(r"```bash\n.*?\n(.*?)```", PAGE, re.DOTALL)[0],
        "cron": re.findall(r"```\n17 \S+ .*sealwire( certs renew --dir /)", PAGE)[0],
    }.items():
        assert block in certs_cli.good("snippet", name)


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
