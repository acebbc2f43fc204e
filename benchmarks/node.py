"""One process of a Dask cluster: scheduler, worker, or the client that puts it to work.

Who it is comes as a line of JSON on stdin: ``{"role", "implementation", "link", "credentials",
"scheduler", "seconds", "program", "options"}``. Scheduler and worker answer with their address, the
client with figures. Started by `cluster.py`.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from importlib import import_module
from typing import Any

UNTOUCHED = "untouched"  # the switch interval
HTTP = "127.0.0.1:0"  # it is served even without a dashboard


async def live(who: dict[str, Any], answers: Any) -> None:
    """Serve until stdin ends; as client, work."""
    import dask
    from peers import adapters

    dask.config.set({"logging": {"distributed": "error"}})
    name, _, interval = who["implementation"].partition("/")
    if interval:
        untouched = interval == UNTOUCHED
        dask.config.set({"sealwire.gil.interval": False if untouched else interval})
    if name == "dask":
        from sealwire.dask_backend import install

        install()
    from distributed import Client, Scheduler, Security, Worker

    tls = who["link"] == "tls"
    security = Security(**who["credentials"], require_encryption=True) if tls else Security()
    common = {"security": security, "host": f"{who['link']}://127.0.0.1"}
    if who["role"] == "client":
        program = import_module(who["program"])
        client = await Client(who["scheduler"], security=security, asynchronous=True)
        figures = await program.all_figures(client, who["seconds"], **who["options"])
        answers.write(json.dumps(figures) + "\n")
        os._exit(0)
    if who["role"] == "scheduler":
        server: Any = await Scheduler(**common, dashboard=False, dashboard_address=HTTP)
    else:
        server = await Worker(
            who["scheduler"],
            **common,
            name=who["name"],
            nthreads=2,
            memory_limit=0,
            dashboard=False,
            dashboard_address=HTTP,
        )
    answers.write(json.dumps({"address": server.address}) + "\n")
    await (await adapters.read_lines(sys.stdin)).read()
    os._exit(0)


if __name__ == "__main__":
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    asyncio.run(live(json.loads(sys.stdin.readline()), out))
