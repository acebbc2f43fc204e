"""Validation of the arguments of `connect` and `listen`, before any I/O.

A misspelt ``ssl_context`` would open a plain port, and a context that does not verify peers a port
that only looks protected. Both would work, so nobody would notice.
"""

from __future__ import annotations

import _ssl
import functools
import inspect
import logging
import math
import numbers
import ssl
import weakref
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

from .limits import DEFAULT_LIMITS, Limits
from .words import repr_of

if TYPE_CHECKING:
    from typing import TypeGuard

__all__ = [
    "Side",
    "expect_bool",
    "expect_count",
    "expect_handler",
    "expect_known",
    "expect_limits",
    "expect_mapping",
    "expect_name",
    "expect_no_generator",
    "expect_seconds",
    "expect_secure",
    "is_context",
    "log_lacks",
    "takes_further",
    "weakness",
]

_Function = TypeVar("_Function", bound=Callable[..., Any])

Side = Literal["server", "client"]

logger = logging.getLogger("sealwire.comm")

_LEAST = ssl.TLSVersion.TLSv1_2
#: The ways to disable TLS below 1.2 other than `minimum_version`
_OLD = (ssl.OP_NO_SSLv3, ssl.OP_NO_TLSv1, ssl.OP_NO_TLSv1_1)
_FITTING: dict[Side, Collection[int]] = {
    "server": (ssl.PROTOCOL_TLS, ssl.PROTOCOL_TLS_SERVER, ssl.PROTOCOL_TLSv1_2),
    "client": (ssl.PROTOCOL_TLS, ssl.PROTOCOL_TLS_CLIENT, ssl.PROTOCOL_TLSv1_2),
}
_YIELDS = inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR
_DOES: dict[Side, str] = {"server": "listen", "client": "connect"}

_reported: weakref.WeakSet[ssl.SSLContext] = weakref.WeakSet()


def takes_further(function: _Function) -> _Function:
    """Let `function` take any keywords: unknown ones become part of its `connection_args`.

    In its signature, which editors and type checkers follow, they do not appear.
    """
    known = inspect.signature(function).parameters.keys()

    @functools.wraps(function)
    def call(*args: Any, **given: Any) -> Any:
        if further := given.keys() - known:
            said = f"{function.__name__}()"
            named = expect_mapping(said, "connection_args", given.get("connection_args"))
            named.update((name, given.pop(name)) for name in list(given) if name in further)
            given["connection_args"] = named
        return function(*args, **given)

    return cast(_Function, call)


def expect_known(call: str, given: Iterable[object], known: Collection[str]) -> None:
    """Raise `TypeError` for the first name in `given` that is not in `known`."""
    for name in given:
        if name not in known:
            from difflib import get_close_matches  # no correct call has to wait for it

            near = get_close_matches(str(name), known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(sorted(known))}"
            raise TypeError(f"{call} got an unexpected argument {name!r}; {hint}")


def expect_seconds(call: str, name: str, value: Any, instead: str, *, zero: bool = False) -> float:
    """Return `value` if it is a positive finite number of seconds, or 0 where that means something.

    `instead` says what to write for what was probably meant. Raises `TypeError` for anything but a
    number, and `ValueError` for one out of range.
    """
    number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    try:
        seconds = float(value) if number else None
    except OverflowError:
        seconds = math.inf
    except TypeError:  # NumPy's durations are Real
        seconds = None
    if seconds is None:
        raise TypeError(f"{call} got {name}={repr_of(value)}: need a number of seconds; {instead}")
    if not (0 <= seconds < math.inf if zero else 0 < seconds < math.inf):
        least = "a finite number of seconds from 0 on" if zero else "a positive finite number"
        raise ValueError(f"{call} got {name}={repr_of(value)}: need {least}; {instead}")
    return seconds


def expect_count(call: str, name: str, value: Any, instead: str) -> int:
    """Return `value` if it is a positive int; raise as `expect_seconds` does."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{call} got {name}={repr_of(value)}: need an int; {instead}")
    if value < 1:
        raise ValueError(f"{call} got {name}={repr_of(value)}: need at least 1; {instead}")
    return int(value)


def expect_bool(call: str, name: str, value: Any, *, none: bool = False) -> None:
    """Raise `TypeError` for anything but True and False, and None if it means something.

    ``"no"`` and ``"false"`` would count as true.
    """
    if not (isinstance(value, bool) or (none and value is None)):
        also = ", or None" if none else ""
        raise TypeError(
            f"{call} got {name}={repr_of(value)}: need a bool{also}; write True or False"
        )


def expect_limits(call: str, limits: Any) -> Limits:
    """Return `limits`, or the defaults for None. Raises `TypeError` for anything else."""
    if limits is None:
        return DEFAULT_LIMITS
    if not isinstance(limits, Limits):
        raise TypeError(
            f"{call} got limits={repr_of(limits)}: need a Limits or None; write "
            f"Limits(read_ahead=…)"
        )
    return limits


def expect_mapping(call: str, name: str, value: Any) -> dict[Any, Any]:
    """Return a copy of `value`, empty for None. Raises `TypeError` for anything but a mapping."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise TypeError(
            f"{call} got {name}={repr_of(value)}: need a mapping of names to values, or None"
        )
    return dict(value)


