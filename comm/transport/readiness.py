"""The readiness callbacks of a socket; the only module that registers sockets with the loop.

A connection is watched by the wait for its first byte, by its handshake and by its stream, in this
order. They share one `Readiness`, so that each replaces the callbacks of the previous one: this
costs no system call, where removing a registration and adding another costs two.

The loop is asyncio's, uvloop's, or, besides a proactor, the one that Tornado runs in a thread.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from typing import Any

from tornado.ioloop import IOLoop

__all__ = ["Readiness"]

_MAY_BE_PROACTOR = os.name == "nt"


class Readiness:
    """The registrations of one socket. Call `stop` before closing the socket.

    Attributes
    ----------
    reads, writes : bool
        What is waited for.
    errors_once : bool
        Whether the loop stops watching a socket at its first error, as libuv (and so uvloop) does.
        A reader that drained the socket must then check whether it is dead.
    """

    __slots__ = ("_fd", "_loop", "errors_once", "reads", "writes")

    def __init__(self, sock: socket.socket, loop: asyncio.AbstractEventLoop | None = None) -> None:
        self._fd = sock.fileno()  # asyncio formats unknown file objects; a socket's repr is slow
        self._loop: Any = loop or asyncio.get_running_loop()
        if _MAY_BE_PROACTOR:
            self._loop = getattr(IOLoop.current(), "selector_loop", self._loop)
        self.errors_once = type(self._loop).__module__.startswith("uvloop")
        self.reads = False
        self.writes = False

    def on_readable(self, callback: Callable[[], object] | None) -> None:
        """Call `callback` while the socket is readable, replacing the previous one; None stops.

        It is called in each iteration of the loop as long as the socket is readable.
        """
        if callback is not None:
            self._loop.add_reader(self._fd, callback)
            self.reads = True
        elif self.reads:
            self._loop.remove_reader(self._fd)
            self.reads = False

    def on_writable(self, callback: Callable[[], object] | None) -> None:
        """As `on_readable`, for writing."""
        if callback is not None:
            self._loop.add_writer(self._fd, callback)
            self.writes = True
        elif self.writes:
            self._loop.remove_writer(self._fd)
            self.writes = False

    def stop(self) -> None:
        """Stop waiting for anything."""
        self.on_readable(None)
        self.on_writable(None)
