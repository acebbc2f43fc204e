"""Contexts that follow their files, through real handshakes and every way to replace a file."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import certs
import pytest
from aio import aio
from handshakes import client_context, security, server_context, shake

from sealwire.comm import Comm, HandshakeError, connect, listen
from sealwire.security import ConfigError, KeyMismatch, PEMError, Security, reload
from sealwire.security.tls import load

CA = certs.root("ca")
OTHER_CA = certs.root("other ca")
OLD = certs.leaf(CA, "old")
NEW = certs.leaf(CA, "new")
FOREIGN = certs.leaf(OTHER_CA, "foreign")
PEER = security(certs.leaf(CA, "peer"), [CA, OTHER_CA])


class Folder:
    """The files of a worker, and the `Security` that follows them."""

    def __init__(self, path: Path, **fields: Any) -> None:
        self.path = path
        for name, text in {
            "ca.pem": CA.pem, "worker.pem": OLD.pem, "worker.key": OLD.key_pem
        }.items():  # fmt: skip
            self.write(name, text)
        self.security = Security(
            tls_ca_file=path / "ca.pem",
            tls_worker_cert=path / "worker.pem",
            tls_worker_key=path / "worker.key",
            **{"tls_reload_interval": 0, **fields},
        )
        self.server = server_context(self.security, "worker")
        self.client = client_context(self.security, "worker")

    def write(self, name: str, text: str) -> None:
        """In place, as an editor or `cp` writes."""
        path = self.path / name
        path.touch(mode=0o600)
        path.write_text(text)

    def replace(self, name: str, text: str) -> None:
        """By renaming, so that nobody ever sees half a file."""
        self.write(f"{name}.new", text)
        os.replace(self.path / f"{name}.new", self.path / name)

    def install(self, node: certs.Node) -> None:
        self.replace("worker.pem", node.pem)
        self.replace("worker.key", node.key_pem)

    def shows(self) -> bytes:
        """The certificate that both sides show in new handshakes."""
        for outcome in (
            shake(self.server, client_context(PEER)),
            shake(server_context(PEER), self.client),
        ):
            assert outcome.accepted, (outcome.server.error, outcome.client.error)
        seen = [
            shake(self.server, client_context(PEER)).client.tls.getpeercert(binary_form=True),
            shake(server_context(PEER), self.client).server.tls.getpeercert(binary_form=True),
        ]
        assert seen[0] == seen[1]
        assert seen[0] is not None
        return seen[0]

    def trusts(self, node: certs.Node) -> bool:
        other = security(node, [CA, OTHER_CA])
        as_client = shake(self.server, client_context(other)).accepted
        as_server = shake(server_context(other), self.client).accepted
        assert as_client is as_server
        return as_client


@pytest.fixture
def folder(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Folder:
    caplog.set_level(logging.INFO, "sealwire")
    return Folder(tmp_path)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]


def test_an_identity_replaced_by_renaming(folder: Folder, caplog: pytest.LogCaptureFixture) -> None:
    assert folder.shows() == OLD.der
    folder.install(NEW)
    assert folder.shows() == NEW.der
    assert not warnings(caplog)
    said = "TLS handshakes use the new tls_worker_cert, tls_worker_key from now on"
    assert [record.getMessage() for record in caplog.records] == [said]


def test_files_with_the_same_times_and_size(folder: Folder) -> None:
    """Contents count: a restored backup, or a copy that keeps the times."""
    assert folder.shows() == OLD.der
    before = os.stat(folder.path / "worker.pem")
    both = certs.leaf(CA, "bad", key=OLD.key)  # the same length as "old"
    text = both.pem
    while len(text) != len(OLD.pem):
        both = certs.leaf(CA, "bad", key=OLD.key)
        text = both.pem
    folder.write("worker.pem", text)
    os.utime(folder.path / "worker.pem", ns=(before.st_atime_ns, before.st_mtime_ns))
    after = os.stat(folder.path / "worker.pem")
    assert (after.st_mtime_ns, after.st_size, after.st_ino) == (
        before.st_mtime_ns, before.st_size, before.st_ino
    )  # fmt: skip
    assert folder.shows() == both.der


def test_symbolic_links_swapped_as_kubernetes_does(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def release(name: str, node: certs.Node) -> None:
        version = tmp_path / name
        version.mkdir()
        for file, text in (("ca.pem", CA.pem), ("tls.crt", node.pem), ("tls.key", node.key_pem)):
            (version / file).touch(mode=0o600)
            (version / file).write_text(text)
        (tmp_path / "..data_tmp").symlink_to(name)
        os.replace(tmp_path / "..data_tmp", tmp_path / "..data")

    release("..2026_01", OLD)
    for file in ("ca.pem", "tls.crt", "tls.key"):
        (tmp_path / file).symlink_to(f"..data/{file}")
    one = Security(
        tls_ca_file=tmp_path / "ca.pem",
        tls_scheduler_cert=tmp_path / "tls.crt",
        tls_scheduler_key=tmp_path / "tls.key",
        tls_reload_interval=0,
    )
    server = server_context(one)
    for name, node in (("..2026_02", NEW), ("..2026_03", OLD)):
        release(name, node)
        outcome = shake(server, client_context(PEER))
        assert outcome.client.tls.getpeercert(binary_form=True) == node.der
    assert not warnings(caplog)


BREAKAGES: dict[str, tuple[Callable[[Folder], object], str]] = {
    "certificate cut short": (
        lambda folder: folder.write("worker.pem", NEW.pem[:300]),
        r"tls_worker_cert .*/worker\.pem\): no certificate in it",
    ),
    "key cut short": (
        lambda folder: folder.write("worker.key", NEW.key_pem[:60]),
        r"tls_worker_key .*/worker\.key\): no private key in it",
    ),
    "half of a CA bundle": (
        lambda folder: folder.write("ca.pem", OTHER_CA.pem + CA.pem[:200]),
        r"tls_ca_file .*/ca\.pem\): a PEM block in it is cut short; write the file again",
    ),
    "half of a chain": (
        lambda folder: folder.write("worker.pem", OLD.pem + CA.pem[:200]),
        r"tls_worker_cert .*: a PEM block in it is cut short",
    ),
    "empty": (lambda folder: folder.write("worker.pem", ""), "the file is empty"),
    "gone": (
        lambda folder: (folder.path / "ca.pem").unlink(),
        r"cannot read tls_ca_file .*no such file",
    ),
    "certificate without its key": (
        lambda folder: folder.replace("worker.pem", NEW.pem),
        "the private key does not belong to the first certificate",
    ),
    "key without its certificate": (
        lambda folder: folder.replace("worker.key", NEW.key_pem),
        "the private key does not belong to the first certificate",
    ),
    "not PEM": (lambda folder: folder.write("ca.pem", "hello"), "no certificate in it"),
    "a damaged CA": (
        lambda folder: folder.write("ca.pem", CA.pem.replace("MII", "AII", 1)),
        "a certificate in it is damaged",
    ),
}


@pytest.mark.parametrize("name", BREAKAGES)
def test_what_cannot_be_used_changes_nothing_and_is_warned_of_once(
    name: str, folder: Folder, caplog: pytest.LogCaptureFixture
) -> None:
    do, words = BREAKAGES[name]
    do(folder)
    for _ in range(3):
        assert folder.shows() == OLD.der
        assert folder.trusts(NEW)
        assert not folder.trusts(FOREIGN)
    (said,) = warnings(caplog)
    assert said.endswith("; until then TLS goes on with what was read before")
    with pytest.raises(PEMError, match=words) as caught:
        folder.security.reload()
    assert said.startswith(str(caught.value))
    assert folder.shows() == OLD.der
    # Once it is whole, it counts at once.
    folder.replace("ca.pem", CA.pem)
    folder.install(NEW)
    assert folder.shows() == NEW.der
    assert len(warnings(caplog)) == 1


def test_every_change_that_cannot_be_used_is_warned_of(
    folder: Folder, caplog: pytest.LogCaptureFixture
) -> None:
    for number, text in enumerate(("first", "second", "third"), 1):
        folder.write("ca.pem", text)
        assert folder.shows() == OLD.der
        assert folder.shows() == OLD.der
        assert len(warnings(caplog)) == number


def test_files_that_are_being_replaced_are_no_reason_to_warn(
    folder: Folder, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The key comes a moment after its certificate, while we look."""

    def slow(*args: Any) -> None:
        try:
            load(*args)
        except KeyMismatch:
            folder.replace("worker.key", NEW.key_pem)
            raise

    monkeypatch.setattr(reload, "load", slow)
    folder.replace("worker.pem", NEW.pem)
    assert folder.shows() == NEW.der
    assert not warnings(caplog)


