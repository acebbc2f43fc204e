"""`sealwire certs issue` and the names that people give it: issued, or refused in their words."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sealwire.security import AuthorityError, CertificateInfo
from sealwire.security.x509.names import split
from support import folders
from support.certs_cli import run

ISSUED = {
    "node7.lab": "node7.lab",
    "node7.lab.": "node7.lab",
    "dask_worker_1": "dask_worker_1",
    "*.workers.lab": "*.workers.lab",
    "NODE7.Lab": "NODE7.Lab",
    "a" * 63 + ".lab": "a" * 63 + ".lab",
    "xn--mnchen-3ya.example": "xn--mnchen-3ya.example",
    "node-1.2": "node-1.2",
    "10.0.0.7": "10.0.0.7",
    "::1": "::1",
    "[::1]": "::1",
    "[2001:DB8::0001]": "2001:db8::1",
    "[10.0.0.7]": "10.0.0.7",
}
REFUSED = {
    "node7:8786": "it has a port; give the host alone: node7",
    "10.0.0.7:8786": "it has a port; give the host alone: 10.0.0.7",
    "[::1]:8786": "it has a port; give the host alone: ::1",
    "node7.lab:": "it has a port; give the host alone: node7.lab",
    "tls://node7:8786": "with a scheme; give the host in it alone: node7",
    "tcp://[::1]:8786": "with a scheme; give the host in it alone: ::1",
    "spiffe://lab/worker/7": "with a scheme; give the host in it alone: lab",
    "10.0.0.300": "looks like an IP address and is none",
    "10.0.0": "looks like an IP address and is none",
    "1.2.3.4.5": "looks like an IP address and is none",
    "010.0.0.7": "looks like an IP address and is none",
    "[::1": "looks like an IP address and is none",
    "[node7]": "looks like an IP address and is none",
    "fe80:::1": "looks like an IP address and is none",
    "12345::1": "looks like an IP address and is none",
    "fe80::1%eth0": "give fe80::1 alone",
    "10.0.0.0/24": "looks like a network or a path; give each host or address by itself",
    "certs/worker": "looks like a network or a path",
    "a" * 64 + ".lab": "a part of it has 64 characters, a DNS name has at most 63",
    "lab." + "a" * 70: "a part of it has 70 characters",
    ".".join(["abc"] * 64): "it has 255 characters, a DNS name has at most 253",
    "alice@corp.example": "'alice@corp.example' is no host: give the name of a person with --name",
    "node1,node2": "it looks like several hosts; give each by itself",
    "node1;10.0.0.7": "it looks like several hosts",
    "node[1-5].lab": "it looks like several hosts; give each by itself (scontrol show hostnames",
    "node[01,03-07]": "it looks like several hosts",
    "node{1..5}.lab": "it looks like several hosts",
    "node7；lab": "characters beyond ASCII, and this one has no xn-- form; correct it",
    "münchen.example": "give its xn-- form: xn--mnchen-3ya.example",
    "ünï": "give its xn-- form: xn--n-nga1b",
    "two words": "it is not a DNS name, which has letters, digits, hyphens",
    "a..b": "it is not a DNS name",
    "": "it is not a DNS name",
    "node7.*.lab": "it is not a DNS name",
}


def identities() -> set[str]:
    return {name for name in os.listdir("certs") if name.endswith(".pem")}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    folders.found(tmp_path / "certs")
    return tmp_path


@pytest.mark.parametrize("name", ISSUED)
def test_issued(home: Path, name: str) -> None:
    before = identities()
    done = run("issue", "worker", name)
    assert done.exit_code == 0, done.output
    (path,) = identities() - before
    assert not set(path) & set("[]:/*")
    made = folders.certificate(home / "certs" / path)
    assert CertificateInfo.of(made).names == (ISSUED[name],)


@pytest.mark.parametrize("name", REFUSED)
def test_refused(home: Path, name: str) -> None:
    before = identities()
    done = run("issue", "worker", "--", name)
    assert done.exit_code == (2 if "@" in name else 1), done.output
    said = " ".join(done.output.split())
    assert REFUSED[name] in said
    assert "as ips" not in said
    assert "RFC" not in said
    assert "Traceback" not in said
    assert identities() == before


def test_several_are_told_apart() -> None:
    assert split(["a.lab.", "[::1]", "10.0.0.7", "b"]) == (["a.lab", "b"], ["::1", "10.0.0.7"])
    with pytest.raises(AuthorityError, match=r"for 'b:1': it has a port"):
        split(["a.lab", "b:1"])


@pytest.mark.parametrize("option", [(), ("--name",), ("--each",), ("--hosts",)])
def test_a_name_without_an_end_is_not_repeated(
    option: tuple[str, ...], home: Path, tmp_path: Path
) -> None:
    name = "x" * 30_000
    if option == ("--hosts",):
        (tmp_path / "hosts").write_text(name)
        name = str(tmp_path / "hosts")
    host = ["h.lab"] if option == ("--name",) else []
    result = run("issue", "worker", *host, *option, name)
    assert result.exit_code
    assert "x" * 100 in result.stderr
    assert len(result.stderr) < 1000
