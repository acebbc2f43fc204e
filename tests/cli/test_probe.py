"""The doctor where all is well, where nobody answers, and what people see."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dask
import pytest
from click.testing import CliRunner

from sealwire.cli.main import main
from sealwire.cli.probe.diagnosis import Outcome
from support import certs
from support.aio import aio
from support.forking import sealwire
from support.handshakes import security
from support.listeners import CA, FAST, GOOD, KINDS, NODE, OTHER_CA, Here, at, listening, probe

pytestmark = pytest.mark.usefixtures("registry")


WHO = {
    "comm": "sealwire comm",
    "ours": "Dask on sealwire's backend",
    "stock": "Dask on distributed's own backend",
}

# As it should be


@KINDS
@pytest.mark.parametrize("version", ["1.2", "1.3"])
@aio
async def test_over_tls(kind: str, version: str, here: Here) -> None:
    one = security(NODE, [CA], tls_max_version=version)
    told = await at(listening(kind, "tls", one), *here())
    assert told["outcome"] == "ok"
    assert told["exit_code"] == 0
    words, _, more = told["words"].partition("; it is ")
    assert words == "it speaks our protocol; each side accepts the other's certificate"
    assert (more == f"{WHO['stock']}, where nothing under sealwire.tls holds, such as a "
            "revocation list") is (kind == "stock")  # fmt: skip
    assert [step["name"] for step in told["steps"]] == ["resolve", "connect", "TLS", "hello"]
    assert all(0 < step["ms"] < 60_000 for step in told["steps"])
    assert told["steps"][0]["detail"] == "127.0.0.1"
    assert told["protocol"] == f"TLSv{version}"
    assert told["cipher"] in told["steps"][2]["detail"]
    python = ".".join(map(str, sys.version_info[:3]))
    assert told["steps"][3]["detail"] == f"{WHO[kind]}, python {python}"
    assert told["backend"] == WHO[kind]
    assert ("sealwire" in told["hello"]) is (kind == "comm")
    known = told["certificates"]
    assert known["ours"]["subject"] == "CN=client"
    assert known["theirs"]["subject"] == "CN=node"
    assert known["theirs"]["issuer"] == known["our_ca"]["subject"] == "CN=our ca"
    assert known["theirs"]["serial"] == f"{NODE.certificate.serial_number:x}"


@KINDS
@aio
async def test_in_plain_text(kind: str) -> None:
    told = await at(listening(kind, "tcp", GOOD))
    assert told["outcome"] == "ok"
    assert told["words"] == "it speaks our protocol, in plain text: nothing is protected"
    assert told["backend"] == WHO[kind]
    assert [step["name"] for step in told["steps"]] == ["resolve", "connect", "hello"]
    assert told["certificates"] == {}
    assert told["protocol"] is None


@pytest.mark.parametrize("role", ["client", "scheduler", "worker"])
@aio
async def test_the_configured_identity_of_a_role(role: str) -> None:
    node = certs.leaf(CA, f"my {role}", names=["x"])
    tree = f"distributed.comm.tls.{role}"
    values = {"distributed.comm.tls.ca-file": CA.pem, f"{tree}.cert": node.pem}
    with dask.config.set({**values, f"{tree}.key": node.key_pem}):
        async with listening("comm", "tls", GOOD) as listener:
            bare = listener.contact_address.removeprefix("tls://")  # TLS, as there are certificates
            told = await asyncio.to_thread(probe, bare, "--as", role)
            other = "worker" if role != "worker" else "client"
            refused = await asyncio.to_thread(probe, listener.contact_address, "--as", other)
    assert told["outcome"] == "ok"
    assert told["role"] == role
    assert told["certificates"]["ours"]["subject"] == f"CN=my {role}"
    assert refused["outcome"] == "here"
    assert f"no certificate for role {other}; give --ca and --cert, or set" in refused["words"]


# Not reachable


def test_no_such_name() -> None:
    told = probe("tcp://no-such-host.invalid:8786")
    assert told["exit_code"] == Outcome.UNREACHABLE.value == 1
    assert "the host name no-such-host.invalid does not resolve" in told["words"]
    assert told["words"].endswith("check its spelling and this machine's DNS")
    assert [(step["name"], step["detail"]) for step in told["steps"]] == [("resolve", "failed")]


@contextmanager
def closed_port() -> Iterator[int]:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


@pytest.mark.parametrize("scheme", ["tcp", "tls"])
def test_nothing_listens(scheme: str, here: Here) -> None:
    with closed_port() as port:
        told = probe(f"{scheme}://127.0.0.1:{port}", *here())
    assert told["exit_code"] == 1
    assert told["words"] == (
        f"cannot connect to {scheme}://127.0.0.1:{port}: connection refused; the host is up and "
        "nothing listens on that port: check the port, and that the process runs"
    )


@pytest.mark.skipif(sys.platform != "linux", reason="others answer when the backlog is full")
def test_packets_are_dropped() -> None:
    """By a kernel whose backlog is full."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        waiting = [socket.socket() for _ in range(4)]
        for sock in waiting:
            sock.setblocking(False)
            sock.connect_ex(server.getsockname())
        told = probe(f"tcp://127.0.0.1:{server.getsockname()[1]}", *FAST)
        for sock in waiting:
            sock.close()
    assert told["exit_code"] == 1
    assert "no answer within 0.5 s; the host is down, or a firewall between drops" in told["words"]


# For people


@aio
async def test_what_people_see(here: Here, tmp_path: Path) -> None:
    async with listening("comm", "tls", GOOD) as listener:
        good = await asyncio.to_thread(run, tmp_path, listener.contact_address, *here())
    assert good.returncode == 0, good.stderr
    for words in (
        "resolve",
        "connect",
        "TLSv1.3",
        "sealwire comm",
        "CN=client",
        "CN=node",
        "our CA",
    ):
        assert words in good.stdout
    assert f"{listener.contact_address} as client" in good.stdout
    assert good.stdout.splitlines()[-1].startswith("ok  it speaks our protocol")
    evil = certs.leaf(OTHER_CA, "evil\x1b[2J[bold]", names=["x"])
    async with listening("comm", "tls", security(evil, [CA])) as listener:
        bad = await asyncio.to_thread(run, tmp_path, listener.contact_address, *here())
    assert bad.returncode == 5
    assert bad.stdout.splitlines()[-1].startswith("FAILED  TLS handshake with tls://127.0.0.1:")
    assert "\x1b[2J" not in bad.stdout
    assert "[bold]" in bad.stdout


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    code, output, errors = sealwire("probe", *arguments, folder=folder)
    return subprocess.CompletedProcess(arguments, code, output.decode(), errors.decode())


def test_it_documents_its_exit_codes() -> None:
    text = CliRunner().invoke(main, ["probe", "--help"]).output
    for outcome in Outcome:
        assert f"\n    {outcome.value}  " in text
    assert text.count("sealwire probe ") >= 4
