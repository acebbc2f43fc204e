"""Paths as people write them into configuration: `~/certs/ca.pem`, `$HOME/certs/ca.pem`.

No shell has seen them there. A `str` is expanded wherever it is given, so that an argument means
what it would mean in the configuration; an `os.PathLike` is a path as it stands.
"""

from __future__ import annotations

import os
import re

from .errors import ConfigError
from .quoting import hides_key

__all__ = ["expanded", "is_literal"]

_VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)\})", re.ASCII)


def expanded(field: str, path: str) -> str:
    """Replace `~`, `~user`, `$NAME` and `${NAME}` in a path, unless it exists as it stands.

    Raises `ConfigError` for a variable that is not set, and for a home that nobody knows.
    """
    if is_literal(path) or _exists(path):
        return path
    for found in _VARIABLE.finditer(path):
        name = found[1] or found[2]
        if name not in os.environ:
            shown = "a variable in it" if hides_key(name) else f"the variable {name} in it"
            raise ConfigError(f"cannot use {field}: {shown} is not set; set it, or write it out")
    whole = os.path.expanduser(os.path.expandvars(path))
    if whole.startswith("~"):  # as it was: in a container, the user may have no entry and no $HOME
        raise ConfigError(
            f"cannot use {field}: the home that ~ stands for in it is not known; "
            "set HOME, or write it out"
        )
    return whole


def is_literal(path: str) -> bool:
    """Whether there is nothing in a path that could be replaced."""
    return not path.startswith("~") and "$" not in path and (os.name != "nt" or "%" not in path)


def _exists(path: str) -> bool:
    try:
        return os.path.lexists(path)
    except (OSError, ValueError):  # ValueError: a null byte
        return False
