"""What a header may hold, seen by msgpack's markers without unpacking it.

A marker may be part of a number or a text as well: "may" is certain only where it is False.
"""

from __future__ import annotations

from .framing import Buffer

__all__ = ["BIN8", "BIN16", "BIN32", "may_hold_bytes", "may_hold_empty"]

BIN8, BIN16, BIN32 = 0xC4, 0xC5, 0xC6
"""The markers before bytes, by the size of their length."""

_EMPTY = b"\xc4\x00"  # bytes that are empty, as every packer writes them
_PIECE = 64 * 1024


def may_hold_bytes(header: Buffer) -> bool:
    """Whether `header` may contain bytes values, which must be made writable."""
    if type(header) is memoryview:  # `in` would compare item by item: a second for 20 MB
        pieces = range(0, len(header), _PIECE)
        return any(may_hold_bytes(bytes(header[start : start + _PIECE])) for start in pieces)
    return BIN8 in header or BIN16 in header or BIN32 in header


def may_hold_empty(header: Buffer) -> bool:
    """Whether `header` may contain bytes values that are empty."""
    pieces = range(0, len(header), _PIECE)  # copied one by one: for large blocks pages are made
    return any(_holds_empty(bytes(header[start : start + _PIECE + 1])) for start in pieces)


def _holds_empty(piece: bytes) -> bool:
    """Whether `_EMPTY` is in `piece`: its first byte is sought, as long as that is rare.

    The search for a single byte is many times as fast as that for two.
    """
    start = -1
    for _ in range(len(piece) >> 8):
        start = piece.find(BIN8, start + 1)
        if start < 0:
            return False
        if piece.startswith(_EMPTY, start):
            return True
    return _EMPTY in piece[start + 1 :]
