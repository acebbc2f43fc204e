"""docs/joining.md: its commands, in its order, against its service; its links and its figures."""

from __future__ import annotations

import os
import re
import shlex
import sys
from pathlib import Path

import pytest

from sealwire.joining import Token
from sealwire.joining.tokens import PREFIX
from sealwire.security import Authority
from support.certs_cli import good
from support.processes import Program

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGE = (DOCS / "joining.md").read_text()
COMMANDS = re.findall(r"^\$ (.*)$", PAGE, re.MULTILINE)
CERTS = [sys.executable, "-m", "sealwire.cli", "certs"]


def test_its_commands_run_in_its_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process, but for the service; a shell would only split them."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)

    def play(line: str) -> str:
        program, group, *words = shlex.split(line)
        assert (program, group) == ("sealwire", "certs")
        return good(*map(os.path.expanduser, words))

    init, serve, *rest = COMMANDS
    play(init)
    assert serve == "sealwire certs serve"
    service = Program([*CERTS, "serve", "--host", "127.0.0.1", "--port", "0"], tmp_path)
    address = service.wait_for(r"serving the CA at tls://(\S+)")[1]
    assert len(rest) >= 4
    said = "".join(play(line.replace("scheduler.lab:8788", address)) for line in rest)
    assert {p.name for p in (tmp_path / "home/certs").glob("*.pem")} == {
        "ca.pem", "crl.pem", "worker.pem",
    }  # fmt: skip
    assert "joined/worker-" in said
    service.process.terminate()
    assert service.process.wait(30) == 0
    service.finish()


def test_its_links_and_figures() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", PAGE):
        assert (DOCS / target).exists(), target
    cas = [Authority.create(name).parsed for name in ("lab CA", "lab CA 2")]
    one, two = (len(Token.make(cas[:count]).text()) for count in (1, 2))
    figures = f"one line of {one} characters, `{PREFIX}…` ({two} during a rotation of the CA)"
    assert figures in " ".join(PAGE.split())
