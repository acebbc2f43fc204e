"""The texts of values and errors that are not our own, for error messages.

Their code may raise anything, also what would end the process, and a text may have any length.
"""

from __future__ import annotations

__all__ = ["repr_of", "words_of"]

_LONGEST = 200  # characters


def repr_of(value: object) -> str:
    """Return the `repr` of a value, cut; its type if there is none."""
    try:
        text = str.__str__(repr(value))
    except BaseException:
        return f"an object of type {type(value).__name__}"
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def words_of(error: BaseException) -> str:
    """Return the text of an error; empty if there is none."""
    try:
        return str.__str__(str(error))  # which may be of a subclass
    except BaseException:
        return ""
