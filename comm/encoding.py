"""Encode messages as frames: a walk for values that msgpack would copy or lacks, then msgpack."""

from __future__ import annotations

import datetime
import re
import sys
import threading
from collections.abc import Callable, Collection
from pickle import PickleBuffer
from typing import Any

import msgpack
from msgpack import ExtType, Timestamp

from .arrays import array_to_parts, is_array, is_number
from .encoding_errors import Failed, cause_of, named, refusal
from .errors import EncodeError
from .extensions import ARRAY, DATETIME, INT, OBJECT, REFERENCE, Type, by_class
from .wire.budget import DEPTH, Budget, reason
from .wire.framing import Buffer
from .wire.place import INSIDE

__all__ = ["OUT_OF_BAND", "EncodedMessage", "encode"]

OUT_OF_BAND = 4096
"""Bytes from which a buffer gets a frame of its own; copying a shorter one costs less."""

_PLAIN = frozenset({bool, int, float, str, type(None)})
_TIME = datetime.datetime
_KEYS = _PLAIN | {bytes, _TIME}
_LEAST, _MOST = -(1 << 63), (1 << 64) - 1  # the range of msgpack's ints
_BUFFERS = (bytes, bytearray, memoryview, PickleBuffer)
_SHORT_BYTES = frozenset({bytes, bytearray})
_NAMES = re.compile(":[^:]*:")  # of fields, in the format of a buffer
_STOCK = "the peer is a stock one and takes plain msgpack only; send simpler values"
_MANY = 16  # number of values from which a set operation in C is faster than a loop
_PACKED_SIZE = 4096  # msgpack's default of 256 KiB is allocated from the system each time


def encode(message: Any, buffers: bool = True, arrays: bool = True) -> list[Buffer]:
    """Encode `message` as frames, the header first. Buffers are referenced, not copied.

    `buffers` and `arrays` say what the peer understands (`hello.Agreement`). Raises `EncodeError`
    naming the type that has no wire form.
    """
    try:
        if buffers and _is_plain(message):
            return [_plain.pack(message)]
    except Exception:  # the general way says where
        pass
    if type(message) is EncodedMessage:
        return message.frames(buffers, arrays)
    encoder = _Encoder(buffers, arrays)
    try:
        encoder.frames[0] = encoder.pack(message)
    except Exception as error:
        raise refusal(error) from cause_of(error)
    return encoder.frames


class EncodedMessage:
    """A message that is encoded once and can be written to any number of comms.

    Parameters
    ----------
    message : object
        As for `Comm.write`. Buffers and arrays in it are copied, so they may be changed afterwards;
        the rest must not be while peers that lack our extension types may still be sent it.

    Raises
    ------
    EncodeError
        For a value without a wire form.

    Examples
    --------
    ::

        news = EncodedMessage({"op": "news", "data": data})
        for comm in listener.comms:
            await comm.write(news)
    """

    __slots__ = ("_frames", "_message")

    def __init__(self, message: Any) -> None:
        self._message = message
        self._frames = {(True, True): _own(encode(message))}

    def frames(self, buffers: bool, arrays: bool) -> list[Buffer]:
        """Return the frames for a peer that understands this much, see `encode`."""
        frames = self._frames.get((buffers, arrays))
        if frames is None:
            frames = _own(encode(self._message, buffers, arrays))
            self._frames[buffers, arrays] = frames
        return frames


def _own(frames: list[Buffer]) -> list[Buffer]:
    """`frames` that nobody can change."""
    return [
        frame
        if type(frame) is bytes or (isinstance(frame, memoryview) and type(frame.obj) is bytes)
        else bytes(frame)
        for frame in frames
    ]


def _is_plain(value: Any, depth: int = 0) -> bool:
    """Whether msgpack can take `value` as it is: nothing to copy, no unknown types."""
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
        return False  # the general way reports the error
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
    """Whether `key` arrives as it is: neither of a subclass, nor an int beyond 64 bits."""
    kind = type(key)
    if kind is int:
        return bool(_LEAST <= key <= _MOST)
    if kind is _TIME:
        return key.tzinfo is None
    return kind in _KEYS


def _arrives(moment: datetime.datetime) -> bool:
    """Return True; raise `ValueError` for a time that the receiver cannot represent in UTC."""
    if moment.tzinfo is not None and not 1 < moment.year < datetime.MAXYEAR:
        try:
            moment.astimezone(datetime.timezone.utc)
        except OverflowError:
            raise ValueError(f"{moment} is outside the years 1 to 9999 in UTC") from None
    return True


