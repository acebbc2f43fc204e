"""`sealwire.testing`: what is left behind, what is refused, and who may not take part."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dask
import psutil
import pytest

from sealwire.comm import HandshakeError, connect, listen
from sealwire.security.contexts.background import Background
from sealwire.testing import (
    Certificates,
    Cluster,
    ClusterError,
    temporary_certificates,
    tls_cluster,
)
from sealwire.testing.preload import strangers
from support.processes import left_after

pytest_plugins = ["sealwire.testing.fixtures"]

STARTER = """
import json, sys, time
from sealwire.testing import clusters, tls_cluster

clusters._STOP_TIMEOUT = 1.0  # which a process takes that is stopped
with tls_cluster(workers={workers}) as cluster:
    folders = [str(cluster.folder), str(cluster.certificates.folder.parent)]
    print(json.dumps([list(cluster.pids.values()), folders]), flush=True)
    time.sleep(600)
"""


def start(
    workers: int, folder: Path
) -> tuple[subprocess.Popen[str], list[psutil.Process], list[str]]:
    """A program with a cluster: it, the cluster's processes and their folders."""
    starter = subprocess.Popen(
        [sys.executable, "-c", STARTER.format(workers=workers)],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert starter.stdout is not None
    with starter.stdout:
        pids, folders = json.loads(starter.stdout.readline())
    assert len(folders) == 2
    return starter, [psutil.Process(pid) for pid in pids], folders


@pytest.mark.parametrize(("how", "workers"), [(signal.SIGKILL, 1), (signal.SIGINT, 0)])
def test_nothing_is_left_by_who_is_killed(
    how: signal.Signals, workers: int, tmp_path: Path
) -> None:
    """Nor by who is interrupted, while a process of the cluster is stopped."""
    starter, processes, folders = start(workers, tmp_path)
    if how == signal.SIGINT:
        processes[0].suspend()
    starter.send_signal(how)
    assert starter.wait(60) != 0
    assert len(processes) == 1 + workers
    assert left_after(30, processes) == []
    assert not [folder for folder in folders if os.path.exists(folder)]


def test_keys_are_private() -> None:
    with temporary_certificates(other_ca="worker") as certificates:
        folder = certificates.folder.parent
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        keys = [path for path in folder.rglob("*.pem") if "PRIVATE KEY" in path.read_text()]
        assert len(keys) == 8
        assert {stat.S_IMODE(path.stat().st_mode) for path in keys} == {0o600}
    assert not folder.exists()


def test_it_goes_with_an_error() -> None:
    with pytest.raises(KeyError), temporary_certificates() as certificates:
        raise KeyError
    assert not certificates.folder.exists()


@pytest.mark.parametrize(
    ("faults", "why"),
    [
        ({"expired": "nanny"}, "bad role 'nanny': need one of client, scheduler, worker"),
        ({"revoked": ["worker", ""]}, "bad role ''"),
        ({"other_ca": [None]}, "bad role None"),
        ({"other_ca": "käse"}, "bad role 'käse'"),
        ({"expired": "worker", "revoked": ("client", "worker")}, "'worker' is in expired and rev"),
        ({"expired": "client", "other_ca": "client"}, "'client' is in expired and other_ca"),
        ({"trust_both": True}, "there is one CA"),
        ({"expired": "worker", "trust_both": True}, "there is one CA"),
        ({"workers": -1}, "bad workers -1"),
        ({"workers": True}, "bad workers True"),
        ({"workers": "2"}, "bad workers '2'"),
    ],
)
def test_impossible_wishes(faults: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why), tls_cluster(**faults):
        pytest.fail("it has started")


ELSEWHERE = {  # as on the machine of somebody who also works with a real cluster
    "distributed": {
        "comm": {
            "require-encryption": False,
            "tls": {
                "ca-file": "/nowhere.pem",
                **{
                    role: {"cert": "/nowhere.pem", "key": "/nowhere.key"}
                    for role in ("client", "scheduler", "worker")
                },
            },
        },
        "scheduler": {"preload": ["nowhere"]},
        "worker": {"preload": ["nowhere"]},
    },
    "logging": {"sealwire": "critical"},
    "sealwire": {
        "tls": {
            "crl-file": "/nowhere.pem",
            "allowed-peers": {role: ["nobody"] for role in ("client", "scheduler", "worker")},
            "key-password": "secret",
        },
        "join": {"address": "127.0.0.1:1", "token-file": "/nowhere.token"},
    },
}


PRELOAD = "sealwire.testing.preload"


@pytest.mark.parametrize(
    ("given", "preload"),
    [
        (["mine"], ["mine", PRELOAD]), (("a", "b"), ["a", "b", PRELOAD]),
        ("mine", ["mine", PRELOAD]), (None, [PRELOAD]), ([], [PRELOAD]), ("", [PRELOAD]),
    ],
)  # fmt: skip
def test_preloads_of_a_test_are_kept_as_it_wrote_them(
    given: Any, preload: list[str], tmp_path: Path
) -> None:
    """Also where several clusters share a configuration."""
    config = {"distributed": {"worker": {"preload": given}}}
    with temporary_certificates() as certificates:
        for _ in range(2):
            made = Cluster(tmp_path, certificates, config)._configuration("worker")
            assert made["distributed"]["worker"]["preload"] == preload
            assert made["distributed"]["scheduler"]["preload"][-1] == PRELOAD
    assert config == {"distributed": {"worker": {"preload": given}}}


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ("x", "bad config: 'x'; need mappings"),
        ([("a", 1)], "need mappings"),
        ({"a": Path("x")}, "PosixPath is not JSON serializable; need mappings, lists, texts"),
        ({"a": {1, 2}}, "set is not JSON serializable"),
        ({"a": {(1, 2): 3}}, "keys must be"),
        ({"distributed": None}, "distributed is None; leave it out, or give a mapping"),
        ({"distributed": {"comm": {"tls": []}}}, "distributed.comm.tls is []; leave it out"),
        ({"distributed": {"worker": "x"}}, "distributed.worker is 'x'; leave it out"),
        ({"sealwire": {"tls": 3}}, "sealwire.tls is 3; leave it out"),
        ({"sealwire": True}, "sealwire is True; leave it out"),
    ],
)
def test_a_configuration_that_is_none(config: Any, why: str) -> None:
    with pytest.raises(ValueError, match=re.escape(why)), tls_cluster(config=config):
        pass


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("etc-dask")
    (folder / "elsewhere.yaml").write_text(json.dumps(ELSEWHERE))
    with contextlib.ExitStack() as stack:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("DASK_ROOT_CONFIG", str(folder))
            made = stack.enter_context(tls_cluster(workers=1))
        yield made


