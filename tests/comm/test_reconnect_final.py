"""After what a reconnecting client tries again, and what is final for it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from sealwire.comm import (
    AddressError,
    CallLost,
    CallRefused,
    Calls,
    CallTimeout,
    CloseCode,
    Comm,
    CommClosedError,
    ConnectError,
    EncryptionRequired,
    HandshakeError,
    Limits,
    MessageTooLarge,
    ReconnectingClient,
    listen,
)
from sealwire.comm.calls.attempts import Attempts
from sealwire.security import Security
from support.aio import aio, until
from support.calling import House
from support.links import connect_args
from support.restarting import free_port


@pytest.mark.parametrize("kind", ["lost", "timeout", "overloaded"])
@aio
async def test_a_greeting_that_fails_for_now_is_made_again(kind: str) -> None:
    attempts = 0

    async def greet(calls: Calls) -> None:
        nonlocal attempts
        attempts += 1
        if attempts < 3:
            if kind == "lost":
                calls.comm.abort()
                await calls.ping()
            if kind == "timeout":
                raise CallTimeout("call timed out")
            error = CallRefused("call refused")
            error.kind = "overloaded"
            raise error

    async with House(now=lambda: 1).listen() as listener:
        address = listener.contact_address
        async with ReconnectingClient(address, on_connect=greet, backoff=0.001) as client:
            assert await client.call("now") == 1
    assert attempts == 3


# What is final


@aio
async def test_a_refused_certificate_is_final() -> None:
    house = House(now=lambda: 1)
    other = Security.temporary().get_connection_args("worker")
    async with (
        house.listen("tls") as listener,
        ReconnectingClient(listener.contact_address, **other) as client,
    ):
        for _ in range(3):
            with pytest.raises(HandshakeError):
                await client.call("now", idempotent=True)
            with pytest.raises(HandshakeError):  # for workers, which do not call
                await client.serve()
        assert client.closed()


@aio
async def test_the_authors_own_close_codes_are_final() -> None:
    house = House(now=lambda: 1)
    async with house.listen() as listener:
        address = listener.contact_address
        async with ReconnectingClient(address, final_codes=[4001], backoff=0.001) as client:
            for code in (CloseCode.NORMAL, CloseCode.GOING_AWAY, 4000):
                assert await client.call("now") == 1
                await house.guests[0].close(code)
            assert await client.call("now") == 1
            await house.guests[0].close(4001, "your licence has expired")
            await until(client.closed)
            with pytest.raises(CommClosedError, match="your licence has expired"):
                await client.serve()
            with pytest.raises(CommClosedError, match="your licence has expired"):
                await client.call("now")
            assert client.closed()
            assert house.arrived == 4


@aio
async def test_a_peer_that_speaks_no_calls_is_final() -> None:
    async def talk(comm: Comm) -> None:
        await comm.write({"op": "welcome"})
        async for _ in comm:
            pass

    async with (
        listen("tcp://127.0.0.1:0", talk) as listener,
        ReconnectingClient(listener.contact_address) as client,
    ):
        with pytest.raises(CommClosedError, match="which is no call"):
            await client.call("now", idempotent=True)
        await until(client.closed)


@aio
async def test_an_error_of_the_greeting_is_final() -> None:
    def greet(calls: Calls) -> None:
        raise KeyError("name")

    async with (
        House(now=lambda: 1).listen() as listener,
        ReconnectingClient(listener.contact_address, on_connect=greet) as client,
    ):
        with pytest.raises(KeyError, match="name"):
            await client.call("now")


@pytest.mark.parametrize(
    ("address", "args", "error"),
    [
        ("tcp://", {}, AddressError),
        ("nothing://127.0.0.1:1", {}, Exception),
        ("tcp://127.0.0.1:1", {"wrong": 1}, TypeError),
        ("tcp://127.0.0.1:1", {"backoff": 0}, ValueError),
        ("tcp://127.0.0.1:1", {"connect_timeout": "1"}, ValueError),
        ("tcp://127.0.0.1:1", {"final_codes": 1}, TypeError),
    ],
)
@aio
async def test_misuse_is_told_at_once(address: str, args: dict[str, Any], error: Any) -> None:
    with pytest.raises(error):
        ReconnectingClient(address, **args)


@aio
async def test_encryption_that_is_required_is_final() -> None:
    async with ReconnectingClient("tcp://127.0.0.1:1", require_encryption=True) as client:
        with pytest.raises(EncryptionRequired):
            await client.call("now")


class Cancelled(BaseException):
    """As of another library for asynchronous programs."""


@pytest.mark.parametrize("error", [asyncio.CancelledError(), Cancelled(), GeneratorExit()])
@pytest.mark.parametrize("awaits", [False, True])
@aio
async def test_whatever_ends_the_greeting_is_told_to_who_waits(
    error: BaseException, awaits: bool
) -> None:
    async def greet(calls: Calls) -> None:
        await asyncio.sleep(0)
        raise error

    def at_once(calls: Calls) -> None:
        raise error

    async with House(now=lambda: 1).listen() as listener:
        client = ReconnectingClient(
            listener.contact_address, on_connect=greet if awaits else at_once
        )
        with pytest.raises((RuntimeError, CallLost)):
            await client.call("now", timeout=20)
        assert client.closed()
        await client.close()


@aio
async def test_a_greeting_that_cannot_be_sent_is_final() -> None:
    """As it would be in every session."""

    async def greet(calls: Calls) -> None:
        await calls.call("now", bytes(10_000))

    async with (
        House(now=lambda: 1).listen() as listener,
        ReconnectingClient(
            listener.contact_address, on_connect=greet, limits=Limits(max_message_size=5000)
        ) as client,
    ):
        with pytest.raises(MessageTooLarge):
            await client.call("now", timeout=20)


# Another program answers


HTTP = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"


@contextlib.contextmanager
def answering(port: int, words: bytes) -> Iterator[None]:
    """Another program at a port, which says the same to everybody."""

    def serve() -> None:
        with contextlib.suppress(OSError):  # of the listener, shut down below
            while True:
                connection, _ = listener.accept()
                with connection, contextlib.suppress(OSError):
                    connection.settimeout(20)
                    connection.sendall(words)
                    connection.shutdown(socket.SHUT_WR)
                    while connection.recv(4096):
                        pass

    with socket.create_server(("127.0.0.1", port)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


@contextlib.asynccontextmanager
async def other_program(how: str, port: int) -> AsyncIterator[None]:
    if how == "other CA":
        args = Security.temporary().get_listen_args("scheduler")
        async with listen(f"tls://127.0.0.1:{port}", lambda comm: None, **args) as listener:
            yield
            await listener.close()
    else:
        with answering(port, HTTP if "HTTP" in how else bytes(range(256))):
            yield


OTHERS = [
    ("tcp", "HTTP"),
    ("tcp", "nonsense"),
    ("tls", "HTTP, plain"),
    ("tls", "nonsense, plain"),
    ("tls", "other CA"),
]


@pytest.mark.parametrize("there", [True, False], ids=["after a session", "before one"])
@pytest.mark.parametrize(("scheme", "how"), OTHERS)
@aio
async def test_another_program_at_the_address_for_a_while(
    scheme: str, how: str, there: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """While a server is replaced; an address that is wrong is told at once."""
    caplog.set_level(logging.INFO, "sealwire.comm")
    house = House(now=lambda: 1)
    listener = await house.listen(scheme, free_port())
    port = int(listener.contact_address.rpartition(":")[2])
    address = f"{scheme}://127.0.0.1:{port}"
    args = {"backoff": 0.001, "backoff_cap": 0.05, **connect_args(scheme)}
    if there:
        client = ReconnectingClient(address, **args)
        assert await client.call("now", timeout=20) == 1
    await listener.close()
    async with other_program(how, port):
        if there:
            await until(lambda: caplog.text.count("trying again\n") >= 3)
            assert f"no session with {client.address} any more" in caplog.text
            assert "trying again for 300 s" in caplog.text
        else:
            client = ReconnectingClient(address, **args)
            with pytest.raises(CommClosedError):
                await client.call("now", timeout=20)
            assert client.closed()
    if there:
        async with house.listen(scheme, port):
            assert await client.call("now", timeout=20) == 1
            await client.close()
    await client.close()


@aio
async def test_patience_ends() -> None:
    house = House(now=lambda: 1)
    listener = await house.listen()
    port = int(listener.contact_address.rpartition(":")[2])
    client = ReconnectingClient(
        listener.contact_address, backoff=0.001, backoff_cap=0.01, patience=0.2
    )
    assert await client.call("now", timeout=20) == 1
    await listener.close()
    async with other_program("HTTP", port):
        with pytest.raises(CommClosedError, match="HTTP"):
            await client.call("now", timeout=20)
        assert client.closed()
    await client.close()


def failed(retryable: bool) -> ConnectError:
    error = ConnectError("cannot connect")
    error.retryable = retryable
    return error


@aio
async def test_patience_begins_again_with_every_sign_of_a_change() -> None:
    attempts = Attempts("tcp://127.0.0.1:1", 0.1, 1, patience=1e-9)
    assert not attempts.failed(failed(True))
    assert attempts.failed(failed(False))  # there has been no session
    attempts.succeeded()
    for change in (lambda: attempts.failed(failed(True)), attempts.succeeded):
        assert not attempts.failed(failed(False))
        assert attempts.failed(failed(False))
        change()
