"""Whom the allow-list refuses is told so: both sides know why, and nobody tries again."""

from __future__ import annotations

import asyncio
import select
import socket
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from sealwire.comm import Comm, HandshakeError, connect, listen
from sealwire.comm.interfaces import Listener
from sealwire.comm.wire import hello
from sealwire.security import Security
from support import certs
from support.aio import aio, until
from support.handshakes import VERSIONS, client_context, only_message, security, server_context

CA = certs.root()
PICKY = security(certs.leaf(CA, "picky"), [CA], tls_allowed_peers=["client*"])
EVE = security(certs.leaf(CA, "eve"), [CA])
LET_IN = security(certs.leaf(CA, "client-1"), [CA])

REFUSER = (
    "failed: we refused its certificate: its names (CN=eve, DNS eve) match none of the allowed "
    "peers (client*); name it in tls_allowed_peers (sealwire.tls.allowed-peers) if it is to be let "
    "in"
)
REFUSED = (
    "failed: it refused our certificate: its names (CN=eve, DNS eve) match none of the peers that "
    "are allowed here (our certificate: tls_{}_cert (PEM text in memory), valid until "
)
REMEDY = (
    "; add one of them to the other side's tls_allowed_peers (sealwire.tls.allowed-peers), "
    "or use a certificate it allows"
)

versions = pytest.mark.parametrize("version", VERSIONS, ids=["TLS1.2", "TLS1.3"])


def spoken(version: ssl.TLSVersion, one: Security) -> Security:
    return Security(**{**one.fields(), "tls_max_version": version})


@asynccontextmanager
async def listening(handled: list[str], **args: Any) -> AsyncIterator[Listener]:
    """A listener that keeps the names of those it serves."""

    async def handle(comm: Comm) -> None:
        handled.append(comm.extra_info["peercert"]["subject"][0][0][1])
        await comm.write("served")

    async with listen("tls://127.0.0.1:0", handle, **args) as listener:
        yield listener


@versions
@aio
async def test_by_the_listener(version: ssl.TLSVersion, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "sealwire.comm")
    handled: list[str] = []
    context = server_context(spoken(version, PICKY))
    start = time.monotonic()
    async with listening(handled, ssl_context=context) as listener:
        with pytest.raises(HandshakeError) as caught:
            await connect(listener.contact_address, ssl_context=client_context(EVE))
        await until(lambda: bool(listener.stats.refused))
        assert listener.stats.refused == {"not-allowed": 1}
        assert listener.stats.pending == 0
        args = LET_IN.get_connection_args("worker")
        async with connect(listener.contact_address, **args) as comm:
            assert await comm.read() == "served"
    assert time.monotonic() - start < 15, "it tried again until the 30 s of connect() were over"
    assert handled == ["client-1"]
    assert REFUSED.format("worker") in str(caught.value)
    assert str(caught.value).endswith(REMEDY)
    assert (caught.value.kind, caught.value.retryable) == ("by-peer", False)
    assert caught.value.peer == listener.contact_address
    (record,) = caplog.records
    assert record.getMessage().endswith(REFUSER)
    assert record.exc_info is None


@versions
@aio
async def test_by_the_connector(version: ssl.TLSVersion, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "sealwire.comm")
    handled: list[str] = []
    context = client_context(spoken(version, PICKY))
    async with listening(handled, **EVE.get_listen_args("scheduler")) as listener:
        with pytest.raises(HandshakeError) as caught:
            await connect(listener.contact_address, ssl_context=context)
        await until(lambda: bool(listener.stats.refused))
        assert listener.stats.refused == {"by-peer": 1}
    assert handled == []
    assert str(caught.value).endswith(REFUSER)
    (record,) = caplog.records
    assert REFUSED.format("scheduler") in record.getMessage()
    assert record.getMessage().endswith(REMEDY)
    assert record.exc_info is None


@aio
async def test_by_both() -> None:
    """Whoever comes first; nobody hangs and nobody tries again."""
    other = security(certs.leaf(CA, "eve"), [CA], tls_allowed_peers=["nobody"])
    handled: list[str] = []
    async with listening(handled, **PICKY.get_listen_args("scheduler")) as listener:
        with pytest.raises(HandshakeError, match="we refused its certificate"):
            await connect(listener.contact_address, **other.get_connection_args("worker"))
        await until(lambda: sum(listener.stats.refused.values()) == 1)
    assert handled == []


