"""What `certs init` configures holds in every process, however it was started."""

from __future__ import annotations

import json
import re
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from sealwire.security.config import PROCESSES
from support import certs_cli
from support.handshakes import told_at
from support.processes import HANG, PRELOAD, Programs
from support.programs import command, environment


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As a user has it after a theft: an identity of the cluster's CA is on the list."""
    folder = tmp_path_factory.mktemp("cluster") / "certs"
    certs_cli.good("init", str(folder))
    certs_cli.good("issue", "worker", "node8.lab", "--dir", str(folder))
    certs_cli.good("revoke", "worker-node8.lab", "--dir", str(folder))
    return folder


def context(folder: Path, name: str) -> ssl.SSLContext:
    made = ssl.create_default_context(cafile=str(folder / "ca.pem"))
    made.check_hostname = False
    made.load_cert_chain(folder / f"{name}.pem")
    return made


def expect_guarded(address: str, folder: Path, stranger: str) -> None:
    """A port refuses who is revoked, and who is not on its list."""
    with pytest.raises(ssl.SSLError, match="REVOKED"):
        told_at(address, context(folder, "worker-node8.lab"))
    told = told_at(address, context(folder, stranger))
    assert "match none of the peers that are allowed here" in told["refused"], address


@contextmanager
def deployed(kind: str, config: str, home: Path, **options: Any) -> Iterator[dict[str, Any]]:
    """The addresses of a cluster by one deployer, while it runs."""
    process = subprocess.Popen(
        command("deployed", kind, json.dumps(options)),
        cwd=home,
        env=environment(DASK_CONFIG=config, DASK_TEMPORARY_DIRECTORY=str(home)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, process.communicate(timeout=HANG)[1]
        found = json.loads(line)
        yield found
        _, words = process.communicate("", timeout=HANG)
        assert process.returncode == 0, words
        _, left = psutil.wait_procs(living(found["pids"]), timeout=HANG)
        assert not left
    finally:
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
    with deployed(kind, str(folder / "dask.yaml"), tmp_path) as found:
        expect_guarded(found["scheduler"], folder, "scheduler")
        assert len(found["others"]) == 4  # two workers and their nannies
        for address in found["others"]:
            expect_guarded(address, folder, "client")


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
        expect_guarded(found["scheduler"], folder, "scheduler")
        assert len(found["others"]) == 4
        for address in found["others"]:
            expect_guarded(address, folder, "client")


def test_jobs_with_a_security(folder: Path, tmp_path: Path) -> None:
    """Which gives its files to the jobs, also where one holds certificate and key."""
    fields = {f"tls_{role}_cert": str(folder / f"{role}.pem") for role in certs_cli.ROLES}
    fields["tls_ca_file"] = str(folder / "ca.pem")
    with deployed("jobs", "", tmp_path, security=fields) as found:
        assert len(found["others"]) == 4


REFUSED = """
import json, os, sys, psutil
import dask
from sealwire.dask_backend import Security, install
from sealwire.security import ConfigError

kind, how, options = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
install()
if how == "by setting":
    dask.config.set(options)
    security = None
elif how == "in memory":
    security = Security.temporary()
else:
    security = Security(**options)
started = []
if kind == "subprocesses":
    from distributed.deploy.subprocess import SubprocessCluster
    here = {"n_workers": 1, "dashboard_address": "127.0.0.1:0"}
    make = lambda: SubprocessCluster(security=security, **here)
else:
    from distributed import SSHCluster
    connect = {"port": 1}  # nobody is there, nor is asked
    make = lambda: SSHCluster(["127.0.0.1"] * 2, security=security, connect_options=connect)
try:
    make()
except ConfigError as error:
    print(error)
assert not psutil.Process().children(recursive=True)
"""


@pytest.mark.parametrize(
    ("kind", "how"),
    [
        ("subprocesses", "by files"),
        ("subprocesses", "in memory"),
        ("subprocesses", "by setting"),  # which an SSH session is given
        ("ssh", "by files"),
        ("ssh", "in memory"),
    ],
)
def test_what_a_command_line_would_lose_is_refused(
    kind: str, how: str, folder: Path, tmp_path: Path
) -> None:
    """Before a process is started, let alone a plain one."""
    tree = "distributed.comm.tls"
    options: dict[str, Any] = {
        "tls_ca_file": str(folder / "ca.pem"),
        "tls_scheduler_cert": str(folder / "scheduler.pem"),
        "tls_worker_cert": str(folder / "worker.pem"),
        "tls_client_cert": str(folder / "client.pem"),
    }
    if how == "by setting":
        names = {field: field[4:].replace("_cert", ".cert").replace("_", "-") for field in options}
        options = {f"{tree}.{names[field]}": value for field, value in options.items()}
        options["distributed.comm.require-encryption"] = True
    done = subprocess.run(
        [sys.executable, "-c", REFUSED, kind, how, json.dumps(options)],
        cwd=tmp_path,
        env=environment(DASK_CONFIG=""),
        capture_output=True,
        text=True,
        timeout=HANG,
    )
    assert done.returncode == 0, done.stderr
    name = {"subprocesses": "SubprocessCluster", "ssh": "SSHCluster"}[kind]
    assert done.stdout.startswith(f"cannot start a {name} with this Security: "), done.stderr
    assert "distributed.comm.tls.ca-file" in done.stdout
    assert "sealwire certs init" in done.stdout


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


@pytest.mark.parametrize("nanny", ["--nanny", "--no-nanny"])
def test_dask_commands(
    nanny: str,
    config: Path,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    programs: Programs,
) -> None:
    """Without --preload; a revoked worker is kept out, and the scheduler says why."""
    monkeypatch.setenv("DASK_CONFIG", str(config))
    scheduler, address = programs.scheduler("tls")
    expect_guarded(address, folder, "scheduler")
    worker = programs.worker(address.removeprefix("tls://"), nanny)  # the scheme is configured
    listens = {worker.wait_for(r"Start worker at:\s+(\S+)")[1]}
    worker.wait_for("Registered to")
    for each in listens | set(re.findall(r"Start Nanny at: '(\S+)'", "".join(worker.output))):
        expect_guarded(each, folder, "client")
    stolen = folder / "worker-node8.lab.pem"
    monkeypatch.setenv("DASK_DISTRIBUTED__COMM__TLS__WORKER__CERT", str(stolen))
    refused = programs.worker(address, nanny)
    refused.wait_for("it refused our certificate: revoked")
    scheduler.wait_for("listener on .*: we refused its certificate: it has been revoked")


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
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, programs: Programs
) -> None:
    """One that has another configuration than its worker."""
    monkeypatch.setenv("DASK_CONFIG", str(folder / "dask.yaml"))
    _, address = programs.scheduler("tls")
    tree = yaml.safe_load((folder / "dask.yaml").read_text())
    del tree["sealwire"], tree["distributed"]["nanny"]
    (tmp_path / "nanny.yaml").write_text(yaml.safe_dump(tree))
    monkeypatch.setenv("DASK_CONFIG", str(tmp_path / "nanny.yaml"))
    worker = programs.run_code(STOCK_NANNY, address, PRELOAD[1], str(folder / "crl.pem"))
    worker.wait_for(
        "the nanny of this worker is on distributed's own backend: sealwire.tls.crl-file "
        "does not hold for tls://"
    )


CLIENT = """
from distributed import Client
try:
    Client("{}", timeout=20)
except OSError as error:
    print(error)
"""


def test_a_client(folder: Path, tmp_path: Path) -> None:
    """Its first connection, too, refuses a scheduler whose certificate is revoked."""
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(folder / "ca.pem"))
    server.load_cert_chain(folder / "worker-node8.lab.pem")
    server.verify_mode = ssl.CERT_REQUIRED
    import asyncio

    from distributed.comm import listen

    from support.parties import echo, select

    async def refused() -> str:
        select("stock")
        async with listen("tls://127.0.0.1:0", echo, ssl_context=server) as listener:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-c",
                CLIENT.format(listener.contact_address),
                cwd=tmp_path,
                env=environment(DASK_CONFIG=str(folder / "dask.yaml")),
                stdout=asyncio.subprocess.PIPE,
            )
            try:
                output, _ = await asyncio.wait_for(process.communicate(), HANG)
            finally:
                if process.returncode is None:
                    process.kill()
            return output.decode()

    assert "it has been revoked" in asyncio.run(refused())
