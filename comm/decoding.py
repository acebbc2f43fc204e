"""Decode frames to messages, within the bounds of `budget`: msgpack, and a walk if needed.

msgpack decodes a message from the outside in, recursing on the C stack, and accepts any key.
So objects, which contain messages themselves, and large ints are only recorded there
(`_Deferred`); one walk at the end of decoding replaces them by their values.
"""

from __future__ import annotations

import datetime
import functools
from collections.abc import Callable, Sequence
from typing import Any

import msgpack

from .arrays import array_from_parts
from .close_codes import CloseCode
from .errors import DecodeError
from .extensions import ARRAY, DATETIME, INT, OBJECT, REFERENCE, by_name
from .wire.budget import DEPTH, FEW_KEYS, QUOTED, Budget, brief, check_structure, large_dict, reason
from .wire.framing import Buffer, Frame
from .wire.markers import BIN8, BIN16, BIN32, may_hold_bytes, may_hold_empty
from .wire.place import INSIDE, described, steps_to

__all__ = ["decode"]

_unpackb = msgpack.unpackb

_LONGEST_MOMENT = 32  # longer than any text of `isoformat`
_LARGE = 4096  # bytes of a header; what is told below of large ones costs a microsecond

_Extension = Callable[[int, bytes], Any]  # msgpack's hook


def decode(frames: Sequence[Frame], peer: str = "") -> Any:
    """Decode `frames` to a message. Buffers and arrays are views of the frames, without a copy.

    `peer` is named in errors. Raises `DecodeError` for anything that is not a message or exceeds a
    bound of `budget`, which documents the time and memory that decoding takes.
    """
    try:
        header = frames[0]
        if len(header) > DEPTH:
            check_structure(header)
        if len(frames) > 1:
            return _of_frames(frames, header)
        if len(header) > _LARGE:
            return _of_large(frames, header)
        try:  # `_within`, inlined; it has no dict of many keys
            value = _unpackb(
                header,
                ext_hook=_simple_ext,
                strict_map_key=False,
                timestamp=3,
            )
        except _NotPlain:
            return _of_frames(frames, header)
        if type(header) is memoryview:
            return _writable(value) if may_hold_bytes(header) else value
        if BIN8 in header or BIN16 in header or BIN32 in header:
            return _writable(value)
        return value
    except Exception as caught:  # msgpack and registered types raise anything
        failed: Exception = caught
        steps: list[object] = []
        if isinstance(caught, _Failed):
            failed, steps = caught.error, caught.steps
        else:
            steps = _blamed(frames[0], frames) if frames else []
        source = f" from {peer}" if peer else ""
        place = f"{found}: " if (found := described(steps)) else ""
        why = reason(failed)
        # A cause that quotes a lot of the peer's data would be repeated in every log.
        cause = _cause(failed) if len(why) < QUOTED else None
        refused = DecodeError(
            f"bad message{source}: a header of {len(frames[0])} bytes does not decode "
            f"({place}{why}); check that both sides speak the same version"
        )
        if isinstance(failed, _UnknownType):
            refused.code = CloseCode.UNKNOWN_TYPE
        raise refused from cause


def _of_large(frames: Sequence[Frame], header: Buffer) -> Any:
    """Decode a message of one large frame.

    The markers before bytes occur in numbers as well, and to look for bytes among all values takes
    longer than to unpack them. So it is unpacked as if there were none, which ends at the first.
    """
    suspected = may_hold_bytes(header)
    for bounds in (_FEW, _SALTED):
        try:
            value = _within(header, _simple_ext, **bounds, max_bin_len=0 if suspected else -1)
        except _NotPlain as beyond:
            if "max_bin_len" in str(beyond):
                break
        else:
            return _writable(value) if suspected and may_hold_empty(header) else value
    return _of_frames(frames, header)


def _of_frames(frames: Sequence[Frame], header: Buffer) -> Any:
    """Decode a message that may hold anything. No code of a registered type has run before."""
    for bounds in (_FEW, _SALTED):
        try:
            return _Decoder(frames).message(header, functools.partial(_within, **bounds))
        except _NotPlain:
            continue
    return _Decoder(frames).message(header)


