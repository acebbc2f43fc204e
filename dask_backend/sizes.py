"""Whether a message of Dask's is worth a thread, told in one walk.

distributed asks dask for the size of the whole message. For a batch of scheduler messages that
costs several times its serialisation. Here plain values and tasks are added up, and dask is asked
only for what they wrap.
"""

from __future__ import annotations

import functools
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
except (ImportError, AttributeError):  # its place is not promised; dask can tell a task's size
    Node = ()

__all__ = ["forget", "is_small", "offloaded_from"]

_ITEM = 100  # what a value weighs at least, and a short text or key at most, about
_SHORT = 256
_COLLECTIONS = frozenset({dict, list, tuple, set, frozenset})
# Besides scalars, code: to dask what is in it weighs nothing either.
_WEIGHTLESS = frozenset({int, float, bool, type(None), type, FunctionType, BuiltinFunctionType})


@functools.cache
def _parts_of(kind: Any) -> Callable[[Any], tuple[Any, ...]]:
    """What gets those parts of a task that can be large."""
    small = {"key", "func"}  # and what begins with an underscore
    names = [name for name in kind.get_all_slots() if name not in small and name[0] != "_"]
    return operator.attrgetter(*names, *["key"] * (2 - len(names)))  # of one it gives no tuple


def offloaded_from() -> int:
    """Bytes from which on a thread does it, asked where distributed asks; 0 there means never."""
    return utils.OFFLOAD_THRESHOLD or 1 << 62


def is_small(message: Any) -> bool:
    """Whether a message is too small to be worth a thread.

    False if the size of something in it cannot be told.
    """
    room = offloaded_from()
    values = [message]
    for value in values:  # which grows meanwhile
        kind: Any = type(value)
        if kind is str:
            if len(value) > _SHORT:
                room -= len(value)
        elif kind in _WEIGHTLESS:
            pass
        elif kind in _COLLECTIONS:
            room -= _ITEM * len(value)
            if room < 0:
                return False
            values += value.values() if kind is dict else value
        elif kind is bytes:
            room -= len(value)
        elif kind is ToPickle or kind is Serialize:
            values.append(value.data)
        elif isinstance(value, Node):
            values += _parts_of(kind)(value)
        elif kind is Serialized:
            room -= sum(map(nbytes, value.frames))
        else:
            size = safe_sizeof(value, default_size=-1)
            if size < 0:
                return False
            room -= size
    return room >= 0


def forget() -> None:
    """Let go of the classes of tasks that were met."""
    _parts_of.cache_clear()
