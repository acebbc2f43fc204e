"""What is said of a message that cannot be encoded: of which value, where in it, and why.

Nothing here runs before something has failed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .errors import EncodeError, quoted
from .wire.budget import reason
from .wire.place import described
from .words import words_of

__all__ = ["Failed", "cause_of", "named", "refusal"]

_LONGEST_NAME = 200  # characters


class Failed(Exception):
    """An error on the way out of the message, with the steps that lead to its value.

    The value's own step comes first. Nothing of this is done before something has failed.
    """

    def __init__(self, what: str, error: Exception, steps: list[object]) -> None:
        super().__init__(what)
        self.what = what
        self.error = error
        self.steps = steps

    @classmethod
    def at(cls, step: object, value: object, error: Exception) -> Failed:
        """Return `error`, raised for `value`, as the container sees it that `step` is in."""
        if isinstance(error, cls):
            error.steps.append(step)
            return error
        return cls(named(type(value)), error, [step])

    @classmethod
    def within(cls, message: Any, pack: Callable[[Any], object], error: Exception) -> Failed:
        """Return `error`, raised for the first value of a prepared `message` that does not pack."""
        steps: list[object] = []
        ways = [iter(_items(message))]
        while ways:
            for step, key, item in ways[-1]:
                container = type(item) in _CONTAINERS
                what = f"a dict key of type {named(type(key))}"
                try:
                    pack(key)
                    what = named(type(item))
                    if not container:
                        pack(item)
                except Exception:
                    return cls(what, error, [step, *reversed(steps)])
                if container:
                    steps.append(step)
                    ways.append(iter(_items(item)))
                    break
            else:
                ways.pop()
                if steps:
                    steps.pop()
        return cls("message", error, [])


_CONTAINERS = frozenset({dict, list, tuple})


def _items(value: Any) -> list[tuple[object, object, object]]:
    """Return what is in a value: steps, keys to be packed if any, items."""
    kind = type(value)
    if kind is dict:
        return [(key, key, item) for key, item in value.items()]
    return [(index, None, item) for index, item in enumerate(value)] if kind in _CONTAINERS else []


def cause_of(error: Exception) -> BaseException | None:
    """Return what the refusal of a message is raised from: an error that is not our own."""
    if isinstance(error, Failed):
        error = error.error
    return error.__cause__ if isinstance(error, EncodeError) else error


def refusal(error: Exception) -> EncodeError:
    """Return the error for a message that failed with `error`."""
    what, place = "message", ""
    if isinstance(error, Failed):
        if error.steps:
            what = error.what
            place = f"{described(error.steps[::-1]) or 'in what a registered function returned'}: "
        error = error.error
    if isinstance(error, EncodeError):
        return EncodeError(f"{place}{words_of(error)}")
    if isinstance(error, RecursionError):
        return EncodeError(
            "cannot encode message: it is nested too deeply or contains itself; flatten it"
        )
    return EncodeError(f"{place}cannot encode {what}: {reason(error)}; send simpler values")


def named(kind: type) -> str:
    """Return the name of a class as errors say it."""
    module = "" if kind.__module__ == "builtins" else f"{kind.__module__}."
    return quoted(f"{module}{kind.__qualname__}", _LONGEST_NAME)
