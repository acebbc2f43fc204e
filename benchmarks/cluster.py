"""A real Dask cluster, scheduler, workers and a client in processes of their own, put to work."""

from __future__ import annotations

import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from process import Process

NODE = Path(__file__).with_name("node.py")
# What Dask's nanny sets for a worker, which is started without one here.
AS_BY_NANNY = {
    "MALLOC_TRIM_THRESHOLD_": "65536",
    **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"),
}


def do(
    implementation: str,
    link: str,
    credentials: dict[str, str],
    seconds: float,
    options: dict[str, Any],
) -> dict[str, float]:
    """Start a cluster, let its client work, stop it. Return what the client's program saw.

    The program is `peers/computations.py`, or that named by the option `program`. `workers` is
    their number; `start` among the figures is the time until all of them have joined.
    """
    options = dict(options)
    workers = options.get("workers", 2)
    who: dict[str, Any] = {
        "implementation": implementation,
        "link": link,
        "credentials": credentials if link == "tls" else {},
        "seconds": seconds,
        "program": options.pop("program", "peers.computations"),
        "options": options,
    }
    with ExitStack() as alive:
        folder = alive.enter_context(tempfile.TemporaryDirectory(prefix="benchmark-"))

        def start(role: str, **more: str) -> Process:
            name = f"{role} of {implementation} over {link}"
            environment = {**AS_BY_NANNY, "DASK_TEMPORARY_DIRECTORY": folder}
            node = Process(NODE, name, {**who, "role": role, **more}, environment)
            alive.callback(node.end)
            return node

        began = time.perf_counter()
        address = start("scheduler").answer()["address"]
        names = ["giver", "taker", *(f"worker-{number}" for number in range(2, workers))]
        for worker in [start("worker", scheduler=address, name=name) for name in names]:
            worker.answer()
        took = time.perf_counter() - began
        return {**start("client", scheduler=address).answer(), "start": took}
