"""Encode messages as frames and decode them: msgpack, with buffers and arrays out of band.

Nothing is ever pickled. A message is None, bool, int, float, str, datetime, list, tuple (arrives as
a list), dict with scalar keys, bytes, bytearray, memoryview, a numpy array, or an object of a
registered type; docs/messages.md has a table of what changes on the way. Frame 0, the header, holds
its msgpack; a buffer of at least `OUT_OF_BAND` bytes is replaced there by a reference to a frame of
its own, which is sent from the caller's memory and received into memory of its own.

Every bytes-like value arrives writable: as a bytearray if it was short, else as a memoryview of
the received frame. (Keys of dicts stay bytes.) A stock peer, which does not know the extension
types, gets bytes-like values inside the header and no arrays.

The msgpack extension types are part of the wire protocol between two sealwire peers::

    1  reference   [frame]
    2  array       [dtype, shape, order, frame or bytes]
    3  object      [name, value]     of a registered type
    4  int         two's complement, little-endian, beyond 64 bits; not allowed as a key
    5  datetime    ISO 8601, without a time zone
   -1  datetime    msgpack's own timestamp, with a time zone (arrives in UTC)

An extension lets a peer describe a value much larger than itself; `budget` bounds what it may
describe.

A message of plain values and short bytes, the common case, takes one call of msgpack in each
direction: before encoding a check for values that msgpack would copy or does not know, and before
decoding a search for the marker byte that precedes any bytes value.
"""

from __future__ import annotations

from .decoding import decode
from .encoding import OUT_OF_BAND, EncodedMessage, encode
from .extensions import register

__all__ = ["OUT_OF_BAND", "EncodedMessage", "decode", "encode", "register"]
