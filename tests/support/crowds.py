"""Many clients at once, in threads of the test's own."""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Callable, Iterator

from support import attacker
from support.attacker import Socket


@contextlib.contextmanager
def crowd(number: int, address: str) -> Iterator[list[Socket]]:
    """That many connections that say nothing."""
    sockets = [attacker.dial(address) for _ in range(number)]
    try:
        yield sockets
    finally:
        for sock in sockets:
            sock.close()


@contextlib.contextmanager
def meanwhile(act: Callable[[], object], threads: int = 1) -> Iterator[Callable[[], int]]:
    """Repeat `act` in threads; gives how often it was done so far."""
    stop = threading.Event()
    done = itertools.count()
    times = 0

    def run() -> None:
        nonlocal times
        while not stop.is_set():
            with contextlib.suppress(OSError):
                act()
            times = next(done) + 1

    running = [threading.Thread(target=run) for _ in range(threads)]
    for thread in running:
        thread.start()
    try:
        yield lambda: times
    finally:
        stop.set()
        for thread in running:
            thread.join()