@aio
async def test_after_a_change_of_the_files(tmp_path: Any) -> None:
    """The next contexts say it too."""
    file = tmp_path / "ca.pem"
    file.write_text(CA.pem)
    ours = security(certs.leaf(CA), [CA], tls_allowed_peers=["client*"], tls_reload_interval=0)
    ours.tls_ca_file = str(file)
    async with listening([], **ours.get_listen_args("scheduler")) as listener:
        for text in (CA.pem, certs.root("another").pem + CA.pem):
            file.write_text(text)
            with pytest.raises(HandshakeError, match="it refused our certificate: its names"):
                await connect(listener.contact_address, **EVE.get_connection_args("worker"))


# On the wire


@asynccontextmanager
async def dialled(listener: Listener) -> AsyncIterator[ssl.SSLSocket]:
    """A blocking TLS socket in the hands of eve, connected."""
    host, port = listener.contact_address.rpartition("://")[2].rsplit(":")

    def dial() -> ssl.SSLSocket:
        sock = socket.create_connection((host, int(port)), timeout=30)
        return client_context(EVE).wrap_socket(sock)

    with await asyncio.to_thread(dial) as tls:
        yield tls


def left(sock: socket.socket) -> None:
    """Wait until the other side has closed the connection altogether."""
    poll = select.poll()
    poll.register(sock, select.POLLRDHUP)
    assert poll.poll(30_000)


def write_on(tls: ssl.SSLSocket) -> None:
    """The first pieces may be lost without a word."""
    while True:
        tls.sendall(b"x" * 100_000)


@versions
@aio
async def test_what_is_sent(version: ssl.TLSVersion) -> None:
    """One hello as any peer understands it, with our names and nothing of the list; the end."""
    context = server_context(spoken(version, PICKY))
    async with listening([], ssl_context=context) as listener, dialled(listener) as tls:
        told = await asyncio.to_thread(only_message, tls)
    assert told == {
        **hello.offer(),
        "refused": "its names (CN=eve, DNS eve) match none of the peers that are allowed here",
    }


@pytest.mark.skipif(not hasattr(select, "POLLRDHUP"), reason="only Linux tells of a half close")
@versions
@aio
async def test_it_survives_what_the_peer_had_sent(version: ssl.TLSVersion) -> None:
    """The kernel resets a connection that is closed with bytes unread, or written to later."""
    context = server_context(spoken(version, PICKY))
    async with listening([], ssl_context=context) as listener, dialled(listener) as tls:
        with pytest.raises(OSError, match=r"reset|Broken pipe|EOF"):
            await asyncio.to_thread(write_on, tls)
        await asyncio.to_thread(left, tls)
        told = tls.recv(65536)
    assert b"its names (CN=eve, DNS eve)" in told


@versions
@aio
async def test_a_silent_peer_holds_nothing(version: ssl.TLSVersion) -> None:
    """Who is refused and does not leave costs nothing: the connection is closed at once."""
    context = server_context(spoken(version, PICKY))
    async with listening([], ssl_context=context) as listener, dialled(listener):
        await until(lambda: bool(listener.stats.refused))
        assert listener.stats.pending == 0


@pytest.mark.parametrize(
    ("word", "shown"),
    [
        ("no; go\naway\x1b[31m", "no, go?away?[31m"),
        ("é" * 5000, "é" * 1000),
        ("", ""),
        (None, "None"),
        (b"\xff" * 5000, "5000 bytes"),
        ([[[[[[[[[[[["deep"]]]]]]]]]]]], "a tuple of 1 items"),
    ],
    ids=["controls", "long", "empty", "nil", "bytes", "nested"],
)
@aio
async def test_the_words_of_an_unverified_peer(word: object, shown: str) -> None:
    """It is one line, no longer than we like, and cannot pass for our own advice."""
    frame = hello.encode({**hello.offer(), "refused": word})
    with pytest.raises(HandshakeError) as caught:
        hello.decode([frame], "tls://10.0.0.1:1")
    text = str(caught.value)
    assert text.isprintable()
    assert f"it refused our certificate: {shown}" in text
    assert len(text) < 1200
    assert text.count("; ") == 1


@pytest.mark.parametrize("depth", [10, 1000, 1020])
def test_a_hello_nested_deeply_is_a_bad_hello(depth: int) -> None:
    for frame in (b"\x91" * depth + b"\xc0", b"\x81\xa8sealwire" + b"\x91" * depth + b"\xc0"):
        with pytest.raises(hello.HelloError, match="bad hello from its peer"):
            hello.agree(hello.decode([frame]))
