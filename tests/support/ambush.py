"""A hostile server in threads: it accepts, does one thing with each connection, counts them."""

from __future__ import annotations

import contextlib
import random
import socket
import ssl
import threading
import time
from collections.abc import Callable

from support import attacker

Act = Callable[[socket.socket], None]


class Ambush:
    """Listens until it is left.

    Attributes
    ----------
    address : str
        With the scheme it was made for.
    accepted : int
        Connections so far.
    """

    def __init__(self, scheme: str, act: Act) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._act = act
        self._threads: list[threading.Thread] = []
        self.accepted = 0
        self.over = threading.Event()
        self.address = f"{scheme}://127.0.0.1:{self._listening.getsockname()[1]}"

    def __enter__(self) -> Ambush:
        self._start(self._accept)
        return self

    def _start(self, run: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=run, args=args)
        thread.start()
        self._threads.append(thread)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self._listening.accept()
                self.accepted += 1
                self._start(self._serve, sock)

    def _serve(self, sock: socket.socket) -> None:
        with contextlib.suppress(OSError), sock:
            sock.settimeout(20)
            self._act(sock)

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for thread in self._threads:
            thread.join()


def say(data: bytes) -> Act:
    """Say this, then wait for the other side to leave."""

    def act(sock: socket.socket) -> None:
        sock.sendall(data)
        attacker.ended(sock, 20)

    return act


def trickle(data: bytes) -> Act:
    """Say it a byte at a time."""

    def act(sock: socket.socket) -> None:
        for byte in data:
            sock.sendall(bytes([byte]))
            time.sleep(0.05)

    return act


def behind_tls(act: Act, version: ssl.TLSVersion | None = None, name: str = "server") -> Act:
    """The same once TLS is up, with a certificate that is accepted."""
    context = attacker.context(name, version, server=True)

    def wrapped(sock: socket.socket) -> None:
        with context.wrap_socket(sock, server_side=True) as tls:
            act(tls)

    return wrapped


def proxy(address: str, *, cut_after: float = float("inf"), seed: int = 0) -> Act:
    """Pass everything on in pieces of random size with random pauses, both ways.

    After `cut_after` bytes to the dialler both connections are reset.
    """
    source = random.Random(seed)

    def act(near: socket.socket) -> None:
        far = attacker.dial(address)
        passed = 0

        def pump(one: socket.socket, other: socket.socket, to_dialler: bool) -> None:
            nonlocal passed
            with contextlib.suppress(OSError):
                while data := one.recv(source.choice([1, 7, 100, 5000, 100_000])):
                    if to_dialler:
                        passed += len(data)
                        if passed > cut_after:
                            other.sendall(data[: len(data) - int(passed - cut_after)])
                            break
                    if source.random() < 0.05:
                        time.sleep(source.random() * 0.01)
                    other.sendall(data)
            for sock in (one, other):
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)

        back = threading.Thread(target=pump, args=(far, near, True))
        back.start()
        pump(near, far, False)
        back.join()
        far.close()

    return act
