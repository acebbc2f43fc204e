"""Blocking sockets with a length prefix: what is to be had without a loop and without a library.

The coroutines never suspend, so the driving side blocks its loop; the serving side runs each comm
in a thread of its own.
"""

from __future__ import annotations

import socket
import struct
import threading
from typing import Any

from .adapters import Adapter, Handler

PREFIX = struct.Struct("<QB")  # bytes that follow, and which op they are
OPS = ["ok", "echo", "note", "sync", "data"]
NONE = b""


class Comm:
    """Messages ``{"op", "data"}`` over a connected socket."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._sock = sock
        self._prefix = bytearray(PREFIX.size)

    async def write(self, message: dict[str, Any]) -> None:
        data = message.get("data", NONE)
        size = memoryview(data).nbytes
        prefix = PREFIX.pack(size, OPS.index(message["op"]))
        if size < 1 << 16:
            self._sock.sendall(prefix + bytes(data))
        else:
            self._sock.sendall(prefix)
            self._sock.sendall(data)

    async def read(self) -> dict[str, Any]:
        self._fill(memoryview(self._prefix))
        size, op = PREFIX.unpack(self._prefix)
        data = bytearray(size)
        self._fill(memoryview(data))
        return {"op": OPS[op], "data": data}

    def _fill(self, view: memoryview) -> None:
        while view:
            received = self._sock.recv_into(view)
            if not received:
                raise ConnectionResetError("closed")
            view = view[received:]

    async def close(self) -> None:
        self._sock.close()


class Sockets(Adapter):
    """Plain sockets, or `SSLSocket`s with the contexts of our `Security`."""

    def __init__(self, link: str, credentials: dict[str, str]) -> None:
        super().__init__(link, credentials)
        from sealwire.security import Security

        self.security = Security(**self.credentials)

    async def listen(self, handler: Handler) -> str:
        self.server = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._accept, args=(handler,), daemon=True).start()
        return str(self.server.getsockname()[1])

    def _accept(self, handler: Handler) -> None:
        context = self.security.get_listen_args("scheduler")["ssl_context"]
        while True:
            sock, _ = self.server.accept()
            if context:
                sock = context.wrap_socket(sock, server_side=True)
            threading.Thread(target=drive, args=(handler, Comm(sock)), daemon=True).start()

    async def connect(self, address: str) -> Comm:
        context = self.security.get_connection_args("client")["ssl_context"]
        sock = socket.create_connection(("127.0.0.1", int(address)))
        return Comm(context.wrap_socket(sock) if context else sock)


def drive(handler: Handler, comm: Any) -> None:
    """Run a handler whose coroutine never suspends to its end."""
    try:
        handler(comm).__await__().send(None)  # type: ignore[union-attr]
    except StopIteration:
        pass


ADAPTER = Sockets
