"""What comm relies on of Tornado beyond what that documents, from the oldest allowed to the newest.

Of private names there is one: `TCPClient._create_stream`, overridden to know of every attempt, so
that none outlives the race. Beside it, the winner's socket is taken from its `IOStream`.
"""

from __future__ import annotations

import ast
import asyncio
import gc
import importlib
import inspect
import pkgutil
import socket
import weakref
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from tornado.ioloop import IOLoop
from tornado.iostream import IOStream, StreamClosedError
from tornado.netutil import Resolver
from tornado.tcpclient import TCPClient
from tornado.tcpserver import TCPServer

from sealwire.comm import transport
from sealwire.comm.transport.client import FrameClient, _Race
from sealwire.comm.transport.server import FrameServer
from support.aio import aio, until

ALLOWED = {"_create_stream"}
BASES = (TCPServer, TCPClient)


def modules() -> Iterator[ModuleType]:
    for each in pkgutil.iter_modules(transport.__path__):
        yield importlib.import_module(f"{transport.__name__}.{each.name}")


def source(module: ModuleType) -> ast.Module:
    assert module.__file__ is not None
    return ast.parse(Path(module.__file__).read_text(encoding="utf-8"))


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def ours() -> set[type]:
    """Our classes that inherit from Tornado's."""
    return {
        kind
        for module in modules()
        for kind in vars(module).values()
        if isinstance(kind, type)
        and kind.__module__.startswith("sealwire.")
        and any(base.__module__.partition(".")[0] == "tornado" for base in kind.__mro__)
    }


async def of_tornado() -> set[str]:
    """Private names of the classes that comm meets, and of what their instances hold."""
    with socket.socket() as sock:
        met: list[Any] = [TCPServer(), TCPClient(), IOLoop.current(), IOStream(sock), Resolver()]
        names = {name for each in met for name in (*dir(type(each)), *vars(each))}
    return {name for name in names if is_private(name)}


# The names


def test_our_classes_are_seen() -> None:
    assert ours() == {FrameServer, FrameClient, _Race}
    assert all(issubclass(kind, BASES) for kind in ours())


def test_one_private_name_is_overridden() -> None:
    overridden = {
        name
        for kind in ours()
        for name in vars(kind)
        if is_private(name) and any(hasattr(base, name) for base in BASES if base in kind.__mro__)
    }
    assert overridden == ALLOWED


@aio
async def test_no_attribute_of_ours_is_one_of_tornados() -> None:
    """One instance has room for one `_pending` only."""
    theirs = {
        base: {name for name in (*dir(base), *vars(base())) if is_private(name)} for base in BASES
    }
    assert all(theirs.values()), theirs
    checked = 0
    for module in modules():
        for node in ast.walk(source(module)):
            if not isinstance(node, ast.ClassDef) or getattr(module, node.name) not in ours():
                continue
            kind = getattr(module, node.name)
            (base,) = [base for base in BASES if issubclass(kind, base)]
            stored = {
                each.attr
                for each in ast.walk(node)
                if isinstance(each, ast.Attribute) and isinstance(each.ctx, ast.Store)
                if isinstance(each.value, ast.Name) and each.value.id == "self"
            }
            assert not stored & theirs[base], (kind, stored & theirs[base])
            checked += len(stored)
    assert checked


@aio
async def test_no_other_private_name_is_looked_up() -> None:
    """On anything but `self`, in the files that import Tornado."""
    theirs = await of_tornado()
    assert {"_create_stream", "_handle_connection", "_read_buffer"} <= theirs
    used = set()
    files = []
    for module in modules():
        tree = source(module)
        imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)} | {
            alias.name for n in ast.walk(tree) if isinstance(n, ast.Import) for alias in n.names
        }
        if not any((name or "").startswith("tornado") for name in imported):
            continue
        files.append(module.__name__.rpartition(".")[2])
        used |= {
            node.attr
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute) and is_private(node.attr)
            if not (isinstance(node.value, ast.Name) and node.value.id == "self")
        }
    assert sorted(files) == ["client", "readiness", "server"]
    assert used & theirs == ALLOWED


# What `_create_stream` is


class Recording(_Race):
    """A race that keeps what Tornado calls it with, and what comes of it."""

    def __init__(self, resolver: Any = None) -> None:
        super().__init__(resolver)
        self.calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
        self.made: list[Any] = []

    def _create_stream(self, *args: Any, **kwargs: Any) -> Any:
        self.calls.append((args, kwargs))
        made = super()._create_stream(*args, **kwargs)
        self.made.append(made)
        return made


