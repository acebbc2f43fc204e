"""Replaced files in Dask: under our listener and stock's, and in every process of a cluster.

Processes of `dask scheduler` and `dask worker` follow theirs in tests/cli/test_rotation.py.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask
import distributed
import pytest
from distributed import Client, Nanny, Scheduler, Worker
from distributed.comm.core import Comm

from sealwire.dask_backend import Security, install, preload, uninstall
from sealwire.security import PEMError
from sealwire.security.contexts.reloading import FollowingContext
from support import certs
from support.following import give_checks_time
from support.handshakes import client_context, common_name, foreign_context, name_at, security
from support.observing import dial
from support.parties import Party, asynchronous, select

CA = certs.root("ca")
OTHER_CA = certs.root("other ca")
BAD = certs.leaf(CA, "bad")
PEER = security(certs.leaf(CA, "peer"), [CA, OTHER_CA])
ROLES = ("client", "scheduler", "worker")


class Folder:
    """The files of a cluster; `issue` replaces all identities."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.files = {"tls_ca_file": str(path / "ca.pem")}
        for role in ROLES:
            self.files[f"tls_{role}_cert"] = self.files[f"tls_{role}_key"] = str(
                path / f"{role}.pem"
            )
        self.crl = str(path / "crl.pem")
        self.replace("ca.pem", CA.pem)
        self.replace("crl.pem", certs.crl(CA))
        self.issue("old")

    def replace(self, name: str, text: str) -> None:
        new = self.path / "new"
        new.touch(mode=0o600)
        new.write_text(text)
        os.replace(new, self.path / name)

    def issue(self, name: str) -> None:
        for role in ROLES:
            node = certs.leaf(CA, f"{name} {role}", names=["node"])
            self.replace(f"{role}.pem", node.pem + node.key_pem)


@pytest.fixture(autouse=True)
def time_for_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process, a check of files may take as long as a busy machine needs."""
    give_checks_time(monkeypatch)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


@asynchronous
async def test_comms_follow_under_either_listener(kind: str, folder: Folder) -> None:
    """Our context under distributed's own classes and under ours; an open comm goes on."""
    one = Security(**folder.files, tls_reload_interval=0)
    party = Party(kind, "tls", one)

    async def tell(comm: Comm) -> None:
        while True:
            try:
                await comm.read()
            except OSError:
                return
            await comm.write(common_name(comm.extra_info["peercert"]))

    async with party.listen(tell) as listener:
        comms = []
        for name in ("old", "new"):
            folder.issue(name)
            comms.append(await party.connect(listener.contact_address))
        for comm, name in zip(comms, ("old", "new"), strict=True):
            await comm.write("who am I?")
            assert await comm.read() == f"{name} client"
            assert common_name(comm.extra_info["peercert"]) == f"{name} scheduler"
        folder.replace("ca.pem", OTHER_CA.pem)
        with pytest.raises(OSError, match=r"does not match|not signed by our CA|not our"):
            await party.connect(listener.contact_address, timeout=2)
        for comm in comms:
            await comm.write("and now?")
            assert (await comm.read()).endswith("client")
            await comm.close()


@asynchronous
async def test_processes_of_a_cluster_follow(folder: Folder) -> None:
    """Scheduler, nanny and worker process with our `Security`, while a client computes."""
    one = Security(**folder.files, tls_crl_file=folder.crl, tls_reload_interval=0)
    async with (
        Scheduler(
            security=one,
            host="127.0.0.1",
            port=0,
            dashboard=False,
            dashboard_address="127.0.0.1:0",
        ) as scheduler,
        Nanny(
            scheduler.address,
            security=one,
            nthreads=1,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
            local_directory=str(folder.path),
        ) as nanny,
        Client(scheduler.address, security=one, asynchronous=True) as client,
    ):
        addresses = {
            scheduler.address: "scheduler",
            nanny.address: "worker",
            nanny.worker_address: "worker",
        }
        await exercise(client, addresses, "old")
        folder.issue("new")
        folder.replace("crl.pem", certs.crl(CA, BAD))
        await exercise(client, addresses, "new")


