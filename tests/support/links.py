"""Comms to test with: each scheme's arguments, connected pairs, and peers made of raw sockets."""

from __future__ import annotations

import asyncio
import functools
import itertools
import os
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import pytest

from sealwire.comm import CloseCode, Comm, Limits, connect, listen
from sealwire.comm.wire import hello
from sealwire.security import Security

SCHEMES = ["tcp", "tls"]
EVERYWHERE = [*SCHEMES, "unix", "mem"]

Test = TypeVar("Test", bound=Callable[..., Any])


def by_port(test: Test) -> Test:
    """Of a test that is about hosts and ports."""
    test.schemes = SCHEMES  # type: ignore[attr-defined]
    return test


def over_schemes(metafunc: pytest.Metafunc) -> None:
    """A module's `pytest_generate_tests`: what is said of comms is so over every scheme."""
    if "scheme" in metafunc.fixturenames:
        metafunc.parametrize("scheme", getattr(metafunc.function, "schemes", EVERYWHERE))


_names = itertools.count()


def place(scheme: str) -> str:
    """An address to listen on that nobody has."""
    if scheme == "unix":  # without a file
        return f"unix://@sealwire-test-{os.getpid()}-{next(_names)}"
    return "mem://" if scheme == "mem" else f"{scheme}://127.0.0.1:0"


@functools.cache
def security() -> Security:
    """One set of certificates for the whole run."""
    return Security.temporary()


def listen_args(scheme: str) -> dict[str, Any]:
    return security().get_listen_args("scheduler") if scheme == "tls" else {}


def connect_args(scheme: str) -> dict[str, Any]:
    return security().get_connection_args("worker") if scheme == "tls" else {}


@asynccontextmanager
async def pair(scheme: str, limits: Limits | None = None) -> AsyncIterator[tuple[Comm, Comm]]:
    """A connected pair: the side that dialled and the side that accepted."""
    accepted: asyncio.Future[Comm] = asyncio.get_running_loop().create_future()
    done = asyncio.Event()

    async def hold(comm: Comm) -> None:
        accepted.set_result(comm)
        await done.wait()

    async with listen(place(scheme), hold, limits=limits, **listen_args(scheme)) as listener:
        dialled = await connect(listener.contact_address, limits=limits, **connect_args(scheme))
        try:
            other = await accepted
            yield dialled, other
        finally:
            dialled.abort()
            other.abort()
            done.set()


async def echo(comm: Comm) -> None:
    async for message in comm:
        await comm.write(message)


async def blocking(address: str, talk: Callable[[socket.socket], Any]) -> Any:
    """Run blocking code on a raw connection, beside the loop."""
    host, port = address.rpartition("://")[2].rsplit(":", 1)

    def run() -> Any:
        with socket.create_connection((host, int(port)), timeout=20) as sock:
            return talk(sock)

    return await asyncio.get_running_loop().run_in_executor(None, run)


class RawPeer:
    """The other end of a comm without any of our code but `hello`'s bytes: sockets and `ssl`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def dial(cls, address: str, context: ssl.SSLContext | None = None) -> RawPeer:
        host, port = address.rpartition("://")[2].rsplit(":", 1)
        return cls(*await asyncio.open_connection(host, int(port), ssl=context))

    def send(self, *frames: bytes) -> None:
        """A message in one block."""
        self.writer.write(message(*frames))

    def say_hello(self) -> None:
        self.send(hello.encode(hello.offer()))

    async def receive(self) -> list[bytes]:
        """The frames of one message."""
        lead, count = struct.unpack("<QQ", await self.reader.readexactly(16))
        lengths = struct.unpack(f"<{count}Q", await self.reader.readexactly(8 * count))
        assert lead <= 8 + 8 * count + sum(lengths)
        return [await self.reader.readexactly(length) for length in lengths]

    async def ended(self) -> bytes:
        """What still comes until the other side closes."""
        try:
            return await self.reader.read()
        except (ConnectionError, ssl.SSLError):
            return b""

    def close(self) -> None:
        self.writer.close()

    def reset(self) -> None:
        """Drop the connection with a TCP reset."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


def message(*frames: bytes) -> bytes:
    """The bytes of a message in one block, written out from the wire's description."""
    body = struct.pack("<Q", len(frames))
    body += b"".join(struct.pack("<Q", len(frame)) for frame in frames)
    body += b"".join(frames)
    return struct.pack("<Q", len(body)) + body


class Wrapping(Comm):
    """A comm of an author's own, which counts what is read of another."""

    def __init__(self, inner: Comm) -> None:
        self.inner = inner
        self.read_so_far = 0

    async def read(self) -> Any:
        message = await self.inner.read()
        self.read_so_far += 1
        return message

    async def write(self, message: Any, *, timeout: float | None = None) -> int:
        return await self.inner.write(message, timeout=timeout)

    def write_nowait(self, message: Any) -> bool:
        return self.inner.write_nowait(message)

    async def drain(self, *, timeout: float | None = None) -> None:
        await self.inner.drain(timeout=timeout)

    async def close(self, code: int = CloseCode.NORMAL, reason: str = "") -> None:
        await self.inner.close(code, reason)

    def abort(self) -> None:
        self.inner.abort()

    def closed(self) -> bool:
        return self.inner.closed()

    @property
    def local_address(self) -> str:
        return self.inner.local_address

    @property
    def peer_address(self) -> str:
        return self.inner.peer_address
