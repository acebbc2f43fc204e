"""The bounds on what decoding one message may cost its receiver; all of them are in this file.

The length of a message and its number of frames are checked before its first byte is decoded
(`limits`, `framing`). But a short message can hold a value that is deeply nested, or that describes
something large, and most decoders are native code: they recurse on the C stack, allocate what they
are told to, and compare colliding keys one by one. So the decoder passes each such value to a
`Budget`, as does the encoder each value that its peer's budget would reject:

====================  ==========================================================================
bound                 on
====================  ==========================================================================
`DEPTH`               lists, dicts and objects nested in one another, in a whole message
`NESTED_OBJECTS`      objects of registered types nested in one another
`INT_SIZE`            bytes of an int beyond 64 bits; such an int is never a key of a dict
`FIELDS`, `LEVELS`    fields of a dtype, in total and nested
`ITEM_SIZE`           bytes of an array's item
`DIMENSIONS`          of an array
`EMPTY_ITEMS`         items of an array without bytes, counted along its other dimensions
`QUOTED`              characters of a peer's text that an error repeats
each frame            is referenced once
keys                  msgpack's own scalars, and dates; for a dict of more than `FEW_KEYS` that are
                      not all texts or bytes, the time that inserting each takes
====================  ==========================================================================

With these, decoding takes time linear in the size of a message, and memory of at most `MULTIPLE`
times its header besides its frames (and `SPARE`). No check is an ``assert``: they hold under
``python -O``.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Sequence
from typing import Any

import msgpack

from ..errors import quoted
from ..words import words_of
from .framing import Buffer, Frame

__all__ = [
    "DEPTH",
    "DIMENSIONS",
    "FEW_KEYS",
    "INT_SIZE",
    "MULTIPLE",
    "NESTED_OBJECTS",
    "SPARE",
    "Budget",
    "brief",
    "check_structure",
    "large_dict",
    "reason",
]

DEPTH = 500
"""Python's own `repr` and msgpack's packer, which has 511, can still take what is this deep."""

NESTED_OBJECTS = 32
"""Each is copied out of the one around it, so a message is copied this often at most."""

INT_SIZE = 1784
"""Python prints no int of more than 4300 digits, which have 14,284 bits."""

FIELDS = 1000
"""numpy needs 2 microseconds a field to make a dtype, and 2 to print it."""

LEVELS = 8
ITEM_SIZE = (1 << 31) - 1
"""numpy counts in a C int, and does not notice when it overflows."""

DIMENSIONS = 32
"""All that numpy 1 has."""

EMPTY_ITEMS = 1 << 24

FEW_KEYS = 4096
"""Among so many, keys that are made to collide cost no more than 10 microseconds each."""

QUOTED = 200
_TEXT = 60  # characters of each text within a quoted value

MULTIPLE = 100
SPARE = 1 << 20


@functools.cache
def _room() -> int:
    """How many nested lists this release of msgpack unpacks; 1024 in all known ones."""
    low, high = 0, 1 << 16
    while high - low > 1:
        depth = (low + high) // 2
        try:
            msgpack.unpackb(b"\x91" * depth + b"\xc0")
        except ValueError:
            high = depth
        else:
            low = depth
    return low


def check_structure(header: Buffer, depth: int = DEPTH) -> None:
    """Raise `ValueError` unless `header` is complete msgpack of at most `depth` levels.

    Not needed for a header of at most `depth` bytes, which can neither be deep nor claim much.

    msgpack allocates a list of the claimed length before it has seen an item, and so on for lists
    within it. This first pass skips over the header without creating objects, at a tenth of the
    cost, and fails if a claim is false. As msgpack's own limit on nesting is fixed, the header is
    wrapped in as many lists as levels are to be disallowed.
    """
    around = b"\x91" * max(0, _room() - depth)
    scanner = msgpack.Unpacker(
        max_buffer_size=len(header) + len(around), read_size=len(header) + len(around)
    )
    scanner.feed(around)
    scanner.feed(header)
    try:
        scanner.skip()
    except msgpack.OutOfData:
        raise ValueError("it is cut short, or claims more items than it has") from None
    except msgpack.StackError:
        raise ValueError(f"its values are nested more than {depth} deep") from None


class Budget:
    """The bounds of one message being decoded; `frames` are those its header may reference."""

    __slots__ = ("_all", "_frames")

    def __init__(self, frames: Sequence[Frame]) -> None:
        self._all = frames
        self._frames: list[Frame | None] = list(frames)

    def frame(self, index: Any) -> memoryview:
        """Frame number `index`, once: sent back, each reference would be a copy."""
        frames = self._frames
        if type(index) is not int or not 0 < index < len(frames):
            raise ValueError(f"it refers to frame {brief(index)} of {len(frames)}")
        frame, frames[index] = frames[index], None
        if frame is None:
            raise ValueError(f"it refers to frame {index} twice")
        return memoryview(frame)

    @staticmethod
    def check_depth(depth: int) -> None:
        """Check the nesting of a value."""
        if depth > DEPTH:
            raise ValueError(f"values are nested more than {DEPTH} deep")

    @staticmethod
    def check_objects(nested: int) -> None:
        """Check the nesting of an object within objects."""
        if nested > NESTED_OBJECTS:
            raise ValueError(
                f"objects of registered types are nested more than {NESTED_OBJECTS} deep"
            )

    @staticmethod
    def check_int(size: int) -> None:
        """Check the size of an int in bytes."""
        if size > INT_SIZE:
            raise ValueError(f"an int of {size} bytes, the most is {INT_SIZE}")

    @staticmethod
    def check_fields(number: int, level: int) -> None:
        """Check a dtype with `number` fields so far, the last at nesting `level`."""
        if number > FIELDS:
            raise ValueError(f"a dtype of more than {FIELDS} fields")
        if level > LEVELS:
            raise ValueError(f"a dtype of fields more than {LEVELS} deep")

    @staticmethod
    def check_item(size: int) -> None:
        """Check the size of an array's item in bytes."""
        if size > ITEM_SIZE:
            raise ValueError(f"an item of {size} bytes, the most is {ITEM_SIZE}")

    @staticmethod
    def check_shape(shape: Sequence[int], itemsize: int) -> None:
        """Check an array's shape: one of empty items could have any number of them for nothing."""
        if len(shape) > DIMENSIONS:
            raise ValueError(f"an array of {len(shape)} dimensions, the most is {DIMENSIONS}")
        if 0 in shape:
            items = math.prod(length for length in shape if length)
            if items > EMPTY_ITEMS:
                raise ValueError(f"an empty array of {items} items along its other dimensions")
        elif not itemsize:
            raise ValueError(f"an array of {math.prod(shape)} items of no bytes")


