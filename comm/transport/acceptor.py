"""Accepts on listening sockets: until the kernel has no more connections, or the system no room.

A listening socket stays readable while a connection waits that cannot be accepted, for want of a
file descriptor or memory. So accepting pauses for a moment unless room can be made.
"""

from __future__ import annotations

import asyncio
import functools
import os
import socket
import weakref
from collections.abc import Callable, Iterable
from typing import Any

from .readiness import Readiness
from .sockets import STARVED, has_caller

__all__ = ["Acceptor"]

_acceptors: weakref.WeakSet[Acceptor] = weakref.WeakSet()

_PAUSE = 0.1  # seconds to stop accepting for when resources are exhausted


class Acceptor:
    """The listening sockets of one server.

    Parameters
    ----------
    loop
        The running event loop.
    most
        Connections to accept in one of its iterations.
    admit
        Called with each accepted socket and its address.
    make_room
        Called with the reason, in words, when a connection cannot be accepted; returns whether to
        try again at once.

    Attributes
    ----------
    sockets : list of socket.socket
        On which it accepts.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        most: int,
        admit: Callable[[socket.socket, Any], object],
        make_room: Callable[[str], bool],
    ) -> None:
        self.sockets: list[socket.socket] = []
        self._loop = loop
        self._most = most
        self._admit = admit
        self._make_room = make_room
        self._watched: list[Readiness] = []
        self._pause: asyncio.TimerHandle | None = None
        _acceptors.add(self)

    def add(self, sockets: Iterable[socket.socket]) -> None:
        """Begin to accept on further sockets, which `stop` will close.

        Raises `ValueError` for one that does not listen: it is always readable, with nothing to
        accept.
        """
        added = list(sockets)
        for listening in added:
            if not listening.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                raise ValueError(
                    f"cannot accept on {listening!r}: it does not listen; call its listen() first"
                )
        for listening in added:
            listening.setblocking(False)  # or the loop would wait in `accept` for the next one
        self.sockets += added
        if self._pause is None:
            self._watch(added)

    def stop(self) -> None:
        """Stop accepting, and close the sockets."""
        self._unwatch()
        sockets, self.sockets = self.sockets, []
        for listening in sockets:
            listening.close()

    def leave_to_parent(self) -> None:
        """In a forked child: close its descriptors, and nothing else.

        The registrations with the event loop are our parent's, who goes on accepting. A child that
        outlives it would keep the address: nobody would be refused, or could listen there.
        """
        self._watched.clear()
        self._pause = None
        self.stop()

    def _watch(self, sockets: Iterable[socket.socket]) -> None:
        for listening in sockets:
            readiness = Readiness(listening, self._loop)
            readiness.on_readable(functools.partial(self._accept, listening))
            self._watched.append(readiness)

    def _unwatch(self) -> None:
        while self._watched:
            self._watched.pop().stop()
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None

    def _resume(self) -> None:
        self._pause = None
        self._watch(self.sockets)

    def _accept(self, listening: socket.socket) -> None:
        for _ in range(self._most):
            try:
                accepted, address = listening.accept()
            except BlockingIOError:
                return
            except OSError as error:
                # Other errors than STARVED are those of connections that broke in the backlog.
                if error.errno in STARVED and not self._has_room(listening, error):
                    return
            else:
                self._admit(accepted, address)

    def _has_room(self, listening: socket.socket, error: OSError) -> bool:
        """Whether to accept again at once."""
        if not has_caller(listening):
            return False
        if self._make_room((error.strerror or str(error)).lower()):
            return True
        self._unwatch()
        self._pause = self._loop.call_later(_PAUSE, self._resume)
        return False


def _in_child() -> None:
    for acceptor in list(_acceptors):
        acceptor.leave_to_parent()
    _acceptors.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
