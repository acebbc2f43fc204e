"""msgpack extensions: their codes on the wire, and the registry of application types."""

from __future__ import annotations

import datetime
import enum
import inspect
import pickle
import threading
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from .words import repr_of

__all__ = [
    "ARRAY",
    "DATETIME",
    "INT",
    "OBJECT",
    "REFERENCE",
    "Type",
    "by_class",
    "by_name",
    "register",
]

_T = TypeVar("_T")

REFERENCE, ARRAY, OBJECT, INT, DATETIME = range(1, 6)


class Type(NamedTuple):
    """How objects of a registered class are named and encoded."""

    name: str
    encode: Callable[[Any], object]


by_class: dict[type, Type] = {}
by_name: dict[str, Callable[[Any], Any]] = {}
_owners: dict[str, type] = {}
_lock = threading.Lock()

_BUILTIN = frozenset({type(None), bool, int, float, str, bytes, bytearray, memoryview})
_SENT = _BUILTIN | {dict, list, tuple, datetime.datetime, pickle.PickleBuffer}
_NUMPY = ("ndarray", "memmap")
_MADE_OF_SUBCLASSES = {"pathlib": ("Path", "PurePath"), "numpy": ("dtype",)}


def register(
    cls: type[_T],
    encode: Callable[[_T], object],
    decode: Callable[[Any], _T],
    *,
    name: str | None = None,
) -> None:
    """Let objects of `cls` (not of its subclasses) travel in messages of this process.

    Any class will do whose objects messages do not carry anyway: also a subclass of str, int,
    float, list, dict, bytes or tuple, an enum or a namedtuple, which unregistered arrives as its
    plain form. A key of a dict stays plain all the same.

    Parameters
    ----------
    cls : type
        The class to register. Registering it again replaces both functions.
    encode : callable
        Maps an object to a message, which may hold buffers, arrays and other registered types. An
        exception of it is the cause of an `EncodeError`; nothing is sent then.
    decode : callable
        Maps a message to an object. It runs on data from a peer and must validate it. An exception
        closes the comm with a `DecodeError`.
    name : str, optional
        The type's name on the wire, by default its module and qualified name. Both sides must
        register the same name.

    Raises
    ------
    ValueError
        If the name belongs to another class already, or is no text that can be sent; for a class
        whose objects messages carry as they are, such as `str`; and for one that has no objects of
        its own, such as `pathlib.Path`, whose objects are of a subclass.
    TypeError
        If `cls` is not a class, or one of the functions cannot be called, or is a coroutine
        function.

    Notes
    -----
    Thread-safe. A type may be registered at any time; messages encoded from then on use it. The
    counterpart in Dask is `distributed.protocol.register_serialization`.
    """
    _expect_class(cls)
    for role, function in (("encode", encode), ("decode", decode)):
        _expect_function(cls, role, function)
    name = _name(cls, name)
    with _lock:
        owner = _owners.setdefault(name, cls)
        if owner is not cls:
            raise ValueError(
                f"cannot register {cls!r}: the name {name!r} is taken by {owner!r}; choose another"
            )
        by_name[name] = decode
        by_class[cls] = Type(name, encode)


def _expect_class(cls: Any) -> None:
    if not issubclass(type(cls), type):  # isinstance is True for list[int] before Python 3.11
        raise TypeError(
            f"cannot register {repr_of(cls)}: it is no class; pass the class of its objects"
        )
    if cls in _SENT or (cls.__module__ == "numpy" and cls.__name__ in _NUMPY):
        raise ValueError(
            f"cannot register {cls!r}: messages carry its objects as they are; register a subclass"
        )
    if cls.__name__ in _MADE_OF_SUBCLASSES.get(cls.__module__.partition(".")[0], ()):
        raise ValueError(
            f"cannot register {cls!r}: its objects are of subclasses, and types are registered one "
            f"by one; register those, or send their texts"
        )
    if issubclass(cls, enum.Enum) and not cls.__members__:
        raise ValueError(f"cannot register {cls!r}: it has no members; register the enum that has")
    if inspect.isabstract(cls) or getattr(cls, "_is_protocol", False):
        raise ValueError(
            f"cannot register {cls!r}: it is abstract, and types are registered one by one; "
            f"register the classes that implement it"
        )


def _expect_function(cls: type, role: str, function: object) -> None:
    if not callable(function):
        raise TypeError(
            f"cannot register {cls!r}: {role} is {repr_of(function)}, which cannot be called; "
            f"pass a function of one argument"
        )
    if inspect.iscoroutinefunction(function):
        raise TypeError(
            f"cannot register {cls!r}: {role} is a coroutine function, and codecs do not wait; "
            f"pass a plain function"
        )


def _name(cls: type, name: object) -> str:
    if name is None:
        name = f"{cls.__module__}.{cls.__qualname__}"
    if not isinstance(name, str):
        raise TypeError(f"cannot register {cls!r}: its name is {repr_of(name)}; pass a str")
    name = str.__str__(name) if type(name) is str else "".join(name)
    try:
        name.encode()
    except UnicodeEncodeError:
        raise ValueError(
            f"cannot register {cls!r}: its name {name!r} has characters that are no text; "
            f"choose another"
        ) from None
    if not name:
        raise ValueError(f"cannot register {cls!r}: its name is empty; leave it out or choose one")
    return name
