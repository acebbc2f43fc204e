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
    4  int         two's complement, little-endian, for what 64 bits do not hold; no key
    5  datetime    ISO 8601, for those without a time zone
   -1  datetime    msgpack's own timestamp, for those with one (arrives in UTC)

What stands in an extension is a peer's word for something else, and `budget` bounds what it may
be. msgpack decodes a message from the outside in, on the C stack, and makes keys of whatever comes;
so objects, which hold messages themselves, and large ints are only set aside there (`_Later`), and
take their place in one walk that ends each decoding.

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
from .wire.budget import DEPTH, FEW_KEYS, QUOTED, Budget, brief, check_structure, large_dict, reason
from .wire.framing import Buffer, Frame

__all__ = ["OUT_OF_BAND", "decode", "encode", "register"]

OUT_OF_BAND = 4096
"""Bytes from which a buffer gets a frame of its own; copying a shorter one costs less."""

_unpackb = msgpack.unpackb

_REFERENCE, _ARRAY, _OBJECT, _INT, _DATETIME = range(1, 6)

_PLAIN = frozenset({bool, int, float, str, type(None)})
_TIME = datetime.datetime
_KEYS = _PLAIN | {bytes, _TIME}
_LEAST, _MOST = -(1 << 63), (1 << 64) - 1  # of the ints that msgpack has
_BUFFERS = (bytes, bytearray, memoryview, PickleBuffer)
_SHORT_BYTES = frozenset({bytes, bytearray})
_MANY = 16  # values from which asking for all of them in C is faster than a loop
_PACKED_SIZE = 4096  # msgpack's own choice of 256 KiB goes to the system and back each time
_PIECE = 64 * 1024
_LONGEST_MOMENT = 32  # as `isoformat` writes it, and more
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


def _is_plain(value: Any, depth: int = 0) -> bool:
    """Whether msgpack can take `value` as it is: nothing in it to copy, nothing unknown."""
    kind = type(value)
    if kind is dict:
        for key in value:
            if type(key) is not str and not _is_key(key):
                return False
        values: Collection[Any] = value.values()
    elif kind is list or kind is tuple:
        values = value
    else:
        return (
            kind in _PLAIN
            or (kind in _SHORT_BYTES and len(value) < OUT_OF_BAND)
            or (kind is _TIME and _arrives(value))
        )
    if depth == DEPTH:
        return False  # the other way says so
    if len(values) > _MANY and _PLAIN.issuperset(map(type, values)):
        return True
    for item in values:
        kind = type(item)
        if kind in _PLAIN or (kind is bytes and len(item) < OUT_OF_BAND):
            continue
        if not _is_plain(item, depth + 1):
            return False
    return True


def _is_key(key: Any) -> bool:
    """Whether `key` is of a type for keys, and if it is an int, one of 64 bits."""
    kind = type(key)
    if kind is int:
        return bool(_LEAST <= key <= _MOST)
    if kind is _TIME:
        return _arrives(key)
    return kind in _KEYS


def _arrives(moment: datetime.datetime) -> bool:
    """True; raises `ValueError` for a time that its receiver could not make, in UTC."""
    if moment.tzinfo is not None and not 1 < moment.year < datetime.MAXYEAR:
        try:
            moment.astimezone(datetime.timezone.utc)
        except OverflowError:
            raise ValueError(f"{moment} is outside the years 1 to 9999 in UTC") from None
    return True


