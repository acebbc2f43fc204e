"""What travels as msgpack extensions: the codes on the wire, and the types of other authors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

__all__ = ["ARRAY", "DATETIME", "INT", "OBJECT", "REFERENCE", "by_class", "by_name", "register"]

REFERENCE, ARRAY, OBJECT, INT, DATETIME = range(1, 6)


class _Type(NamedTuple):
    name: str
    encode: Callable[[Any], Any]


by_class: dict[type, _Type] = {}
by_name: dict[str, Callable[[Any], Any]] = {}


def register(
    cls: type,
    encode: Callable[[Any], Any],
    decode: Callable[[Any], Any],
    *,
    name: str | None = None,
) -> None:
    """Let objects of `cls` (not of its subclasses) travel in messages of this process.

    Parameters
    ----------
    encode
        Object to message, which may hold buffers, arrays and other registered types.
    decode
        Message to object. It runs on what a peer sent: it must check what it is given. What it
        raises closes the comm with a `DecodeError`.
    name
        The type's name on the wire, by default its module and qualified name. Both sides must
        register the same one.

    Raises `ValueError` if the name belongs to another class already.
    """
    name = name or f"{cls.__module__}.{cls.__qualname__}"
    if any(entry.name == name and other is not cls for other, entry in by_class.items()):
        raise ValueError(f"cannot register {cls!r}: the name {name!r} is taken; choose another")
    by_class[cls] = _Type(name, encode)
    by_name[name] = decode
