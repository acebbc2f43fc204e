"""Passwords, revocation and allow-lists in Dask: every process of a cluster abides by them."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from typing import Any

import distributed
import pytest
from distributed import Client, Nanny, Scheduler
from distributed.comm.core import CommClosedError, FatalCommClosedError

from sealwire.comm import HandshakeError
from sealwire.dask_backend import Security, install
from support import certs
from support.handshakes import foreign_context, name_at, told_at
from support.parties import Party, asynchronous, echo, pair
from support.processes import HANG, PRELOAD, Programs, tls_options

CA = certs.root("ca")
REVOKED, UNLISTED = certs.leaf(CA, "worker-1"), certs.leaf(CA, "unlisted")
ALLOWED = certs.leaf(CA, "worker-2")
PASSWORD = "0123"  # which Dask's configuration would take for a number
ROLES = ("client", "scheduler", "worker")


@pytest.fixture(autouse=True)
def _installed() -> None:
    """Whatever was undone before in this process: the words of refusals are our backend's."""
    install()


@pytest.fixture(scope="module")
def fields() -> dict[str, Any]:
    """Encrypted identities, a CRL and an allow-list."""
    made: dict[str, Any] = {
        "tls_ca_file": CA.pem,
        "tls_crl_file": certs.crl(CA, REVOKED),
        "tls_key_password": PASSWORD,
        "tls_allowed_peers": {role: ["scheduler", "worker*", "client"] for role in ROLES},
    }
    for role in ROLES:
        node = certs.leaf(CA, role)
        made[f"tls_{role}_cert"] = node.pem
        made[f"tls_{role}_key"] = node.encrypted_key_pem(PASSWORD.encode())
    return made


async def abides(address: str, role: str) -> None:
    """A listener of a process lets in whom it should, and nobody else."""

    def knock(node: certs.Node) -> str:
        return name_at(address, foreign_context("client", node, [CA]))

    assert await asyncio.to_thread(knock, ALLOWED) == role
    with pytest.raises(ssl.SSLError, match="REVOKED"):
        await asyncio.to_thread(knock, REVOKED)
    unlisted = foreign_context("client", UNLISTED, [CA])
    told = await asyncio.to_thread(told_at, address, unlisted)
    assert told["refused"] == (
        "its names (CN=unlisted, DNS unlisted) match none of the peers that are allowed here"
    )


async def dials_no_stranger(client: Client) -> None:
    """Nor does a process of the cluster talk to one that it dials."""

    async def try_it(address: str, dask_worker: Any = None, dask_scheduler: Any = None) -> str:
        try:
            comm = await (dask_worker or dask_scheduler).rpc.connect(address)
        except OSError as error:
            return str(error)
        comm.abort()
        return "connected"

    context = foreign_context("server", UNLISTED, [CA])
    async with distributed.comm.listen("tls://127.0.0.1:0", echo, ssl_context=context) as listener:
        where = listener.contact_address
        answers = [
            *(await client.run(try_it, where)).values(),
            *(await client.run(try_it, where, nanny=True)).values(),
            await client.run_on_scheduler(try_it, where),
        ]
    assert len(answers) == 3
    for answer in answers:
        assert "its names (CN=unlisted, DNS unlisted) match none of the allowed peers" in answer


@asynchronous
async def test_our_security_carries_it_all(fields: dict[str, Any], tmp_path: Path) -> None:
    one = Security(**fields)
    async with (
        Scheduler(
            security=one, host="127.0.0.1", port=0, dashboard=False, dashboard_address="127.0.0.1:0"
        ) as scheduler,
        Nanny(
            scheduler.address,
            security=one,
            nthreads=1,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
            local_directory=str(tmp_path),
        ) as nanny,
        Client(scheduler.address, security=one, asynchronous=True) as client,
    ):
        await abides(scheduler.address, "scheduler")
        await abides(nanny.address, "worker")
        await abides(nanny.worker_address, "worker")
        await dials_no_stranger(client)
        assert await client.submit(sum, [1, 2, 3]) == 6


@pytest.fixture
def files(fields: dict[str, Any], tmp_path: Path) -> dict[str, str]:
    """As files."""
    paths = {}
    for name, text in fields.items():
        if name.endswith(("_file", "_cert", "_key")):
            path = tmp_path / f"{name}.pem"
            path.touch(mode=0o600)
            path.write_text(text)
            paths[name] = str(path)
    return paths


@asynchronous
async def test_the_commands_take_it_from_the_configuration(
    fields: dict[str, Any],
    files: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    forked: Programs,
) -> None:
    """Also what opens the keys, in the nanny's worker too, which asks before it has a preload."""
    monkeypatch.setenv("DASK_SEALWIRE__TLS__KEY_PASSWORD", PASSWORD)
    monkeypatch.setenv("DASK_SEALWIRE__TLS__CRL_FILE", files["tls_crl_file"])
    monkeypatch.setenv("DASK_SEALWIRE__TLS__ALLOWED_PEERS", "['scheduler', 'worker*', 'client']")
    _, address = forked.scheduler("tls", *tls_options(files, "scheduler"), *PRELOAD)
    forked.worker(address, *tls_options(files, "worker"), *PRELOAD)
    one = Security(**fields)
    async with Client(address, security=one, asynchronous=True) as client:
        await client.wait_for_workers(1, timeout=HANG)
        told_by_scheduler = (await client.scheduler.identity(n_workers=-1))["workers"]
        assert len(told_by_scheduler) == 1
        for where, told in told_by_scheduler.items():
            await abides(where, "worker")
            await abides(told["nanny"], "worker")
        await abides(address, "scheduler")
        await dials_no_stranger(client)


