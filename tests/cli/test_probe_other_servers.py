"""The doctor where something else listens than was asked for."""

from __future__ import annotations

import asyncio
import functools
import http.server
import re
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from sealwire.cli.probe.diagnosis import Outcome
from support.aio import aio
from support.handshakes import foreign_context
from support.listeners import CA, FAST, GOOD, KINDS, NODE, Here, listening, probe

pytestmark = pytest.mark.usefixtures("registry")


@KINDS
@aio
async def test_plain_to_a_tls_listener(kind: str) -> None:
    async with listening(kind, "tls", GOOD) as listener:
        secure = listener.contact_address
        plain = secure.replace("tls", "tcp")
        told = await asyncio.to_thread(probe, plain, *FAST)
    assert told["exit_code"] == Outcome.STRANGE.value == 4
    assert told["words"] == (f"{plain} is not what it should be: TLS is spoken there; use {secure}")


@KINDS
@aio
async def test_tls_to_a_plain_listener(kind: str, here: Here) -> None:
    async with listening(kind, "tcp", GOOD) as listener:
        plain = listener.contact_address
        secure = plain.replace("tcp", "tls")
        told = await asyncio.to_thread(probe, secure, *FAST, *here())
    assert told["exit_code"] == 4
    assert told["words"] == (
        f"{secure} is not what it should be: a Dask or sealwire process speaks plain TCP there; "
        f"use {plain}, or give it certificates"
    )


class Web(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args: Any) -> None:
        pass


@contextmanager
def web(context: ssl.SSLContext | None = None) -> Iterator[int]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Web)
    server.handle_error = lambda *args: None  # type: ignore[method-assign]
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=functools.partial(server.serve_forever, 0.01))
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.mark.parametrize("scheme", ["tcp", "tls"])
def test_a_web_server(scheme: str, here: Here) -> None:
    with web() as port:
        told = probe(f"{scheme}://127.0.0.1:{port}", *FAST, *here())
    assert told["exit_code"] == 4
    assert "a web server (HTTP) listens there: perhaps it is the dashboard's port" in told["words"]


def test_a_web_server_over_tls(here: Here) -> None:
    with web(foreign_context("server", NODE, [CA])) as port:
        told = probe(f"tls://127.0.0.1:{port}", *FAST, *here())
        plain = probe(f"tcp://127.0.0.1:{port}", *FAST)
    assert told["exit_code"] == plain["exit_code"] == 4
    assert "a web server over TLS (HTTPS) listens there" in told["words"]
    assert f"TLS is spoken there; use tls://127.0.0.1:{port}" in plain["words"]


@contextmanager
def raw(serve: Callable[[socket.socket], object]) -> Iterator[int]:
    """A server that does something with each connection, and holds it until the end."""
    held: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def run() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                held.append(connection)
                try:
                    serve(connection)
                except OSError:
                    pass

        thread = threading.Thread(target=run)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
        thread.join()
    for connection in held:
        connection.close()


RAW: dict[str, tuple[Callable[[socket.socket], object], str, str]] = {
    "silent": (
        lambda sock: None,
        "it accepts connections, but says nothing within 0.2 s, neither a hello nor TLS; check",
        "it accepts connections, but has not answered a TLS ClientHello within 0.2 s; it speaks",
    ),
    "closes": (
        lambda sock: sock.close(),
        "it closed the connection before its hello; check the address and the port, and its log",
        "it closes the connection when a TLS handshake begins; check the address and the port, and",
    ),
    "another protocol": (
        lambda sock: sock.sendall(b"SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u3\r\n"),
        r"it does not speak our protocol: its first bytes are b'SSH-2\.0-OpenSSH_9\.2p1 De'; che",
        r"it does not speak TLS; its first bytes are b'SSH-2\.0-OpenSSH_9\.2p1 De'; check the",
    ),
}


@pytest.mark.parametrize("name", RAW)
@pytest.mark.parametrize("scheme", ["tcp", "tls"])
def test_other_listeners(name: str, scheme: str, here: Here) -> None:
    serve, plain, secure = RAW[name]
    with raw(serve) as port:
        fast = ("--timeout", "0.2") if name == "silent" else FAST
        told = probe(f"{scheme}://127.0.0.1:{port}", *fast, *here())
    assert re.search(plain if scheme == "tcp" else secure, told["words"]), told["words"]
    assert told["exit_code"] == 4


def talk_tls(then: Callable[[ssl.SSLSocket], object]) -> Callable[[socket.socket], object]:
    context = foreign_context("server", NODE, [CA])

    def serve(sock: socket.socket) -> None:
        with context.wrap_socket(sock, server_side=True) as tls:
            then(tls)

    return serve


def test_tls_without_a_hello(here: Here) -> None:
    with raw(talk_tls(lambda tls: tls.recv(1000) and tls.recv(1000))) as port:
        told = probe(f"tls://127.0.0.1:{port}", *FAST, *here())
    assert told["exit_code"] == 4
    assert "TLS is fine, but no hello came within 0.5 s; it is no Dask or sealwire" in told["words"]

    def speak_first(tls: ssl.SSLSocket) -> None:
        tls.sendall(b"220 mail.example ESMTP\r\n" * 3)
        while tls.recv(1000):  # to close with bytes unread would reset the connection
            pass

    with raw(talk_tls(speak_first)) as port:
        told = probe(f"tls://127.0.0.1:{port}", *FAST, *here())
    assert told["exit_code"] == 4
    assert "it speaks TLS, but not our protocol: its first bytes are b'220 mail" in told["words"]