def test_the_files_of_here_are_not_theirs(cluster: Cluster) -> None:
    """Nor are certificates that this process is configured with those of the client."""
    here = dask.config.merge(dask.config.config, ELSEWHERE)
    with dask.config.set(here), cluster.client() as client:
        assert client.submit(abs, -1).result(timeout=30) == 1


def test_a_worker_that_does_not_start(cluster: Cluster) -> None:
    with pytest.raises(ValueError, match="no process 'worker-7'; there are scheduler"):
        cluster.log("worker-7")
    names: list[Any] = ["scheduler", "", "../a", "a b", "a/b", "a\n", 7, b"a", "x" * 300, ["a"]]
    for name in names:
        with pytest.raises(ValueError, match="bad name"):
            cluster.start_worker(name)
    (cluster.folder / "scheduler.json").rename(cluster.folder / "moved")
    (cluster.folder / "scheduler.json").write_text('{"address": "nothing://127.0.0.1:1"}')
    words = r"odd has not started and has ended with code 1(.|\n)*Worker failed to start"
    with pytest.raises(ClusterError, match=words):
        cluster.start_worker("odd")
    with pytest.raises(ClusterError, match="has not logged 'heureka' and has ended with code"):
        cluster.wait_for_log("odd", "heureka")
    with pytest.raises(ClusterError, match=r"has not logged 'heureka' within 0\.1 s; its"):
        cluster.wait_for_log("scheduler", "heureka", timeout=0.1)


