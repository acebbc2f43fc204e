"""Comms of either backend in one process: a `Party` dials and listens with stock's or with ours.

Everything goes through `distributed.comm.connect` and `listen`; only distributed's registry is
switched, by `install` and `uninstall`.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import distributed
import numpy as np
import psutil
from distributed.comm import connect, listen
from distributed.comm import tcp as stock
from distributed.comm.core import Comm, Listener

from sealwire.dask_backend import Security, backend, install, uninstall
from support import HANG

ROLES = ("client", "scheduler", "worker")
PATIENCE = 30.0  # seconds for a dial; it takes a moment

CLASSES = {
    ("stock", "tcp"): stock.TCP,
    ("stock", "tls"): stock.TLS,
    ("ours", "tcp"): backend.TCP,
    ("ours", "tls"): backend.TLS,
}


def asynchronous(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run a test that is a coroutine function in an event loop of its own."""

    @functools.wraps(test)
    def run(*args: Any, **fixtures: Any) -> None:
        async def bounded() -> None:
            await asyncio.wait_for(test(*args, **fixtures), HANG)

        asyncio.run(bounded())

    return run


def select(kind: str) -> None:
    """Let distributed use this backend from now on."""
    (install if kind == "ours" else uninstall)()


@dataclass(frozen=True)
class Party:
    """One who dials and listens, with a backend and a `Security` of the same kind."""

    kind: str
    scheme: str
    security: Any

    @classmethod
    def of(cls, kind: str, scheme: str, fields: dict[str, Any]) -> Party:
        make = Security if kind == "ours" else distributed.Security
        encrypted = scheme == "tls"
        return cls(
            kind, scheme, make(require_encryption=encrypted, **(fields if encrypted else {}))
        )

    @property
    def comm_class(self) -> type[Comm]:
        return CLASSES[self.kind, self.scheme]

    def listen(
        self,
        handler: Callable[..., Any],
        where: str = "127.0.0.1:0",
        role: str = "scheduler",
        **extra: Any,
    ) -> Listener:
        """A listener that has not started."""
        select(self.kind)
        args = {**self.security.get_listen_args(role), **extra}
        return listen(f"{self.scheme}://{where}", handler, **args)

    async def connect(
        self, address: str, role: str = "client", timeout: float = PATIENCE, **extra: Any
    ) -> Comm:
        select(self.kind)  # the registry is asked before connect() first waits
        args = {**self.security.get_connection_args(role), **extra}
        return await connect(address, timeout=timeout, **args)


@asynccontextmanager
async def pair(
    dialler: Party,
    acceptor: Party | None = None,
    *,
    listen_args: dict[str, Any] | None = None,
    connect_args: dict[str, Any] | None = None,
) -> AsyncIterator[tuple[Comm, Comm]]:
    """The two ends of a comm, the dialled one first."""
    accepted: asyncio.Future[Comm] = asyncio.get_running_loop().create_future()

    async def keep(comm: Comm) -> None:
        accepted.set_result(comm)

    listener = (acceptor or dialler).listen(keep, **listen_args or {})
    async with listener:
        near = await dialler.connect(listener.contact_address, **connect_args or {})
        far = await accepted
        try:
            yield near, far
        finally:
            await near.close()
            await far.close()


async def echo(comm: Comm) -> None:
    """A handler that returns every message until the peer leaves."""
    try:
        while True:
            await comm.write(await comm.read())
    except OSError:
        await comm.close()


def dialled(port: int) -> list[Any]:
    """The sockets of this process that it has connected to `port`."""
    return [c for c in psutil.Process().net_connections("tcp") if c.raddr and c.raddr.port == port]


def accepted(port: int) -> list[Any]:
    """The sockets of this process that it has accepted on `port`."""
    return [c for c in psutil.Process().net_connections("tcp") if c.raddr and c.laddr.port == port]


def assert_same(got: Any, expected: Any) -> None:
    """As ==, with arrays anywhere inside."""
    assert type(got) is type(expected)
    if isinstance(expected, np.ndarray):
        assert got.dtype == expected.dtype
        assert np.array_equal(got, expected)
    elif isinstance(expected, dict):
        assert got.keys() == expected.keys()
        for key in expected:
            assert_same(got[key], expected[key])
    elif isinstance(expected, tuple):
        assert len(got) == len(expected)
        for one, other in zip(got, expected, strict=True):
            assert_same(one, other)
    else:
        assert got == expected


async def turns(count: int = 20) -> None:
    """Let everything that is ready run."""
    for _ in range(count):
        await asyncio.sleep(0)
