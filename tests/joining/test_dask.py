"""Dask's own programs with a token each: from empty homes to a cluster that computes."""

from __future__ import annotations

import copy
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask
import pytest
from distributed.comm.registry import get_backend
from distributed.security import Security

from sealwire.cli.dask_plugin import install_if_configured
from sealwire.dask_backend import install, installed, membership, uninstall
from support.certs_cli import good
from support.joined_cluster import SECRET, Cluster, bare

PAGE = (Path(__file__).resolve().parents[2] / "docs/joining.md").read_text(encoding="utf-8")
(BLOCK,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
CLIENT = """
import json, os, sys
import dask
{block}
from dask.distributed import get_client

def of_worker():
    return dict(os.environ), json.dumps(dask.config.config, default=str), os.getpid()

def inside():
    with get_client() as client:
        return client.submit(sum, range(10)).result()

with client:
    client.wait_for_workers(int(sys.argv[2]), timeout=60)
    assert client.submit(sum, range(100)).result(60) == 4950
    assert client.submit(sum, client.map(lambda n: n * n, range(50))).result(60) == 40425
    assert client.submit(inside).result(60) == 45
    told = {"workers": client.run(of_worker), "client": of_worker()}
    links = client.run(lambda dask_worker: str(dask_worker.listeners[0].contact_address))
    assert all(each.startswith("tls://") for each in links.values())
print(json.dumps(told))
""".replace("{block}", BLOCK.replace('"tls://scheduler.lab:8786"', "sys.argv[1]"))


def client_of(cluster: Cluster, scheduler: str, workers: int) -> Any:
    """What a client's program tells, which imports nothing of ours, and joins too."""
    place = cluster.path / "home-client"
    place.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", CLIENT, scheduler, str(workers)], cwd=place, text=True,
        env={**bare(), "HOME": str(place), **cluster.joining("client")}, timeout=120,
        capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr + cluster.output
    return json.loads(done.stdout)


@pytest.fixture
def cluster(service: Cluster, tmp_path: Path) -> Iterator[Cluster]:
    made = Cluster(tmp_path, service)
    try:
        yield made
    finally:
        made.end()


def test_a_cluster_without_a_file_copied(cluster: Cluster) -> None:
    """A scheduler, three workers in two commands, a client with a client inside its tasks.

    One worker has its token in a file, and all else in the configuration.
    """
    scheduler = cluster.scheduler()
    assert scheduler.startswith("tls://")
    cluster.worker(scheduler, "one", "--nworkers", "2")
    file = cluster.path / "worker.token"
    file.write_text(cluster.token("worker") + "\n")
    file.chmod(0o644)
    configured = cluster.worker(
        scheduler, "two", "--no-nanny", DASK_SEALWIRE__JOIN__ADDRESS=cluster.service,
        DASK_SEALWIRE__JOIN__TOKEN_FILE=str(file), DASK_SEALWIRE__JOIN__NAME="rack 7",
    )  # fmt: skip
    told = client_of(cluster, scheduler, 3)
    assert len(told["workers"]) == 3
    configured.wait_for(r"the token in \S+ can be read by group or others \(mode 0644\)")
    configured.wait_for(r"joined at tls://\S+ as worker")
    configured.wait_for(r"Registered to:\s+tls://")
    for environment, configuration, pid in (*told["workers"].values(), told["client"]):
        shown = json.dumps(environment) + configuration
        assert "SEALWIRE_TOKEN" not in environment
        assert not SECRET.search(shown), "nothing that a task sees has a token"
        assert "PRIVATE KEY" not in shown
        assert pid
    assert [(each["role"], each["status"]) for each in cluster.listed()] == [
        ("scheduler", "used up"), *[("worker", "used up")] * 2, ("client", "used up"),
    ]  # fmt: skip
    assert cluster.listed()[2]["used"][0]["name"].startswith("joined/worker-rack_7-")
    files = [p for p in cluster.path.rglob("home-*/**/*") if p.is_file()]
    assert not [p for p in files if b"PRIVATE KEY" in p.read_bytes() or p.suffix == ".pem"]
    assert not SECRET.search(cluster.output)
    assert "Traceback" not in cluster.output


def test_a_worker_whose_token_is_no_good_ends_with_the_reason(cluster: Cluster) -> None:
    used = cluster.joining("worker")
    good("join", cluster.service, "--dir", str(cluster.path / "n"),
         SEALWIRE_TOKEN=used["SEALWIRE_TOKEN"])  # fmt: skip
    typo = {**used, "SEALWIRE_TOKEN": used["SEALWIRE_TOKEN"][:-1]}
    cases = {
        "used": ("--nanny", used, "was used before"),
        "typo": ("--no-nanny", typo, "wrong or missing"),
    }
    programs = {
        name: cluster.worker("tls://127.0.0.1:1", name, nanny, **variables)
        for name, (nanny, variables, _) in cases.items()
    }
    for name, program in programs.items():
        program.process.wait(60)
        program.finish()
        said = "".join(program.output)
        assert program.process.returncode == 1, said
        assert "Error: " in said
        assert cases[name][2] in said
        assert "Traceback" not in said
        assert not SECRET.search(said)


@pytest.fixture
def backends(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The registry, the configuration and the environment are as they were."""
    before, variables = installed(), dict(os.environ)
    with dask.config.set(copy.deepcopy(dask.config.config)):
        uninstall()
        yield
        uninstall()
    os.environ.clear()
    os.environ.update(variables)
    if before:
        install()


@pytest.mark.usefixtures("backends")
def test_uninstalling_drops_the_identity_and_restores_the_configuration(cluster: Cluster) -> None:
    key = "distributed.comm.tls.ca-file"
    before = json.dumps(dask.config.config, sort_keys=True, default=str)
    os.environ.update(cluster.joining("client"))
    install()
    member = membership.member()
    assert member is not None
    assert dask.config.get(key) == member.paths["ca.pem"]
    install()
    assert membership.member() is member, "once"
    uninstall()
    assert membership.member() is None
    assert json.dumps(dask.config.config, sort_keys=True, default=str) == before
    assert not os.path.exists(member.paths["identity.pem"])


@pytest.mark.usefixtures("backends")
def test_a_configuration_that_is_read_again_keeps_the_identity(cluster: Cluster) -> None:
    """As in a notebook, after a variable was set: never may a joined process go on in plain."""
    key, defaults = "distributed.comm.tls.ca-file", list(dask.config.defaults)
    os.environ.update(cluster.joining("scheduler"))
    install()
    member = membership.member()
    assert member is not None
    expected = Security().get_listen_args("scheduler")["ssl_context"]
    for _ in range(2):
        dask.config.refresh()
        assert dask.config.get(key) == member.paths["ca.pem"]
        assert Security().get_listen_args("scheduler")["ssl_context"] is expected
        with pytest.raises(RuntimeError, match="plain"):
            get_backend("tcp").get_listener("127.0.0.1:0", None, True)
        assert dask.config.get("distributed.comm.default-scheme") == "tls"
    uninstall()
    assert dask.config.defaults == defaults
    dask.config.refresh()
    assert dask.config.get(key) is None


@pytest.mark.usefixtures("backends")
@pytest.mark.parametrize("where", ["variable", "inherited", "both"])
def test_a_token_in_the_configuration_is_in_no_childs_environment(
    cluster: Cluster, where: str
) -> None:
    """Whatever has brought it there: the children of this process are started without it."""
    given = cluster.joining("client", "--uses", "2")
    token = given.pop("SEALWIRE_TOKEN")
    os.environ.update(given)
    other = {"a": {"b": "ü", "c": [1, None]}}
    inherit = "DASK_INTERNAL_INHERIT_CONFIG"
    if where != "variable":
        inherited = {"sealwire": {"join": {"token": token}}, **other}
        os.environ[inherit] = dask.config.serialize(inherited)
    if where != "inherited":
        os.environ["DASK_SEALWIRE__JOIN__TOKEN"] = token
    with dask.config.set(dask.config.collect_env()):
        install()
        assert membership.member() is not None
        read = [sys.executable, "-c", "import os; print({**os.environ})"]
        shown = subprocess.run(read, capture_output=True, text=True, check=True).stdout
        assert not SECRET.search(shown)
        assert dask.config.get("sealwire.join.token", None) is None
        if where != "variable":
            kept = dask.config.deserialize(os.environ[inherit])
            assert not SECRET.search(json.dumps(kept))
            assert {**kept, "sealwire": 0} == {**other, "sealwire": 0}, "the rest is handed on"
        uninstall()


@pytest.mark.usefixtures("backends")
def test_certificates_that_are_configured_are_used(
    cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    os.environ.update(cluster.joining("client"))
    with dask.config.set({"distributed.comm.tls.ca-file": str(cluster.ca / "ca.pem")}):
        install()
        assert membership.member() is None
    assert any("not joining" in record.getMessage() for record in caplog.records)
    assert [each["status"] for each in cluster.listed()] == ["valid"]


@pytest.mark.usefixtures("backends")
@pytest.mark.parametrize(
    ("given", "why"),
    [({}, "there is no token"), ({"SEALWIRE_TOKEN_FILE": "/none"}, "cannot read the token")],
)
def test_a_command_without_a_token_ends_with_the_reason(given: dict[str, str], why: str) -> None:
    os.environ.update({"SEALWIRE_JOIN": "127.0.0.1:1", **given})
    try:
        with pytest.raises(SystemExit, match=why):
            install_if_configured(["worker", "tls://127.0.0.1:1"])
    finally:
        membership.expect("")
    assert membership.member() is None


@pytest.mark.usefixtures("backends")
def test_a_token_for_another_role_is_refused_and_not_used_up(cluster: Cluster) -> None:
    os.environ.update(cluster.joining("client"))
    try:
        for command in ("worker", "scheduler"):
            with pytest.raises(SystemExit, match=f"for a client, and a {command} asks"):
                install_if_configured(["--option", command, "tls://127.0.0.1:1"])
            assert membership.member() is None
    finally:
        membership.expect("")
    install()
    made = membership.member()
    assert made is not None
    assert made.joined.role == "client"


@pytest.mark.usefixtures("backends")
@pytest.mark.parametrize("variable", ["SEALWIRE_TOKEN", "SEALWIRE_TOKEN_FILE"])
def test_a_token_without_a_service_is_told(variable: str, caplog: pytest.LogCaptureFixture) -> None:
    os.environ[variable] = "x"
    install()
    assert any("set SEALWIRE_JOIN=HOST:PORT" in each.getMessage() for each in caplog.records)