def _plain_default(value: Any) -> ExtType:
    """Encode a plain value that msgpack does not pack itself; its hook."""
    if type(value) is int:
        size = value.bit_length() // 8 + 1
        Budget.check_int(size)
        return ExtType(INT, value.to_bytes(size, "little", signed=True))
    if type(value) is _TIME:
        return ExtType(DATETIME, value.isoformat().encode())
    raise TypeError(f"{type(value).__qualname__} is not a plain value")


class _Plain(threading.local):
    """msgpack's packer for plain messages, one per thread: creating it costs as much as packing."""

    def __init__(self) -> None:
        self.pack = msgpack.Packer(
            default=_plain_default, datetime=True, buf_size=_PACKED_SIZE
        ).pack


_plain = _Plain()


class _Encoder:
    """Encodes one message; collects the frames that its header references."""

    def __init__(self, buffers: bool, arrays: bool) -> None:
        self.frames: list[Buffer] = [b""]
        self._extended = buffers
        self._arrays = arrays

    def pack(self, message: Any, depth: int = 0, objects: int = 0) -> bytes:
        """Pack `message`, which is nested in `depth` values and `objects` objects."""
        packer = msgpack.Packer(
            default=self._default, datetime=self._extended, buf_size=_PACKED_SIZE
        )
        prepared = self._prepare(message, depth, objects)
        try:
            return bytes(packer.pack(prepared))
        except Exception as error:
            raise Failed.within(prepared, packer.pack, error) from None

    def _prepare(self, value: Any, depth: int, objects: int) -> Any:
        """`value` with everything that msgpack must not see replaced by its extension type.

        msgpack packs bytes itself and would copy them into the header, so they must be replaced
        first; and a nested call of msgpack takes C stack for each level. Containers without such
        values are returned as they are.
        """
        kind = type(value)
        if kind is list or kind is tuple:
            self._check_depth(depth + 1)
            if _PLAIN.issuperset(map(type, value)):
                return value
            items = list(value)
            index = 0
            try:
                for index, item in enumerate(items):  # a comprehension would recurse twice a level
                    if type(item) not in _PLAIN:
                        items[index] = self._prepare(item, depth + 1, objects)
            except Exception as error:
                raise Failed.at(index, items[index], error) from None
            return items
        if kind is not dict:
            return self._prepare_single(value, depth, objects)
        self._check_depth(depth + 1)
        _check_keys(value)
        if len(value) > _MANY and _PLAIN.issuperset(map(type, value.values())):
            return value
        prepared: Any = value
        key = item = None
        try:
            for key, item in value.items():
                if type(item) in _PLAIN:
                    continue
                if (new := self._prepare(item, depth + 1, objects)) is not item:
                    prepared = dict(value) if prepared is value else prepared
                    prepared[key] = new
        except Exception as error:
            raise Failed.at(key, item, error) from None
        return prepared

    def _prepare_single(self, value: Any, depth: int, objects: int) -> Any:
        """`_prepare` for a value that is no plain container."""
        kind = type(value)
        if kind in _PLAIN or (kind is _TIME and _arrives(value)):
            return value
        entry = by_class.get(kind)
        if entry is not None:
            return self._object(entry, value, depth, objects)
        if isinstance(value, _BUFFERS):
            return self._buffer(value)
        if is_array(value):
            return self._array(value)
        if kind is ExtType or kind is Timestamp:
            raise EncodeError(
                f"cannot encode msgpack's {kind.__name__}: the extension types are taken; register "
                f"a type of your own, or send a datetime"
            )
        # What a subclass says of its length may not be what is in it, and msgpack believes it.
        if isinstance(value, dict):
            return self._prepare(dict(value.items()), depth, objects)
        if isinstance(value, (list, tuple)):
            return self._prepare(list(value), depth, objects)
        return value

    def _object(self, entry: Type, value: Any, depth: int, objects: int) -> ExtType:
        """Encode an object of a registered type."""
        if not self._extended:
            raise EncodeError(f"cannot encode {named(type(value))}: {_STOCK}")
        Budget.check_objects(objects + 1)
        try:
            content = [entry.name, entry.encode(value)]
        except Exception as error:
            raise EncodeError(
                f"cannot encode {named(type(value))}: the function registered for it raised "
                f"{type(error).__name__} ({reason(error)}); mend it, or send another value"
            ) from error
        try:
            return _ext(OBJECT, self.pack(content, depth, objects + 1))
        except Failed as failed:
            failed.steps[-1:] = [INSIDE]  # in place of the content's index
            raise

    def _check_depth(self, depth: int) -> None:
        """Check the nesting; a stock peer has no limit but msgpack's."""
        if self._extended and depth > DEPTH:
            raise EncodeError(
                f"cannot encode message: it is nested too deeply (more than {DEPTH} levels) or "
                f"contains itself; flatten it"
            )

    def _buffer(self, value: Any) -> Any:
        view = memoryview(value)
        if view.format != "B" and "O" in _NAMES.sub("", view.format):
            raise EncodeError(
                "cannot encode a view of Python objects: its bytes are addresses; send a list"
            )
        if not view.c_contiguous:
            view = memoryview(view.tobytes())
        if not self._extended or view.nbytes < OUT_OF_BAND:
            return view.tobytes()
        return _ext(REFERENCE, _pack_list(self._out_of_band(view)))

    def _out_of_band(self, view: memoryview) -> int:
        self.frames.append(view.cast("B") if view.nbytes else b"")
        return len(self.frames) - 1

    def _default(self, value: Any) -> Any:
        """Encode a value that msgpack does not pack itself; its hook."""
        kind = type(value)
        if (kind in _PLAIN or kind is _TIME) and self._extended:
            return _plain_default(value)
        if isinstance(value, int) and self._extended:
            return _plain_default(int.__index__(value))
        if "numpy" in sys.modules and is_number(value):
            return value.item()
        raise EncodeError(f"cannot encode {named(kind)}: {self._why_not(kind)}")

    def _why_not(self, kind: type) -> str:
        if not self._extended:
            return _STOCK
        for base in kind.__mro__[1:]:
            if base in by_class:
                return (
                    f"its base {named(base)} is registered, but each class is registered by "
                    f"itself; register it, or send simpler values"
                )
        return "it has no form in msgpack; register the type or send simpler values"

    def _array(self, array: Any) -> ExtType:
        if not self._arrays:
            raise EncodeError(
                "cannot encode a numpy array: the peer has no numpy or takes plain msgpack only; "
                "install numpy there or send bytes"
            )
        dtype, shape, order, view = array_to_parts(array)
        if view.nbytes < OUT_OF_BAND:
            return _ext(ARRAY, _pack_list(dtype, shape, order, view.tobytes()))
        return _ext(ARRAY, _pack_list(dtype, shape, order, self._out_of_band(view)))