class _UnknownType(ValueError):
    """An object of a type that is not registered."""


class _Raised(ValueError):
    """An error of a function that was registered; its cause."""


def _cause(error: Exception) -> BaseException | None:
    return error.__cause__ if isinstance(error, _Raised) else error


class _NotPlain(Exception):
    """A value that must be deferred, or a dict with very many keys: decode the general way."""


class _Failed(Exception):
    """An error, and the steps from the outside of the message to the value that raised it."""

    def __init__(self, error: Exception, steps: list[object]) -> None:
        super().__init__()
        self.error = error
        self.steps = steps


def _blamed(data: Buffer, frames: Sequence[Frame]) -> list[object]:
    """Return the steps to the first value in `data` that its extension type refuses.

    For data that has failed to decode. If it is no msgpack, or keys or texts in it are at fault,
    there are no steps: nothing can be made of it that could be looked into.
    """
    try:
        if len(data) > DEPTH:
            check_structure(data)
        value = _with_many_keys(data, _set_aside)
    except Exception:
        return []
    decoder = _Decoder(frames)
    whole = [value]
    ways = [iter(enumerate(whole))]
    steps: list[object] = []
    while ways:
        for key, item in ways[-1]:
            kind = type(item)
            if kind in _CONTAINERS:
                steps.append(key)
                ways.append(iter(item.items() if kind is dict else enumerate(item)))
                break
            try:
                if kind is _Deferred:
                    decoder._extension(item.code, item.data)
            except Exception:
                return [*steps, key][1:]
        else:
            ways.pop()
            del steps[-1:]
    return []


def _set_aside(code: int, data: bytes) -> Any:
    """Return a date, which may be a key, and a placeholder for all else."""
    try:
        if code == DATETIME:
            return _moment(data)
    except ValueError:
        pass
    return _Deferred(code, data)


def _within(data: Buffer, extension: _Extension, **bounds: Any) -> Any:
    """Unpack `data`. Raises `_NotPlain`, which says why, if it is not within msgpack's `bounds`."""
    try:
        return _unpackb(data, ext_hook=extension, timestamp=3, **bounds)
    except ValueError as error:
        words = str(error)
        if any(bound in words for bound in bounds):
            raise _NotPlain(words) from None
        raise


# Dicts that msgpack may build: with few keys, or with texts and bytes as keys, whose hashes are
# salted, so that no peer can make them collide.
_FEW: dict[str, Any] = {"strict_map_key": False, "max_map_len": FEW_KEYS}
_SALTED: dict[str, Any] = {"strict_map_key": True}


def _with_many_keys(data: Buffer, extension: _Extension) -> Any:
    """Unpack `data` with dicts of any size, each built in Python."""
    return _unpackb(
        data, ext_hook=extension, strict_map_key=False, timestamp=3, object_pairs_hook=large_dict
    )


class _Deferred:
    """Placeholder for a value that is not decoded within msgpack; unhashable, so never a key."""

    __slots__ = ("code", "data")

    def __init__(self, code: int, data: bytes) -> None:
        self.code = code
        self.data = data

    def __hash__(self) -> int:
        raise ValueError(f"extension type {self.code} is no key of a dict")


def _simple_ext(code: int, data: bytes) -> Any:
    """Decode an extension in a message without out-of-band frames, the common case."""
    if code == ARRAY:
        return _array(_no_frames, data)
    if code == DATETIME:
        return _moment(data)
    raise _NotPlain


_no_frames = Budget(())


