"""Visits of unauthorized clients to listeners that refuse them, let them in, or do neither.

The listeners are stock distributed's, and bare sockets.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
from distributed.comm import Comm, listen
from distributed.security import Security

from sealwire.cli.demo import unauthorized
from sealwire.cli.demo.identities import IdentityFiles, write_identity, write_roles
from sealwire.cli.demo.unauthorized import (
    EXPIRED,
    FOREIGN,
    FRIEND,
    PLAIN,
    VISITORS,
    Attempt,
    try_all,
    try_plain,
    try_tls,
)
from sealwire.security.ca.authority import Authority


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority.create("test CA")


@pytest.fixture
def roles(tmp_path: Path, authority: Authority) -> dict[str, IdentityFiles]:
    return write_roles(tmp_path, authority)


def visit_stock(scheme: str, security: Security, visit: Callable[[str], object]) -> object:
    """Call `visit` in a thread with the address of a stock listener."""

    async def hang_up(comm: Comm) -> None:
        comm.abort()

    async def main() -> object:
        args = security.get_listen_args("scheduler")
        listener = await listen(f"{scheme}://127.0.0.1:0", hang_up, **args)
        try:
            return await asyncio.to_thread(visit, listener.contact_address)
        finally:
            listener.stop()
            listener.abort_handshaking_comms()

    return asyncio.run(main())


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_every_visitor_at_a_stock_tls_listener(
    version: ssl.TLSVersion, roles: dict[str, IdentityFiles], authority: Authority, tmp_path: Path
) -> None:
    files = roles["scheduler"]
    security = Security(
        tls_ca_file=files.ca,
        tls_scheduler_cert=files.certificate,
        tls_scheduler_key=files.key,
        tls_min_version=version,
        tls_max_version=version,
        require_encryption=True,
    )
    visit = partial(try_all, tmp_path, authority, roles["client"])
    attempts = visit_stock("tls", security, lambda address: visit([address]))
    assert isinstance(attempts, tuple)
    assert {attempt.visitor: attempt.outcome for attempt in attempts} == {
        PLAIN: "refused",
        FOREIGN: "refused",
        EXPIRED: "refused",
        FRIEND: "let in",
    }
    words = {attempt.visitor: attempt.words for attempt in attempts}
    assert words[FOREIGN] == "its CA is not known (alert unknown ca)"
    assert words[EXPIRED] == "its certificate has expired (alert certificate expired)"


def test_the_plain_hello_is_good(tmp_path: Path) -> None:
    """A plain listener answers it; so it is not for the hello that others do not."""
    attempt = visit_stock("tcp", Security(), lambda address: try_plain(PLAIN, address))
    assert isinstance(attempt, Attempt)
    assert attempt.outcome == "let in"


def hang_up(connection: socket.socket) -> None:
    pass


def hang_up_hard(connection: socket.socket) -> None:
    connection.recv(1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def send_alert(connection: socket.socket) -> None:
    connection.sendall(b"\x15\x03\x01\x00\x02\x02\x46")
    connection.recv(4096)


def say_something(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    connection.recv(4096)


def say_nothing(connection: socket.socket) -> None:
    while connection.recv(4096):  # until the visitor leaves
        pass


def let_in_without_asking(files: IdentityFiles, connection: socket.socket) -> None:
    """TLS without asking for the client's certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.certificate, files.key)
    with context.wrap_socket(connection, server_side=True) as secure:
        secure.sendall(b"hello")
        secure.recv(4096)


def shake_hands_and_leave(files: IdentityFiles, connection: socket.socket) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.certificate, files.key)
    context.wrap_socket(connection, server_side=True).close()


@contextmanager
def listener(serve: Callable[[socket.socket], None]) -> Iterator[str]:
    """The address of a socket whose first connection is given to `serve`."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def accept() -> None:
            connection, _ = server.accept()
            with connection:
                serve(connection)

        thread = threading.Thread(target=accept)
        thread.start()
        yield f"tls://127.0.0.1:{server.getsockname()[1]}"
        thread.join()


@pytest.mark.parametrize(
    ("serve", "outcome", "words"),
    [
        (send_alert, "refused", "TLS alert (protocol version)"),
        (hang_up, "refused", "without a byte"),
        (hang_up_hard, "refused", "without a byte"),
        (say_something, "let in", "was answered with 28 bytes"),
        (say_nothing, "unclear", "not closed within"),
    ],
)
def test_plain(
    serve: Callable[[socket.socket], None],
    outcome: str,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(unauthorized, "TIMEOUT", 0.5)
    with listener(serve) as address:
        attempt = try_plain(PLAIN, address)
    assert attempt.outcome == outcome
    assert words in attempt.words


@pytest.mark.parametrize(
    ("serve", "outcome", "words"),
    [
        (send_alert, "refused", "alert"),
        (hang_up, "unclear", ""),
        (hang_up_hard, "unclear", "reset"),
        (say_something, "unclear", "wrong version number"),
        (say_nothing, "unclear", "timed out"),
        (let_in_without_asking, "let in", "5 bytes"),
        (shake_hands_and_leave, "unclear", ""),
    ],
)
def test_tls(
    serve: Callable[..., None],
    outcome: str,
    words: str,
    roles: dict[str, IdentityFiles],
    authority: Authority,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Only an alert is a refusal: whoever just goes away may have other reasons."""
    monkeypatch.setattr(unauthorized, "TIMEOUT", 0.5)
    foreign = write_identity(
        tmp_path, "foreign", roles["client"].ca, Authority.create("other").issue("client")
    )
    if serve in (let_in_without_asking, shake_hands_and_leave):
        serve = partial(serve, roles["scheduler"])
    with listener(serve) as address:
        attempt = try_tls(FOREIGN, address, foreign)
    assert attempt.outcome == outcome
    assert words in attempt.words


def test_an_address_out_of_reach_counts_as_no_refusal(
    roles: dict[str, IdentityFiles], authority: Authority, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"tls://127.0.0.1:{server.getsockname()[1]}"
    attempts = try_all(tmp_path, authority, roles["client"], [address])
    assert [attempt.visitor for attempt in attempts] == list(VISITORS)
    assert {attempt.outcome for attempt in attempts} == {"unclear"}
    assert all(attempt.words.startswith("cannot connect") for attempt in attempts)
