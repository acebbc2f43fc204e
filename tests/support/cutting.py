"""Somebody on the path who ends a TLS connection in order, as TCP knows it, after some records."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

TO_DIALLER, TO_LISTENER = "to who dialled", "to who listens"
DIRECTIONS = (TO_DIALLER, TO_LISTENER)


class Proxy:
    """Serves one connection. It counts from `begin` on.

    Attributes
    ----------
    address : str
        Where to dial it.
    passed : int
        Records that went in the direction which is counted.
    """

    def __init__(self, target: str, direction: str, records: int) -> None:
        host, _, port = target.partition("://")[2].rpartition(":")
        self._target = host, int(port)
        self._direction = direction
        self._records = records
        self._begun = False
        self._cut = asyncio.Event()
        self.ended = asyncio.Event()
        self.address = ""
        self.passed = 0

    def begin(self) -> None:
        """The comm is open, and at rest."""
        self._begun = True
        if not self._records:
            self._cut.set()

    async def serve(self, near: asyncio.StreamReader, to_near: asyncio.StreamWriter) -> None:
        far, to_far = await asyncio.open_connection(*self._target)
        to_dialler = self._direction == TO_DIALLER
        passing = [
            asyncio.ensure_future((self._count if to_dialler else self._pass)(far, to_near)),
            asyncio.ensure_future((self._pass if to_dialler else self._count)(near, to_far)),
        ]
        all_of_it = asyncio.ensure_future(asyncio.wait(passing))
        cut = asyncio.ensure_future(self._cut.wait())
        await asyncio.wait([cut, all_of_it], return_when=asyncio.FIRST_COMPLETED)
        for task in (*passing, all_of_it, cut):
            task.cancel()
        await asyncio.wait([*passing, all_of_it, cut])
        for writer in (to_near, to_far):
            with contextlib.suppress(OSError):
                writer.write_eof()
        # What comes is read: else the kernel would reset the connections, which is no truncation.
        await asyncio.gather(_exhaust(near), _exhaust(far))
        to_near.close()
        to_far.close()
        self.ended.set()

    async def _pass(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(1 << 16):
                sink.write(data)
                await sink.drain()
            sink.write_eof()

    async def _count(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while self.passed < self._records or not self._begun:
                head = await source.readexactly(5)
                if self._begun and self.passed == self._records:
                    break
                sink.write(head + await source.readexactly(int.from_bytes(head[3:], "big")))
                await sink.drain()
                self.passed += self._begun
            self._cut.set()
        with contextlib.suppress(OSError):
            sink.write_eof()


async def _exhaust(reader: asyncio.StreamReader) -> None:
    with contextlib.suppress(OSError):
        while await reader.read(1 << 16):
            pass


@asynccontextmanager
async def cutting(target: str, direction: str, records: int) -> AsyncIterator[Proxy]:
    """A proxy to `target` that ends both directions after so many records in one of them.

    Whoever uses it closes the comm.
    """
    proxy = Proxy(target, direction, records)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    async with server:
        proxy.address = f"tls://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        yield proxy
        await proxy.ended.wait()
