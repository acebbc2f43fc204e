"""What `certs init` configures holds in every process, however it was started."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from sealwire.security.config import PROCESSES
from support import certs_cli, forking
from support.guarded import expect_guarded, robbed
from support.processes import HANG, PRELOAD, Program, Programs, left_after
from support.programs import command, environment


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return robbed(tmp_path_factory.mktemp("cluster") / "certs")


@contextmanager
def deployed(kind: str, config: str, home: Path, **options: Any) -> Iterator[dict[str, Any]]:
    """The addresses of a cluster by one deployer, while it runs."""
    log = home / "log.txt"  # a pipe would be full, and block, if it went wrong without end
    with log.open("w") as errors:
        process = subprocess.Popen(
            command("deployed", kind, json.dumps(options)),
            cwd=home,
            env=environment(DASK_CONFIG=config, DASK_TEMPORARY_DIRECTORY=str(home)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    late = threading.Timer(HANG, process.kill)
    late.start()
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        late.cancel()
        assert line, log.read_text()
        found = json.loads(line)
        yield found
        process.communicate("", timeout=HANG)
        assert process.returncode == 0, log.read_text()
        assert not left_after(HANG, living(found["pids"]))
    finally:
        late.cancel()
        process.kill()
        process.wait()


def living(pids: list[int]) -> list[psutil.Process]:
    found = []
    for pid in pids:
        try:
            found.append(psutil.Process(pid))
        except psutil.NoSuchProcess:
            continue
    return found


@pytest.mark.parametrize("kind", ["local", "subprocesses", "jobs"])
def test_deployers(kind: str, folder: Path, tmp_path: Path) -> None:
    workers = 2 if kind == "local" else 1
    with deployed(kind, str(folder / "dask.yaml"), tmp_path, workers=workers) as found:
        expect_guarded([found["scheduler"]], folder, "scheduler")
        assert len(found["others"]) == 2 * workers  # and their nannies
        expect_guarded(found["others"], folder, "client")


@pytest.fixture
def ssh(tmp_path: Path) -> Iterator[dict[str, Any]]:
    """Options for connections to an SSH server on loopback."""
    server = subprocess.Popen(
        command("ssh_server", str(tmp_path)),
        cwd=tmp_path,
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert server.stdout is not None
        port = int(server.stdout.readline())
        keys = {"client_keys": [str(tmp_path / "user")], "known_hosts": None}
        yield {"port": port, "username": "anybody", **keys}
    finally:
        server.communicate("", timeout=HANG)
    assert server.returncode == 0


def test_ssh(ssh: dict[str, Any], folder: Path, tmp_path: Path) -> None:
    with deployed("ssh", str(folder / "dask.yaml"), tmp_path, connect_options=ssh) as found:
        expect_guarded([found["scheduler"]], folder, "scheduler")
        assert len(found["others"]) == 2
        expect_guarded(found["others"], folder, "client")


def test_jobs_with_a_security(folder: Path, tmp_path: Path) -> None:
    """Which gives its files to the jobs, also where one holds certificate and key."""
    fields = {f"tls_{role}_cert": str(folder / f"{role}.pem") for role in certs_cli.ROLES}
    fields["tls_ca_file"] = str(folder / "ca.pem")
    with deployed("jobs", "", tmp_path, security=fields) as found:
        assert len(found["others"]) == 2


REFUSED = """
import json, sys, psutil
import dask
from distributed import SSHCluster
from distributed.deploy.subprocess import SubprocessCluster
from sealwire.dask_backend import Security, install
from sealwire.security import ConfigError

def subprocesses(security):
    SubprocessCluster(security=security, n_workers=1, dashboard_address="127.0.0.1:0")

def ssh(security):
    connect = {"port": 1}  # nobody is there, nor is asked
    SSHCluster(["127.0.0.1"] * 2, security=security, connect_options=connect)

fields, settings = map(json.loads, sys.argv[1:])
install()
said = {}
for make in subprocesses, ssh:
    for how, configured, security in (
        ("by files", {}, Security(**fields)),
        ("in memory", {}, Security.temporary()),
        ("by setting", settings, None),  # which an SSH session is given
    ):
        if (make, how) == (ssh, "by setting"):
            continue
        try:
            with dask.config.set(configured):
                make(security)
        except ConfigError as error:
            said[f"{make.__name__} {how}"] = str(error)
        assert not psutil.Process().children(recursive=True), (make, how)
