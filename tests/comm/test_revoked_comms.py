"""Comms that are open while a certificate of their peer's is revoked."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sealwire.comm import CloseCode, Comm, CommClosedError, Limits, connect, listen
from sealwire.security import Security
from sealwire.security.contexts import open_peers
from support import HANG, certs
from support.aio import aio, until
from support.endings import documented, row
from support.handshakes import VERSIONS

ROOT = certs.root("root")
BETWEEN = certs.intermediate(ROOT, "between")
ALIKE = certs.root("root")  # another CA of the same name
OURS = certs.leaf(ROOT, "ours")
PEER = certs.leaf(ROOT, "peer")
OTHER = certs.leaf(ROOT, "other")
DEEP = certs.leaf(BETWEEN, "deep", via=[BETWEEN])

Pairs = list[tuple[Comm, Comm]]


class Cluster:
    """Whose list is a file, with peers that have none; each comm as our end and theirs."""

    def __init__(self, folder: Path, *, version: Any = None, interval: Any = 0) -> None:
        self.list = folder / "crl.pem"
        self.put()
        self.how = {"tls_max_version": version} if version else {}
        self.security = self.of(OURS, tls_crl_file=self.list, tls_reload_interval=interval)

    def of(self, node: certs.Node, **fields: Any) -> Security:
        return Security(
            tls_ca_file=ROOT.pem, tls_worker_cert=node.pem, tls_worker_key=node.key_pem,
            **self.how, **fields,
        )  # fmt: skip

    def put(self, *revoked: certs.Node, of_between: tuple[certs.Node, ...] = ()) -> None:
        new = self.list.with_suffix(".new")
        new.write_text(certs.crl(ROOT, *revoked) + certs.crl(BETWEEN, *of_between))
        new.replace(self.list)


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    return Cluster(tmp_path)


@pytest.fixture(scope="module", autouse=True)
def often() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(open_peers, "_PERIOD", 0.05)
        yield


@pytest.fixture
def warnings(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    caplog.set_level(logging.INFO)
    return lambda: [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]


class Both:
    """Comms of our process with peers, dialled by us or by them."""

    def __init__(self, cluster: Cluster, limits: Limits | None = None) -> None:
        self.cluster = cluster
        self.limits = limits
        self.accepted: asyncio.Queue[Comm] = asyncio.Queue()
        self.over = asyncio.Event()
        self.open: list[Comm] = []

    async def _hold(self, comm: Comm) -> None:
        await self.accepted.put(comm)
        await self.over.wait()

    async def __aenter__(self) -> Both:
        self.ours = listen("tls://127.0.0.1:0", self._hold, limits=self.limits,
                           **self.cluster.security.get_listen_args("worker"))  # fmt: skip
        await self.ours.start()
        return self

    async def __aexit__(self, *error: object) -> None:
        for comm in self.open:
            comm.abort()
        self.over.set()
        await self.ours.close()

    async def dialled_by(self, node: certs.Node) -> tuple[Comm, Comm]:
        args = self.cluster.of(node).get_connection_args("worker")
        theirs = await connect(self.ours.contact_address, **args)
        pair = await self.accepted.get(), theirs
        self.open += pair
        return pair

    async def dialled_by_us(self, node: certs.Node) -> tuple[Comm, Comm]:
        accepted: asyncio.Queue[Comm] = asyncio.Queue()

        async def hold(comm: Comm) -> None:
            await accepted.put(comm)
            await self.over.wait()

        args = self.cluster.of(node).get_listen_args("worker")
        server = listen("tls://127.0.0.1:0", hold, **args)
        await server.start()
        how = self.cluster.security.get_connection_args("worker")
        ours = await connect(server.contact_address, **how)
        pair = ours, await accepted.get()
        self.open += pair
        server.stop()
        return pair


async def end_of(comm: Comm) -> CommClosedError:
    with pytest.raises(CommClosedError) as caught:
        await asyncio.wait_for(comm.read(), HANG)
    return caught.value


async def talks(pair: tuple[Comm, Comm]) -> None:
    ours, theirs = pair
    await theirs.write("x")
    assert await asyncio.wait_for(ours.read(), HANG) == "x"


@aio
@pytest.mark.parametrize("version", VERSIONS, ids=["TLS1.2", "TLS1.3"])
async def test_comms_with_a_revoked_peer_are_ended_and_no_others(
    tmp_path: Path, version: Any, warnings: Callable[[], list[str]]
) -> None:
    cluster = Cluster(tmp_path, version=version)
    async with Both(cluster) as both:
        accepted, dialled = await both.dialled_by(PEER), await both.dialled_by_us(PEER)
        others = [await both.dialled_by(OTHER), await both.dialled_by_us(OTHER)]
        cluster.put(PEER)
        for ours, theirs in (accepted, dialled):
            error = await end_of(ours)
            assert (error.code, error.kind, error.closed_by) == (1016, "revoked", "us")
            assert not error.retryable
            assert f"{PEER.certificate.serial_number:x}" in str(error)
            told = await end_of(theirs)
            assert (told.code, told.kind, told.closed_by) == (
                CloseCode.REVOKED, "revoked", "peer",
            )  # fmt: skip
            assert (told.clean, told.retryable) == (False, False)
            assert "has been revoked" in told.reason
            assert row(told) in documented()
        for pair in others:
            await talks(pair)
        assert both.ours.stats.broken == {}, "its handler has not returned"
    assert both.ours.stats.broken == {"revoked": 1}
    (line,) = warnings()
    assert "2 open connections" in line
    assert "CN=peer" in line


@aio
@pytest.mark.parametrize("who", ["leaf", "between"])
async def test_what_stands_above_the_peer_counts_too(
    cluster: Cluster, who: str, warnings: Callable[[], list[str]]
) -> None:
    async with Both(cluster) as both:
        deep, other = await both.dialled_by(DEEP), await both.dialled_by(OTHER)
        if who == "leaf":
            cluster.put(of_between=(DEEP,))
        else:
            cluster.put(BETWEEN)
        assert ("CN=deep" if who == "leaf" else "CN=between") in (await end_of(deep[0])).reason
        await talks(other)
    assert len(warnings()) == 1


def forged(cluster: Cluster) -> None:
    """Of a CA with the same name, which has issued nothing here."""
    cluster.list.write_text(certs.crl(ROOT) + certs.crl(ALIKE, PEER))


def of_another_issuer(cluster: Cluster) -> None:
    """A serial number is one of an issuer."""
    cluster.put(of_between=(PEER,))


def damaged(cluster: Cluster) -> None:
    cluster.list.write_text(certs.crl(ROOT, PEER)[:-40])


def empty(cluster: Cluster) -> None:
    cluster.list.write_text("")


def gone(cluster: Cluster) -> None:
    cluster.list.unlink()


def touched(cluster: Cluster) -> None:
    cluster.put()


@aio
@pytest.mark.parametrize("change", [forged, of_another_issuer, damaged, empty, gone, touched])
async def test_lists_that_say_nothing_of_the_peer(
    cluster: Cluster, change: Callable[[Cluster], None]
) -> None:
    async with Both(cluster) as both:
        pair = await both.dialled_by(PEER)
        change(cluster)
        before = time.monotonic()
        await until(lambda: time.monotonic() > before + 0.3)  # rounds go by
        await talks(pair)
        cluster.put(PEER)
        assert (await end_of(pair[0])).kind == "revoked"


@aio
async def test_reload_ends_them_at_once_where_nothing_is_looked_at(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, interval="never")
    async with Both(cluster) as both:
        pair = await both.dialled_by(PEER)
        cluster.put(PEER)
        before = time.monotonic()
        await until(lambda: time.monotonic() > before + 0.3)
        await talks(pair)
        done = await asyncio.to_thread(cluster.security.reload)
        assert done == ["tls_crl_file"]
        assert (await end_of(pair[0])).kind == "revoked"


@aio
async def test_neither_what_is_queued_nor_what_is_unread_gets_through(cluster: Cluster) -> None:
    limits = Limits(max_queued=64 << 20)
    async with Both(cluster, limits) as both:
        ours, theirs = await both.dialled_by(PEER)
        await theirs.write("unread")
        sent = [asyncio.ensure_future(ours.write(bytes(1 << 20))) for _ in range(40)]
        await until(lambda: ours.queued > 1 << 20)
        cluster.put(PEER)
        await until(ours.closed)
        assert (await end_of(ours)).kind == "revoked"
        got = 0
        while True:
            try:
                await asyncio.wait_for(theirs.read(), HANG)
            except CommClosedError as error:
                assert error.kind == "revoked"
                break
            got += 1
        assert got < 40
        # Not before: the message that was sent in part goes on when the peer reads, and only then.
        assert any(isinstance(e, CommClosedError)
                   for e in await asyncio.gather(*sent, return_exceptions=True))  # fmt: skip


@aio
async def test_who_is_connected_while_the_list_changes_is_ended_too(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A handshake that began with the old list, and was done after the new one was compared."""
    async with Both(cluster) as both:
        await both.dialled_by(OTHER)
        add = open_peers.OpenPeers.add

        def late(self: Any, lists: bytes, peer: Any) -> object:
            cluster.put(PEER)
            cluster.security.reload()
            return add(self, lists, peer)

        monkeypatch.setattr(open_peers.OpenPeers, "add", late)
        cluster.security = cluster.of(OURS, tls_crl_file=cluster.list, tls_reload_interval=0)
        try:
            ours, _ = await both.dialled_by_us(PEER)
            end = await end_of(ours)
        except CommClosedError as error:  # it was ended before its hello
            end = error
        assert end.kind == "revoked"


