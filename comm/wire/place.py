"""Where in a message a value stands, as errors say it: ``["a"][3].b``.

A place is found after something has failed, never before: a message that travels pays nothing for
it. Keys may be a peer's, or of any size; what is said of them is short and printable.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..errors import quoted
from .budget import brief

__all__ = ["INSIDE", "described", "steps_to"]

INSIDE = object()
"""The step from an object of a registered type to its content."""

_KEY = 30  # characters of a key
_ENDS = 5  # steps shown of either end of a long way
_LONGEST = 160  # characters of all of it


def described(steps: Sequence[object]) -> str:
    """Return the place that `steps`, from the outside in, lead to; empty for the whole message.

    A step is a dict's key, a list's index, or `INSIDE`; the latter alone leads to no place.
    """
    if all(step is INSIDE for step in steps):
        return ""
    if len(steps) > 2 * _ENDS:
        text = f"{_joined(steps[:_ENDS])}...{_joined(steps[-_ENDS:])}"
    else:
        text = _joined(steps)
    if len(text) <= _LONGEST:
        return text
    half = _LONGEST // 2 - 2
    return f"{text[:half]}...{text[-half:]}"


def _joined(steps: Sequence[object]) -> str:
    texts = []
    inside = False
    for step in steps:
        if step is INSIDE:
            inside = True
            continue
        if inside and type(step) is str and len(step) <= _KEY and step.isidentifier():
            texts.append(f".{quoted(step, _KEY)}")  # most objects are a dict of their attributes
        else:
            texts.append(f"[{_key(step)}]")
        inside = False
    return "".join(texts)


def _key(key: object) -> str:
    if isinstance(key, str):
        start = str.__getitem__(key, slice(_KEY))
        more = "..." if str.__len__(key) > _KEY else ""
        escaped = start.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{quoted(escaped, len(escaped))}{more}"'
    return brief(key)


def steps_to(target: object, message: Any) -> list[object] | None:
    """Return the steps from `message` to the dict or list that is `target`; None if it is not in.

    Only dicts and lists are looked into, each once: what decoders of registered types have made
    may contain itself.
    """
    if target is message:
        return []
    seen = {id(message)}
    ways = [(message, iter(_items(message)))]
    steps: list[object] = []
    while ways:
        for key, item in ways[-1][1]:
            if type(item) not in (dict, list) or id(item) in seen:
                continue
            if item is target:
                return [*steps, key]
            seen.add(id(item))
            steps.append(key)
            ways.append((item, iter(_items(item))))
            break
        else:
            ways.pop()
            if steps:
                steps.pop()
    return None


def _items(container: Any) -> Any:
    return list(container.items()) if type(container) is dict else enumerate(container)
