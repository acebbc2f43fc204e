"""TLS on an open comm: how it ends, what a blocked loop looks at; no session is resumed."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

import pytest

from sealwire.comm import Comm, CommClosedError, Limits, connect, listen
from sealwire.comm.wire import hello
from support import certs
from support.aio import aio, until
from support.handshakes import VERSIONS, foreign_context, security
from support.links import blocking, echo, message

CA = certs.root()
GOOD = certs.leaf(CA, "good")

versions = pytest.mark.parametrize("version", VERSIONS, ids=lambda version: version.name)

HELLO = message(hello.encode(hello.offer()))


@versions
@aio
async def test_close_sends_close_notify(version: ssl.TLSVersion) -> None:
    """A client that insists on it sees an orderly end, not a truncation."""
    context = foreign_context("client", GOOD, [CA], version=version)

    def talk(sock: socket.socket) -> bytes:
        with context.wrap_socket(sock, suppress_ragged_eofs=False) as tls:
            tls.sendall(HELLO)
            received = b""
            while data := tls.recv(65536):
                received += data
            return received

    async def greet(comm: Comm) -> None:
        await comm.write("bye")

    args = security(GOOD, [CA]).get_listen_args("scheduler")
    async with listen("tls://127.0.0.1:0", greet, **args) as listener:
        assert b"bye" in await blocking(listener.contact_address, talk)


@versions
@aio
async def test_close_notify_is_answered(version: ssl.TLSVersion) -> None:
    """By who dialled as by who accepted; else a peer that closes in order gets an error for it."""
    ends = {
        side: foreign_context(side, GOOD, [CA], version=version) for side in ("client", "server")
    }

    def leave(raw: socket.socket, server_side: bool = False) -> None:
        context = ends["server" if server_side else "client"]
        with context.wrap_socket(raw, server_side=server_side, suppress_ragged_eofs=False) as tls:
            tls.sendall(HELLO)
            tls.recv(1000)
            tls.unwrap()  # raises SSLError unless it is answered

    ours = security(GOOD, [CA])
    async with listen("tls://127.0.0.1:0", echo, **ours.get_listen_args("scheduler")) as listener:
        await blocking(listener.contact_address, leave)

    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(20)
        serving = asyncio.get_running_loop().run_in_executor(
            None, lambda: leave(server.accept()[0], server_side=True)
        )
        address = f"tls://127.0.0.1:{server.getsockname()[1]}"
        comm = await connect(address, **ours.get_connection_args("worker"))
        with pytest.raises(CommClosedError, match="closed by the peer") as caught:
            await comm.read()
        assert caught.value.clean
        await serving


@versions
@aio
async def test_an_end_in_mid_message_is_an_error(version: ssl.TLSVersion) -> None:
    context = foreign_context("client", GOOD, [CA], version=version)
    ended: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()

    async def handle(comm: Comm) -> None:
        try:
            await comm.read()
        except CommClosedError as error:
            ended.set_result(error)

    def talk(sock: socket.socket) -> None:
        with context.wrap_socket(sock) as tls:
            tls.sendall(HELLO + message(bytes(1000))[:500])
            tls.recv(1)

    args = security(GOOD, [CA]).get_listen_args("scheduler")
    async with listen("tls://127.0.0.1:0", handle, **args) as listener:
        await blocking(listener.contact_address, talk)
        with pytest.raises(CommClosedError, match="middle of a message, after 476 of 1000 bytes"):
            raise await ended


@aio
async def test_a_blocked_loop_looks_at_what_came_meanwhile() -> None:
    """Before it drops who was not done in time: a task that keeps the GIL holds the loop."""
    held = threading.Event()

    def talk_by(version: ssl.TLSVersion) -> Callable[[socket.socket], bytes]:
        context = foreign_context("client", GOOD, [CA], version=version)

        def talk(sock: socket.socket) -> bytes:
            held.wait(20)
            with context.wrap_socket(sock) as tls:
                tls.sendall(HELLO)
                return tls.recv(1000)

        return talk

    args = security(GOOD, [CA]).get_listen_args("scheduler")
    limits = Limits(handshake_timeout=2)
    async with listen("tls://127.0.0.1:0", echo, limits=limits, **args) as listener:
        address = listener.contact_address
        talking = [
            asyncio.ensure_future(blocking(address, talk_by(version))) for version in VERSIONS
        ]
        await until(lambda: listener.stats.pending == len(VERSIONS))
        held.set()
        time.sleep(2.6)  # noqa: ASYNC251 (this is what holds it)
        for each in talking:
            assert b"pickle-protocol" in await each
        assert listener.stats.refused == {}


class Visit(NamedTuple):
    session: ssl.SSLSession | None
    let_in: bool


def visit(
    context: ssl.SSLContext, session: ssl.SSLSession | None
) -> Callable[[socket.socket], Visit]:
    """Come with a session; `let_in` is whether the handler's message arrived."""

    def talk(sock: socket.socket) -> Visit:
        received = b""
        tls = context.wrap_socket(sock, session=session, do_handshake_on_connect=False)
        with tls:
            try:
                tls.do_handshake()
                tls.sendall(HELLO)
                while b"welcome" not in received and (data := tls.recv(1000)):
                    received += data
            except OSError:
                pass
            return Visit(tls.session, b"welcome" in received)

    return talk


async def welcome(comm: Comm) -> None:
    await comm.write("welcome")
    await comm.read()


@versions
@aio
async def test_sessions_are_not_resumed(version: ssl.TLSVersion) -> None:
    """Not with our contexts, and not with a foreign one that hands out tickets either."""
    client = foreign_context("client", GOOD, [CA], version=version)
    ours = security(GOOD, [CA]).get_listen_args("scheduler")["ssl_context"]
    generous = foreign_context("server", GOOD, [CA])
    for context in (ours, generous):
        async with listen("tls://127.0.0.1:0", welcome, ssl_context=context) as listener:
            address = listener.contact_address
            first = await blocking(address, visit(client, None))
            assert first.let_in
            has_session = first.session is not None and (
                version is ssl.TLSVersion.TLSv1_2 or first.session.has_ticket
            )
            assert has_session or context is ours
            if has_session:
                assert not (await blocking(address, visit(client, first.session))).let_in
            assert (await blocking(address, visit(client, None))).let_in