def large_dict(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    """``dict(pairs)``; raises `ValueError` if key collisions would make it take too long.

    Hashes of texts and bytes are salted. Those of numbers and dates are not, and a dict's probing
    sequence is predictable: within a minute of search, 20,000 ints were found that cost 200 µs each
    among 60,000 others; ordered or random ints cost 0.1 µs. So the CPU time of this thread is
    checked while inserting.
    """
    if len(pairs) <= FEW_KEYS or _SALTED.issuperset({type(key) for key, _ in pairs}):
        return dict(pairs)
    made: dict[Any, Any] = {}
    start = time.thread_time()
    for first in range(0, len(pairs), _AT_ONCE):
        made.update(pairs[first : first + _AT_ONCE])
        taken = time.thread_time() - start
        if taken > _HEAD_START + _EACH * len(made):
            raise ValueError(
                f"a dict of {len(pairs)} keys that collide: {len(made)} took {taken:.2f} s"
            )
    return made


_SALTED = frozenset({str, bytes})
_AT_ONCE = 128
_HEAD_START = 0.02  # seconds
_EACH = 1.5e-6


def brief(value: Any) -> str:
    """Return a peer's value for an error: short, and in time independent of its size."""
    kind = type(value)
    if kind is str:
        return quoted(repr(value[:_TEXT]), QUOTED) + ("..." if len(value) > _TEXT else "")
    if isinstance(value, (bytes, bytearray, memoryview)):
        return f"{len(value)} bytes"
    if isinstance(value, (list, tuple, dict)):
        return f"a {kind.__name__} of {len(value)} items"
    if isinstance(value, int) and value.bit_length() > 64:
        return f"an int of {value.bit_length()} bits"
    if value is None or kind in (bool, int, float):
        return repr(value)
    return f"a value of type {kind.__name__[:QUOTED]}"


def reason(error: BaseException) -> str:
    """Return the message of `error`, with at most `QUOTED` characters."""
    return quoted(words_of(error), QUOTED) or type(error).__name__
