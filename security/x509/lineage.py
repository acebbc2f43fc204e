"""Serial numbers by which the certificates of one identity can be told from each other's.

A process that joined is given another certificate every few hours, and a comm may be open for
longer than the one that it began with, even longer than its CA. A revocation list names those that
are valid now. So the numbers of one identity begin alike: where one is on a list, all are meant.

    mark (32 bits)  identity (64 bits)  at random (64 bits)

The mark keeps the numbers of other CAs, which may count or begin with anything, from being taken
for such; no number of ours has it by chance but one of 2^32, which is then of no identity there is.
"""

from __future__ import annotations

import secrets

__all__ = ["lineage_of", "serial_in"]

_MARK = 0x5EA1_10E5
_IDENTITY, _RANDOM = 64, 64  # bits


def serial_in(lineage: int) -> int:
    """Return a new serial number for the identity of that lineage: 64 bits."""
    if not 0 <= lineage < 1 << _IDENTITY:
        raise ValueError(f"a lineage has {_IDENTITY} bits, got {lineage:#x}")
    beginning = _MARK << _IDENTITY | lineage
    return beginning << _RANDOM | secrets.randbits(_RANDOM)


def lineage_of(serial: int) -> int | None:
    """Return the lineage of a serial number; None if it has none."""
    if serial >> (_IDENTITY + _RANDOM) != _MARK:
        return None
    return serial >> _RANDOM & ((1 << _IDENTITY) - 1)