def test_back_to_what_was_there_is_no_change_but_a_new_break_is(
    folder: Folder, caplog: pytest.LogCaptureFixture
) -> None:
    for number in (1, 2):
        folder.write("ca.pem", "broken")
        assert folder.shows() == OLD.der
        folder.write("ca.pem", CA.pem)
        assert folder.shows() == OLD.der
        assert len(warnings(caplog)) == number
    assert folder.security.reload() == []


def test_a_ca_comes_and_goes(folder: Folder) -> None:
    """A rolling rotation: the old alone, both, the new alone."""
    assert folder.trusts(NEW)
    assert not folder.trusts(FOREIGN)
    folder.replace("ca.pem", CA.pem + OTHER_CA.pem)
    assert folder.trusts(NEW)
    assert folder.trusts(FOREIGN)
    assert folder.server.cert_store_stats()["x509_ca"] == 2
    folder.replace("ca.pem", OTHER_CA.pem)
    assert not folder.trusts(NEW)
    assert folder.trusts(FOREIGN)
    for context in (folder.server, folder.client):
        assert context.get_ca_certs(binary_form=True) == [OTHER_CA.der]


def test_files_are_looked_at_once_an_interval(tmp_path: Path) -> None:
    """Within it nothing is read: what has changed is seen only after it."""
    folder = Folder(tmp_path, tls_reload_interval=3600)
    folder.install(NEW)
    assert folder.shows() == OLD.der
    assert folder.security.reload() == ["tls_worker_cert", "tls_worker_key"]
    assert folder.shows() == NEW.der
    assert folder.security.reload() == []


