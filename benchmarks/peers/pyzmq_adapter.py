"""ZeroMQ, blocking, over tcp (it has no TLS): a message is two parts, op and data."""

from __future__ import annotations

import threading
from typing import Any

import zmq

from .adapters import Adapter, Handler
from .sockets_adapter import drive

COPY_BELOW = 1 << 16


class Comm:
    """Messages ``{"op", "data"}`` over a socket."""

    def __init__(self, sock: Any) -> None:
        self._sock = sock

    async def write(self, message: dict[str, Any]) -> None:
        data = memoryview(message.get("data", b""))
        parts = [message["op"].encode(), data]
        self._sock.send_multipart(parts, copy=data.nbytes < COPY_BELOW)

    async def read(self) -> dict[str, Any]:
        op, data = self._sock.recv_multipart(copy=False)
        return {"op": op.bytes.decode(), "data": data.buffer}

    async def close(self) -> None:
        self._sock.close()


class PyZMQ(Adapter):
    """A PAIR socket on each side."""

    def _socket(self) -> Any:
        sock = zmq.Context.instance().socket(zmq.PAIR)
        sock.set_hwm(10_000)
        return sock

    async def listen(self, handler: Handler) -> str:
        sock = self._socket()
        port = sock.bind_to_random_port("tcp://127.0.0.1")
        threading.Thread(target=drive, args=(handler, Comm(sock)), daemon=True).start()
        return f"tcp://127.0.0.1:{port}"

    async def connect(self, address: str) -> Comm:
        sock = self._socket()
        sock.connect(address)
        return Comm(sock)


ADAPTER = PyZMQ
