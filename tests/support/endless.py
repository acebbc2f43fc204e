"""One comm used for very long: gigabytes through it, and messages without end, each one compared.

The server echoes; what comes back must be the very bytes that went out.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

import msgpack

from support import attacker
from support.attacker import OUR_HELLO, Context, Socket, words
from support.target import check

SIZE = 16 << 20  # of a large message
_STEP = 4096  # by which the content of each differs from that of the last
_KINDS = 1024
_BATCH = 5000  # small messages on their way at once: less than anything would hold back


def pour(address: str, size: int, tls: Context | None = None) -> Iterator[int]:
    """Send `size` bytes in large messages through one comm, each compared when it comes back.

    Yields the bytes that have gone each way, after every message.
    """
    content = memoryview(random.Random(size).randbytes(SIZE + _STEP * _KINDS))
    header = msgpack.packb(msgpack.ExtType(1, msgpack.packb([1])))  # our reference to frame 1
    prelude = words(8 + 16 + len(header), 2, len(header), SIZE) + header
    answer, begin = bytearray(SIZE), bytearray(len(prelude))
    with attacker.enter(address, tls=tls, hello=OUR_HELLO) as sock:
        for number in range(-(-size // SIZE)):
            start = number % _KINDS * _STEP
            block = content[start : start + SIZE]
            sock.sendall(prelude)
            sock.sendall(block)
            _fill(sock, begin)
            _fill(sock, answer)
            check(begin == prelude, f"message {number} begins with {bytes(begin)!r}")
            check(answer == block, f"message {number} came back altered")
            yield (number + 1) * SIZE
        attacker.ping(sock)


def chatter(sock: Socket, first: int, number: int) -> None:
    """Send that many numbered messages, and have each come back, in order and unaltered."""
    for start in range(first, first + number, _BATCH):
        end = min(start + _BATCH, first + number)
        batch = b"".join(attacker.packed({"n": n, "of": b"chatter"}) for n in range(start, end))
        answer = bytearray(len(batch))
        sock.sendall(batch)
        _fill(sock, answer)
        check(answer == batch, f"messages {start} to {end} came back altered")


def _fill(sock: Socket, buffer: bytearray) -> None:
    view = memoryview(buffer)
    while view:
        size = sock.recv_into(view)
        if not size:
            raise ConnectionError(f"closed with {len(view)} of {len(buffer)} bytes to come")
        view = view[size:]
