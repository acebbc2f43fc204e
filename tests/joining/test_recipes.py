"""The recipes of docs/deploying.md for clusters that are given tokens."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.certs_cli import good, told
from support.joined_cluster import Cluster
from support.processes import HANG
from support.programs import command, environment

PAGE = Path(__file__).resolve().parents[2] / "docs" / "deploying.md"
SECTION = PAGE.read_text(encoding="utf-8").partition("## Tokens instead of files")[2]
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", SECTION, re.DOTALL)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, service: Cluster) -> Cluster:
    return Cluster(tmp_path_factory.mktemp("cluster"), service)


@pytest.fixture(scope="module")
def login(cluster: Cluster) -> Path:
    """The files of the node where scheduler and client run, all of them given for tokens."""
    folder = cluster.path / "login"
    for role in ("scheduler", "client"):
        good("join", cluster.service, "--dir", str(folder), "--role", role,
             SEALWIRE_TOKEN=cluster.token(role))  # fmt: skip
    return folder


@contextmanager
def deployed(kind: str, login: Path, home: Path, options: dict[str, Any]) -> Iterator[Any]:
    process = subprocess.Popen(
        command("deployed", kind, json.dumps(options)),
        cwd=home,
        env=environment(DASK_CONFIG=str(login / "dask.yaml"), DASK_TEMPORARY_DIRECTORY=str(home)),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, process.communicate(timeout=HANG)[1]
        yield json.loads(line)
        _, words = process.communicate("", timeout=HANG)
        assert process.returncode == 0, words
    finally:
        process.kill()
        process.wait()


def test_a_job_that_has_a_token(cluster: Cluster, login: Path, tmp_path: Path) -> None:
    """A job is a use: `deployed` asserts that every link is ours, and protected."""
    (python,) = [text for kind, text in BLOCKS if "SLURMCluster" in text]
    assert "SEALWIRE_TOKEN_FILE" in python
    file = tmp_path / "job.token"
    made = ("token", "--role", "worker", "--uses", "1", "--expires", "1h", "--dir", str(cluster.ca))
    cluster.made.append(told(*made, "--out", str(file))["id"])
    assert file.stat().st_mode & 0o777 == 0o600
    prologue = [
        "unset DASK_CONFIG",  # a job of a queueing system begins without
        f"export SEALWIRE_JOIN={cluster.service}",
        f"export SEALWIRE_TOKEN_FILE={file}",
    ]
    assert re.findall(r"export (\w+)=", python) == re.findall(r"export (\w+)=", str(prologue))
    with deployed("jobs", login, tmp_path, {"job_script_prologue": prologue}) as found:
        assert len(found["others"]) == 2  # a worker and its nanny
    assert [each["status"] for each in cluster.listed()] == ["used up"] * 3


def test_a_manifest_of_kubernetes() -> None:
    """It is parsed, and its names fit together; no cluster of Kubernetes has run it."""
    (text,) = [text for kind, text in BLOCKS if kind == "yaml" and "kind: Deployment" in text]
    (manifest,) = yaml.safe_load_all(text)
    pod = manifest["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    variables = {each["name"]: each["value"] for each in container["env"]}
    assert set(variables) == {"SEALWIRE_JOIN", "SEALWIRE_TOKEN_FILE"}
    mounts = {each["name"]: each["mountPath"] for each in container["volumeMounts"]}
    (volume,) = pod["volumes"]
    assert variables["SEALWIRE_TOKEN_FILE"].startswith(mounts[volume["name"]] + "/")
    assert volume["secret"]["defaultMode"] == 0o440
    (shell,) = [text for kind, text in BLOCKS if "kubectl create secret" in text]
    key = Path(variables["SEALWIRE_TOKEN_FILE"]).name
    assert f"secret generic {volume['secret']['secretName']} --from-file {key}=" in shell
    assert container["args"][:2] == ["dask", "worker"]
    assert container["args"][2].startswith("tls://")
    assert (
        manifest["spec"]["selector"]["matchLabels"]
        == manifest["spec"]["template"]["metadata"]["labels"]
    )


def test_what_a_spawner_sets(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The function of the page, as it stands there, for a process that joins once."""
    (code,) = [text for kind, text in BLOCKS if kind == "python" and "def environment" in text]
    scope: dict[str, Any] = {}
    exec(code.replace("scheduler.lab:8788", cluster.service), scope)
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)
    monkeypatch.chdir(cluster.ca.parent)
    variables, other = (scope["environment"]("worker", "ca") for _ in range(2))
    assert variables["SEALWIRE_TOKEN"] != other["SEALWIRE_TOKEN"]
    good("join", "--dir", str(tmp_path / "in"), variables["SEALWIRE_JOIN"],
         SEALWIRE_TOKEN=variables["SEALWIRE_TOKEN"])  # fmt: skip
    assert (tmp_path / "in" / "worker.pem").exists()
