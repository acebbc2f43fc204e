"""A program: a LocalCluster with our backend by one recipe, which looks at all its processes.

    python -m support.programs.local_cluster RECIPE SCHEME

The recipe "security" passes our Security and nothing else; "preload" sets the four settings of that
name and uses distributed's. Exits with 0 if everything was as it should be.
"""

from __future__ import annotations

import os
import sys

import dask
import distributed
import psutil
from distributed import Client, LocalCluster

from support.observing import check, everywhere, exercise, links_between_workers, observe

PRELOADED = ("scheduler", "worker", "nanny", "client")
PRELOAD = "sealwire.dask_backend.preload"
WORKERS = 2


def main(recipe: str, scheme: str) -> None:
    assert not observe()["installed"]
    settings = {f"distributed.{process}.preload": [PRELOAD] for process in PRELOADED}
    if recipe == "preload":
        security = distributed.Security()
    else:
        settings = {}
        from sealwire.dask_backend import Security

        security = Security.temporary() if scheme == "tls" else Security()
    restarts = scheme == "tls"  # a nanny keeps a Security; settings, all do
    with (
        dask.config.set(settings),
        LocalCluster(
            n_workers=WORKERS,
            threads_per_worker=1,
            processes=True,
            security=security,
            protocol=f"{scheme}://",
            dashboard_address="127.0.0.1:0",
            worker_dashboard_address=None,
        ) as cluster,
        Client(cluster) as client,
    ):
        before = after = look(client, scheme)
        if restarts:
            first, _ = client.sync(client.scheduler.identity, n_workers=-1)["workers"]
            assert client.restart_workers([first], raise_for_error=True) == {first: "OK"}
            client.wait_for_workers(WORKERS)
            after = look(client, scheme)
            assert len(before & after) == 2  # this process, and the other worker
    assert not any(psutil.pid_exists(pid) for pid in (before | after) - {os.getpid()})
    print("as it should be")


def look(client: Client, scheme: str) -> set[int]:
    """Use the cluster and check it; the pids of its processes."""
    exercise(client)
    seen = everywhere(client)
    assert len(seen) == 2 + 2 * WORKERS, list(seen)  # scheduler, workers with nannies, client
    check(seen, client.scheduler.address, scheme)
    assert links_between_workers(seen, client.scheduler.address) > 0
    pids = {process["pid"] for process in seen.values()}
    assert len(pids) == 1 + WORKERS  # all but the workers share this process
    return pids


if __name__ == "__main__":
    main(*sys.argv[1:])
