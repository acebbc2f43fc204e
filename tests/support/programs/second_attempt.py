"""Makes clients of a plain scheduler's address, again and again, where joining fails.

Tells as JSON, for each cause, what each attempt came to, and what the address was ever sent.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import sys
import threading

from distributed import Client

import sealwire.dask_backend

TOKEN, AWAY = "SEALWIRE_TOKEN", "127.0.0.1:1"


def attempt(where: str) -> str:
    try:
        Client(where, timeout=0.5).close()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "connected"


def both(where: str, is_sent: threading.Event) -> list[str]:
    """What comes to two threads, the second of which begins while the first one is joining."""
    service, came, told = socket.create_server(("127.0.0.1", 0)), threading.Event(), []
    held: list[socket.socket] = []

    def serve() -> None:
        while True:
            held.append(service.accept()[0])
            came.set()
            if released.is_set():
                held.pop().close()

    released = threading.Event()
    threading.Thread(target=serve, daemon=True).start()
    os.environ["SEALWIRE_JOIN"] = f"127.0.0.1:{service.getsockname()[1]}"
    threads = [threading.Thread(target=lambda: told.append(attempt(where))) for _ in range(2)]
    threads[0].start()
    assert came.wait(30)
    threads[1].start()
    is_sent.wait(1)
    released.set()
    held.pop().close()
    for each in threads:
        each.join(30)
    return told


def main(service: str, used: str, good: str) -> None:
    logging.disable(logging.CRITICAL)
    listener = socket.create_server(("127.0.0.1", 0))
    where = f"127.0.0.1:{listener.getsockname()[1]}"
    sent: list[str] = []
    is_sent = threading.Event()

    def serve() -> None:
        while True:
            connection, _ = listener.accept()
            with connection:
                sent.append(repr(connection.recv(64)))
                is_sent.set()

    threading.Thread(target=serve, daemon=True).start()
    causes = {
        "no token": (AWAY, {}),
        "no such token": (AWAY, {TOKEN: "x"}),
        "no address": ("a b:::", {TOKEN: good}),
        "away": (AWAY, {TOKEN: good}),
        "used": (service, {TOKEN: used}),
    }
    told = {}
    for name, (address, variables) in causes.items():
        os.environ.pop(TOKEN, None)
        os.environ.update({"SEALWIRE_JOIN": address, **variables})
        told[name] = [attempt(where) for _ in range(2)]
    told["two threads"] = both(where, is_sent)
    os.environ["SEALWIRE_JOIN"] = service
    try:
        sealwire.dask_backend.install()
    except Exception as error:
        told["install"] = [type(error).__name__, attempt(where)]
    nothing = list(sent)
    os.environ[TOKEN] = good
    joined = attempt(where)
    print(json.dumps({"told": told, "sent": nothing, "joined": joined}))


if __name__ == "__main__":
    main(*sys.argv[1:])
