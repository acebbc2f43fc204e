"""The last message of a side that closes: a code and a reason.

It is one frame that consists of one msgpack extension of type 6, holding ``[code, reason]``. No
other message has an extension of that type. It is sent only to peers whose hello contains
``"closing"``, and nothing follows it but close_notify over TLS, and end of file.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

import msgpack

from ..close_codes import REASON_LENGTH, CloseCode, is_sendable
from ..errors import quoted
from .framing import Buffer, Frame

__all__ = ["CLOSING", "NORMALLY", "USUAL", "Closing", "decode", "encode", "found", "take"]

CLOSING = 6  # its msgpack extension type
_LONGEST = 4 * REASON_LENGTH + 32  # bytes of a frame; no character takes more than four
_EXTENSIONS = frozenset({0xC7, 0xC8, 0xD4, 0xD5, 0xD6, 0xD7, 0xD8})  # first bytes, up to 64 KiB


class Closing(NamedTuple):
    """What a closing message says.

    Attributes
    ----------
    code : int
        A `CloseCode`, or the application's own.
    reason : str
        In words; may be empty.
    """

    code: int
    reason: str


def encode(code: int, reason: str) -> bytes:
    """Return the message's only frame. A reason that is too long is cut."""
    if code == CloseCode.NORMAL and not reason:
        return _USUAL
    return _encode(code, reason)


def _encode(code: int, reason: str) -> bytes:
    text = reason[:REASON_LENGTH].encode(errors="replace").decode()  # lone surrogates
    return bytes(msgpack.packb(msgpack.ExtType(CLOSING, msgpack.packb([int(code), text]))))


def decode(frames: Sequence[Buffer]) -> Closing | None:
    """Decode the message in `frames` if it is a closing message; return None for any other."""
    if len(frames) != 1:
        return None
    frame = frames[0]
    if frame == _USUAL:
        return NORMALLY
    if not 0 < len(frame) <= _LONGEST or frame[0] not in _EXTENSIONS:
        return None
    try:
        extension = msgpack.unpackb(frame)
        if type(extension) is not msgpack.ExtType or extension.code != CLOSING:
            return None
        code, reason = msgpack.unpackb(extension.data, max_array_len=2)
    except Exception:  # msgpack documents no base class for what bad bytes raise
        return None
    if type(code) is not int or type(reason) is not str or not is_sendable(code):
        return None
    return Closing(code, quoted(reason, REASON_LENGTH))


def found(inbox: deque[tuple[list[Frame], int]]) -> tuple[int, Closing] | None:
    """Return the index of the first closing message among those in `inbox`, and what it says."""
    for index, (frames, _) in enumerate(inbox):
        said = decode(frames)
        if said is not None:
            return index, said
    return None


def take(inbox: deque[tuple[list[Frame], int]]) -> Closing | None:
    """Remove the closing message in `inbox` with all that a peer sent after it, and return it."""
    index, said = found(inbox) or (len(inbox), None)
    while len(inbox) > index:
        inbox.pop()
    return said


NORMALLY = Closing(CloseCode.NORMAL, "")
"""What the usual end says."""

_USUAL = _encode(*NORMALLY)
USUAL: list[Buffer] = [_USUAL]
"""Its frames, to compare with."""