@asynchronous
async def test_comms_of_either_backend(kind: str, fields: dict[str, Any]) -> None:
    """Our contexts under distributed's own classes too."""
    party = Party(kind, "tls", Security(**fields))
    async with pair(party) as (near, far):
        await near.write("let in")
        assert await far.read() == "let in"
    unlisted = Security(
        tls_ca_file=CA.pem,
        tls_client_cert=UNLISTED.pem + UNLISTED.key_pem,
        tls_scheduler_cert=UNLISTED.pem + UNLISTED.key_pem,
    )
    handled: list[Any] = []
    async with party.listen(handled.append) as listener:
        dialler = Party("stock", "tls", unlisted)

        async def talk() -> None:
            comm = await dialler.connect(listener.contact_address, timeout=1)
            assert kind == "ours", "stock says nothing in place of its hello"
            assert "CN=unlisted" in comm.remote_info["refused"]  # which stock does not look for
            await comm.read()

        with pytest.raises(OSError, match=r"Timed out|[Cc]losed|reset"):
            await talk()
    assert not handled
    async with Party("stock", "tls", unlisted).listen(echo) as listener:
        with pytest.raises(OSError, match=r"CN=unlisted|does not match") as caught:
            await party.connect(listener.contact_address, timeout=2)
    if kind == "ours":
        assert isinstance(caught.value.__cause__, HandshakeError) or "CN=unlisted" in str(
            caught.value
        )


LISTED = {"tls_allowed_peers": ["client*", "scheduler*"]}


@pytest.mark.parametrize("version", ["1.2", "1.3"])
@asynchronous
async def test_a_client_our_listener_refuses_is_told(version: str) -> None:
    """`connect` ends at once, with the cause and its remedy, though the handshake was over."""
    picky = Party("ours", "tls", identity("scheduler", **LISTED, tls_max_version=version))
    eve = Party("ours", "tls", identity("eve"))
    handled: list[Any] = []

    async def handle(comm: Any) -> None:
        handled.append(comm)
        await comm.write("served")

    async with picky.listen(handle) as listener:
        with pytest.raises(FatalCommClosedError) as caught:
            await eve.connect(listener.contact_address)
        listed = await Party("ours", "tls", identity("client")).connect(listener.contact_address)
        assert await listed.read() == "served"
        await listed.close()
    assert "it refused our certificate: its names (CN=eve, DNS eve) match" in str(caught.value)
    assert "(our certificate: tls_client_cert (PEM text in memory), valid until" in str(
        caught.value
    )
    assert "; add one of them to the other side's tls_allowed_peers" in str(caught.value)
    assert len(handled) == 1


@pytest.mark.parametrize("version", ["1.2", "1.3"])
@asynchronous
async def test_a_server_our_connector_refuses_is_told(
    version: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "sealwire.comm")
    picky = Party("ours", "tls", identity("client", **LISTED, tls_max_version=version))
    eve = Party("ours", "tls", identity("eve"))
    handled: list[Any] = []
    async with eve.listen(handled.append) as listener:
        with pytest.raises(FatalCommClosedError, match="we refused its certificate: its names"):
            await picky.connect(listener.contact_address)
        while not listener.stats.refused:
            await asyncio.sleep(0)
    assert not handled
    assert listener.stats.refused == {"by-peer": 1}
    (record,) = [each for each in caplog.records if each.name == "sealwire.comm"]
    assert "it refused our certificate: its names (CN=eve, DNS eve) match" in record.getMessage()
    assert "(our certificate: tls_scheduler_cert (PEM text in memory)" in record.getMessage()
    assert record.exc_info is None


@asynchronous
async def test_a_stock_listener_is_none_the_worse() -> None:
    """To it we are a peer that says hello and leaves."""
    picky = Party("ours", "tls", identity("client", **LISTED))
    served = asyncio.Event()

    async def serve(comm: Any) -> None:
        with pytest.raises(CommClosedError):
            await comm.read()
        served.set()

    async with Party("stock", "tls", identity("eve")).listen(serve) as listener:
        with pytest.raises(FatalCommClosedError, match="we refused its certificate: its names"):
            await picky.connect(listener.contact_address)
        await served.wait()
        again = await Party("stock", "tls", identity("listed")).connect(listener.contact_address)
        again.abort()


def identity(name: str, **fields: Any) -> Security:
    """All roles are `name`."""
    node = certs.leaf(CA, name)
    pem = dict.fromkeys((f"tls_{role}_cert" for role in ROLES), node.pem + node.key_pem)
    return Security(tls_ca_file=CA.pem, **pem, **fields)
