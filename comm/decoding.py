"""Frames to messages, within the bounds of `budget`: msgpack, then a walk if it set aside anything.

msgpack decodes a message from the outside in, on the C stack, and makes keys of whatever comes; so
objects, which hold messages themselves, and large ints are only set aside there (`_Later`), and
take their place in one walk that ends each decoding.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from typing import Any

import msgpack

from .arrays import array_from_parts
from .close_codes import CloseCode
from .errors import DecodeError
from .extensions import ARRAY, DATETIME, INT, OBJECT, REFERENCE, by_name
from .wire.budget import DEPTH, FEW_KEYS, QUOTED, Budget, brief, check_structure, large_dict, reason
from .wire.framing import Buffer, Frame

__all__ = ["decode"]

_unpackb = msgpack.unpackb

_PIECE = 64 * 1024
_LONGEST_MOMENT = 32  # as `isoformat` writes it, and more
_BIN8, _BIN16, _BIN32 = 0xC4, 0xC5, 0xC6  # what msgpack puts before bytes


def decode(frames: Sequence[Frame], peer: str = "") -> Any:
    """The message in `frames`. Buffers and arrays are views of the frames, without a copy.

    `peer` is named in errors. Raises `DecodeError` for whatever is not a message or is beyond a
    bound of `budget`, which says what time and memory that takes.
    """
    try:
        header = frames[0]
        if len(header) > DEPTH:
            check_structure(header)
        if len(frames) > 1:
            return _of_frames(frames, header)
        try:  # as `_with_few_keys`, without its call
            value = _unpackb(
                header, ext_hook=_at_once, strict_map_key=False, timestamp=3, max_map_len=FEW_KEYS
            )
        except _Another:
            return _of_frames(frames, header)
        except ValueError as error:
            if "max_map_len" not in str(error):
                raise
            return _of_frames(frames, header)
        if type(header) is memoryview:
            return _writable(value) if _may_hold_bytes(header) else value
        if _BIN8 in header or _BIN16 in header or _BIN32 in header:
            return _writable(value)
        return value
    except Exception as error:  # msgpack and a type's decode raise what they like
        source = f" from {peer}" if peer else ""
        why = reason(error)
        # A cause that quotes much would be repeated by whoever logs it.
        cause = error if len(why) < QUOTED else None
        refused = DecodeError(
            f"bad message{source}: a header of {len(frames[0])} bytes does not decode "
            f"({why}); check that both sides speak the same version"
        )
        if isinstance(error, _UnknownType):
            refused.code = CloseCode.UNKNOWN_TYPE
        raise refused from cause


def _of_frames(frames: Sequence[Frame], header: Buffer) -> Any:
    """The message, if it may have anything in it. Nothing of a type's own has run before."""
    try:
        return _Decoder(frames).message(header, _with_few_keys)
    except _Another:
        return _Decoder(frames).message(header)


class _UnknownType(ValueError):
    """An object of a type that is not registered."""


class _Another(Exception):
    """A value that must be set aside, or a dict of very many keys."""


def _with_few_keys(data: Buffer, extension: Callable[[int, bytes], Any]) -> Any:
    """What msgpack makes of `data`. Raises `_Another` for a dict of more keys than are safe."""
    try:
        return _unpackb(
            data, ext_hook=extension, strict_map_key=False, timestamp=3, max_map_len=FEW_KEYS
        )
    except ValueError as error:
        if "max_map_len" in str(error):
            raise _Another from None
        raise


def _with_many_keys(data: Buffer, extension: Callable[[int, bytes], Any]) -> Any:
    """The same for dicts of any number; makes each in Python."""
    return _unpackb(
        data, ext_hook=extension, strict_map_key=False, timestamp=3, object_pairs_hook=large_dict
    )


class _Later:
    """What stands for something that is not made within msgpack; a key of a dict it cannot be."""

    __slots__ = ("code", "data")

    def __init__(self, code: int, data: bytes) -> None:
        self.code = code
        self.data = data

    def __hash__(self) -> int:
        raise ValueError(f"extension type {self.code} is no key of a dict")


def _at_once(code: int, data: bytes) -> Any:
    """What an extension stands for in a header that stands alone, as most do."""
    if code == ARRAY:
        return _array(_no_frames, data)
    if code == DATETIME:
        return _moment(data)
    raise _Another


_no_frames = Budget(())


