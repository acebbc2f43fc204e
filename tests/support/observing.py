"""What the processes of a cluster tell about themselves, and what they should.

`observe` runs inside them. It imports nothing of ours: a process must be found as it is, not
changed by the question.
"""

from __future__ import annotations

import operator
import os
import sys
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

Seen = dict[str, dict[str, Any]]

BACKENDS = {"ours": "sealwire.dask_backend.backend", "stock": "distributed.comm.tcp"}


def observe() -> dict[str, Any]:
    """This process: `pid`, whether ours is `installed`, and its open `links`."""
    ours = sys.modules.get("sealwire.dask_backend")
    if ours is None:
        return {"pid": os.getpid(), "installed": False, "links": stock_links()}
    from sealwire.dask_backend.links import links

    return {"pid": os.getpid(), "installed": ours.installed(), "links": links()}


def stock_links() -> list[dict[str, Any]]:
    """As `sealwire.dask_backend.links.links`, as far as a process without us can tell."""
    from distributed.comm.core import Comm

    found = []
    for comm in [comm for comm in list(Comm._instances) if not comm.closed()]:
        cipher, version, _ = comm.extra_info.get("cipher") or (None, None, None)
        subject = comm.extra_info.get("peercert", {}).get("subject", ())
        names = [value for rdn in subject for _, value in rdn]
        found.append(
            {
                "backend": f"{type(comm).__module__}.{type(comm).__qualname__}",
                "local": comm.local_address,
                "peer": comm.peer_address,
                "protocol": version,
                "cipher": cipher,
                "peer_certificate": f"CN={names[0]}" if names else None,
            }
        )
    return found


async def dial(address: str, dask_worker: Any = None, dask_scheduler: Any = None) -> str:
    """Dial `address` as this process dials others: the name it shows, or why there is no comm."""
    try:
        comm = await (dask_worker or dask_scheduler).rpc.connect(address)
    except OSError as error:
        return str(error)
    name = comm.extra_info["peercert"]["subject"][0][0][1]
    comm.abort()
    return str(name)


def everywhere(client: Any) -> Seen:
    """`observe` of every process, by its address; of this one as "client"."""
    # Not client.scheduler_info(): the client's periodic update, which asks for no workers, may
    # empty its answer before it returns.
    workers = client.sync(client.scheduler.identity, n_workers=-1)["workers"]
    seen = dict(client.run(observe))
    nannies = {address: told["nanny"] for address, told in workers.items() if told["nanny"]}
    if nannies:
        answers = client.run(observe, nanny=True, workers=list(nannies))
        seen.update({nannies[address]: answer for address, answer in answers.items()})
    seen[client.scheduler.address] = client.run_on_scheduler(observe)
    seen["client"] = observe()
    return seen


def exercise(client: Any) -> None:
    """Move arrays in every direction: client to workers, worker to worker, and back."""
    first, *_, last = sorted(client.sync(client.scheduler.identity, n_workers=-1)["workers"])
    assert first != last
    array = np.arange(500_000.0)
    here, there = client.scatter([array, array + 1], broadcast=False)
    one = client.submit(operator.mul, here, 2, workers=[first])
    two = client.submit(operator.mul, there, 3, workers=[last])
    sums = [client.submit(operator.add, one, two, workers=[w], pure=False) for w in (first, last)]
    for result in client.gather(sums):
        assert np.array_equal(result, array * 2 + (array + 1) * 3)
    copies = client.scatter(array, broadcast=True)
    totals = [client.submit(np.sum, copies, workers=[w], pure=False) for w in (first, last)]
    assert client.gather(totals) == [array.sum()] * 2
    words = client.map(str.upper, ["small", "tasks"] * 20, pure=False)
    assert client.gather(words) == ["SMALL", "TASKS"] * 20
    client.cancel([here, there, one, two, *sums, copies, *totals, *words])


def shuffle(client: Any) -> None:
    """Turn rows into columns: every worker sends a part of each of its blocks to every other."""
    import dask.array  # late: most who observe do without

    numbers = np.arange(1_000_000.0).reshape(1000, 1000)
    with dask.config.set({"array.rechunk.method": "p2p"}):
        columns = dask.array.from_array(numbers, chunks=(50, -1)).rechunk((-1, 50))
    assert any("p2p" in str(key) for key in columns.__dask_graph__()), "not a P2P shuffle"
    assert np.array_equal(client.compute(columns).result(), numbers)


UNIX = "sealwire.dask_backend.unix.Unix"


def check(seen: Mapping[str, Any], scheduler: str, scheme: str, stock: Iterable[str] = ()) -> None:
    """Assert that each process has the backend it should, and that every link is as it should be.

    `scheduler` and `stock` are addresses in `seen`: of the scheduler, and of processes that are
    not ours.
    """
    stock_pids = {seen[address]["pid"] for address in stock}
    roles: dict[int, set[str]] = {}  # of processes; the client's may hold the scheduler too
    dialled: dict[str, set[str]] = {}  # local address of each link -> roles of its process
    for address, process in seen.items():
        role = {"client": "client", scheduler: "scheduler"}.get(address, "worker")
        roles.setdefault(process["pid"], set()).add(role)
    for process in seen.values():
        for link in process["links"]:
            dialled[link["local"]] = roles[process["pid"]]
    for address, process in seen.items():
        kind = "stock" if process["pid"] in stock_pids else "ours"
        assert process["installed"] == (kind == "ours"), address
        assert process["links"], f"{address} has no links"
        for link in process["links"]:
            backend = UNIX if scheme == "unix" else f"{BACKENDS[kind]}.{scheme.upper()}"
            assert link["backend"] == backend, (address, link)
            assert link["peer"].startswith(f"{scheme}://"), (address, link)
            if scheme != "tls":
                assert link["protocol"] is link["peer_certificate"] is None, (address, link)
                continue
            assert link["protocol"] == "TLSv1.3", (address, link)
            assert link["cipher"].startswith("TLS_"), (address, link)
            if link["peer"] in seen:
                expected = {"scheduler" if link["peer"] == scheduler else "worker"}
            else:  # its dialler may have hung up since
                expected = dialled.get(link["peer"], {"client", "scheduler", "worker"})
            role = link["peer_certificate"].removeprefix("CN=").partition(",")[0]  # before the node
            assert role in expected, (address, link)


def links_between_workers(seen: Seen, scheduler: str) -> int:
    """How many links a worker holds to another worker."""
    listening = set(seen) - {scheduler, "client"}
    return sum(
        link["peer"] in listening - {address}
        for address in listening
        for link in seen[address]["links"]
    )
