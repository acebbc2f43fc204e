"""A peer that asks for 4000 messages and reads them all, however long it is stopped meanwhile.

    python -m support.programs.stopped_reader ADDRESS

Prints "begun" after the first, and at the end what it was answered to one more.
"""

from __future__ import annotations

import sys

from support import attacker

COUNT = 4000


def main(address: str) -> None:
    sock = attacker.enter(address)
    sock.sendall(attacker.packed({"op": "source", "count": COUNT}))
    attacker.receive(sock)
    print("begun", flush=True)
    for _ in range(COUNT - 1):
        attacker.receive(sock)
    print(attacker.ask(sock, "still in step"), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
