"""A real Dask cluster, scheduler, two workers and a client in four processes, put to work."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from process import Process

NODE = Path(__file__).with_name("node.py")


def do(
    implementation: str,
    link: str,
    credentials: dict[str, str],
    seconds: float,
    options: dict[str, Any],
) -> dict[str, float]:
    """Start a cluster, let its client work, stop it. Return what `peers/computations.py` saw."""
    who: dict[str, Any] = {
        "implementation": implementation,
        "link": link,
        "credentials": credentials if link == "tls" else {},
        "seconds": seconds,
        "options": options,
    }
    with ExitStack() as alive:
        folder = alive.enter_context(tempfile.TemporaryDirectory(prefix="benchmark-"))

        def start(role: str, **more: str) -> Process:
            name = f"{role} of {implementation} over {link}"
            node = Process(NODE, name, {**who, "role": role, **more}, folder)
            alive.callback(node.end)
            return node

        address = start("scheduler").answer()["address"]
        workers = [start("worker", scheduler=address, name=name) for name in ("giver", "taker")]
        for worker in workers:
            worker.answer()
        return start("client", scheduler=address).answer()
