"""Which configuration files Dask reads, and what is wrong with one, in words without its content.

Dask's own errors quote the lines that its parser fails at, which may be those of a key or password;
and what it cannot merge (a name that is a number, an alias within what it stands for) ends
`import dask` with a traceback. So a file that is to be told of is read here once more, as Dask
reads it. What Dask passes over in silence is told as well: a file that it may not open, a name
that is there twice, a `DASK_CONFIG` that names nothing.
"""

from __future__ import annotations

import ast
import base64
import json
import locale
import os
import re
import site
import stat
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from .quoting import redacted, shown
from .reading import kind

__all__ = [
    "INHERITED",
    "LARGEST",
    "Unread",
    "Vain",
    "listed",
    "lost",
    "named_in_vain",
    "places",
    "read",
    "twice",
    "variables",
]

#: the variable by which Dask hands its configuration to processes that it starts
INHERITED = "DASK_INTERNAL_INHERIT_CONFIG"

#: bytes of a file that are read; Dask has no limit, and takes minutes for 10 MB
LARGEST = 1 << 20
_ENDINGS = (".json", ".yaml", ".yml")

_CORRECT = (
    "correct it: indent with spaces, close what is opened, and quote a value that begins with one "
    "of {[*&!%@`|> or contains ': '"
)
_BRACES = "write {…} instead of {{…}}, put quotes around it if it is a text, or unset it"
#: what a parser quotes of a value, which may be a password; '<scalar>' is a word of its own
_QUOTED = re.compile(r"""(['"])(?!<).{3,}\1""")
_LET = "let this user read it, or remove it"
_SECTIONS = "write its settings as `name: value` lines"


class Unread(Exception):
    """A file or variable that is not read: what is wrong with it, and what to do.

    `fatal` says whether whatever imports Dask fails; if not, Dask passes over the file.
    """

    def __init__(self, code: str, why: str, advice: str, *, fatal: bool = True) -> None:
        super().__init__(why)
        self.code = code
        self.advice = advice
        self.fatal = fatal


class Vain(NamedTuple):
    """Why something that is configured does not hold, and what to do."""

    why: str
    advice: str


def places(environment: Mapping[str, str]) -> list[str]:
    """Return the files and folders in which Dask looks, in the order in which they count."""
    found = [
        environment.get("DASK_ROOT_CONFIG", "/etc/dask"),
        *(os.path.join(prefix, "etc", "dask") for prefix in (sys.prefix, *site.PREFIXES)),
        os.path.join(os.path.expanduser("~"), ".config", "dask"),
    ]
    if "DASK_CONFIG" in environment:
        found.append(environment["DASK_CONFIG"])
    return list(reversed(dict.fromkeys(reversed(found))))


def listed(paths: Iterable[str]) -> list[str]:
    """Return the files that Dask would open in these places, in its order."""
    found = []
    for path in paths:
        if os.path.isdir(path):
            try:
                names = sorted(os.listdir(path))
            except OSError:
                names = []
            found += [os.path.join(path, name) for name in names if _is_read(name)]
        elif os.path.lexists(path):
            found.append(path)
    return found


