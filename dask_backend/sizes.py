"""Whether a Dask message is large enough to be worth a thread, determined in one walk.

distributed asks dask for the size of the whole message. For a batch of scheduler messages that
costs several times its serialisation. Here plain values and tasks are added up, and dask is asked
only for what they wrap. Of long collections, as in dask, a sample stands for the rest: a walk over
all of it would cost more than to encode it.
"""

from __future__ import annotations

import functools
import itertools
import operator
from collections.abc import Callable
from types import BuiltinFunctionType, FunctionType
from typing import Any

from distributed.comm import utils
from distributed.protocol.serialize import Serialize, Serialized, ToPickle
from distributed.sizeof import safe_sizeof
from distributed.utils import nbytes

Node: Any
try:
    from dask import _task_spec

    Node = _task_spec.GraphNode
except (ImportError, AttributeError):  # not public API; dask can compute a task's size
    Node = ()

__all__ = ["forget", "is_small", "offloaded_from"]

_ITEM = 100  # roughly the minimum size of a value, and the maximum of a short text or key
_SHORT = 256
_MANY = 512  # members of a collection, from which on a sample is taken
_SAMPLE = 128  # members at least
_MEMBER = 64  # bytes of each of many: a number has half of it, a text somewhat more
_COLLECTIONS = frozenset({dict, list, tuple, set, frozenset})
# Besides scalars, code, whose content dask does not count either.
_WEIGHTLESS = frozenset({int, float, bool, type(None), type, FunctionType, BuiltinFunctionType})


@functools.cache
def _parts_of(kind: Any) -> Callable[[Any], tuple[Any, ...]]:
    """Return a getter for those attributes of a task that can be large."""
    small = {"key", "func"}  # and private ones
    names = [name for name in kind.get_all_slots() if name not in small and name[0] != "_"]
    return operator.attrgetter(*names, *["key"] * (2 - len(names)))  # for one it returns no tuple


def offloaded_from() -> int:
    """Size in bytes from which on to use a thread; as configured for distributed, 0 means never."""
    return utils.OFFLOAD_THRESHOLD or 1 << 62


def is_small(message: Any) -> bool:
    """Whether a message is too small to be worth a thread.

    False if the size of something in it is unknown.
    """
    return _room_beside([message], offloaded_from()) >= 0


def _room_beside(values: list[Any], room: float) -> float:
    """Return what of `room` is left beside the `values`, which are appended to.

    Less than 0 if there is not enough, or the size of something is unknown.
    """
    for value in values:
        kind: Any = type(value)
        if kind is str:
            if len(value) > _SHORT:
                room -= len(value)
        elif kind in _WEIGHTLESS:
            pass
        elif kind in _COLLECTIONS:
            if len(value) > _MANY:
                room = _room_beside_many(value, room)
            else:
                room -= _ITEM * len(value)
                values += value.values() if kind is dict else value
            if room < 0:
                return room
        elif kind is bytes:
            room -= len(value)
        elif kind is ToPickle or kind is Serialize:
            values.append(value.data)
        elif isinstance(value, Node):
            values += _parts_of(kind)(value)
        else:
            size = _own_size(value)
            if size < 0:
                return -1
            room -= size
    return room


def _own_size(value: Any) -> int:
    """Size of what holds no further values, or -1 where it is unknown."""
    if type(value) is Serialized:
        return sum(map(nbytes, value.frames))
    return int(safe_sizeof(value, default_size=-1))


def _room_beside_many(collection: Any, room: float) -> float:
    """As `_room_beside`, of a long collection, by every so manieth of its members."""
    room -= _MEMBER * len(collection)
    if room < 0:
        return room
    members = collection.values() if type(collection) is dict else collection
    sample = list(itertools.islice(members, 0, None, len(collection) // _SAMPLE))
    times = len(collection) / len(sample)
    return times * _room_beside(sample, room / times)  # a cycle of them ends with the room


def forget() -> None:
    """Drop the cached task classes."""
    _parts_of.cache_clear()