print(json.dumps(said))
"""


def test_what_a_command_line_would_lose_is_refused(folder: Path, tmp_path: Path) -> None:
    """Before a process is started, let alone a plain one."""
    fields = {f"tls_{role}_cert": str(folder / f"{role}.pem") for role in certs_cli.ROLES}
    fields["tls_ca_file"] = str(folder / "ca.pem")
    names = {field: field[4:].replace("_cert", ".cert").replace("_", "-") for field in fields}
    settings = {f"distributed.comm.tls.{names[field]}": fields[field] for field in fields}
    settings["distributed.comm.require-encryption"] = True
    script = [sys.executable, "-c", REFUSED, json.dumps(fields), json.dumps(settings)]
    done = forking.run(script, tmp_path, environment(DASK_CONFIG=""))
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    ways = ("by files", "in memory", "by setting")
    assert list(said) == [*(f"subprocesses {way}" for way in ways), "ssh by files", "ssh in memory"]
    for case, error in said.items():
        name = "SSHCluster" if case.startswith("ssh") else "SubprocessCluster"
        assert error.startswith(f"cannot start a {name} with this Security: "), case
        assert "distributed.comm.tls.ca-file" in error, case
        assert "sealwire certs init" in error, case


@pytest.fixture(params=["as it was made", "without preloads"])
def config(request: pytest.FixtureRequest, folder: Path, tmp_path: Path) -> Path:
    """The configuration of `certs init`, and one that was written by hand."""
    if request.param == "as it was made":
        return folder / "dask.yaml"
    tree = yaml.safe_load((folder / "dask.yaml").read_text())
    for process in PROCESSES:
        assert tree["distributed"].pop(process) == {"preload": [PRELOAD[1]]}
    path = tmp_path / "dask.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def test_dask_commands(
    config: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, forked: Programs
) -> None:
    """Without --preload; a revoked worker is kept out, and the scheduler says why.

    Every process says once what protects it.

    Without preloads, who is revoked is `expect_guarded` alone, which the scheduler takes for a
    worker; and a nanny is looked at in tests/dask_backend/test_unaware.py.
    """
    monkeypatch.setenv("DASK_CONFIG", str(config))
    scheduler, address = forked.scheduler("tls")
    bare = address.removeprefix("tls://")  # the scheme is configured
    made = config.parent == folder
    kinds = ("--nanny", "--no-nanny") if made else ("--no-nanny",)
    workers = [forked.worker(bare, kind) for kind in kinds]
    if made:
        stolen = folder / "worker-node8.lab.pem"
        monkeypatch.setenv("DASK_DISTRIBUTED__COMM__TLS__WORKER__CERT", str(stolen))
        refused = forked.worker(address, "--nanny")
        refused.wait_for("it refused our certificate: revoked")
    expect_guarded([address], folder, "scheduler")
    clients = [connected(address, forked)] if made else []
    for worker, kind in zip(workers, kinds, strict=True):
        listens = {worker.wait_for(r"Start worker at:\s+(\S+)")[1]}
        worker.wait_for("Registered to")
        listens |= set(re.findall(r"Start Nanny at: '(\S+)'", "".join(worker.output)))
        assert len(listens) == (2 if kind == "--nanny" else 1)
        expect_guarded(listens, folder, "client")
    scheduler.wait_for("listener on .*: we refused its certificate: it has been revoked")
    for program, does, role, processes in (
        (scheduler, "listens on", "scheduler", 1),
        *(
            (worker, "listens on", "worker", 2 if kind == "--nanny" else 1)
            for worker, kind in zip(workers, kinds, strict=True)
        ),
        *((client, "connects to", "client", 1) for client in clients),
    ):
        said = "".join(program.output)
        assert len(re.findall(LINE.format(does, role), said)) == processes, said
        assert said.count("its own backend") == processes, said


LINE = (
    r"sealwire \S+ {} tls://\S+: its own backend, TLS 1.2 to 1.3, "
    r"certificate CN={} until 20\d\d-\d\d-\d\d \d\d:\d\d UTC, CRL on, allow-list on"
)
CONNECTED = """
import sys
from distributed import Client
Client(sys.argv[1]).close()
slow = "cryptography", "sealwire.dask_backend.dashboard.extension"  # to import
print("needless:", [name for name in slow if name in sys.modules])
"""


def connected(address: str, forked: Programs) -> Program:
    """A client that came and went, and has loaded nothing that is slow to load for nothing."""
    client = forked.run_code(CONNECTED, address)
    client.wait_for(r"needless: \[\]")
    assert client.process.wait(HANG) == 0
    client.finish()
    return client


STOCK_NANNY = """
import asyncio, sys
from distributed import Nanny

async def run():
    options = {"nthreads": 1, "host": "127.0.0.1", "dashboard_address": "127.0.0.1:0"}
    config = {"distributed.worker.preload": [sys.argv[2]]}
    env = {"DASK_SEALWIRE__TLS__CRL_FILE": sys.argv[3]}
    async with Nanny(sys.argv[1], config=config, env=env, **options) as nanny:
        await nanny.finished()

asyncio.run(run())
"""


def test_a_nanny_that_is_not_protected_is_told_of(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forked: Programs
) -> None:
    """One that has another configuration than its worker."""
    monkeypatch.setenv("DASK_CONFIG", str(folder / "dask.yaml"))
    _, address = forked.scheduler("tls")
    tree = yaml.safe_load((folder / "dask.yaml").read_text())
    del tree["sealwire"], tree["distributed"]["nanny"]
    (tmp_path / "nanny.yaml").write_text(yaml.safe_dump(tree))
    monkeypatch.setenv("DASK_CONFIG", str(tmp_path / "nanny.yaml"))
    worker = forked.run_code(STOCK_NANNY, address, PRELOAD[1], str(folder / "crl.pem"))
    worker.wait_for(
        "the nanny of this worker is on distributed's own backend: sealwire.tls.crl-file "
        "does not hold for tls://"
    )
