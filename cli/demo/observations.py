"""What each process of a cluster says about itself and its links.

`observe` runs inside the processes, `collect` asks all of them, and `Owners` tells which process
is at the other end of a link. Workers import this module when they are asked, so it must not
import the Dask backend: a process has to be found as it is, not changed by looking at it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Link:
    """One open comm as the process at one of its ends sees it.

    Bytes are counted there, None by a backend that does not count them. `unprotected` is what is
    configured and does not hold.
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


@dataclass(frozen=True)
class Process:
    """One process of the cluster: `role` is client, scheduler, nanny or worker.

    `address` is where it listens, None for a client. `installed` tells whether our backend serves
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
    """Describe the process this is called in, in plain values that any serialiser carries."""
    if "sealwire.dask_backend" not in sys.modules:
        return {"pid": os.getpid(), "installed": False, "links": [], "bytes_in": 0, "bytes_out": 0}
    from sealwire.dask_backend import installed
    from sealwire.dask_backend.links import links, traffic

    return {"pid": os.getpid(), "installed": installed(), "links": links(), **traffic()}


def collect(client: Any) -> tuple[Process, ...]:
    """Ask the scheduler, the nannies and the workers of `client`, and this process itself.

    A process that does not answer is missing in the result. Every link is observed from both its
    ends, but not at one instant: the comms of the questions themselves come and go.
    """
    # Not client.scheduler_info(): the client's periodic update, which asks for no workers, may
    # empty its answer before it returns.
    workers = client.sync(client.scheduler.identity, n_workers=-1)["workers"]
    # The order matters little, except that the client comes last: its links are open by then.
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
    """Make a `Process` of the `answer` that `observe` gave there."""
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
    """Tells which of `processes` is at the other end of a link.

    Both addresses are looked at: one process may dial from a port that another dials from as well,
    to somebody else.
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
        """Who is at the other end, if that was observed or listens there."""
        return self._ends.get((link.peer, link.local)) or self._listening.get(link.peer)
