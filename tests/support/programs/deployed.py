"""A program: a cluster by one deployer, configured by `DASK_CONFIG` or by a `Security`.

    python -m support.programs.deployed KIND [OPTIONS]

OPTIONS is JSON with keywords for the cluster; ``security`` are the fields of one of ours, and
``workers`` how many there are, each with a nanny: 1 unless given. It looks at every process, prints
the addresses as JSON, and ends the cluster when its standard input ends.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cloudpickle
from distributed import Client

from support import observing
from support.observing import check, everywhere, exercise

cloudpickle.register_pickle_by_value(observing)  # a session over SSH does not find it

PRELOAD = "sealwire.dask_backend.preload"


def local(workers: int, **options: Any) -> Any:
    from distributed import LocalCluster

    return LocalCluster(
        n_workers=workers,
        threads_per_worker=1,
        host="127.0.0.1",
        dashboard_address="127.0.0.1:0",
        worker_dashboard_address="127.0.0.1:0",
        **options,
    )


def subprocesses(workers: int, **options: Any) -> Any:
    from distributed.deploy.subprocess import SubprocessCluster

    tempfile.tempdir = os.getcwd()  # for its scheduler file, which may be left there
    return SubprocessCluster(
        host="127.0.0.1",
        n_workers=workers,
        threads_per_worker=1,
        dashboard_address="127.0.0.1:0",
        worker_kwargs={"dashboard_address": "127.0.0.1:0"},
        **options,
    )


def _by_shell(given: Path) -> str:
    """A file with the command that has a shell run a script whose last line replaces it."""
    *lines, last = given.read_text().strip().splitlines()
    script = Path.cwd() / f"{given.name}.script"
    script.write_text("\n".join([*lines, f"exec {last}"]))
    command = script.with_suffix(".command")
    command.write_text(f"sh {script}")
    return str(command)


def jobs(workers: int, **options: Any) -> Any:
    from dask_jobqueue.local import LocalCluster, LocalJob

    class ByShell(LocalJob):  # type: ignore[misc]
        """Runs the script as queueing systems do, by a shell, which then is the worker."""

        async def _submit_job(self, script_filename: str) -> Any:
            return await super()._submit_job(_by_shell(Path(script_filename)))

    cluster = LocalCluster(
        job_cls=ByShell,
        cores=1,
        memory="500MB",
        processes=1,
        nanny=True,
        death_timeout=60,
        scheduler_options={"host": "127.0.0.1", "port": 0, "dashboard_address": "127.0.0.1:0"},
        worker_extra_args=[
            *("--host", "127.0.0.1"),
            *("--dashboard-address", "127.0.0.1:0"),
            *(("--preload", PRELOAD, "--preload-nanny", PRELOAD) if "security" in options else ()),
        ],
        **options,
    )
    cluster.scale(jobs=workers)
    return cluster


def ssh(workers: int, **options: Any) -> Any:
    from distributed import SSHCluster

    return SSHCluster(
        ["127.0.0.1"] * (1 + workers),
        scheduler_options={"host": "127.0.0.1", "port": 0, "dashboard_address": "127.0.0.1:0"},
        worker_options={"host": "127.0.0.1", "nthreads": 1, "dashboard_address": "127.0.0.1:0"},
        **options,
    )


KINDS: dict[str, Callable[..., Any]] = {
    "local": local,
    "subprocesses": subprocesses,
    "jobs": jobs,
    "ssh": ssh,
}


def main(kind: str, options: dict[str, Any]) -> None:
    if fields := options.pop("security", None):
        from sealwire.dask_backend import Security

        options["security"] = Security(**fields)
    workers = options.pop("workers", 1)
    with KINDS[kind](workers, **options) as cluster, Client(cluster, timeout=60) as client:
        client.wait_for_workers(workers, timeout=60)
        if workers > 1:
            exercise(client)  # they talk to each other
        assert client.submit(sum, range(100)).result(60) == 4950
        seen = everywhere(client)
        check(seen, client.scheduler.address, "tls")
        links = [link for each in seen.values() for link in each["links"]]
        unprotected = [words for link in links for words in link["unprotected"]]
        assert not unprotected, unprotected
        versions = client.get_versions(packages=["sealwire"])
        versions["workers"]["client"] = versions["client"]
        versions["workers"]["scheduler"] = versions["scheduler"]
        installed = {each["packages"]["sealwire"] for each in versions["workers"].values()}
        assert installed == {version("sealwire")}, installed
        found = {
            "scheduler": client.scheduler.address,
            "others": sorted(set(seen) - {client.scheduler.address, "client"}),
            "pids": sorted({each["pid"] for each in seen.values()} - {os.getpid()}),
        }
        print(json.dumps(found), flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]) if len(sys.argv) > 2 else {})
