"""Alerts, and bytes that are no TLS: an open connection is lost by them, an earlier one refused."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import uvloop

from sealwire.comm import Comm, CommClosedError, listen
from sealwire.comm.transport.server import FrameServer
from sealwire.comm.transport.stream import FrameStream
from support import attacker, certs
from support.aio import aio, until
from support.attacker import OUR_HELLO
from support.endings import error_of
from support.forging import ALERT, DATA, Forger
from support.handshakes import foreign_context, security

FATAL = 2
CA = certs.root()
ARGS = security(certs.leaf(CA), [CA]).get_listen_args("scheduler")

ALERTS = {
    10: "the peer sent the TLS alert unexpected message; see the peer's log",
    20: "the peer sent the TLS alert bad record mac; see the peer's log",
    40: "the peer sent the TLS alert handshake failure; see the peer's log",
    44: "the peer sent the TLS alert certificate revoked; see the peer's log",
    48: "the peer sent the TLS alert unknown ca; see the peer's log",
    70: "the peer sent the TLS alert protocol version; see the peer's log",
    80: "the peer sent the TLS alert internal error; see the peer's log",
    110: "the peer sent the TLS alert unsupported extension; see the peer's log",
    115: "the peer sent the TLS alert unknown psk identity; see the peer's log",
}


def damaged(peer: Forger) -> bytes:
    record = bytearray(peer.record(DATA, b"x" * 100))
    record[-1] ^= 1
    return bytes(record)


NO_TLS: list[Callable[[Forger], bytes]] = [
    damaged,
    lambda peer: b"GET / HTTP/1.1\r\n\r\n",
    lambda peer: b"\x17\x03\x03\xff\xff" + bytes(100),
    lambda peer: peer.record(ALERT, b"\2"),
    lambda peer: peer.record(99, b"of an unknown type"),
    lambda peer: peer.record(ALERT, bytes([FATAL, 200])),
]


def attack(address: str, keys: Path, first: bytes, say: Callable[[Forger], bytes]) -> None:
    """Say it after the `first` bytes, and wait for the other side to end."""
    with attacker.dial(address) as sock:
        peer = Forger(sock, foreign_context("client", certs.leaf(CA), [CA]), keys)
        sock.sendall((peer.record(DATA, first) if first else b"") + say(peer))
        with contextlib.suppress(ConnectionResetError):  # by what it has not read
            while sock.recv(1 << 16):
                pass


def alert(number: int, peer: Forger) -> bytes:
    return peer.record(ALERT, bytes([FATAL, number]))


@pytest.mark.parametrize(
    "loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"]
)
@aio
async def test_an_open_connection_is_lost(loop_factory: Any, tmp_path: Path) -> None:
    """Nobody has refused it; and another attempt may help."""
    ends: asyncio.Queue[CommClosedError] = asyncio.Queue()

    async def handle(comm: Comm) -> None:
        ends.put_nowait(await error_of(comm.read()))
        assert (await error_of(comm.write("more"))).closed_by == comm.closed_by == "lost"

    async with listen("tls://127.0.0.1:0", handle, **ARGS) as listener:
        attacking = functools.partial(
            asyncio.to_thread, attack, listener.contact_address, tmp_path / "keys", OUR_HELLO
        )
        for number, words in ALERTS.items():
            await attacking(functools.partial(alert, number))
            error = await ends.get()
            assert str(error).partition(" lost: ")[2] == words
            assert (type(error), error.kind, error.code) == (CommClosedError, "lost", 1006)
            assert error.retryable
        for say in NO_TLS:
            await attacking(say)
            error = await ends.get()
            why = str(error).partition(" lost: TLS failed: ")[2]
            assert why.endswith("; check what is on the path between"), error
            assert "_ssl.c" not in why
            assert (error.kind, error.retryable) == ("lost", True)
    assert listener.stats.broken == {"lost": len(ALERTS) + len(NO_TLS)}


@aio
async def test_before_the_hello_it_is_a_refusal(tmp_path: Path) -> None:
    """A TLS 1.3 client has done its handshake when it refuses us."""
    listener = await listen("tls://127.0.0.1:0", lambda comm: None, **ARGS)
    address = listener.contact_address
    refused: dict[str, int] = {}
    for number, kind in ((40, "by-peer"), (44, "by-peer"), (48, "by-peer"), (20, "tls")):
        await asyncio.to_thread(
            attack, address, tmp_path / "keys", b"", functools.partial(alert, number)
        )
        refused[kind] = refused.get(kind, 0) + 1
        while sum(listener.stats.refused.values()) < sum(refused.values()):
            await asyncio.sleep(0)
        assert listener.stats.refused == refused
    listener.stop()


class Late(FrameServer):
    """It looks at what has come of a handshake when the connection has ended."""

    def __init__(self, context: ssl.SSLContext) -> None:
        super().__init__(context)
        self.ends: asyncio.Queue[CommClosedError] = asyncio.Queue()

    async def greet(self, stream: FrameStream) -> None:
        await until(stream.closed)
        try:
            await super().greet(stream)
        finally:
            self.ends.put_nowait(stream.failure())

    async def handle_stream(self, stream: FrameStream, address: Any) -> None:
        """It has ended."""


@pytest.mark.parametrize(
    "say", [functools.partial(alert, 20), functools.partial(alert, 48), *NO_TLS]
)
@aio
async def test_who_has_said_hello_has_refused_nobody(
    say: Callable[[Forger], bytes], tmp_path: Path
) -> None:
    """What follows the hello is no part of it, although nobody has looked at it yet."""
    server = Late(ARGS["ssl_context"])
    server.listen(0, "127.0.0.1")
    try:
        address = "tls://{}:{}".format(*server.address)
        attacking = asyncio.to_thread(attack, address, tmp_path / "keys", OUR_HELLO, say)
        _, error = await asyncio.gather(attacking, server.ends.get())
        assert (type(error), error.kind, error.retryable) == (CommClosedError, "lost", True)
    finally:
        server.stop()
