"""One face for every implementation: an adapter connects, listens and wraps a payload.

Its comms have coroutines `read`, `write` and `close`, as those of Dask and ours; messages are dicts
with an `op`. Whatever goes wrong with a connection is an `OSError`.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Coroutine
from importlib import import_module
from typing import Any, TextIO

Handler = Callable[[Any], Awaitable[None]]


class Adapter:
    """How one implementation is used. `credentials` are the parameters of a `Security`."""

    def __init__(self, link: str, credentials: dict[str, str]) -> None:
        self.link = link
        self.credentials = credentials if link == "tls" else {}
        self.address = f"{link}://127.0.0.1:0"

    def payload(self, array: Any) -> dict[str, Any]:
        """The message that carries a large array."""
        return {"op": "data", "data": array}

    async def listen(self, handler: Handler) -> str:
        """Accept comms; return the address."""
        raise NotImplementedError

    async def connect(self, address: str) -> Any:
        """A comm, after the hello where there is one."""
        raise NotImplementedError


class Standalone(Adapter):
    """`sealwire.comm` by itself."""

    def __init__(self, link: str, credentials: dict[str, str]) -> None:
        super().__init__(link, credentials)
        from sealwire import comm
        from sealwire.security import Security

        self.comm = comm
        self.security = Security(**self.credentials)

    async def listen(self, handler: Handler) -> str:
        args = self.security.get_listen_args("scheduler")
        self.listener = await self.comm.listen(self.address, handler, **args)
        return str(self.listener.contact_address)

    async def connect(self, address: str) -> Any:
        args = self.security.get_connection_args("client")
        return await self.comm.connect(address, timeout=30, **args)


class Stock(Adapter):
    """distributed's own backend, used as Dask uses it."""

    def __init__(self, link: str, credentials: dict[str, str]) -> None:
        super().__init__(link, credentials)
        self.load()
        from distributed import comm
        from distributed.protocol import to_serialize

        self.comm = comm
        self.to_serialize = to_serialize
        self.security = self.security_class()(**self.credentials)

    def load(self) -> None:
        """What must be imported first."""

    def security_class(self) -> Any:
        from distributed import Security

        return Security

    def payload(self, array: Any) -> dict[str, Any]:
        return {"op": "data", "data": self.to_serialize(array)}

    async def listen(self, handler: Handler) -> str:
        args = self.security.get_listen_args("scheduler")
        self.listener = await self.comm.listen(self.address, handler, **args)
        return str(self.listener.contact_address)

    async def connect(self, address: str) -> Any:
        args = self.security.get_connection_args("client")
        return await self.comm.connect(address, timeout=30, **args)


class Dask(Stock):
    """Our backend in distributed's place."""

    def load(self) -> None:
        from sealwire.dask_backend import install

        install()

    def security_class(self) -> Any:
        from sealwire.dask_backend import Security

        return Security


def make(implementation: str, link: str, credentials: dict[str, str]) -> Adapter:
    """The adapter of that name. Raises ImportError if its library is not installed."""
    known: dict[str, type[Adapter]] = {"stock": Stock, "standalone": Standalone, "dask": Dask}
    if implementation not in known:
        known[implementation] = import_module(f"peers.{implementation}_adapter").ADAPTER
    return known[implementation](link, credentials)


async def read_lines(file: TextIO) -> asyncio.StreamReader:
    """Lines of a pipe, without a thread."""
    reader = asyncio.StreamReader(limit=1 << 24)
    pipe = os.fdopen(os.dup(file.fileno()), "rb", buffering=0)
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), pipe
    )
    return reader


def run(main: Coroutine[Any, Any, None], *, uvloop: bool) -> None:
    """Like `asyncio.run`, on uvloop if so wished."""
    if uvloop:
        import uvloop as library

        loop = library.new_event_loop()
        asyncio.set_event_loop(loop)
        loop.run_until_complete(main)
    else:
        asyncio.run(main)