class Hanging(Recording):
    """A race of attempts that never come to an end."""

    def _create_stream(self, *args: Any, **kwargs: Any) -> Any:
        stream, _ = super()._create_stream(*args, **kwargs)
        return stream, asyncio.get_running_loop().create_future()


class Fixed(Resolver):
    """Knows one list of addresses."""

    def initialize(self, *addresses: Any) -> None:  # type: ignore[override]
        self.addresses = addresses

    async def resolve(self, host: str, port: int, family: Any = None) -> Any:
        return [(socket.AF_INET, address) for address in self.addresses]


@pytest.fixture
def server() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening


@pytest.fixture
def refusing() -> Iterator[Any]:
    """An address that refuses: it is bound, and nothing listens there."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()


async def race(running: _Race) -> socket.socket:
    return await running.winner("name", 1, socket.AF_UNSPEC, "127.0.0.1", None)


@aio
async def test_it_is_called_as_its_signature_says(server: socket.socket) -> None:
    running = Recording(Fixed(server.getsockname()))
    with await race(running):
        ((args, kwargs),) = running.calls
        bound = inspect.signature(TCPClient._create_stream).bind(running, *args, **kwargs)
        assert bound.arguments["addr"] == server.getsockname()
        assert bound.arguments["af"] == socket.AF_INET
        assert bound.arguments["source_ip"] == "127.0.0.1"
        assert bound.arguments.get("source_port") is None
        ((stream, connected),) = running.made
        assert isinstance(stream, IOStream)
        assert isinstance(connected, asyncio.Future)
        assert connected.result() is stream


@aio
async def test_every_attempt_comes_of_it(server: socket.socket, refusing: Any) -> None:
    """The first address refuses, the second wins; of the first nothing is left open."""
    running = Recording(Fixed(refusing, server.getsockname()))
    with await race(running) as won:
        assert won.getpeername() == server.getsockname()
        assert [args[-1] for args, _ in running.calls] == [
            refusing,
            server.getsockname(),
        ]
        first, second = (stream for stream, _ in running.made)
        assert first.closed()
        assert first.socket is None
        assert second.socket is None


@aio
async def test_a_lost_race_leaves_nothing_open(refusing: Any) -> None:
    running = Recording(Fixed(refusing))
    with pytest.raises(StreamClosedError) as caught:
        await race(running)
    assert isinstance(caught.value.real_error, ConnectionRefusedError)  # what `dial` tells
    ((stream, _),) = running.made
    assert stream.closed()
    assert stream.socket is None


@aio
async def test_a_cancelled_race_leaves_nothing_open(server: socket.socket) -> None:
    """At once: the oldest Tornado leaves such attempts to the collector."""
    running = Hanging(Fixed(server.getsockname()))
    racing = asyncio.ensure_future(race(running))
    await until(lambda: bool(running.made))
    ((stream, _),) = running.made
    assert not stream.closed()
    racing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await racing
    assert stream.closed()
    assert stream.socket is None


# What is left of a stream whose socket is taken


@aio
async def test_the_socket_taken_is_ours_alone(server: socket.socket) -> None:
    """The loop does not watch it, and neither events nor the stream's end reach it."""
    loop = asyncio.get_running_loop()
    running = Recording(Fixed(server.getsockname()))
    won = await race(running)
    peer, _ = server.accept()
    with won, peer:
        fd = won.fileno()
        assert fd not in IOLoop.current().handlers  # type: ignore[attr-defined]
        assert not loop.remove_reader(fd)
        assert not loop.remove_writer(fd)
        ((stream, _),) = running.made
        closed: list[bool] = []
        stream.set_close_callback(lambda: closed.append(True))
        peer.sendall(b"for us")
        received = await loop.sock_recv(won, 100)
        assert received == b"for us"
        assert not closed
        left = weakref.ref(stream)
        running.made.clear()
        del stream, running, _
        await until(lambda: gc.collect() >= 0 and left() is None)  # a callback is due that has it
        assert won.fileno() == fd
        await loop.sock_sendall(won, b"for the peer")
        assert peer.recv(100) == b"for the peer"
        assert not closed


@aio
async def test_a_stream_that_is_not_taken_is_watched(server: socket.socket) -> None:
    """So what the test above looks for is there where nothing is taken."""
    stream = IOStream(socket.socket())
    await stream.connect(server.getsockname())
    reading = asyncio.ensure_future(stream.read_bytes(1))
    while not stream.reading():
        await asyncio.sleep(0)
    fd = stream.socket.fileno()
    assert fd in IOLoop.current().handlers  # type: ignore[attr-defined]
    assert asyncio.get_running_loop().remove_reader(fd)
    stream.close()
    with pytest.raises(OSError, match="closed"):
        await reading
