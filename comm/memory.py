"""The backend for ``mem://name``: comms within one process, for tests.

A pair of connected local sockets carries the bytes, which are encoded, split and decoded as those
of any comm: limits, back-pressure, errors and close codes are the same. No port is bound and no
file made; a name is known in this process alone, and in no fork of it. A listener on ``mem://``
gets a name of its own. Listener and connector may run in different event loops.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
from collections.abc import Mapping
from typing import Any

from .addressing import Address
from .errors import CommClosedError
from .interfaces import Backend, Comm, Connector, Handler, Listener
from .limits import Limits
from .tcp import TCP
from .transport.local import LocalServer, LocalStream
from .transport.stream import FrameStream
from .unix import UnixListener, opened, refuse_plain

__all__ = ["Memory", "MemoryBackend", "MemoryConnector", "MemoryListener"]

# Of this process: name -> server, its loop, and the process that it belongs to.
_listeners: dict[str, tuple[LocalServer, asyncio.AbstractEventLoop, int]] = {}
_numbers = itertools.count(1)


class Memory(TCP):
    """A comm within one process; made by `connect` and by listeners."""

    scheme = "mem"


def _anybody(_: FrameStream) -> None:
    """Nobody else knows the name."""


class MemoryConnector(Connector):
    """Dials ``mem://``."""

    async def connect(self, address: Address, limits: Limits, **connection_args: Any) -> Comm:
        """Open a comm, see `Connector.connect`."""
        refuse_plain(address, connection_args)
        server, loop, pid = _listeners.get(address.host, (None, None, 0))
        if server is None or loop is None or pid != os.getpid() or loop.is_closed():
            error = CommClosedError(
                "connection refused; check that a listener of that name runs in this process",
                peer=str(address),
            )
            error.kind = "refused"
            raise error from ConnectionRefusedError(str(address))
        ours, theirs = socket.socketpair()
        name = server.next_peer()
        try:
            stream = LocalStream(ours, limits, str(address), (name, 0))
        except BaseException:
            ours.close()
            theirs.close()
            raise
        if loop is asyncio.get_running_loop():
            server.admit_as(theirs, name)
        else:
            loop.call_soon_threadsafe(server.admit_as, theirs, name)
        return await opened(stream, limits, Memory, _anybody)


class MemoryListener(UnixListener):
    """Accepts on ``mem://``."""

    comm_class: type[TCP] = Memory

    def __init__(
        self, address: Address, handler: Handler, limits: Limits, **connection_args: Any
    ) -> None:
        if not address.host:
            address = address._replace(host=f"{os.getpid()}-{next(_numbers)}")
        super().__init__(address, handler, limits, **connection_args)

    def _expect_name(self, name: str) -> None:
        """Any name will do."""

    def _prepare(self, connection_args: Mapping[str, Any]) -> None:
        refuse_plain(self._address, connection_args)

    async def start(self) -> None:
        """Take the name. Raises `OSError` if another listener has it."""
        if not self.begins():
            return
        name = self._address.host
        known = _listeners.get(name)
        if known is not None and known[2] == os.getpid() and not known[1].is_closed():
            raise OSError(f"cannot listen on {self._address}: the name is in use; choose another")
        server = self._begin_accepting(name, _anybody)
        _listeners[name] = (server, asyncio.get_running_loop(), os.getpid())

    def release(self) -> None:
        """Give up the name."""
        known = _listeners.get(self._address.host)
        if known is not None and known[0] is self._server:
            del _listeners[self._address.host]


class MemoryBackend(Backend):
    """The backend for ``mem://``."""

    host_port = False
    connect_arguments = listen_arguments = ("allow_plain",)

    def connector(self) -> Connector:
        """Return a connector for ``mem://``."""
        return MemoryConnector()

    def listener(
        self, address: Address, handler: Handler, limits: Limits, **connection_args: Any
    ) -> Listener:
        """Return a listener for ``mem://``, see `Backend.listener`."""
        return MemoryListener(address, handler, limits, **connection_args)
