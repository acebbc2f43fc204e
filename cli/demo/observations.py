"""What each process of a cluster reports about itself and its links.

`observe` runs inside the processes, `collect` queries all of them, and `Owners` finds the process
at the other end of a link. Workers import this module when they are queried, so it must not import
the Dask backend: observing a process must not change it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Link:
    """One open comm, as seen by the process at one of its ends.

    Its byte counts are that process's, None for a backend that does not count. `unprotected` lists
    configured protections that are not in effect.
    """

    backend: str
    local: str
    peer: str
    protocol: str | None
    cipher: str | None
    peer_certificate: str | None
    bytes_in: int | None
    bytes_out: int | None
    unprotected: Sequence[str] = ()
    holds_gil: bool = False


@dataclass(frozen=True)
class Process:
    """One process of the cluster: `role` is client, scheduler, nanny or worker.

    `address` is where it listens, None for a client. `installed` tells whether our backend handles
    its comms. `bytes_in` and `bytes_out` are totals that include closed comms.
    """

    role: str
    name: str
    address: str | None
    pid: int
    installed: bool
    links: tuple[Link, ...]
    bytes_in: int
    bytes_out: int


def observe() -> dict[str, Any]:
    """Describe the calling process, in plain values that any serialiser can carry."""
    if "sealwire.dask_backend" not in sys.modules:
        return {"pid": os.getpid(), "installed": False, "links": [], "bytes_in": 0, "bytes_out": 0}
    from sealwire.dask_backend import installed
    from sealwire.dask_backend.links import links, traffic

    return {"pid": os.getpid(), "installed": installed(), "links": links(), **traffic()}


def collect(client: Any) -> tuple[Process, ...]:
    """Query the scheduler, the nannies and the workers of `client`, and this process itself.

    A process that does not answer is missing in the result. Every link is observed from both ends,
    but not at the same instant: comms for the queries themselves come and go.
    """
    # Not client.scheduler_info(): the client's periodic update, which asks for no workers, may
    # clear its result before it returns.
    workers = client.sync(client.scheduler.identity, n_workers=-1)["workers"]
    # The client comes last, when its links are open; otherwise the order is irrelevant.
    on_workers = client.run(observe, on_error="return")
    on_nannies = client.run(observe, nanny=True, on_error="return")
    on_scheduler = client.run_on_scheduler(observe)
    answers = [("scheduler", "scheduler", client.scheduler.address, on_scheduler)]
    for address, told in sorted(workers.items(), key=lambda item: str(item[1]["name"])):
        name = str(told["name"])
        answers.append(("nanny", f"{name} nanny", told["nanny"], on_nannies.get(address)))
        answers.append(("worker", name, address, on_workers.get(address)))
    answers.append(("client", "client", None, observe()))
    return tuple(
        described(role, name, address, answer)
        for role, name, address, answer in answers
        if isinstance(answer, Mapping)
    )


def described(role: str, name: str, address: str | None, answer: Mapping[str, Any]) -> Process:
    """Create a `Process` from the `answer` of `observe`."""
    links = tuple(Link(**link) for link in answer["links"])
    return Process(
        role=role,
        name=name,
        address=address,
        pid=answer["pid"],
        installed=answer["installed"],
        links=links,
        bytes_in=answer["bytes_in"],
        bytes_out=answer["bytes_out"],
    )


class Owners:
    """Finds which of `processes` is at the other end of a link.

    Both addresses are used: two processes may dial from the same port number, to different peers.
    """

    def __init__(self, processes: Iterable[Process]) -> None:
        self._ends: dict[tuple[str, str], Process] = {}
        self._listening: dict[str, Process] = {}
        for process in processes:
            for link in process.links:
                self._ends[link.local, link.peer] = process
            if process.address is not None:
                self._listening[process.address] = process

    def of_peer(self, link: Link) -> Process | None:
        """Return the process at the other end, if that end was observed or listens there."""
        return self._ends.get((link.peer, link.local)) or self._listening.get(link.peer)
