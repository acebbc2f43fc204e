"""What people give to those who join: a token in a file, and a name.

A token's file is read whole, in bounded time. A pipe is taken as well, since a token can come from
another program (`--token-file <(pass show worker)`); one that nobody writes to is an error, not a
wait. No error shows a token, wherever it was given by mistake.
"""

from __future__ import annotations

import logging
import os
import shlex
import socket
import stat

from sealwire.security import ConfigError
from sealwire.security.paths import expanded
from sealwire.security.pem_shapes import decoded
from sealwire.security.permissions import is_granted
from sealwire.security.quoting import HIDDEN, hides_key, printable, shown
from sealwire.security.reading import read_given
from sealwire.security.security import ROLES

from .errors import JoinError
from .messages import AUTHORITY
from .tokens import PREFIX, Token

__all__ = ["must_be_name", "own_name", "token_in", "usable"]

logger = logging.getLogger("sealwire.joining")

_LARGEST = 4096  # bytes of a file with a token
_LONGEST = 64  # characters of a common name


def token_in(path: object, setting: str) -> Token:
    """Return the token in a file, or from a pipe; warn if others can read it.

    `setting` is what has named the file. `~` and `$NAME` are replaced. Raises `JoinError`.
    """
    if not isinstance(path, (str, os.PathLike)) or not (text := os.fspath(path)):
        raise JoinError(f"cannot use {setting}: expected the path of a file, got {shown(path)}")
    if not isinstance(text, str):
        raise JoinError(f"cannot use {setting}: expected a path as text, got {shown(text)}")
    if PREFIX in text:
        raise JoinError(
            f"cannot use {setting}: it is a token, and must be the path of a file with one; "
            "write the token to a file of mode 0600, or give it as SEALWIRE_TOKEN"
        )
    try:
        place = expanded(setting, text)
    except ConfigError as error:
        raise JoinError(str(error)) from None
    secret = hides_key(place)
    words = f"a path of {len(place)} characters, {HIDDEN}," if secret else printable(place)
    try:
        data, status = read_given(place, _LARGEST)
    except ValueError:  # a null byte, or what is no character
        raise JoinError(
            f"cannot read the token in {words} ({setting}): no path has such characters"
        ) from None
    except OSError as error:
        why = error.strerror or str(error)
        if place.startswith("~"):
            why = "there is no home folder to put in place of ~; write the whole path"
        raise JoinError(
            f"cannot read the token in {words} ({setting}): {why[:1].lower()}{why[1:]}"
        ) from None
    _warn_if_exposed(words, "..." if secret else shlex.quote(place), status)
    return Token.parse(decoded(data), f"in {words}")


def _warn_if_exposed(words: str, quoted: str, status: os.stat_result) -> None:
    mode = stat.S_IMODE(status.st_mode)
    if os.name != "posix" or not stat.S_ISREG(status.st_mode):
        return
    if mode & 0o044 and not is_granted(status):
        logger.warning(
            "the token in %s can be read by group or others (mode %04o), who could join with it; "
            "run: chmod 600 %s",
            words,
            mode,
            quoted,
        )


def must_be_name(name: str, setting: str) -> str:
    """Return the name of a process or machine. Raises `JoinError` for what cannot be one."""
    if PREFIX in name:
        raise JoinError(f"cannot use {setting}: it holds a token, which everybody would see")
    why = _damage(name)
    if why is not None:
        raise JoinError(f"cannot use {setting}: {why}; give another name")
    return name


def own_name() -> str:
    """Return this machine's name, "" if it is none that a node can have."""
    return usable(socket.gethostname())


def usable(name: str) -> str:
    """Return a host's name if a node can have it, else ""."""
    return name if _damage(name) is None else ""


def _damage(name: str) -> str | None:
    if not 1 <= len(name) <= _LONGEST:
        return f"a name has 1 to {_LONGEST} characters, got {len(name)}"
    if not name.isprintable():
        return f"a name has printable characters only, got {shown(name)}"
    if "*" in name:
        return f"a name stands for one process or machine, got {shown(name)}"
    if name.lower() in (*ROLES, AUTHORITY):
        return f"{shown(name)} is a role, and no name of a process"
    return None
