"""msgpack extensions: their codes on the wire, and the registry of application types."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

__all__ = ["ARRAY", "DATETIME", "INT", "OBJECT", "REFERENCE", "by_class", "by_name", "register"]

_T = TypeVar("_T")

REFERENCE, ARRAY, OBJECT, INT, DATETIME = range(1, 6)


class _Type(NamedTuple):
    name: str
    encode: Callable[[Any], Any]


by_class: dict[type, _Type] = {}
by_name: dict[str, Callable[[Any], Any]] = {}


def register(
    cls: type[_T],
    encode: Callable[[_T], object],
    decode: Callable[[Any], _T],
    *,
    name: str | None = None,
) -> None:
    """Let objects of `cls` (not of its subclasses) travel in messages of this process.

    Parameters
    ----------
    cls : type
        The class to register.
    encode : callable
        Maps an object to a message, which may hold buffers, arrays and other registered types.
    decode : callable
        Maps a message to an object. It runs on data from a peer and must validate it. An exception
        closes the comm with a `DecodeError`.
    name : str, optional
        The type's name on the wire, by default its module and qualified name. Both sides must
        register the same name.

    Raises
    ------
    ValueError
        If the name belongs to another class already.
    """
    name = name or f"{cls.__module__}.{cls.__qualname__}"
    if any(entry.name == name and other is not cls for other, entry in by_class.items()):
        raise ValueError(f"cannot register {cls!r}: the name {name!r} is taken; choose another")
    by_class[cls] = _Type(name, encode)
    by_name[name] = decode