def test_a_short_interval_passes(tmp_path: Path) -> None:
    folder = Folder(tmp_path, tls_reload_interval="50 ms")
    folder.install(NEW)
    began = time.monotonic()
    while server_certificate(folder) != NEW.der:
        assert time.monotonic() < began + 30


def server_certificate(folder: Folder) -> bytes | None:
    return shake(folder.server, client_context(PEER)).client.tls.getpeercert(binary_form=True)


def test_never_means_never(tmp_path: Path) -> None:
    folder = Folder(tmp_path, tls_reload_interval="never")
    folder.install(NEW)
    assert folder.shows() == OLD.der
    assert folder.security.reload() == ["tls_worker_cert", "tls_worker_key"]
    assert folder.shows() == NEW.der


def test_reload_by_hand_tells_what_is_wrong(folder: Folder) -> None:
    folder.replace("worker.key", NEW.key_pem)
    with pytest.raises(KeyMismatch, match="tls_worker_key"):
        folder.security.reload()
    folder.replace("worker.pem", NEW.pem)
    assert folder.security.reload() == ["tls_worker_cert", "tls_worker_key"]
    assert Security().reload() == []


def test_reload_goes_on_to_the_other_roles(tmp_path: Path) -> None:
    folder = Folder(tmp_path, tls_client_cert=tmp_path / "client.pem", tls_reload_interval=3600)
    folder.write("client.pem", OLD.pem + OLD.key_pem)
    client = client_context(folder.security, "client")
    folder.replace("worker.key", NEW.key_pem)
    folder.replace("client.pem", NEW.pem + NEW.key_pem)
    with pytest.raises(KeyMismatch):
        folder.security.reload()
    seen = shake(server_context(PEER), client).server.tls.getpeercert(binary_form=True)
    assert seen == NEW.der


def test_material_in_memory_is_never_looked_at_again() -> None:
    one = security(OLD, [CA], tls_reload_interval=0)
    context = server_context(one)
    assert shake(context, client_context(PEER)).accepted
    assert one.reload() == []


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
        for _ in range(10):
            for node in (NEW, OLD):
                folder.replace("worker.pem", node.pem + node.key_pem)
                folder.replace("worker.key", node.key_pem)
        folder.install(NEW)
        assert folder.shows() == NEW.der
        done.set()
    for worker in workers:
        assert worker.result() <= {OLD.der, NEW.der}
