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
    4  int         two's complement, little-endian, for what 64 bits do not hold
    5  datetime    ISO 8601, for those without a time zone
   -1  datetime    msgpack's own timestamp, for those with one (arrives in UTC)

A message of plain values and short bytes, as most are, is one call of msgpack in each direction:
before it goes a look for what msgpack would copy or does not know, and after it a look for the one
byte that must stand before any bytes-like value.
"""

from __future__ import annotations

import datetime
import sys
import threading
from collections.abc import Callable, Collection, Sequence
from pickle import PickleBuffer
from typing import Any, NamedTuple

import msgpack
from msgpack import ExtType

from .arrays import array_from_parts, array_to_parts, is_array, is_number
from .errors import DecodeError, EncodeError
from .framing import Buffer, Frame

__all__ = ["OUT_OF_BAND", "decode", "encode", "register"]

OUT_OF_BAND = 4096
"""Bytes from which a buffer gets a frame of its own; copying a shorter one costs less."""

_unpackb = msgpack.unpackb

_REFERENCE, _ARRAY, _OBJECT, _INT, _DATETIME = range(1, 6)

_PLAIN = frozenset({bool, int, float, str, type(None), datetime.datetime})
_KEYS = _PLAIN | {bytes}
_BUFFERS = (bytes, bytearray, memoryview, PickleBuffer)
_SHORT_BYTES = frozenset({bytes, bytearray})
_MANY = 16  # values from which asking for all of them in C is faster than a loop
_PACKED_SIZE = 4096  # msgpack's own choice of 256 KiB goes to the system and back each time
_PIECE = 64 * 1024
_BIN8, _BIN16, _BIN32 = 0xC4, 0xC5, 0xC6  # what msgpack puts before bytes


class _Type(NamedTuple):
    name: str
    encode: Callable[[Any], Any]


_by_class: dict[type, _Type] = {}
_by_name: dict[str, Callable[[Any], Any]] = {}


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
    if any(entry.name == name and other is not cls for other, entry in _by_class.items()):
        raise ValueError(f"cannot register {cls!r}: the name {name!r} is taken; choose another")
    _by_class[cls] = _Type(name, encode)
    _by_name[name] = decode


def encode(message: Any, buffers: bool = True, arrays: bool = True) -> list[Buffer]:
    """The frames of `message`, the header first. Buffers are referred to, not copied.

    `buffers` and `arrays` say what the peer understands (`hello.Agreement`). Raises `EncodeError`,
    which names the type that has no form on the wire.
    """
    encoder = None
    try:
        if buffers and _is_plain(message):
            return [_plain.pack(message)]
        encoder = _Encoder(buffers, arrays)
        header = encoder.pack(message)
    except EncodeError:
        raise
    except RecursionError as error:
        raise EncodeError(
            "cannot encode message: it is nested too deeply or contains itself; flatten it"
        ) from error
    except (TypeError, ValueError, OverflowError) as error:
        raise EncodeError(f"cannot encode message: {error}; send simpler values") from error
    encoder.frames[0] = header
    return encoder.frames


def _is_plain(value: Any) -> bool:
    """Whether msgpack can take `value` as it is: nothing in it to copy, nothing unknown."""
    kind = type(value)
    if kind is dict:
        for key in value:
            if type(key) is not str and type(key) not in _KEYS:
                return False
        values: Collection[Any] = value.values()
    elif kind is list or kind is tuple:
        values = value
    else:
        return kind in _PLAIN or (kind in _SHORT_BYTES and len(value) < OUT_OF_BAND)
    if len(values) > _MANY and _PLAIN.issuperset(map(type, values)):
        return True
    for item in values:
        kind = type(item)
        if kind in _PLAIN or (kind is bytes and len(item) < OUT_OF_BAND):
            continue
        if not _is_plain(item):
            return False
    return True


def _plain_default(value: Any) -> ExtType:
    """Called by msgpack for the plain values that it does not pack itself."""
    if type(value) is int:
        return ExtType(_INT, value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True))
    if type(value) is datetime.datetime:
        return ExtType(_DATETIME, value.isoformat().encode())
    raise TypeError(f"{type(value).__qualname__} is not a plain value")


class _Plain(threading.local):
    """msgpack's packer for plain messages, one a thread; making one costs as much as a message."""

    def __init__(self) -> None:
        self.pack = msgpack.Packer(
            default=_plain_default, datetime=True, buf_size=_PACKED_SIZE
        ).pack


_plain = _Plain()