class _Decoder(Budget):
    """One message on its way in, within its budget.

    Nothing here refers to itself: the frames must be free as soon as the message is, not when the
    collector comes by.
    """

    __slots__ = ("_set_aside",)

    def message(
        self,
        data: Buffer,
        unpack: Callable[[Buffer, Callable[[int, bytes], Any]], Any] = _with_many_keys,
        depth: int = 0,
        objects: int = 0,
    ) -> Any:
        """What is packed in `data`, which stands within so many values, and objects among them."""
        self._set_aside = False
        value = unpack(data, self._extension)
        if self._set_aside:
            return self._finished(value, depth, objects)
        return _writable(value) if _may_hold_bytes(data) else value

    def _extension(self, code: int, data: bytes) -> Any:
        if code == REFERENCE:
            (index,) = msgpack.unpackb(data)
            return self.frame(index)
        if code == ARRAY:
            return _array(self, data)
        if code == DATETIME:
            return _moment(data)
        self._set_aside = True
        return _Later(code, data)

    def _finished(self, value: Any, depth: int, objects: int) -> Any:
        """`value` with the bytes in it as bytearrays, and with what was set aside in its place.

        Containers are changed. It does not recurse but for objects: those within others count as
        one depth.
        """
        whole = [value]
        containers: list[tuple[Any, int]] = [(whole, depth)]
        while containers:
            container, depth = containers.pop()
            self.check_depth(depth)
            for key, item in container.items() if type(container) is dict else enumerate(container):
                kind = type(item)
                if kind is bytes:
                    container[key] = bytearray(item)
                elif kind in _CONTAINERS:
                    containers.append((item, depth + 1))
                elif kind is _Later:
                    container[key] = self._now(item, depth, objects)
        return whole[0]

    def _now(self, later: _Later, depth: int, objects: int) -> Any:
        """What was set aside, within so many values, and objects among them."""
        data = later.data
        if later.code == INT:
            self.check_int(len(data))
            return int.from_bytes(data, "little", signed=True)
        if later.code != OBJECT:
            raise ValueError(f"unknown extension type {later.code}")
        self.check_objects(objects + 1)
        if len(data) > DEPTH:
            check_structure(data)
        content = self.message(data, depth=depth, objects=objects + 1)
        if type(content) is not list or len(content) != 2 or type(content[0]) is not str:
            raise ValueError("an object that is not its type's name and its value")
        name, value = content
        if name not in by_name:
            raise _UnknownType(
                f"type {brief(name)} is not registered here; register it on both sides"
            )
        return by_name[name](value)


def _array(budget: Budget, data: bytes) -> Any:
    if len(data) > DEPTH:
        check_structure(data)
    dtype, shape, order, content = msgpack.unpackb(data)
    memory = bytearray(content) if type(content) is bytes else budget.frame(content)
    return array_from_parts(dtype, shape, order, memory)


def _moment(data: bytes) -> datetime.datetime:
    """A datetime without a zone, as `isoformat` writes it; newer Pythons read much else."""
    text = data[:_LONGEST_MOMENT].decode("ascii")
    moment = datetime.datetime.fromisoformat(text)
    if moment.isoformat().encode() != data or moment.tzinfo is not None:
        raise ValueError(f"{brief(text)} is not a datetime without a zone")
    return moment


def _may_hold_bytes(header: Buffer) -> bool:
    """Whether msgpack may have made bytes of `header`; nothing else is to be made writable."""
    if type(header) is memoryview:  # `in` would compare number by number, a second for 20 MB
        pieces = range(0, len(header), _PIECE)
        return any(_may_hold_bytes(bytes(header[start : start + _PIECE])) for start in pieces)
    return _BIN8 in header or _BIN16 in header or _BIN32 in header


def _writable(value: Any) -> Any:
    """`value` with the bytes that msgpack made in it as bytearrays; containers are changed."""
    kind = type(value)
    if kind is bytes:
        return bytearray(value)
    if kind is dict:
        for key, item in value.items():
            kind = type(item)
            if kind is bytes:
                value[key] = bytearray(item)
            elif kind in _CONTAINERS:
                _writable(item)
    elif kind is list:
        for index, item in enumerate(value):
            kind = type(item)
            if kind is bytes:
                value[index] = bytearray(item)
            elif kind in _CONTAINERS:
                _writable(item)
    return value


_CONTAINERS = frozenset({dict, list})