def test_the_variables_of_here_are_not_theirs(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (
        "DASK_CONFIG",
        "DASK_DISTRIBUTED__COMM",
        "DASK_DISTRIBUTED__COMM__TLS__CA_FILE",
        "DASK_distributed__comm__require_encryption",
        "DASK_DISTRIBUTED__SCHEDULER__PRELOAD",
        "DASK_DISTRIBUTED__WORKER__PRELOAD",
        "DASK_LOGGING__SEALWIRE",
        "DASK_SEALWIRE__TLS",
        "DASK_SEALWIRE__TLS__CRL_FILE",
        "DASK_SEALWIRE__JOIN__ADDRESS",
        "SEALWIRE_JOIN",
        "SEALWIRE_TOKEN_FILE",
    ):
        monkeypatch.setenv(name, "/nowhere.yaml")
    monkeypatch.setenv("DASK_SEALWIRE__LIMITS__BACKLOG", "77")  # this says nothing of certificates
    seen: list[Any] = []
    monkeypatch.setattr("sealwire.testing.clusters.Child", lambda *_, **more: seen.append(more))
    cluster._start("imagined", "worker", [])
    del cluster._children["imagined"]
    (made,) = seen
    assert "/nowhere" not in json.dumps(made["environment"])
    assert made["environment"]["DASK_SEALWIRE__LIMITS__BACKLOG"] == "77"
    assert made["environment"]["DASK_CONFIG"] == str(cluster.folder / "worker.yaml")


def test_who_is_no_backend_of_ours_is_named() -> None:
    from distributed.comm.registry import backends
    from distributed.comm.tcp import TCPListener

    listener = TCPListener.__new__(TCPListener)
    server = SimpleNamespace(address="inproc://1", listeners=[listener])
    assert strangers(server) == [
        "distributed.comm.tcp.TCPListener",
        f"distributed.comm.inproc.{type(backends['inproc']).__name__}",
    ]


def test_faults_add_up(make_sealwire_certificates: Callable[..., Certificates]) -> None:
    certificates = make_sealwire_certificates(expired=["client"], other_ca=("worker",))
    assert certificates.faulty == {"client", "worker"}
    assert certificates.home("worker") != certificates.home("client") == certificates.folder
    certificates.revoke("scheduler")
    assert certificates.faulty == {"client", "scheduler", "worker"}
    with pytest.raises(ValueError, match="bad role 'boss'"):
        certificates.security("boss")  # type: ignore[arg-type]
    done = subprocess.run(
        [sys.executable, "-m", "sealwire.cli", "certs", "check", str(certificates.folder)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=tempfile.gettempdir(),
    )
    assert "expired" in done.stdout
    assert "revoked" in done.stdout


@pytest.mark.parametrize("change", ["revoke", "expire"])
def test_a_change_holds_at_once_on_a_machine_that_is_busy(
    change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no handshake waits until the files were looked at."""

    async def main(certificates: Certificates) -> None:
        server = certificates.security("scheduler").get_listen_args("scheduler")
        client = certificates.security("worker").get_connection_args("worker")
        async with listen("tls://127.0.0.1:0", lambda _: None, **server) as listener:
            await (await connect(listener.contact_address, **client)).close()
            monkeypatch.setattr(Background, "look", lambda *_: None)
            getattr(certificates, change)("worker")
            with pytest.raises(HandshakeError, match=f"refused our certificate: {change[:4]}"):
                await connect(listener.contact_address, **client)

    with temporary_certificates() as certificates:
        asyncio.run(main(certificates))


WITHOUT = """
import sys
sys.modules["{name}"] = None
from sealwire.testing import temporary_certificates, tls_cluster
with temporary_certificates() as certificates:
    assert certificates.security("worker").tls_worker_cert
    for use in (lambda: tls_cluster().__enter__(), certificates.dask_security):
        try:
            use()
        except ModuleNotFoundError as error:
            print(error.name, error)
"""


@pytest.mark.parametrize("name", ["dask", "distributed"])
def test_what_needs_dask_says_so_where_it_is_missing(name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT.format(name=name)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    line = (
        f"{name} cannot use the Dask backend: {name} is not installed; pip install 'sealwire[dask]'"
    )
    assert done.stdout.splitlines() == [line, line]
