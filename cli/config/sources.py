"""Where Dask's configuration comes from: its files and variables, in the order in which they count.

Read here as Dask reads them, but one by one, so that each value keeps its source, and so that what
Dask ignores in silence (a file that it may not read) or ends `import dask` with (one that is no
YAML) can be told.
"""

from __future__ import annotations

import ast
import base64
import json
import locale
import os
import site
import stat
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, NamedTuple

from sealwire.security import schema
from sealwire.security.config import UnknownKey
from sealwire.security.quoting import redacted

if TYPE_CHECKING:
    from sealwire.security.checks.findings import Finding

__all__ = [
    "Source",
    "Value",
    "collected",
    "defaults_of_distributed",
    "files",
    "interpreted",
    "near_names",
    "places",
]

#: bytes of a file that are read; Dask has no limit, and takes minutes for 10 MB
LARGEST = 1 << 20
INHERITED = "DASK_INTERNAL_INHERIT_CONFIG"
_PREFIX = "DASK_"
_ENDINGS = (".json", ".yaml", ".yml")
_DEEPEST = 8  # keys are dotted names of at most this many words
_WORDS = {"none": None, "null": None, "false": False, "true": True}


class Source(NamedTuple):
    """Where a value is from: a file, a variable, an argument or a default, and its name."""

    kind: str
    name: str


class Value(NamedTuple):
    """A value and its source."""

    value: Any
    source: Source


def collected(
    paths: Sequence[str], environment: Mapping[str, str], arguments: Mapping[str, Any]
) -> tuple[dict[str, Value], list[Finding]]:
    """Return what is set, by dotted name, and what is wrong with the files.

    What a list or null in one source and a mapping in another come to differs between versions of
    Dask. So if Dask can be imported, it is asked what holds.
    """
    layers: list[tuple[Source, Mapping[Any, Any]]] = []
    wrong: list[Finding] = []
    for path in files(paths):
        try:
            layers.append((Source("file", path), _read(path)))
        except _Unread as why:
            wrong.append(why.finding(path))
    layers += [(Source("variable", name), tree) for name, tree in _variables(environment)]
    found: dict[str, Value] = {}
    for source, tree in layers:
        _lay(found, tree, source)
    if find_spec("dask") is not None and not any(each.severity == "error" for each in wrong):
        found = _merged_by_dask(layers, paths, environment) or found
    for name, value in arguments.items():
        _lay(found, _nested(name, value), Source("argument", name))
    return found, wrong


def _merged_by_dask(
    layers: Sequence[tuple[Source, Mapping[Any, Any]]],
    paths: Sequence[str],
    environment: Mapping[str, str],
) -> dict[str, Value] | None:
    """Return what Dask makes of all sources; None if it cannot be asked."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of deprecated keys of Dask's
            import dask

            tree = dask.config.collect(paths=list(paths), env=environment)
    except Exception:  # a number with keys below it, and whatever else ends `import dask`
        return None
    held: dict[str, list[Value]] = {}
    for source, each in layers:
        for name, value in _leaves(each):
            held.setdefault(name, []).append(Value(value, source))
    several = Source("file", "several sources")
    return {
        name: next(
            (each for each in reversed(held.get(name, ())) if repr(each.value) == repr(value)),
            Value(value, several),
        )
        for name, value in _leaves(tree)
    }


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


def files(paths: Iterable[str]) -> list[str]:
    """Return the files that Dask would read in these places, in its order."""
    found = []
    for path in paths:
        if os.path.isdir(path):
            try:
                names = sorted(os.listdir(path))
            except OSError:
                names = []
            found += [os.path.join(path, n) for n in names if n.lower().endswith(_ENDINGS)]
        elif os.path.lexists(path):
            found.append(path)
    return found


def interpreted(text: str) -> Any:
    """Return the value of a variable's text, as Dask takes it; without Dask, as donfig does."""
    try:
        return ast.literal_eval(text)
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return _WORDS.get(text.lower(), text) if find_spec("dask") is not None else text


def defaults_of_distributed() -> dict[str, Value]:
    """Return the defaults of distributed, by dotted name; none if it is not installed."""
    spec = find_spec("distributed")
    found: dict[str, Value] = {}
    for place in (spec.submodule_search_locations or ()) if spec is not None else ():
        path = os.path.join(place, "distributed.yaml")
        if os.path.isfile(path):
            with open(path, encoding="utf-8") as file:
                _lay(found, schema.load(file.read()), Source("default", "distributed"))
    return found


class _Unread(Exception):
    """A file that is not read, and what comes of it."""

    def __init__(self, code: str, why: str, advice: str, *, fatal: bool) -> None:
        super().__init__(why)
        self.code = code
        self.advice = advice
        self.fatal = fatal

    def finding(self, path: str) -> Finding:
        from sealwire.security.checks.findings import ERROR, WARNING, Finding

        return Finding(ERROR if self.fatal else WARNING, self.code, path, str(self), self.advice)


