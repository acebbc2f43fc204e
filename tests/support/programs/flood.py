"""Floods of clients that are refused, in a process of their own, until killed.

    python -m support.programs.flood ADDRESS FLOODS

Each flood knocks again as soon as it is turned away, in one of four ways; what they are is said by
`attacker`, which has none of our code.
"""

from __future__ import annotations

import contextlib
import itertools
import sys
import threading

from support import attacker

ADDRESS, FLOODS = sys.argv[1], int(sys.argv[2])


def knock(way: int) -> None:
    if way == 0:  # a certificate of another CA
        with attacker.dial(ADDRESS, tls=FOREIGN) as sock:
            sock.recv(1)
    elif way == 1:
        with attacker.dial(ADDRESS) as sock:
            sock.sendall(b"GET / HTTP/1.1\r\n\r\n")
            attacker.ended(sock, 10)
    elif way == 2:
        with attacker.dial(ADDRESS) as sock:
            sock.sendall(attacker.HELLO)
            attacker.ended(sock, 10)
    else:
        attacker.reset(attacker.dial(ADDRESS))


def flood(way: int) -> None:
    while True:
        with contextlib.suppress(OSError):
            knock(way)


FOREIGN = attacker.context("foreign")
for _, way in zip(range(FLOODS), itertools.cycle(range(4))):
    threading.Thread(target=flood, args=(way,), daemon=True).start()
print("flooding", flush=True)
threading.Event().wait()