@aio
async def test_a_security_that_nobody_keeps_is_followed_nevertheless(cluster: Cluster) -> None:
    async with Both(cluster) as both:
        del cluster.security
        cluster.security = cluster.of(OURS, tls_crl_file=cluster.list)
        pair = await both.dialled_by_us(PEER)
        del cluster.security
        cluster.put(PEER)
        assert (await end_of(pair[0])).kind == "revoked"


@aio
async def test_connections_that_are_not_ours_are_told_of(
    cluster: Cluster, warnings: Callable[[], list[str]]
) -> None:
    """With asyncio, whose TLS runs through memory, and with blocking sockets."""
    args = cluster.of(PEER).get_listen_args("worker")
    async with listen("tls://127.0.0.1:0", lambda comm: comm.read(), **args) as listener:
        port = int(listener.contact_address.rpartition(":")[2])
        context: Any = cluster.security.get_connection_args("worker")["ssl_context"]
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)

        def connected() -> ssl.SSLSocket:
            plain = socket.create_connection(("127.0.0.1", port), timeout=HANG)
            return context.wrap_socket(plain)

        blocking = await asyncio.to_thread(connected)
        closed = await asyncio.to_thread(connected)
        closed.close()
        cluster.put(PEER)
        await until(lambda: len(warnings()) > 0)
        assert not writer.is_closing()
        assert blocking.fileno() > 0
        writer.close()
        blocking.close()
    (line,) = warnings()
    assert "2 open connections with who shows it cannot be ended from here" in line
    assert f"127.0.0.1:{port}" in line


