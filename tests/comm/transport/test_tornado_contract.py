"""What comm relies on of Tornado beyond what that documents, from the oldest allowed to the newest.

Of private names there is none: servers and clients are Tornado's by their interfaces, and what
they do is our own.
"""

from __future__ import annotations

import ast
import importlib
import pkgutil
import socket
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from tornado.ioloop import IOLoop
from tornado.iostream import IOStream
from tornado.netutil import Resolver
from tornado.tcpclient import TCPClient
from tornado.tcpserver import TCPServer

from sealwire.comm import Address, transport
from sealwire.comm.transport.client import FrameClient
from sealwire.comm.transport.local import LocalServer
from sealwire.comm.transport.server import FrameServer
from support.aio import aio

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
    assert ours() == {FrameServer, FrameClient, LocalServer}
    assert all(issubclass(kind, BASES) for kind in ours())


def test_no_private_name_is_overridden() -> None:
    overridden = {
        name
        for kind in ours()
        for name in vars(kind)
        if is_private(name) and any(hasattr(base, name) for base in BASES if base in kind.__mro__)
    }
    assert not overridden


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
async def test_no_private_name_is_looked_up() -> None:
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
    assert not used & theirs


# The resolver


class Counting(Resolver):
    """Knows one list of addresses, and is asked."""

    def initialize(self, *addresses: Any) -> None:  # type: ignore[override]
        self.addresses = addresses
        self.asked: list[Any] = []

    async def resolve(self, host: str, port: int, family: Any = None) -> Any:
        self.asked.append((host, port, family))
        return [(socket.AF_INET, address) for address in self.addresses]


@aio
async def test_a_resolver_is_asked_as_tornado_asks_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        resolver = Counting(server.getsockname())
        stream = await FrameClient(resolver=resolver).dial(Address("tcp", "name", 7))
        assert resolver.asked == [("name", 7, socket.AF_UNSPEC)]
        assert stream.socket.getpeername() == server.getsockname()
        stream.close()


@aio
async def test_the_default_resolver_gives_addresses_as_sockets_take_them() -> None:
    found = await FrameClient().resolver.resolve("localhost", 7, socket.AF_INET)
    assert (socket.AF_INET, ("127.0.0.1", 7)) in [(family, place) for family, place in found]
