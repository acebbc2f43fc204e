"""What a change of the files leaves alone, and who follows it, whatever drives the handshake."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sealwire.comm import Comm, HandshakeError, connect, listen
from sealwire.security import ConfigError
from support import HANG
from support.aio import aio
from support.following import CA, FOREIGN, NEW, OLD, OTHER_CA, PEER, Folder
from support.handshakes import client_context, shake


def test_what_is_set_on_a_context_holds_after_a_change(folder: Folder) -> None:
    folder.server.num_tickets = 0  # as the Dask backend does
    folder.server.maximum_version = folder.client.maximum_version = ssl.TLSVersion.TLSv1_2
    folder.server.set_ciphers("ECDHE-ECDSA-AES256-GCM-SHA384")
    folder.server.set_alpn_protocols(["one", "two"])
    folder.client.set_alpn_protocols(["two"])
    folder.client.options |= ssl.OP_NO_TICKET
    for node in (OLD, NEW):
        folder.install(node)
        folder.security.reload()
        tls = shake(folder.server, client_context(PEER)).client.tls
        assert tls.getpeercert(binary_form=True) == node.der
        assert tls.version() == "TLSv1.2"
        assert tls.cipher()[0] == "ECDHE-ECDSA-AES256-GCM-SHA384"  # type: ignore[index]
        both = shake(folder.server, folder.client)
        assert both.accepted
        assert both.client.tls.selected_alpn_protocol() == "two"
        assert both.client.tls.context.options & ssl.OP_NO_TICKET
        assert both.server.tls.context.num_tickets == 0


def test_what_is_refused_stays_refused_after_a_change(folder: Folder) -> None:
    folder.install(NEW)
    assert folder.shows() == NEW.der
    with pytest.raises(ConfigError, match="verify_mode"):
        folder.server.verify_mode = ssl.CERT_NONE
    with pytest.raises(ConfigError, match="num_tickets"):
        folder.server.num_tickets = 2
    with pytest.raises(ConfigError, match="follows its files; set tls_ca_file"):
        folder.server.load_verify_locations(cadata=OTHER_CA.pem)
    with pytest.raises(ConfigError, match="follows its files"):
        folder.server.load_cert_chain(folder.path / "worker.pem", folder.path / "worker.key")
    inner = shake(folder.server, folder.client).server.tls.context
    assert inner.verify_mode is ssl.CERT_REQUIRED
    assert not folder.trusts(FOREIGN)


def test_no_session_is_resumed_across_a_change(folder: Folder) -> None:
    folder.server.maximum_version = folder.client.maximum_version = ssl.TLSVersion.TLSv1_2
    first = shake(folder.server, folder.client)
    assert first.accepted
    folder.install(NEW)
    assert folder.shows() == NEW.der
    assert folder.server.session_stats()["number"] == 0


def test_open_connections_go_on(folder: Folder) -> None:
    outcome = shake(folder.server, folder.client)
    folder.replace("ca.pem", OTHER_CA.pem)
    assert not folder.trusts(NEW)
    assert outcome.server.tls.write(b"still") == 5
    assert outcome.client.tls.version() is not None


@pytest.fixture
def accepting(folder: Folder) -> Iterator[tuple[Folder, int]]:
    """A blocking server made of one listening `SSLSocket`, as a program of another kind has.

    It begins after a first change.
    """
    folder.replace("ca.pem", CA.pem + OTHER_CA.pem)
    assert folder.trusts(FOREIGN)
    listening = folder.server.wrap_socket(socket.create_server(("127.0.0.1", 0)), server_side=True)

    def serve() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except ssl.SSLError:
                continue
            except OSError:
                return
            with connection:
                connection.sendall(b"x")

    thread = threading.Thread(target=serve)
    thread.start()
    yield folder, listening.getsockname()[1]
    listening.shutdown(socket.SHUT_RDWR)  # wakes accept
    thread.join(30)
    listening.close()
    assert not thread.is_alive()


def certificate_at(port: int) -> bytes | None:
    with (
        socket.create_connection(("127.0.0.1", port), timeout=30) as plain,
        client_context(PEER).wrap_socket(plain) as tls,
    ):
        assert tls.recv(1) == b"x"
        return tls.getpeercert(binary_form=True)


def test_a_listening_ssl_socket_follows_too(accepting: tuple[Folder, int]) -> None:
    folder, port = accepting
    assert certificate_at(port) == OLD.der
    folder.install(NEW)
    assert certificate_at(port) == NEW.der


@aio
async def test_comms_follow(tmp_path: Path) -> None:
    """The standalone comm, with what it was given at its start; an open comm goes on."""
    folder = Folder(tmp_path)
    listen_args = folder.security.get_listen_args("worker")
    connect_args = folder.security.get_connection_args("worker")
    async with listen("tls://127.0.0.1:0", tell_certificate, **listen_args) as listener:
        comms = []
        for node in (OLD, NEW):
            folder.install(node)
            comms.append(await connect(listener.contact_address, timeout=20, **connect_args))
        for comm, name in zip(comms, ("old", "new"), strict=True):
            await comm.write("who am I?")
            assert await comm.read() == name
            assert common_name(comm) == name
        folder.replace("ca.pem", OTHER_CA.pem)
        with pytest.raises(HandshakeError, match=r"not our|not signed by our CA"):
            await connect(listener.contact_address, timeout=20, **connect_args)
        for comm in comms:
            await comm.write("and now?")
            assert await comm.read() in ("old", "new")
            await comm.close()


async def tell_certificate(comm: Comm) -> None:
    async for _ in comm:
        await comm.write(common_name(comm))


def common_name(comm: Comm) -> str:
    return str(comm.extra_info["peercert"]["subject"][0][0][1])


@aio
async def test_asyncios_own_server_and_client_follow(tmp_path: Path) -> None:
    folder = Folder(tmp_path)

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        writer.write(b"%d\n" % len(seen) + seen)
        writer.close()

    server = await asyncio.start_server(greet, "127.0.0.1", 0, ssl=folder.server)
    port = server.sockets[0].getsockname()[1]
    for node in (OLD, NEW):
        folder.install(node)
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=folder.client)
        shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        told = await reader.readexactly(int(await reader.readline()))
        assert shown == told == node.der
        writer.close()
    server.close()


def test_many_threads_while_files_are_replaced(
    folder: Folder, caplog: pytest.LogCaptureFixture
) -> None:
    """Each handshake sees the old or the new identity, never a mixture; the last sees the last."""
    done = threading.Event()

    def shake_on() -> set[bytes | None]:
        seen = set()
        while not done.is_set():
            outcome = shake(folder.server, client_context(PEER))
            assert outcome.accepted, outcome.server.error
            seen.add(outcome.client.tls.getpeercert(binary_form=True))
        return seen

    with ThreadPoolExecutor(4) as pool:
        workers = [pool.submit(shake_on) for _ in range(4)]
        try:
            for _ in range(10):
                for node in (NEW, OLD):
                    folder.replace("worker.pem", node.pem + node.key_pem)
                    folder.replace("worker.key", node.key_pem)
            folder.install(NEW)
            given_up = time.monotonic() + HANG
            while folder.shows() != NEW.der:  # with the threads computing, a look takes its time
                assert time.monotonic() < given_up
        finally:
            done.set()
    for worker in workers:
        assert worker.result() <= {OLD.der, NEW.der}
