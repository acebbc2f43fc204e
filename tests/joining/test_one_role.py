"""Clusters that a process with a token starts: each needs more roles than the token gives."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dask
import pytest
import yaml
from distributed import Client, LocalCluster, Scheduler, SpecCluster, SSHCluster
from distributed.comm import connect
from distributed.deploy.subprocess import SubprocessCluster

from sealwire.dask_backend import Security, install, installed, membership, uninstall
from sealwire.security import ConfigError
from support.certs_cli import good
from support.joined_cluster import Cluster
from support.processes import HANG
from support.programs import command, environment

LOCAL: dict[str, Any] = {
    "n_workers": 1, "threads_per_worker": 1, "processes": False, "host": "127.0.0.1",
    "dashboard_address": "127.0.0.1:0", "worker_dashboard_address": "127.0.0.1:0",
}  # fmt: skip
QUIET = {"dashboard": False, "host": "127.0.0.1"}


@pytest.fixture
def backends() -> Iterator[None]:
    """The registry, the configuration and the environment are as they were."""
    before, variables = installed(), dict(os.environ)
    with dask.config.set(dict(dask.config.config)):
        uninstall()
        yield
        uninstall()
    os.environ.clear()
    os.environ.update(variables)
    if before:
        install()


def computes(**how: Any) -> None:
    with LocalCluster(**LOCAL, **how) as cluster, Client(cluster) as client:
        assert client.submit(sum, [1, 2]).result(30) == 3


KINDS: dict[str, Callable[[], Any]] = {
    "LocalCluster": lambda: LocalCluster(**LOCAL),
    "LocalCluster of processes": lambda: LocalCluster(**{**LOCAL, "processes": True}),
    "LocalCluster over tls": lambda: LocalCluster(**LOCAL, protocol="tls://"),
    "SpecCluster": lambda: SpecCluster(scheduler={"cls": Scheduler, "options": QUIET}),
    "SubprocessCluster": lambda: SubprocessCluster(n_workers=1, host="127.0.0.1"),
    "SSHCluster": lambda: SSHCluster(["127.0.0.1"] * 2, connect_options={"port": 1}),
}


@pytest.mark.usefixtures("backends")
def test_they_are_refused_before_anything_starts_with_advice(
    service: Cluster, tmp_path: Path
) -> None:
    for role in ("client", "scheduler", "worker"):
        os.environ.update(service.joining(role))
        install()
        for kind, make in KINDS.items():
            name = kind.partition(" ")[0]
            with pytest.raises(ConfigError, match=f"start a {name} .*: it is a {role} alone") as e:
                make()
            assert ("Security.temporary()" in str(e.value)) == (
                name in ("LocalCluster", "SpecCluster")
            )
        if role == "client":  # what the advice says, and what needs no certificate
            computes(security=Security.temporary())
            if sys.platform == "linux":
                with dask.config.set({"sealwire.unix.allow-plain": True}):
                    computes(protocol="unix://")
        others = (
            {"client", "scheduler", "worker"} - {role} - ({"client"} if role == "worker" else set())
        )
        for other in others:
            how = Security().get_connection_args(other)
            with pytest.raises(TypeError, match=f"as a {role} alone, .* a token for a {other}"):
                asyncio.run(connect("tls://127.0.0.1:1", **how))
        uninstall()
    assert membership.joined_as() == ""
    del os.environ["SEALWIRE_JOIN"]
    folder = tmp_path / "certs"
    for role in ("client", "scheduler", "worker"):
        good("join", service.service, "--dir", str(folder), "--role", role,
             SEALWIRE_TOKEN=service.token(role))  # fmt: skip
    files = yaml.safe_load((folder / "dask.yaml").read_text())
    with dask.config.set(dask.config.merge(dask.config.config, files)):
        computes()


def test_a_process_that_could_not_join_never_goes_on_without(
    service: Cluster, tmp_path: Path
) -> None:
    """Whoever tries again, as in a notebook, gets the error again; nothing is sent in the clear."""
    used, unused = service.token("client"), service.token("client")
    good("join", service.service, "--dir", str(tmp_path / "n"), SEALWIRE_TOKEN=used)
    done = subprocess.run(
        command("second_attempt", service.service, used, unused),
        cwd=tmp_path, env=environment(DASK_SEALWIRE__JOIN__WAIT="100ms", HOME=str(tmp_path)),
        capture_output=True, text=True, timeout=HANG, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["sent"] == []
    kinds = {
        name: [each.partition(":")[0] for each in said] for name, said in found["told"].items()
    }
    assert kinds == {
        "no token": ["TokenError"] * 2, "no such token": ["TokenError"] * 2,
        "no address": ["JoinError"] * 2, "away": ["Unavailable"] * 2, "used": ["Refused"] * 2,
        "install": ["Refused"] * 2, "two threads": ["Unavailable"] * 2,
    }  # fmt: skip
    assert "tls://" in found["joined"]
    assert service.listed()[-1]["status"] == "used up", "and joins once it can"
