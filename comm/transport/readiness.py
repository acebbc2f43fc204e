"""What the loop calls when a socket can be read or written; the one place that registers sockets.

A connection is watched in turn by whoever waits for its first byte, by its handshake and by its
stream. They share one `Readiness`, so that each takes the registration over from the one before:
to replace what is called costs no system call, to end a registration and begin another costs two.

The loop is asyncio's, uvloop's, or beside a proactor the one that Tornado runs in a thread.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

from tornado.ioloop import IOLoop

__all__ = ["Readiness"]


class Readiness:
    """Of one socket, from its opening to its end. It must be told to `stop` before that is closed.

    Attributes
    ----------
    reads, writes : bool
        What is waited for.
    errors_once : bool
        Whether the loop stops watching a socket at its first error, as libuv does, and so uvloop.
        Who reads until the socket is empty must then ask whether it is dead.
    """

    __slots__ = ("_fd", "_loop", "errors_once", "reads", "writes")

    def __init__(self, sock: socket.socket) -> None:
        self._fd = sock.fileno()  # asyncio formats what it does not know yet, and a socket is long
        self._loop: Any = getattr(IOLoop.current(), "selector_loop", asyncio.get_running_loop())
        self.errors_once = type(self._loop).__module__.partition(".")[0] == "uvloop"
        self.reads = False
        self.writes = False

    def on_readable(self, callback: Callable[[], object] | None) -> None:
        """Call it from now on, in place of what was called so far; None ends that.

        As long as the socket can be read it is called again in each turn of the loop.
        """
        if callback is not None:
            self._loop.add_reader(self._fd, callback)
            self.reads = True
        elif self.reads:
            self._loop.remove_reader(self._fd)
            self.reads = False

    def on_writable(self, callback: Callable[[], object] | None) -> None:
        """The same for writing."""
        if callback is not None:
            self._loop.add_writer(self._fd, callback)
            self.writes = True
        elif self.writes:
            self._loop.remove_writer(self._fd)
            self.writes = False

    def stop(self) -> None:
        """Wait for nothing any more."""
        self.on_readable(None)
        self.on_writable(None)