@aio
async def test_a_loop_that_is_closed_is_no_matter(
    cluster: Cluster, warnings: Callable[[], list[str]]
) -> None:
    left: list[Comm] = []

    def elsewhere() -> None:
        loop = asyncio.new_event_loop()
        args = cluster.security.get_connection_args("worker")
        left.append(loop.run_until_complete(connect(address, **args)))
        loop.close()

    args = cluster.of(PEER).get_listen_args("worker")
    async with listen("tls://127.0.0.1:0", lambda comm: comm.read(), **args) as listener:
        address = listener.contact_address
        await asyncio.to_thread(elsewhere)
        cluster.put(PEER)
        await until(lambda: len(warnings()) > 0)
        left.pop().abort()
    assert "ending 1 open connection" in warnings()[0]


@aio
async def test_without_a_list_there_is_no_thread(cluster: Cluster) -> None:
    def rounds() -> bool:
        return any(each.name == "sealwire-rounds" for each in threading.enumerate())

    await until(lambda: not rounds())
    cluster.security = cluster.of(OURS)
    async with Both(cluster) as both:
        await both.dialled_by(PEER)
        assert not rounds()
    cluster.security = cluster.of(OURS, tls_crl_file=cluster.list)
    async with Both(cluster) as both:
        await both.dialled_by(PEER)
        assert rounds()
    await until(lambda: not rounds())
