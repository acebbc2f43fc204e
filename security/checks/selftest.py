"""A TLS handshake between two contexts in memory: the final check of two identities."""

from __future__ import annotations

import ssl
from collections.abc import Iterator

__all__ = ["refusal"]

_TURNS = 12  # a handshake takes six at most, including the first data


def refusal(server: ssl.SSLContext, client: ssl.SSLContext) -> ssl.SSLError | None:
    """Return the exception of the side that refuses; None if both accept each other.

    Each side writes and reads a byte after its handshake, since a TLS 1.3 client learns that it
    was refused only when it reads.
    """
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = [
        client.wrap_bio(to_client, to_server, server_side=False),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    steps = [_steps(side) for side in sides]
    errors: list[ssl.SSLError] = []
    for _ in range(_TURNS):
        for step in steps:
            try:
                next(step, None)
            except ssl.SSLError as error:
                errors.append(error)
    refused = [each for each in errors if isinstance(each, ssl.SSLCertVerificationError)]
    return next(iter(refused + errors), None)


def _steps(side: ssl.SSLObject) -> Iterator[None]:
    for act in (side.do_handshake, lambda: side.write(b"!"), lambda: side.read(1)):
        while True:
            try:
                act()
            except ssl.SSLWantReadError:
                yield
            else:
                break