def _ext(code: int, data: bytes) -> ExtType:
    """Make an `ExtType` without its argument checks, which take longer than the rest."""
    return tuple.__new__(ExtType, (code, data))


def _pack_list(*items: Any) -> bytes:
    return bytes(_plain.pack(items))


def _check_keys(mapping: dict[Any, Any]) -> None:
    """Raise `EncodeError` for a dict that would not arrive with the same keys."""
    changed = False
    for key in mapping:
        if type(key) is not str and not _is_key(key):
            _plain_key(key)
            changed = True
    if changed and len({_plain_key(key) for key in mapping}) < len(mapping):
        raise EncodeError(
            "cannot encode a dict with keys that arrive as the same: subclasses arrive as plain "
            "values and times in UTC; use distinct ones"
        )


def _plain_key(key: Any) -> Any:
    """Return `key` as it arrives. Raises `EncodeError` if it does not."""
    for base, plain in _PLAIN_KEYS:
        if isinstance(key, base):
            return plain(key)
    if isinstance(key, int):
        if _LEAST <= key <= _MOST:
            return int.__index__(key)
        raise EncodeError(
            f"cannot encode an int of {key.bit_length()} bits as a dict key: it is outside "
            f"-2**63 to 2**64 - 1; use its text"
        )
    if key is None or (type(key) is _TIME and _arrives(key)):
        return key.astimezone(datetime.timezone.utc) if key and key.tzinfo else key
    raise EncodeError(
        f"cannot encode a dict key of type {named(type(key))}: keys are str, int, float, "
        f"bool, None, bytes or datetime; use one of them"
    )


_ALL = slice(None)
_PLAIN_KEYS: tuple[tuple[type, Callable[[Any], Any]], ...] = (
    (str, lambda key: str.__getitem__(key, _ALL)),
    (bytes, lambda key: bytes.__getitem__(key, _ALL)),
    (float, float.__float__),
)
