"""Links that break under Dask's servers: counted, logged by the listener, shown on the page.

Dask's servers serve a comm in a task of their own: the listener's handler has long returned.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from distributed.comm.core import CommClosedError, connect
from distributed.core import Server

from sealwire.comm.transport.local import socket_name
from sealwire.dask_backend import Security, unix
from sealwire.dask_backend.dashboard.report import report
from support import attacker
from support.aio import until
from support.parties import accepted, asynchronous, select

BREAKS: dict[str, tuple[Callable[[socket.socket], Any], str]] = {
    "reset": (attacker.reset, "lost"),
    "in the middle of a message": (
        lambda sock: sock.sendall(attacker.message(b"x" * 99)[:50]),
        "lost",
    ),
    "more than fits": (lambda sock: sock.sendall(attacker.words(1 << 60)), "too-large"),
    "what does not decode": (lambda sock: sock.sendall(attacker.message(b"\xc1")), "message"),
}
ORDERLY: dict[str, Callable[[socket.socket], Any]] = {
    "as a killed process": lambda sock: sock.shutdown(socket.SHUT_WR),
    "after a question": lambda sock: attacker.ask(sock, {"op": "identity", "reply": True}),
}


@pytest.fixture(autouse=True)
def _backend() -> None:
    select("ours")


@contextlib.asynccontextmanager
async def serving(scheme: str, folder: Path) -> AsyncIterator[tuple[Server, Any]]:
    """A server of Dask's, and the context of a peer."""
    security = Security.temporary() if scheme == "tls" else Security(require_encryption=False)
    async with Server({}, local_directory=str(folder)) as server:
        await server.listen(f"{scheme}://127.0.0.1:0", **security.get_listen_args("scheduler"))
        yield server, security.get_connection_args("worker")["ssl_context"]


def entered(address: str, tls: Any) -> socket.socket:
    """A connection whose hellos are exchanged."""
    if not address.startswith("unix://"):
        return attacker.enter(address, tls=tls)
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(socket_name(unix._name(int(address.rpartition(":")[2]))))
    sock.sendall(attacker.HELLO)
    attacker.receive(sock)
    return sock


async def come_and(do: Callable[[Any], Any], server: Server, tls: Any) -> None:
    """Let a peer exchange hellos, do something, and leave."""

    def run() -> None:
        with entered(server.address, tls) as sock:
            do(sock)

    await asyncio.to_thread(run)


@pytest.mark.parametrize("scheme", ["tcp", "tls", "unix"])
@asynchronous
async def test_the_listener_counts_and_logs_it(
    scheme: str, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    caplog.set_level(logging.INFO, logger="sealwire.comm")
    async with serving(scheme, tmp_path) as (server, tls):
        (listener,) = server.listeners
        expected: dict[str, int] = {}
        breaks = [each for name, each in BREAKS.items() if (scheme, name) != ("unix", "reset")]
        for do, kind in breaks:
            await come_and(do, server, tls)
            expected[kind] = expected.get(kind, 0) + 1
            await until(lambda: listener.stats.broken == expected)
        assert report(server)["broken"] == expected
    lines = [r.getMessage() for r in caplog.records if r.name == "sealwire.comm"]
    assert len(lines) == len(breaks), lines
    assert all(line.startswith(f"listener on {server.address}: ") for line in lines), lines


@asynchronous
async def test_one_that_was_dialled_is_reported(tmp_path: Path) -> None:
    def broken() -> int:
        told: int = report(server)["broken_dialled"].get("lost", 0)
        return told

    server = Server({}, local_directory=str(tmp_path))
    args = Security(require_encryption=False).get_connection_args("worker")
    with socket.create_server(("127.0.0.1", 0)) as listening:
        for do, more in ((attacker.reset, 1), (ORDERLY["as a killed process"], 0)):
            before = broken()
            address = f"tcp://127.0.0.1:{listening.getsockname()[1]}"
            dialled = asyncio.create_task(connect(address, **args))
            with (await asyncio.to_thread(listening.accept))[0] as sock:
                sock.sendall(attacker.HELLO)
                await asyncio.to_thread(attacker.receive, sock)
                comm = await dialled
                do(sock)
                with pytest.raises(CommClosedError):
                    await comm.read()
            assert broken() == before + more


@pytest.mark.parametrize("scheme", ["tcp", "tls"])
@asynchronous
async def test_an_end_without_an_error_is_none(
    scheme: str, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    caplog.set_level(logging.INFO, logger="sealwire.comm")
    async with serving(scheme, tmp_path) as (server, tls):
        (listener,) = server.listeners
        port = int(server.address.rpartition(":")[2])
        for number, do in enumerate(ORDERLY.values(), start=1):
            await come_and(do, server, tls)
            await until(lambda: listener.stats.greeted == number)  # noqa: B023
            await until(lambda: not accepted(port))
        assert listener.stats.broken == {}
    assert not [r for r in caplog.records if r.name == "sealwire.comm"]
