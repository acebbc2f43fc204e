"""Messages to frames and back: msgpack with buffers and arrays out of band. No pickle, ever.

A message is None, bool, int, float, str, datetime, list, tuple (arrives as a list), dict with
scalar keys, anything bytes-like, a numpy array, or an object of a registered type. Frame 0, the
header, is its msgpack; a buffer of `OUT_OF_BAND` bytes or more is replaced there by a reference to
a frame of its own, which is sent from the caller's memory and received in memory of its own.

Every bytes-like value arrives writable: a bytearray if it was short, else a memoryview of the
received frame. (A dict's key stays bytes.) A stock peer, which does not know our extension types,
gets bytes-like values inside the header and no arrays.

msgpack extension types, part of the wire between two of us::

    1  reference   [frame]
    2  array       [dtype, shape, order, frame or bytes]
    3  object      [name, value]     of a registered type
    4  int         two's complement, little-endian, for what 64 bits do not hold; no key
    5  datetime    ISO 8601, for those without a time zone
   -1  datetime    msgpack's own timestamp, for those with one (arrives in UTC)

What stands in an extension is a peer's word for something else, and `budget` bounds what it may
be.

A message of plain values and short bytes, as most are, is one call of msgpack in each direction:
before it goes a look for what msgpack would copy or does not know, and after it a look for the one
byte that must stand before any bytes-like value.
"""

from __future__ import annotations

from .decoding import decode
from .encoding import OUT_OF_BAND, encode
from .extensions import register

__all__ = ["OUT_OF_BAND", "decode", "encode", "register"]