class _Decoder(Budget):
    """Decodes one message within its budget.

    There are no reference cycles here: the frames must be freed with the message, not at the next
    garbage collection.
    """

    __slots__ = ("_set_aside",)

    def message(
        self,
        data: Buffer,
        unpack: Callable[[Buffer, _Extension], Any] = _with_many_keys,
        depth: int = 0,
        objects: int = 0,
    ) -> Any:
        """Unpack `data`, which is nested in `depth` values and `objects` objects."""
        self._set_aside = False
        try:
            value = unpack(data, self._extension)
        except _NotPlain:
            raise
        except Exception as error:
            raise _Failed(error, _blamed(data, self._all)) from None
        if self._set_aside:
            return self._finish(value, depth, objects)
        return _writable(value) if may_hold_bytes(data) else value

    def _extension(self, code: int, data: bytes) -> Any:
        if code == REFERENCE:
            (index,) = msgpack.unpackb(data)
            return self.frame(index)
        if code == ARRAY:
            return _array(self, data)
        if code == DATETIME:
            return _moment(data)
        self._set_aside = True
        return _Deferred(code, data)

    def _finish(self, value: Any, depth: int, objects: int) -> Any:
        """`value` with its bytes as bytearrays, and with deferred values resolved.

        Containers are changed in place. It recurses for objects only: an object within another
        counts as one level.
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
                elif kind is _Deferred:
                    try:
                        container[key] = self._resolve(item, depth, objects)
                    except Exception as error:
                        raise _outwards(error, whole, container, key) from None
        return whole[0]

    def _resolve(self, deferred: _Deferred, depth: int, objects: int) -> Any:
        """Decode a deferred value, nested in `depth` values and `objects` objects."""
        data = deferred.data
        if deferred.code == INT:
            self.check_int(len(data))
            return int.from_bytes(data, "little", signed=True)
        if deferred.code != OBJECT:
            raise ValueError(f"unknown extension type {deferred.code}")
        self.check_objects(objects + 1)
        if len(data) > DEPTH:
            check_structure(data)
        try:
            content = self.message(data, depth=depth, objects=objects + 1)
        except _Failed as failed:
            failed.steps[:1] = [INSIDE]  # in place of the content's index
            raise
        if type(content) is not list or len(content) != 2 or type(content[0]) is not str:
            raise ValueError("an object that is not its type's name and its value")
        name, value = content
        if name not in by_name:
            raise _UnknownType(
                f"type {brief(name)} is not registered here; register it on both sides"
            )
        try:
            return by_name[name](value)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # `SystemExit` too, which is not a peer's to cause
            raise _Raised(
                f"the function registered for {brief(name)} raised {type(error).__name__}: "
                f"{reason(error)}"
            ) from error


def _outwards(error: Exception, whole: list[Any], container: Any, key: object) -> _Failed:
    """Return `error`, of the item `key` of a container in the message that is all of `whole`."""
    steps = [*(steps_to(container, whole) or []), key][1:]
    if isinstance(error, _Failed):
        error.steps[:0] = steps
        return error
    return _Failed(error, steps)


def _array(budget: Budget, data: bytes) -> Any:
    if len(data) > DEPTH:
        check_structure(data)
    dtype, shape, order, content = msgpack.unpackb(data)
    memory = bytearray(content) if type(content) is bytes else budget.frame(content)
    return array_from_parts(dtype, shape, order, memory)


def _moment(data: bytes) -> datetime.datetime:
    """Parse a naive datetime as `isoformat` writes it; newer Pythons accept other forms too."""
    text = data[:_LONGEST_MOMENT].decode("ascii")
    moment = datetime.datetime.fromisoformat(text)
    if moment.isoformat().encode() != data or moment.tzinfo is not None:
        raise ValueError(f"{brief(text)} is not a datetime without a zone")
    return moment


def _writable(value: Any) -> Any:
    """`value` with its bytes as bytearrays; containers are changed in place."""
    kind = type(value)
    if kind is bytes:
        return bytearray(value)
    if kind is dict:
        for key, item in value.items():
            kind = type(item)
            if kind in _CHANGED:
                value[key] = bytearray(item) if kind is bytes else _writable(item)
    elif kind is list:
        if len(value) > _MANY and _CHANGED.isdisjoint(map(type, value)):
            return value
        index = 0
        for item in value:
            kind = type(item)
            if kind in _CHANGED:
                value[index] = bytearray(item) if kind is bytes else _writable(item)
            index += 1  # noqa: SIM113 (enumerate takes a fifth longer)
    return value


_CONTAINERS = frozenset({dict, list})
_CHANGED = _CONTAINERS | {bytes}
_MANY = 16  # number of values from which a set operation in C is faster than a loop
