"""The messages that calls consist of.

::

    [0, number, method, seconds, keywords, *arguments]   request
    [1, number, error, result]                           response
    [2, method, keywords, *arguments]                    notification
    [3, number]                                          the caller has given up
    [4, number]  [5, number]                             ping, pong
    [6, number, kind, text]                              refused, or too late: kind "expired"

Seconds, until the deadline, and keywords are nil if there are none. So is the error of a call that
has succeeded, and else ``[name, message, fields]``. Numbers are those of the side that calls, from
0 to 2**63 - 1. What cannot be attributed to one call is a `Violation`, which ends the comm; what
can is a `BadRequest`, which refuses that call.
"""

from __future__ import annotations

from typing import Any

from .errors import quoted

__all__ = [
    "CANCEL",
    "NOTIFICATION",
    "PING",
    "PONG",
    "REFUSAL",
    "REQUEST",
    "RESPONSE",
    "BadRequest",
    "Violation",
    "check",
    "number_of",
    "shown",
]

REQUEST, RESPONSE, NOTIFICATION, CANCEL, PING, PONG, REFUSAL = range(7)

MOST = (1 << 63) - 1
FAR = 1e8  # seconds; a deadline beyond is none


class Violation(Exception):
    """A message that is no part of a call."""


class BadRequest(Exception):
    """A request that cannot be run."""


def shown(value: Any) -> str:
    """Return a peer's value, short and harmless."""
    plain = type(value) in (int, str, float, bool)
    return quoted(repr(value) if plain else f"a {type(value).__name__}", 60)


def number_of(message: list[Any]) -> int:
    """Return the number in `message`. Raises `Violation`."""
    number = message[1] if len(message) > 1 else None
    if type(number) is not int or not 0 <= number <= MOST:
        raise Violation(f"a message of type {message[0]} that is numbered {shown(number)}")
    return number


def check(method: Any, seconds: Any, kwargs: Any) -> None:
    """Raise `BadRequest` unless these are what a request needs."""
    if type(method) is not str:
        raise BadRequest(f"its method is {shown(method)}, need a name")
    if seconds is not None and (type(seconds) not in (int, float) or not seconds > 0):
        raise BadRequest(f"its deadline is {shown(seconds)}, need seconds")
    if kwargs is not None and (
        type(kwargs) is not dict or not all(type(name) is str for name in kwargs)
    ):
        raise BadRequest("its keyword arguments are no dict with names as keys")
