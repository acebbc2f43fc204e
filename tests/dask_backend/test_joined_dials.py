"""distributed cuts its first attempt after a fifth of the time; what it has come to is not lost."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from distributed.comm.registry import get_backend

from sealwire.comm.transport import race
from sealwire.dask_backend import connectors, silence
from support.parties import Party, asynchronous, dialled, echo, turns


@asynccontextmanager
async def slow_path(address: str, delay: float) -> AsyncIterator[tuple[str, list[Any]]]:
    """A way to `address` on which all that the server says takes `delay`, and who came by it."""
    scheme, _, place = address.partition("://")
    host, _, port = place.rpartition(":")
    came: list[Any] = []
    writers: list[Any] = []
    left: set[asyncio.Task[Any]] = set()

    async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter, late: float) -> None:
        loop = asyncio.get_running_loop()
        with suppress(OSError):
            while data := await source.read(65536):
                loop.call_later(late, _pass_on, sink, data)
        loop.call_later(late, sink.close)

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        came.append(writer)
        writers.append(writer)
        back, forth = await asyncio.open_connection(host, int(port))
        writers.append(forth)
        for work in (pump(reader, forth, 0.0), pump(back, writer, delay)):
            task = asyncio.ensure_future(work)
            left.add(task)
            task.add_done_callback(left.discard)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield f"{scheme}://127.0.0.1:{server.sockets[0].getsockname()[1]}", came
    finally:
        server.close()
        for task in list(left):
            task.cancel()
        for writer in writers:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()


def _pass_on(sink: asyncio.StreamWriter, data: bytes) -> None:
    if not sink.is_closing():
        sink.write(data)


def descriptors() -> set[str]:
    found = set()
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            found.add(os.readlink(f"/proc/self/fd/{name}"))
    return found


def port_of(address: str) -> int:
    return int(address.rpartition(":")[2])


@pytest.mark.parametrize("times", [1.5, 0.7], ids=["in TLS or the hello", "in the hello"])
@asynchronous
async def test_the_next_attempt_joins_the_dial(times: float, ours: Party) -> None:
    """So a slow peer is reached in the time that one dial takes, by one connection."""
    first = 0.3  # seconds that the first attempt gets
    async with (
        ours.listen(echo) as listener,
        slow_path(listener.contact_address, times * first) as (address, came),
    ):
        loop = asyncio.get_running_loop()
        start = loop.time()
        comm = await ours.connect(address, timeout=5 * first)
        assert loop.time() - start > first or (times < 1 and ours.scheme == "tcp")
        assert len(came) == 1
        await comm.write("still in step")
        assert await comm.read() == "still in step"
        await comm.close()


async def cut(connecting: Any) -> None:
    """As distributed's first attempt ends."""
    task = asyncio.ensure_future(connecting)
    await turns()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@asynchronous
async def test_a_dial_that_nobody_joins_ends_soon(
    ours: Party, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connectors, "_LEFT", 0.2)
    async with (
        ours.listen(echo) as listener,
        slow_path(listener.contact_address, 20) as (address, _),
    ):
        connector = get_backend(ours.scheme).get_connector()
        args = ours.security.get_connection_args("client")
        await cut(connector.connect(address.partition("://")[2], **args))
        assert len(dialled(port_of(address))) == 1
        await _gone(address)


async def _gone(address: str) -> None:
    for _ in range(1000):
        if not dialled(port_of(address)):
            return
        await asyncio.sleep(0.01)
    raise AssertionError("a connection is left")


@asynchronous
async def test_a_dial_ends_with_its_connector(ours: Party) -> None:
    async with (
        ours.listen(echo) as listener,
        slow_path(listener.contact_address, 20) as (address, _),
    ):
        connector = get_backend(ours.scheme).get_connector()
        args = ours.security.get_connection_args("client")
        await cut(connector.connect(address.partition("://")[2], **args))
        del connector
        gc.collect()
        await turns()
        assert not dialled(port_of(address))


@asynchronous
async def test_a_second_cut_is_the_last(ours: Party, monkeypatch: pytest.MonkeyPatch) -> None:
    """distributed gives all attempts but the first what is left of the time."""
    monkeypatch.setattr(silence, "_SHARE", 1e9)  # no other connection asks what is spoken there
    async with (
        ours.listen(echo) as listener,
        slow_path(listener.contact_address, 20) as (address, came),
    ):
        connector = get_backend(ours.scheme).get_connector()
        args = ours.security.get_connection_args("client")
        for expected in (1, 0):
            await cut(connector.connect(address.partition("://")[2], **args))
            assert len(dialled(port_of(address))) == expected
        assert len(came) == 1


@asynchronous
async def test_another_address_is_another_dial(ours: Party) -> None:
    async with (
        ours.listen(echo) as listener,
        slow_path(listener.contact_address, 20) as (address, _),
    ):
        connector = get_backend(ours.scheme).get_connector()
        args = ours.security.get_connection_args("client")
        await cut(connector.connect(address.partition("://")[2], **args))
        place = listener.contact_address.partition("://")[2]
        comm = await connector.connect(place, **args)
        assert not dialled(port_of(address))
        comm.abort()


@pytest.mark.parametrize("scheme", ["tls"])  # which begins once TCP is there: here, never
@asynchronous
async def test_a_cut_while_tcp_is_under_way_is_joined_too(
    ours: Party, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And who is silent all the time is dialled afresh; at the end nothing is open."""
    monkeypatch.setattr(race, "PATIENCE", 1.0)
    before = descriptors()
    made: list[int] = []
    prepare: Callable[..., None] = race.Race._begins

    def begins(self: Any, place: Any) -> Any:
        made.append(1)
        return prepare(self, place)

    monkeypatch.setattr(race.Race, "_begins", begins)
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        port = full.getsockname()[1]
        fillers = [socket.socket() for _ in range(3)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
        with pytest.raises(OSError, match="Timed out"):
            await ours.connect(f"{ours.scheme}://127.0.0.1:{port}", timeout=2.5)
        assert len(made) == 3  # after 0, 1 and 2 s; none at 0.5 s, when the first attempt is cut
        for filler in fillers:
            filler.close()
    assert descriptors() == before