def expect_handler(call: str, handler: Any) -> None:
    """Raise `TypeError` for a handler that cannot be called."""
    if not callable(handler):
        raise TypeError(
            f"{call} got handler={repr_of(handler)}: need a function that takes a comm; write "
            f"async def handler(comm) and pass it without calling it"
        )
    expect_no_generator(f"{call} got handler={repr_of(handler)}", handler)


def expect_no_generator(said: str, function: Any) -> None:
    """Raise `TypeError` for a function with a ``yield``, of which nothing would run when called."""
    for each in (function, getattr(type(function), "__call__", None)):  # noqa: B004
        while isinstance(each, functools.partial):
            each = each.func
        flags = getattr(getattr(each, "__code__", None), "co_flags", 0)
        if flags & _YIELDS and not flags & inspect.CO_ITERABLE_COROUTINE:
            raise TypeError(
                f"{said}: it is a generator, which does nothing; write it without yield"
            )


def is_context(value: object) -> TypeGuard[ssl.SSLContext]:
    """Whether a value is a TLS context, also where a library has put its own class into `ssl`."""
    return isinstance(value, _ssl._SSLContext)


def expect_secure(address: str, context: Any, side: Side, instead: str) -> ssl.SSLContext:
    """Return `context` if it is as strict as ``tls://`` promises.

    `instead` says where to get a good one. Raises `TypeError` for anything but an SSL context, and
    `ValueError` for one that is for the other side, does not require a peer certificate, or allows
    TLS below 1.2. One for which nobody has chosen a version speaks 1.2 at least from now on.
    """
    if not is_context(context):
        raise TypeError(
            f"cannot use {address}: ssl_context is {repr_of(context)}, need an ssl.SSLContext; "
            f"{instead}"
        )
    why = weakness(context, side)
    if why is not None:
        raise ValueError(f"cannot use {address}: its ssl_context {why}, or {instead}")
    return context


def expect_name(address: str, context: ssl.SSLContext | None, server_hostname: Any) -> None:
    """Raise `ValueError` if `context` compares the server's name, and none was given.

    Also for one that TLS cannot carry; `TypeError` for what is no text.
    """
    if context is not None and context.check_hostname and not server_hostname:
        raise ValueError(
            f"cannot connect to {address}: its ssl_context compares the server's name, and there "
            f"is none; pass server_hostname=…, or set context.check_hostname = False"
        )
    if server_hostname is not None:
        said = f"cannot connect to {address}: server_hostname is {repr_of(server_hostname)}"
        if not isinstance(server_hostname, str):
            raise TypeError(f"{said}, need a str; leave it out to send none")
        if not _is_name(server_hostname):
            raise ValueError(f"{said}, which is no host name; leave it out to send none")


def _is_name(text: str) -> bool:
    """Whether `ssl` takes `text` as a server's name, which it encodes so."""
    try:
        text.encode("idna")
    except UnicodeError:
        return False
    return text.isprintable() and " " not in text and text.strip(".") != ""


def weakness(context: ssl.SSLContext, side: Side) -> str | None:
    """Return why `context` is less strict than ``tls://`` promises, and what to do, or None.

    A context may change: so this is asked for each connection, too. One for which nobody has chosen
    a version speaks 1.2 at least from now on.
    """
    if context.verify_mode is not ssl.CERT_REQUIRED:
        return (
            f"does not demand a certificate of the peer (verify_mode is "
            f"{context.verify_mode.name}); set context.verify_mode = ssl.CERT_REQUIRED and load "
            "your CA into it"
        )
    if context.protocol not in _FITTING[side]:
        right = "PROTOCOL_TLS_SERVER" if side == "server" else "PROTOCOL_TLS_CLIENT"
        return (
            f"cannot {_DOES[side]} (its protocol is {context.protocol.name}); "
            f"make one with ssl.{right}"
        )
    least = context.minimum_version
    if least >= _LEAST or context.protocol is ssl.PROTOCOL_TLSv1_2:
        return None
    if least == _unset():
        context.minimum_version = _LEAST
    elif not all(context.options & option for option in _OLD):
        return (
            f"speaks TLS before 1.2 (minimum_version is {least.name}); "
            "set context.minimum_version = ssl.TLSVersion.TLSv1_2"
        )
    return None


@functools.cache
def _unset() -> int:
    """Return what a context speaks at least if nobody has said.

    By some builds of Python, such as Debian's, that is whatever OpenSSL's own configuration says.
    """
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).minimum_version


def log_lacks(address: str, context: ssl.SSLContext | None, lacks: Iterable[str]) -> None:
    """Log each configured protection that `context` `lacks` as an error, once per context."""
    if context is None or context in _reported:
        return
    for what in lacks:
        _reported.add(context)
        logger.error("the TLS context of %s does not do what is configured: %s", address, what)
