"""Dialling what speaks another scheme ends at once, through Dask, with the cause."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from distributed.comm.core import FatalCommClosedError
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application

from sealwire.dask_backend import silence
from support.parties import HANG, Party, asynchronous, dialled, echo, select
from support.rawpeer import Recorder

MakeParty = Callable[..., Party]


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    silence.forget()  # ports come again
    monkeypatch.setattr(silence, "_MOMENT", 0.3)


@asynccontextmanager
async def web_server() -> AsyncIterator[int]:
    """As a dashboard is one."""
    server = HTTPServer(Application())
    (sock,) = bind_sockets(0, "127.0.0.1")
    server.add_sockets([sock])
    try:
        yield sock.getsockname()[1]
    finally:
        server.stop()
        await server.close_all_connections()


@asynccontextmanager
async def terse_web_server() -> AsyncIterator[int]:
    """One that answers what it takes for a request, and closes."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def expect_final(dialler: Party, port: int, words: str, timeout: float = HANG / 2) -> None:
    loop = asyncio.get_running_loop()
    start = loop.time()
    with pytest.raises(FatalCommClosedError, match=words):
        await dialler.connect(f"{dialler.scheme}://127.0.0.1:{port}", timeout=timeout)
    assert loop.time() - start < timeout / 2
    assert not dialled(port)


@pytest.mark.parametrize("kind", ["ours", "stock"])
@asynchronous
async def test_plain_to_tls(kind: str, make_party: MakeParty) -> None:
    async with make_party(kind, "tls").listen(echo) as listener:
        port = listener.get_host_port()[1]
        words = f"it speaks TLS; use tls://127.0.0.1:{port}"
        for _ in range(2):  # also when it is asked again
            await expect_final(make_party("ours", "tcp"), port, words)


@pytest.mark.parametrize("kind", ["ours", "stock"])
@asynchronous
async def test_tls_to_plain(kind: str, make_party: MakeParty) -> None:
    async with make_party(kind, "tcp").listen(echo) as listener:
        port = listener.get_host_port()[1]
        await expect_final(make_party("ours", "tls"), port, "it does not speak TLS; use tls://")


@pytest.mark.parametrize("server", [web_server, terse_web_server])
@asynchronous
async def test_to_a_web_server(server: Any, scheme: str, make_party: MakeParty) -> None:
    async with server() as port:
        await expect_final(make_party("ours", scheme), port, "a web server .HTTP. listens there")


@asynchronous
async def test_with_little_time(make_party: MakeParty) -> None:
    """distributed gives the first attempt a fifth of it."""
    async with make_party("ours", "tls").listen(echo) as listener:
        port = listener.get_host_port()[1]
        await expect_final(make_party("ours", "tcp"), port, "it speaks TLS", timeout=5)


@asynchronous
async def test_who_is_merely_silent_is_asked_once(
    make_party: MakeParty, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not at each attempt: it may be overloaded."""
    monkeypatch.setattr(silence, "_MOMENT", 0.05)
    monkeypatch.setattr(silence, "_ANSWER", 0.05)
    party = make_party("ours", "tcp")
    async with Recorder(None) as server:
        for _ in range(3):
            with pytest.raises(OSError, match="Timed out"):
                await party.connect(server.address, timeout=1)
        asked = server.accepted - 3  # the second attempt of each call continues the first
        assert 1 <= asked <= 2  # on a busy machine the first may have had no time


@asynchronous
async def test_who_had_no_time_to_answer_is_asked_again(
    make_party: MakeParty, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(silence, "_MOMENT", 0.01)
    party = make_party("ours", "tcp")
    async with Recorder(None) as server:
        with pytest.raises(OSError, match="Timed out"):
            await party.connect(server.address, timeout=0.3)
        assert server.accepted > 1
        place = server.address
        assert silence.time.monotonic() - silence._asked[place] > silence._AGAIN - silence._SOON
        assert not dialled(server.port)


@asynchronous
async def test_who_is_merely_slow_is_waited_for(make_party: MakeParty) -> None:
    """A listener that greets after it was asked."""
    party = make_party("stock", "tcp")
    select("stock")
    async with party.listen(echo) as listener:
        host, port = listener.get_host_port()
        held: list[asyncio.StreamWriter] = []

        async def slowly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            first = not held
            held.append(writer)
            if not first:  # who asks is left without an answer
                return
            while len(held) < 2:
                await asyncio.sleep(0.01)
            there, back = await asyncio.open_connection(host, port)
            held.append(back)
            await asyncio.gather(pump(reader, back), pump(there, writer))

        server = await asyncio.start_server(slowly, "127.0.0.1", 0)
        async with server:
            address = f"tcp://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            comm = await make_party("ours", "tcp").connect(address)
            await comm.write("in")
            assert await comm.read() == "in"
            comm.abort()
            for writer in held:
                writer.close()


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