def _read(path: str) -> Mapping[Any, Any]:
    """Return what a file says. Raises `_Unread`."""
    import yaml

    try:
        about = os.stat(path)
        if stat.S_ISFIFO(about.st_mode):
            why = "it is a named pipe: whatever imports Dask waits until somebody writes to it"
            raise _Unread("file-malformed", why, "remove it, or write a file", fatal=True)
        if about.st_size > LARGEST:
            why = (
                f"it has {about.st_size / 1e6:.1f} MB, and is not read here; whatever imports "
                "Dask reads it first, which may take minutes"
            )
            raise _Unread("file-too-large", why, "keep settings alone in it", fatal=True)
        with open(path, "rb") as file:
            raw = file.read(LARGEST + 1)
    except OSError as error:
        why = f"it is ignored, as by Dask: {(error.strerror or str(error)).lower()}"
        advice = "let this user read it, or remove it"
        raise _Unread("file-unreadable", why, advice, fatal=False) from None
    try:
        # As Dask does, not by the parser in C, which ends the process if nesting is too deep.
        tree = yaml.safe_load(raw.decode(locale.getpreferredencoding(False)))
    except UnicodeDecodeError as error:
        raise _malformed(f"it is no {error.encoding} text (byte {error.start})") from None
    except RecursionError:
        raise _malformed("it is nested too deeply") from None
    except Exception as error:  # YAMLError, and ValueError of a date that there is not
        raise _malformed(_where(error)) from None
    if _holds_itself(tree):
        why = "an alias in it refers to what it is part of; `import dask`, or who reads it, fails"
        raise _Unread("file-malformed", why, "correct it, or move it away", fatal=True)
    if tree is not None and not isinstance(tree, Mapping):
        raise _malformed(f"it has no settings, but a {type(tree).__name__} at its top")
    return tree or {}


def _holds_itself(tree: object) -> bool:
    """Whether an alias is part of what it stands for; each value is looked at once."""
    inside: set[int] = set()  # the containers around the one looked at
    done: set[int] = set()
    waiting: list[tuple[Any, bool]] = [(tree, False)]
    while waiting:
        value, left = waiting.pop()
        if left:
            inside.discard(id(value))
            done.add(id(value))
        elif id(value) in inside:
            return True
        elif isinstance(value, (Mapping, list)) and id(value) not in done:
            inside.add(id(value))
            parts = value.values() if isinstance(value, Mapping) else value
            waiting += [(value, True), *((part, False) for part in parts)]
    return False


def _malformed(why: str) -> _Unread:
    words = f"{why}; with Dask installed, `import dask` fails"
    return _Unread("file-malformed", words, "correct it, or move it away", fatal=True)


def _where(error: Exception) -> str:
    """Return what a parser says, without the lines that it quotes: they may be those of a key."""
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error).partition("\n")[0]
    place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark is not None else ""
    return f"{place}{redacted(str(problem))}"


def _variables(environment: Mapping[str, str]) -> Iterator[tuple[str, Mapping[Any, Any]]]:
    try:
        handed = json.loads(base64.urlsafe_b64decode(environment.get(INHERITED, "")))
    except ValueError:
        handed = None
    if isinstance(handed, Mapping):
        yield INHERITED, handed
    for name, text in environment.items():
        if name.startswith(_PREFIX) and name not in (INHERITED, "DASK_CONFIG"):
            key = name.removeprefix(_PREFIX).lower().replace("__", ".")
            yield name, _nested(key, interpreted(text))


def _nested(key: str, value: Any) -> dict[str, Any]:
    first, _, rest = key.partition(".")
    return {first: _nested(rest, value) if rest else value}


def _lay(found: dict[str, Value], tree: Mapping[Any, Any], source: Source) -> None:
    """Lay a source over those before it: its values count, where it has any."""
    for name, value in _leaves(tree):
        above = name.split(".")
        for end in range(1, len(above)):
            found.pop(".".join(above[:end]), None)
        for other in [key for key in found if key.startswith(f"{name}.")]:
            del found[other]
        found[name] = Value(value, source)


def _leaves(tree: Mapping[Any, Any], prefix: str = "", depth: int = 1) -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        name = prefix + str(key).replace("_", "-")
        if isinstance(value, Mapping) and depth < _DEEPEST:
            yield from _leaves(value, f"{name}.", depth + 1)
        else:
            yield name, value


def near_names(found: Mapping[str, Value]) -> list[UnknownKey]:
    """Return names at the top that are hardly anything else than `sealwire`, misspelt."""
    import difflib

    tops = dict.fromkeys(name.partition(".")[0] for name in found)
    return [
        UnknownKey(name, schema.ROOT)
        for name in tops
        if name != schema.ROOT
        and (
            name.lower().startswith(schema.ROOT)
            or difflib.get_close_matches(name.lower(), [schema.ROOT], cutoff=0.8)
        )
    ]
