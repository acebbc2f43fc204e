"""Why a comm was closed, as numbers: those of RFC 6455, 7.4, where they fit."""

from __future__ import annotations

import enum

from .words import repr_of

__all__ = ["CLEAN", "REASON_LENGTH", "CloseCode", "expect_reason", "expect_sendable", "is_sendable"]


class CloseCode(enum.IntEnum):
    """Why a comm was closed.

    Codes from 3000 to 4999 are the application's own.
    """

    NORMAL = 1000
    """The peer closed on purpose; all that it had to say was said."""
    GOING_AWAY = 1001
    """The peer is shutting down."""
    PROTOCOL_ERROR = 1002
    """Bytes arrived that are not this wire."""
    UNKNOWN_TYPE = 1003
    """A message held an object of a type that is not registered on the side that closed."""
    NO_STATUS = 1005
    """Never sent: the peer ended the connection in order but gave no code. Peers of other
    implementations never do, and end in the same way when their process is killed."""
    ABNORMAL = 1006
    """Never sent: the connection was lost or reset, or ended without a closing message by a peer
    that sends them."""
    BAD_MESSAGE = 1007
    """A message was well framed, but could not be decoded."""
    SLOW_CONSUMER = 1008
    """More than `Limits.max_queued` was queued for the peer. It sees a reset instead if it does not
    take even the rest of one message."""
    TOO_LARGE = 1009
    """A message was over a limit of the side that closed."""
    HANDLER_FAILED = 1011
    """The handler of a listener, or an ``async with`` block, raised."""
    REVOKED = 1016
    """The certificate of the side that is told, or of a CA above it, was revoked meanwhile. RFC
    6455 has no such code."""


CLEAN = frozenset({CloseCode.NORMAL, CloseCode.GOING_AWAY})
"""With these nothing went wrong: ``async for`` ends without an error."""

REASON_LENGTH = 1000
"""Characters of a reason; longer ones are cut."""


def expect_sendable(code: int) -> int:
    """`code`, if it may be sent. Raises `ValueError`, `TypeError` for what is no number."""
    if isinstance(code, bool) or not isinstance(code, int):
        raise TypeError(
            f"cannot close with code {repr_of(code)}: need an int such as CloseCode.NORMAL"
        )
    number = int.__int__(code)  # of a subclass, too
    if is_sendable(number):
        return number
    shown = number if number.bit_length() < 64 else f"of {number.bit_length()} bits"
    raise ValueError(
        f"cannot close with code {shown}: it is none that may be sent; use a CloseCode other "
        f"than NO_STATUS and ABNORMAL, or a number of your own from 3000 to 4999"
    )


def expect_reason(reason: str) -> str:
    """`reason`, if it is text. Raises `TypeError`."""
    if isinstance(reason, str):
        return str.__str__(reason)  # plain, of a subclass as well
    raise TypeError(f"cannot close with a reason of type {type(reason).__name__}: need a str")


def is_sendable(code: int) -> bool:
    """Whether a closing message may hold `code`."""
    return code in _SENDABLE or 3000 <= code <= 4999


# Plain numbers: hashing and comparing members of an Enum is slow.
_SENDABLE = frozenset(map(int, CloseCode)) - {1005, 1006}
