"""Peers made of plain sockets: they record bytes, stay silent, send what no backend would."""

from __future__ import annotations

import asyncio
import struct
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from distributed import protocol
from distributed.comm.tcp import _add_frames_header

#: what a stock peer on the same host says first
OFFER = {"compression": None, "python": sys.version_info[:3], "pickle-protocol": 5}


def packed(frames: Sequence[Any]) -> bytes:
    """Frames as a stock sender puts them on the wire."""
    chunks, _, _ = _add_frames_header(list(frames))
    return b"".join(chunks)


def hello(**changes: Any) -> bytes:
    """A good hello, as a stock sender writes it."""
    return packed(protocol.dumps({**OFFER, **changes}))


async def first_block(reader: asyncio.StreamReader) -> bytes:
    """One message that consists of its first block."""
    lead = await reader.readexactly(8)
    return lead + await reader.readexactly(*struct.unpack("<Q", lead))


class Recorder:
    """A server that answers each hello and keeps what follows.

    Without an answer it stays silent until the peer leaves.

    Attributes
    ----------
    address : str
        Where to dial it, with ``tcp://``.
    recorded : asyncio.Future
        The first connection's hello and the bytes after it, once that has ended.
    accepted : int
        Connections so far.
    """

    def __init__(self, answer: bytes | None, host: str = "127.0.0.1") -> None:
        self.host = host
        self.answer = answer
        self.accepted = 0
        self.arrived = asyncio.Event()
        self.recorded: asyncio.Future[tuple[bytes, bytes]]
        self.recorded = asyncio.get_running_loop().create_future()

    async def __aenter__(self) -> Recorder:
        self.server = await asyncio.start_server(self._serve, self.host, 0)
        self.port = self.server.sockets[0].getsockname()[1]
        self.address = f"tcp://{self.host}:{self.port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self.server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        self.arrived.set()
        try:
            if self.answer is None:
                await reader.read()
                return
            writer.write(self.answer)
            first = await first_block(reader)
            rest = await reader.read()
            if not self.recorded.done():
                self.recorded.set_result((first, rest))
        except (OSError, asyncio.IncompleteReadError) as error:
            if self.answer is not None and not self.recorded.done():
                self.recorded.set_exception(error)
                self.recorded.exception()
        finally:
            writer.close()


@asynccontextmanager
async def dialling(
    address: str,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A plain connection to an address of the form ``scheme://host:port``."""
    host, _, port = address.partition("://")[2].rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        yield reader, writer
    finally:
        writer.close()


class Forwarder:
    """Passes connections on to `address` and counts them: what really arrived at a server."""

    def __init__(self, address: str) -> None:
        self.scheme, _, location = address.partition("://")
        self.host, _, port = location.rpartition(":")
        self.target = int(port)
        self.count = 0

    async def __aenter__(self) -> Forwarder:
        self.server = await asyncio.start_server(self._forward, "127.0.0.1", 0)
        self.port = self.server.sockets[0].getsockname()[1]
        self.address = f"{self.scheme}://127.0.0.1:{self.port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self.server.close()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.count += 1
        far_reader, far_writer = await asyncio.open_connection(self.host, self.target)
        await asyncio.gather(_pump(reader, far_writer), _pump(far_reader, writer))


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()
