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


def main(service: str, used: str, good: str) -> None:
    logging.disable(logging.CRITICAL)
    listener = socket.create_server(("127.0.0.1", 0))
    where = f"127.0.0.1:{listener.getsockname()[1]}"
    sent: list[str] = []

    def serve() -> None:
        while True:
            connection, _ = listener.accept()
            with connection:
                sent.append(repr(connection.recv(64)))

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
