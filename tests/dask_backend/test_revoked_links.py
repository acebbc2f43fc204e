"""Dask's comms that are open while a certificate of their peer's is revoked."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import dask
import distributed
import pytest
from distributed import Client, Scheduler, Worker
from distributed.comm.core import Comm

from sealwire.comm import errors
from sealwire.dask_backend import Security
from sealwire.security.contexts import open_peers
from support import certs
from support.aio import until
from support.parties import Party, asynchronous

CA = certs.root("ca")
OURS = certs.leaf(CA, "ours")
BAD = certs.leaf(CA, "bad")
GOOD = certs.leaf(CA, "good")


@pytest.fixture(scope="module", autouse=True)
def often() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(open_peers, "_PERIOD", 0.05)
        yield


class Lists:
    def __init__(self, folder: Path) -> None:
        self.path = folder / "crl.pem"
        self.put()

    def put(self, *revoked: certs.Node) -> None:
        new = self.path.with_suffix(".new")
        new.write_text(certs.crl(CA, *revoked))
        new.replace(self.path)


@pytest.fixture
def lists(tmp_path: Path) -> Lists:
    return Lists(tmp_path)


def fields(node: certs.Node, **more: Any) -> dict[str, Any]:
    made = {"tls_ca_file": CA.pem}
    for role in ("client", "scheduler", "worker"):
        made |= {f"tls_{role}_cert": node.pem, f"tls_{role}_key": node.key_pem}
    return {**made, **more}


@asynccontextmanager
async def linked(one: Party, other: Party) -> AsyncIterator[tuple[Comm, Comm, Any]]:
    """The two ends of a comm, the dialled one first, and the listener."""
    accepted: asyncio.Future[Comm] = asyncio.get_running_loop().create_future()
    async with other.listen(accepted.set_result) as listener:
        near = await one.connect(listener.contact_address)
        far = await accepted
        yield near, far, listener
        near.abort()
        far.abort()


@asynchronous
@pytest.mark.parametrize("listens", [True, False])
@pytest.mark.parametrize("security", ["ours", "distributed's"])
async def test_our_comms_are_ended(
    lists: Lists, listens: bool, security: str, caplog: pytest.LogCaptureFixture
) -> None:
    kind: Any = Security
    if security != "ours":
        kind = distributed.Security
        given = {"sealwire.tls.crl-file": str(lists.path), "sealwire.tls.reload-interval": 0}
        with dask.config.set({**given, "distributed.comm.tls.ca-file": CA.pem}):
            follows = Party("ours", "tls", kind(**fields(OURS), require_encryption=True))
            follows.security.get_listen_args("scheduler")
            follows.security.get_connection_args("client")
            await look(follows, lists, listens, caplog)
    else:
        how = {"tls_crl_file": lists.path, "tls_reload_interval": 0}
        follows = Party("ours", "tls", kind(**fields(OURS), **how))
        await look(follows, lists, listens, caplog)


async def look(
    follows: Party, lists: Lists, listens: bool, caplog: pytest.LogCaptureFixture
) -> None:
    peer = Party("ours", "tls", Security(**fields(BAD), tls_crl_file=None))
    sides = (peer, follows) if listens else (follows, peer)
    async with linked(*sides) as (near, far, listener):
        ours, theirs = (far, near) if listens else (near, far)
        await theirs.write("before")
        assert await ours.read() == "before"
        await theirs.write("never read")
        reading = asyncio.ensure_future(theirs.read())
        lists.put(BAD)
        await until(ours.closed)
        with pytest.raises(OSError, match="has been revoked") as caught:
            await ours.read()
        assert isinstance(caught.value, distributed.comm.CommClosedError)
        cause = caught.value.__cause__
        assert isinstance(cause, errors.CommClosedError)
        assert (cause.kind, cause.code) == ("revoked", 1016)
        with pytest.raises(OSError, match=r"closed|lost|reset|end"):
            await reading
        if listens:
            assert listener.stats.broken == {"revoked": 1}
    words = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    assert len([each for each in words if "ending 1 open connection with" in each]) == 1, words


@asynchronous
async def test_comms_of_distributeds_own_backend_go_on_and_the_log_says_so(
    lists: Lists, caplog: pytest.LogCaptureFixture
) -> None:
    how = {"tls_crl_file": lists.path, "tls_reload_interval": 0}
    follows = Party("stock", "tls", Security(**fields(OURS), **how))
    peer = Party("stock", "tls", Security(**fields(BAD), tls_crl_file=None))
    async with linked(peer, follows) as (near, far, _):
        lists.put(BAD)
        await until(lambda: "cannot be ended from here" in caplog.text)
        await near.write("still")
        assert await far.read() == "still"
        lists.put(BAD, GOOD)
        follows.security.reload()
    assert caplog.text.count("cannot be ended from here") == 1, "once for each"


@asynchronous
async def test_a_revoked_worker_is_out_and_the_others_compute(lists: Lists) -> None:
    def security(node: certs.Node) -> Security:
        return Security(**fields(node), tls_crl_file=lists.path, tls_reload_interval=0)

    here: dict[str, Any] = {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0"}
    async with Scheduler(security=security(OURS), port=0, dashboard=False, **here) as scheduler:
        good = Worker(scheduler.address, security=security(GOOD), nthreads=1, name="good", **here)
        bad = Worker(scheduler.address, security=security(BAD), nthreads=1, name="bad", **here)
        async with good, bad, Client(scheduler.address, security=security(OURS),
                                     asynchronous=True) as client:  # fmt: skip
            await client.wait_for_workers(2)
            kept = client.map(abs, range(20), pure=False)
            assert sum(await client.gather(kept)) == 190
            lists.put(BAD)
            await until(lambda: len(scheduler.workers) == 1)
            assert {each.name for each in scheduler.workers.values()} == {"good"}
            again = client.map(abs, range(50), pure=False)
            assert sum(await client.gather(again)) == 1225
            assert sum(await client.gather(kept)) == 190, "what it held is computed again"