def _plain_default(value: Any) -> ExtType:
    """Called by msgpack for the plain values that it does not pack itself."""
    if type(value) is int:
        size = value.bit_length() // 8 + 1
        Budget.check_int(size)
        return ExtType(_INT, value.to_bytes(size, "little", signed=True))
    if type(value) is _TIME:
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

    def pack(self, message: Any, depth: int = 0, objects: int = 0) -> bytes:
        """The msgpack of `message`, which stands within so many values, and objects among them."""
        packer = msgpack.Packer(
            default=self._default, datetime=self._extended, buf_size=_PACKED_SIZE
        )
        return bytes(packer.pack(self._prepare(message, depth, objects)))

    def _prepare(self, value: Any, depth: int, objects: int) -> Any:
        """`value` with what msgpack must not meet replaced by its extension type.

        msgpack packs bytes itself and would copy them into the header, so they must be found
        before; and what is packed within a packing of msgpack's takes C stack for each level.
        Containers without any are returned as they are.
        """
        kind = type(value)
        if kind in _PLAIN or (kind is _TIME and _arrives(value)):
            return value
        if isinstance(value, dict):
            self._check_depth(depth + 1)
            for key in value:
                if type(key) is not str and not _is_key(key):
                    _refuse_key(key)
            if len(value) > _MANY and _PLAIN.issuperset(map(type, value.values())):
                return value
            prepared: Any = value
            for key, item in value.items():
                if type(item) in _PLAIN:
                    continue
                if (new := self._prepare(item, depth + 1, objects)) is not item:
                    if prepared is value:
                        prepared = dict(value)
                    prepared[key] = new
            return prepared
        if isinstance(value, (list, tuple)):
            self._check_depth(depth + 1)
            if _PLAIN.issuperset(map(type, value)):
                return value
            items = list(value)
            for index, item in enumerate(items):  # a comprehension would recurse twice a level
                items[index] = self._prepare(item, depth + 1, objects)
            return items
        if isinstance(value, _BUFFERS):
            return self._buffer(value)
        entry = _by_class.get(kind)
        if entry is not None and self._extended:
            Budget.check_objects(objects + 1)
            content = [entry.name, entry.encode(value)]
            return _ext(_OBJECT, self.pack(content, depth, objects + 1))
        if entry is None and is_array(value):
            return self._array(value)
        return value

    def _check_depth(self, depth: int) -> None:
        """A stock peer has no bound but msgpack's."""
        if self._extended and depth > DEPTH:
            raise EncodeError(
                f"cannot encode message: it is nested too deeply (more than {DEPTH} levels) or "
                f"contains itself; flatten it"
            )

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
        if (kind in _PLAIN or kind is _TIME) and self._extended:
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


def _refuse_key(key: Any) -> None:
    """Raise `EncodeError` for what `_is_key` does not take, but for subclasses of what it does."""
    if isinstance(key, int):
        if not _LEAST <= key <= _MOST:
            raise EncodeError(
                f"cannot encode an int of {key.bit_length()} bits as a dict key: it is outside "
                f"-2**63 to 2**64 - 1; use its text"
            )
    elif not isinstance(key, (str, float, bytes)):
        raise EncodeError(
            f"cannot encode a dict key of type {type(key).__name__}: keys are str, int, float, "
            f"bool, None, bytes or datetime; use one of them"
        )


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
        raise DecodeError(
            f"bad message{source}: a header of {len(frames[0])} bytes does not decode "
            f"({why}); check that both sides speak the same version"
        ) from cause


def _of_frames(frames: Sequence[Frame], header: Buffer) -> Any:
    """The message, if it may have anything in it. Nothing of a type's own has run before."""
    try:
        return _Decoder(frames).message(header, _with_few_keys)
    except _Another:
        return _Decoder(frames).message(header)


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
    if code == _ARRAY:
        return _array(_no_frames, data)
    if code == _DATETIME:
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
        if code == _REFERENCE:
            (index,) = msgpack.unpackb(data)
            return self.frame(index)
        if code == _ARRAY:
            return _array(self, data)
        if code == _DATETIME:
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
        if later.code == _INT:
            self.check_int(len(data))
            return int.from_bytes(data, "little", signed=True)
        if later.code != _OBJECT:
            raise ValueError(f"unknown extension type {later.code}")
        self.check_objects(objects + 1)
        if len(data) > DEPTH:
            check_structure(data)
        content = self.message(data, depth=depth, objects=objects + 1)
        if type(content) is not list or len(content) != 2 or type(content[0]) is not str:
            raise ValueError("an object that is not its type's name and its value")
        name, value = content
        if name not in _by_name:
            raise ValueError(
                f"type {brief(name)} is not registered here; register it on both sides"
            )
        return _by_name[name](value)


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