async def exercise(client: Client, addresses: dict[str, str], name: str) -> None:
    """Look at what each address shows and dials with, and whether it honours the CRL."""
    bad = foreign_context("client", BAD, [CA])
    for address, role in addresses.items():
        for _ in range(100):  # a busy machine may not be done with its look in the first one
            if await asyncio.to_thread(name_at, address, client_context(PEER)) == f"{name} {role}":
                break
        shown = await asyncio.to_thread(name_at, address, client_context(PEER))
        assert shown == f"{name} {role}"
        if name == "old":
            assert await asyncio.to_thread(name_at, address, bad) == f"old {role}"
        else:
            with pytest.raises(ssl.SSLError, match="REVOKED"):
                await asyncio.to_thread(name_at, address, bad)
    assert await client.submit(sum, [1, 2, 3], pure=False) == 6
    seen: list[str] = []

    async def note(comm: Comm) -> None:
        seen.append(common_name(comm.extra_info["peercert"]))
        comm.abort()

    select("ours")
    good, revoked = PEER, security(BAD, [CA])
    for who, expected in ((good, ["peer"]), (revoked, ["bad"])):
        listener = distributed.comm.listen(
            "tls://127.0.0.1:0", note, **who.get_listen_args("scheduler")
        )
        async with listener:
            where = listener.contact_address
            answers = [
                *(await client.run(dial, where)).values(),
                *(await client.run(dial, where, nanny=True)).values(),
                await client.run_on_scheduler(dial, where),
            ]
            if who is revoked and name == "new":
                assert all("it has been revoked" in answer for answer in answers), answers
            else:
                assert answers == expected * 3
    assert set(seen) == {f"{name} worker", f"{name} scheduler"}


# With distributed's own Security


@pytest.fixture
def stock(folder: Folder) -> distributed.Security:
    uninstall()
    return distributed.Security(**folder.files, require_encryption=True)


def test_it_gives_out_our_contexts_while_we_are_installed(stock: distributed.Security) -> None:
    methods = (stock.get_listen_args, stock.get_connection_args)
    for role in ROLES:
        for get in methods:
            assert type(get(role)["ssl_context"]) is ssl.SSLContext
    install()
    for role in ROLES:
        for name in ("get_listen_args", "get_connection_args"):
            args = getattr(stock, name)(role)
            assert args["ssl_context"] is getattr(stock, name)(role)["ssl_context"]
            uninstall()
            before = getattr(stock, name)(role)
            install()
            assert args.keys() == before.keys()
            assert isinstance(args["ssl_context"], FollowingContext)
            args.pop("ssl_context")
            before.pop("ssl_context")
            assert args == before
    uninstall()
    assert type(stock.get_listen_args("worker")["ssl_context"]) is ssl.SSLContext


def test_what_has_no_identity_is_as_before(folder: Folder) -> None:
    install()
    for one in (
        distributed.Security(),
        distributed.Security(tls_ca_file=folder.files["tls_ca_file"]),
        distributed.Security(tls_worker_cert=folder.files["tls_worker_cert"]),
    ):
        assert one.get_listen_args("worker")["ssl_context"] is None
        assert one.get_connection_args("worker")["ssl_context"] is None
    with pytest.raises(ValueError, match="unknown role"):
        distributed.Security().get_listen_args("nobody")


def test_its_values_count(folder: Folder) -> None:
    install()
    one = distributed.Security(
        **folder.files, tls_min_version=ssl.TLSVersion.TLSv1_3, extra_conn_args={"a": 1}
    )
    args = one.get_connection_args("client")
    assert args["ssl_context"].minimum_version is ssl.TLSVersion.TLSv1_3
    assert args["extra_conn_args"] == {"a": 1}
    with (
        dask.config.set({"sealwire.tls.crl-file": "/nowhere.pem"}),
        pytest.raises(PEMError, match=r"tls_crl_file \(/nowhere\.pem\): no such file"),
    ):
        one.get_listen_args("worker")


@pytest.mark.parametrize("make", [Worker, Nanny])
@asynchronous
async def test_the_preload_sees_to_what_was_there_before(
    make: Callable[..., Any], stock: distributed.Security, folder: Folder
) -> None:
    server = make("tls://127.0.0.1:1", security=stock, local_directory=str(folder.path))
    sees_to(server, "worker")


@asynchronous
async def test_the_preload_sees_to_a_client(stock: distributed.Security) -> None:
    async with Scheduler(
        security=stock,
        host="127.0.0.1",
        port=0,
        dashboard=False,
        dashboard_address="127.0.0.1:0",
    ) as scheduler:
        client = Client(scheduler.address, security=stock, asynchronous=True)
        sees_to(client, "client")
        await client
        await client.close()


def sees_to(server: Any, role: str) -> None:
    assert type(server.connection_args["ssl_context"]) is ssl.SSLContext
    install()
    preload.dask_setup(server)
    context = server.connection_args["ssl_context"]
    assert isinstance(context, FollowingContext)
    assert server.rpc.connection_args["ssl_context"] is context
    assert context is server.security.get_connection_args(role)["ssl_context"]
    preload.dask_setup(server)
    assert server.connection_args["ssl_context"] is context


@asynchronous
async def test_what_cannot_be_used_leaves_no_context(
    stock: distributed.Security, folder: Folder
) -> None:
    """A preload's errors are only logged: the server must not dial with what it had."""
    worker = Worker("tls://127.0.0.1:1", security=stock, local_directory=str(folder.path))
    install()
    with dask.config.set({"sealwire.tls.crl-file": "/nowhere.pem"}), pytest.raises(PEMError):
        preload.dask_setup(worker)
    assert worker.connection_args["ssl_context"] is None