def _is_read(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in _ENDINGS


def named_in_vain() -> Vain | None:
    """Say what is wrong with the file that `DASK_CONFIG` names; Dask ignores it silently."""
    named = os.environ.get("DASK_CONFIG", "")
    if not named:
        return None
    path = os.path.abspath(named)
    if not os.path.exists(path):
        why, advice = "which does not exist", _meant(named)
    elif os.path.isdir(path):
        names = os.listdir(path) if os.access(path, os.R_OK) else []
        why = "" if any(map(_is_read, names)) else "a folder without a file that Dask reads"
        advice = "name the file itself, or one that ends in .yaml, .yml or .json"
    else:
        why = "" if os.access(path, os.R_OK) else "which cannot be read"
        advice = "let this user read it"
    if not why:
        return None
    where = "" if named == path else f" (looked for as {shown(path)})"
    return Vain(f"DASK_CONFIG names {shown(named)}{where}, {why}", advice)


def _meant(named: str) -> str:
    """Return what to do about a `DASK_CONFIG` that does not exist."""
    bare = named.strip().strip("'\"")
    if bare != named and os.path.exists(bare):
        return f"write it without the quotes or spaces around it: {shown(bare)}"
    full = os.path.expandvars(os.path.expanduser(bare))
    if full != bare and os.path.exists(full):
        return f"Dask replaces no ~ and no $NAME in it: write {shown(full)}"
    for separator in dict.fromkeys((os.pathsep, ";", ",")):
        parts = [part.strip(" '\"") for part in bare.strip("[]").split(separator)]
        if len(parts) > 1 and any(part and os.path.exists(part) for part in parts):
            return "Dask takes one path, not several: name a folder with these files in it"
    return "correct the variable, with an absolute path"


def variables(environment: Mapping[str, str]) -> Iterator[tuple[str, Unread]]:
    """Yield each variable with which `import dask` fails; what it holds may be a password."""
    tree: dict[str, Any] = {}
    if INHERITED in environment:
        handed = _handed(environment[INHERITED])
        if handed is None:
            why = "it is no configuration as Dask hands it to processes that it starts"
            yield INHERITED, Unread("variable-malformed", why, "unset it")
        tree = handed or {}
    for name, text in environment.items():
        if name == INHERITED or not name.startswith("DASK_"):
            continue
        names = name.removeprefix("DASK_").lower().replace("_", "-").split("--")
        try:
            value = ast.literal_eval(text)
        except (SyntaxError, ValueError):
            value = text
        except (TypeError, MemoryError, RecursionError) as error:  # Dask catches none of these
            why = f"it looks like a Python value and cannot be read as one ({type(error).__name__})"
            yield name, Unread("variable-malformed", why, _BRACES)
            continue
        if not _laid(tree, names, value):
            why = "it is for a part of what another variable sets to a single value"
            yield name, Unread("variable-malformed", why, "unset one of the two")


def _handed(text: str) -> dict[str, Any] | None:
    """Return the configuration that a parent hands to its children; None if it is none."""
    try:
        handed = json.loads(base64.urlsafe_b64decode(text))
    except (ValueError, RecursionError):
        return None
    return handed if isinstance(handed, dict) else None


def _laid(tree: dict[str, Any], names: list[str], value: Any) -> bool:
    """Set a value as Dask does; False if there is one where a mapping would have to be."""
    *above, last = names
    for name in above:
        tree = tree.setdefault(name, {})
        if not isinstance(tree, dict):
            return False
    tree[last] = value
    return True


def lost(paths: Iterable[str]) -> Iterator[Vain]:
    """Yield what is in these files and folders and does not hold, though Dask says nothing.

    But for the file that `DASK_CONFIG` names, of which `named_in_vain` tells.
    """
    for path in paths:
        if os.path.isdir(path) and not os.access(path, os.R_OK | os.X_OK):
            yield Vain(f"{shown(path)} cannot be read: nothing in it holds", _LET)
    for path in listed(paths):
        try:
            _text(path)
        except Unread as unread:
            if not unread.fatal and path != os.environ.get("DASK_CONFIG"):
                yield Vain(f"nothing in {shown(path)} holds: {unread}", unread.advice)
            continue
        for name, first, again in twice(path):
            yield Vain(
                f"{shown(path)} has the name {name} in lines {first} and {again} of one mapping: "
                "what is below the first does not hold",
                "write what belongs to it below one of them",
            )


def read(path: str) -> Mapping[Any, Any]:
    """Return what a file says, as Dask takes it. Raises `Unread`."""
    text = _text(path)
    # Not by the parser in C, which ends the process if nesting is too deep.
    tree = _parsed(lambda loader: loader.get_single_data(), text)
    if _holds_itself(tree):
        raise Unread(
            "file-malformed",
            "an alias in it refers to what it is part of",
            "write out what the alias stands for",
        )
    if tree is not None and not isinstance(tree, Mapping):
        kind = type(tree).__name__
        raise Unread(
            "file-malformed",
            f"it has no settings, but a value of type {kind} at its top",
            _SECTIONS,
        )
    for name in _names(tree or {}):
        if not isinstance(name, str):
            why = f"the name {shown(name)} in it is no text, but of type {type(name).__name__}"
            raise Unread("file-malformed", why, "put the name in quotes")
    return tree or {}


def twice(path: str) -> list[tuple[str, int, int]]:
    """Return the names that a mapping in the file has more than once, with two lines of theirs.

    YAML's parser takes the last without a word, and everything below the others is lost. None of a
    file that cannot be read.
    """
    import yaml

    try:
        node = _parsed(lambda loader: loader.get_single_node(), _text(path))
    except Unread:
        return []
    found: list[tuple[str, int, int]] = []
    waiting: list[Any] = [node]
    seen: set[int] = set()
    while waiting:
        each = waiting.pop()
        if id(each) in seen or not isinstance(each, yaml.CollectionNode):
            continue
        seen.add(id(each))
        if isinstance(each, yaml.MappingNode):
            lines: dict[str, int] = {}
            for key, value in each.value:
                waiting.append(value)
                if isinstance(key, yaml.ScalarNode) and key.value != "<<":
                    line = key.start_mark.line + 1
                    if key.value in lines:
                        found.append((shown(key.value), lines[key.value], line))
                    lines[key.value] = line
        else:
            waiting += each.value
    return sorted(found, key=lambda each: each[1:])


def must_end(path: str) -> None:
    """Raise `Unread` for what whatever imports Dask would read without end."""
    try:
        why = _endless(os.stat(path))
    except OSError:
        return
    if why:
        raise Unread("file-malformed", why, "remove it, or write a file")


def _endless(about: os.stat_result) -> str:
    if stat.S_ISFIFO(about.st_mode):
        return "it is a named pipe: whatever imports Dask waits until somebody writes to it"
    if not (stat.S_ISCHR(about.st_mode) or stat.S_ISBLK(about.st_mode)):
        return ""
    if os.path.samestat(about, os.stat(os.devnull)):  # a way to have no file
        return ""
    return f"it is {kind(about)}: whatever imports Dask may read it without end"


def _text(path: str) -> str:
    try:
        about = os.stat(path)
        must_end(path)
        if about.st_size > LARGEST:
            why = (
                f"it has {about.st_size / 1e6:.1f} MB, and is not read here; whatever imports "
                "Dask reads it first, which may take minutes"
            )
            raise Unread("file-too-large", why, "keep settings alone in it")
        with open(path, "rb") as file:
            raw = file.read(LARGEST + 1)
    except OSError as error:
        why = f"it is ignored, as by Dask: {(error.strerror or str(error)).lower()}"
        raise Unread("file-unreadable", why, _LET, fatal=False) from None
    encoding = locale.getpreferredencoding(False)
    try:
        return raw.decode(encoding)
    except UnicodeDecodeError as error:
        why = f"it is no {encoding} text (byte {error.start})"
        raise Unread("file-malformed", why, f"save it as {encoding} text") from None


def _parsed(part: Callable[[Any], Any], text: str) -> Any:
    """Return what a method of YAML's loader makes of a text."""
    import yaml

    loader = None
    try:
        loader = yaml.SafeLoader(text)
        return part(loader)
    except RecursionError:
        why, advice = "it is nested too deeply", "write it with fewer levels"
        raise Unread("file-malformed", why, advice) from None
    except Exception as error:  # YAMLError, and ValueError of a date that there is not
        raise Unread("file-malformed", _where(error), _CORRECT) from None
    finally:
        if loader is not None:
            loader.dispose()


def _where(error: Exception) -> str:
    """Return what a parser says, without the lines that it quotes: they may be those of a key."""
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error).partition("\n")[0]
    place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark is not None else ""
    begun = getattr(error, "context_mark", None)
    since = ""
    if begun is not None and mark is not None and begun.line != mark.line:
        since = f" (of what begins in line {begun.line + 1})"
    return f"{place}{redacted(_QUOTED.sub('…', str(problem)))}{since}"


def _containers(tree: object) -> Iterator[tuple[Any, bool]]:
    """Yield each mapping and list of a tree once, and whether it is part of itself."""
    inside: set[int] = set()  # the containers around the one looked at
    done: set[int] = set()
    waiting: list[tuple[Any, bool]] = [(tree, False)]
    while waiting:
        value, left = waiting.pop()
        if left:
            inside.discard(id(value))
            done.add(id(value))
        elif id(value) in inside:
            yield value, True
        elif isinstance(value, (Mapping, list)) and id(value) not in done:
            yield value, False
            inside.add(id(value))
            parts = value.values() if isinstance(value, Mapping) else value
            waiting += [(value, True), *((part, False) for part in parts)]


def _holds_itself(tree: object) -> bool:
    return any(again for _, again in _containers(tree))


def _names(tree: Mapping[Any, Any]) -> Iterator[Any]:
    """Yield the names that Dask merges: of mappings within mappings, not of those in lists."""
    waiting = [tree]
    seen: set[int] = set()
    while waiting:
        each = waiting.pop()
        if id(each) not in seen:
            seen.add(id(each))
            yield from each
            waiting += [value for value in each.values() if isinstance(value, Mapping)]