class _Encoder:
    """One message on its way out; collects the frames its header refers to."""

    def __init__(self, buffers: bool, arrays: bool) -> None:
        self.frames: list[Buffer] = [b""]
        self._extended = buffers
        self._arrays = arrays

    def pack(self, message: Any) -> bytes:
        packer = msgpack.Packer(
            default=self._default, datetime=self._extended, buf_size=_PACKED_SIZE
        )
        return bytes(packer.pack(self._prepare(message)))

    def _prepare(self, value: Any) -> Any:
        """`value` with every bytes-like value in it replaced by its extension type.

        msgpack packs bytes itself and would copy them into the header, so they must be found
        before. Containers without any are returned as they are.
        """
        kind = type(value)
        if kind in _PLAIN:
            return value
        if isinstance(value, dict):
            if not _KEYS.issuperset(map(type, value)):
                _refuse_keys(value)
            if len(value) > _MANY and _PLAIN.issuperset(map(type, value.values())):
                return value
            prepared: Any = value
            for key, item in value.items():
                if type(item) not in _PLAIN and (new := self._prepare(item)) is not item:
                    if prepared is value:
                        prepared = dict(value)
                    prepared[key] = new
            return prepared
        if isinstance(value, (list, tuple)):
            if _PLAIN.issuperset(map(type, value)):
                return value
            return [self._prepare(item) for item in value]
        if isinstance(value, _BUFFERS):
            return self._buffer(value)
        if is_array(value) and kind not in _by_class:
            return self._array(value)
        return value

    def _buffer(self, value: Any) -> Any:
        view = memoryview(value)
        if not view.c_contiguous:
            view = memoryview(view.tobytes())
        if not self._extended or view.nbytes < OUT_OF_BAND:
            return view.tobytes()
        return _ext(_REFERENCE, _pack_list(self._out_of_band(view)))

    def _out_of_band(self, view: memoryview) -> int:
        self.frames.append(view.cast("B") if view.nbytes else b"")
        return len(self.frames) - 1

    def _default(self, value: Any) -> Any:
        """Called by msgpack for whatever it does not pack itself."""
        kind = type(value)
        entry = _by_class.get(kind)
        if entry is not None and self._extended:
            return ExtType(_OBJECT, self.pack([entry.name, entry.encode(value)]))
        if kind in _PLAIN and self._extended:
            return _plain_default(value)
        if "numpy" in sys.modules and is_number(value):
            return value.item()
        raise EncodeError(
            f"cannot encode {kind.__module__}.{kind.__qualname__}: "
            + (
                "it has no form in msgpack; register the type or send simpler values"
                if self._extended
                else "the peer is a stock one and takes plain msgpack only; send simpler values"
            )
        )

    def _array(self, array: Any) -> ExtType:
        if not self._arrays:
            raise EncodeError(
                "cannot encode a numpy array: the peer has no numpy or takes plain msgpack only; "
                "install numpy there or send bytes"
            )
        dtype, shape, order, view = array_to_parts(array)
        if view.nbytes < OUT_OF_BAND:
            return _ext(_ARRAY, _pack_list(dtype, shape, order, view.tobytes()))
        return _ext(_ARRAY, _pack_list(dtype, shape, order, self._out_of_band(view)))


def _ext(code: int, data: bytes) -> ExtType:
    """An `ExtType` without its checks, which take longer than what it is for."""
    return tuple.__new__(ExtType, (code, data))


def _pack_list(*items: Any) -> bytes:
    return bytes(_plain.pack(items))


def _refuse_keys(value: dict[Any, Any]) -> None:
    for key in value:
        if type(key) not in _KEYS and not isinstance(key, (str, int, float, bytes)):
            raise EncodeError(
                f"cannot encode a dict key of type {type(key).__name__}: keys are str, int, float, "
                f"bool, None, bytes or datetime; use one of them"
            )


def decode(frames: Sequence[Frame], peer: str = "") -> Any:
    """The message in `frames`. Buffers and arrays are views of the frames, without a copy.

    `peer` is named in errors. Raises `DecodeError` for whatever is not a message, with bounded
    memory: msgpack reserves no more than the header can hold, and nests at most 512 deep.
    """
    try:
        header = frames[0]
        if len(frames) > 1:
            return _Decoder(frames).unpack(header)
        value = _unpackb(header, ext_hook=_no_frames, strict_map_key=False, timestamp=3)
        if type(header) is memoryview:
            return _writable(value) if _may_hold_bytes(header) else value
        if _BIN8 in header or _BIN16 in header or _BIN32 in header:
            return _writable(value)
        return value
    except Exception as error:  # msgpack and a type's decode raise what they like
        source = f" from {peer}" if peer else ""
        raise DecodeError(
            f"bad message{source}: a header of {len(frames[0])} bytes does not decode "
            f"({str(error) or type(error).__name__}); check that both sides speak the same version"
        ) from error


class _Decoder:
    """One message on its way in.

    Nothing here refers to itself: the frames must be free as soon as the message is, not when the
    collector comes by.
    """

    def __init__(self, frames: Sequence[Frame]) -> None:
        self._frames = frames

    def unpack(self, data: Buffer) -> Any:
        value = _unpackb(data, ext_hook=self._extension, strict_map_key=False, timestamp=3)
        return _writable(value) if _may_hold_bytes(data) else value

    def _extension(self, code: int, data: bytes) -> Any:
        if code == _REFERENCE:
            (index,) = msgpack.unpackb(data)
            return self._frame(index)
        if code == _ARRAY:
            dtype, shape, order, content = msgpack.unpackb(data)
            memory = bytearray(content) if isinstance(content, bytes) else self._frame(content)
            return array_from_parts(dtype, shape, order, memory)
        if code == _OBJECT:
            name, value = self.unpack(data)
            if name not in _by_name:
                raise ValueError(f"type {name!r} is not registered here; register it on both sides")
            return _by_name[name](value)
        if code == _INT:
            return int.from_bytes(data, "little", signed=True)
        if code == _DATETIME:
            return datetime.datetime.fromisoformat(data.decode())
        raise ValueError(f"unknown extension type {code}")

    def _frame(self, index: Any) -> memoryview:
        if not isinstance(index, int) or not 0 < index < len(self._frames):
            raise ValueError(f"it refers to frame {index!r} of {len(self._frames)}")
        return memoryview(self._frames[index])


_no_frames = _Decoder(())._extension  # for a header that stands alone, as most do


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
