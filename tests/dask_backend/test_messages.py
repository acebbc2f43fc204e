"""Errors name the role, the key of the configuration and an address that somebody wrote."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask
import distributed
import pytest
from distributed import Scheduler, Worker
from distributed.comm import connect, listen

from sealwire.dask_backend import Security, install
from sealwire.dask_backend.adoption import adopt
from support.parties import ROLES, Party, asynchronous, echo
from support.processes import HANG, PRELOAD, Programs

MakeParty = Callable[..., Party]


@pytest.fixture
def folder(made: Path) -> Path:
    return made


# A role without a certificate


@pytest.mark.parametrize("missing", ROLES)
@pytest.mark.parametrize("kind", [Security, distributed.Security])
@asynchronous
async def test_a_role_without_a_certificate_is_named(
    missing: str, kind: Any, files: dict[str, str]
) -> None:
    fields = {name: value for name, value in files.items() if missing not in name}
    security = kind(require_encryption=True, **fields)
    words = rf"role {missing} has no certificate.*distributed\.comm\.tls\.{missing}\.cert"
    words += rf".*tls_{missing}_cert"
    with pytest.raises(TypeError, match=words):
        await listen("tls://127.0.0.1:0", echo, **security.get_listen_args(missing))
    with pytest.raises(TypeError, match=words):
        await connect("tls://127.0.0.1:1", **security.get_connection_args(missing))


@asynchronous
async def test_also_of_who_was_there_before_us(files: dict[str, str]) -> None:
    class Server:
        security = distributed.Security(tls_ca_file=files["tls_ca_file"])

        def __init__(self, given: str = "") -> None:
            self.id = given
            self.connection_args: dict[str, Any] = {"ssl_context": None}

    for kind, given, role in (
        ("Scheduler", "Scheduler-1234", "scheduler"),
        ("Client", "Client-1234", "client"),
        ("Client", "Client-worker-1234", "worker"),  # of `get_client` in a task
        ("Nanny", "", "worker"),
        ("Worker", "Worker-1234", "worker"),
    ):
        named = type(kind, (Server,), {})
        for server in (named(given), type("OfTheirOwn", (named,), {})(given)):
            adopt(server)
            with pytest.raises(TypeError, match=f"role {role} has no certificate"):
                await connect("tls://127.0.0.1:1", **server.connection_args)


CLIENT = """
import sealwire.dask_backend.preload
from distributed import Client
Client("{}", timeout=20)
"""


def test_in_processes(folder: Path, forked: Programs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of which each has the scheduler's certificate alone, and which therefore dial nobody."""
    monkeypatch.setenv("DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION", "true")
    monkeypatch.setenv("DASK_DISTRIBUTED__COMM__TLS__CA_FILE", str(folder / "ca.pem"))
    certificate = str(folder / "scheduler.pem")
    monkeypatch.setenv("DASK_DISTRIBUTED__COMM__TLS__SCHEDULER__CERT", certificate)
    with socket.create_server(("127.0.0.1", 0)) as scheduler:
        address = f"tls://127.0.0.1:{scheduler.getsockname()[1]}"
        workers = [forked.worker(address, each, *PRELOAD) for each in ("--nanny", "--no-nanny")]
        client = forked.run_code(CLIENT.format(address))
        for program, role in [*((each, "worker") for each in workers), (client, "client")]:
            program.wait_for(rf"Error: .*role {role} has no .*set distributed.comm.tls.{role}.cert")
            assert program.process.wait(HANG) != 0


# Addresses


@pytest.mark.parametrize("where", ["127.0.0.1", "localhost", "[::1]"])
@asynchronous
async def test_an_address_without_a_port(where: str, ours: Party) -> None:
    with pytest.raises(ValueError, match=rf"{ours.scheme}://.*write for example {ours.scheme}://"):
        await ours.connect(f"{ours.scheme}://{where}")


@asynchronous
async def test_a_bare_address_is_that_of_the_default_scheme(
    files: dict[str, str], tmp_path: Path
) -> None:
    install()
    security = distributed.Security(require_encryption=True, **files)
    where = {"security": security, "host": "127.0.0.1", "dashboard_address": "127.0.0.1:0"}
    with dask.config.set({"distributed.comm.default-scheme": "tls"}):
        async with Scheduler(port=0, **where) as scheduler:
            bare = scheduler.address.removeprefix("tls://")
            async with Worker(bare, local_directory=str(tmp_path), **where) as worker:
                assert list(scheduler.workers) == [worker.address]


# Who refuses says so to the other side


def test_a_dialler_that_refuses_is_a_refusal_to_the_listener(
    folder: Path, forked: Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DASK_CONFIG", str(folder / "dask.yaml"))
    scheduler, address = forked.scheduler("tls")
    monkeypatch.setenv("DASK_SEALWIRE__TLS__ALLOWED_PEERS__WORKER", "nobody")
    worker = forked.worker(address, "--no-nanny")
    worker.wait_for("WARNING - cannot connect to .* match none of the allowed peers .nobody.")
    for _ in range(3):
        scheduler.wait_for("it refused our certificate: its names .* match none of the peers")
    said = [line for line in scheduler.output if "listener on" in line]
    assert not [line for line in said if "closed by the peer" in line or "lost" in line], said
