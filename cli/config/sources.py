"""Where Dask's configuration comes from: its files and variables, in the order in which they count.

Read here as Dask reads them, but one by one, so that each value keeps its source, and so that what
Dask ignores in silence (a file that it may not read) or ends `import dask` with (one that is no
YAML) can be told.
"""

from __future__ import annotations

import ast
import base64
import json
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, NamedTuple

from sealwire.security import config, config_files, schema
from sealwire.security.config_files import INHERITED, Unread

if TYPE_CHECKING:
    from sealwire.security.checks.findings import Finding

__all__ = [
    "Source",
    "Value",
    "collected",
    "defaults_of_distributed",
    "interpreted",
]

_PREFIX = "DASK_"
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
    from sealwire.security.checks import findings

    environment = {
        name: text for name, text in environment.items() if not config.sets_nothing(name, text)
    }
    layers: list[tuple[Source, Mapping[Any, Any]]] = []
    wrong: list[Finding] = []
    for path in config_files.listed(paths):
        try:
            layers.append((Source("file", path), config_files.read(path)))
        except Unread as why:
            wrong.append(_finding(path, why))
        wrong += findings.names(path)
    wrong += [_finding(name, why) for name, why in config_files.variables(environment)]
    layers += [(Source("variable", name), tree) for name, tree in _variables(environment)]
    found: dict[str, Value] = {}
    for source, tree in layers:
        _lay(found, tree, source)
    if find_spec("dask") is not None and not any(each.severity == "error" for each in wrong):
        merged = _merged_by_dask(layers, paths, environment)
        if merged is not None:
            found = merged
            wrong += _displaced(layers, found)
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
            (each for each in reversed(held.get(name, ())) if _is_same(each.value, value)),
            Value(value, several),
        )
        for name, value in _leaves(tree)
    }


def _displaced(
    layers: Sequence[tuple[Source, Mapping[Any, Any]]], found: Mapping[str, Value]
) -> Iterator[Finding]:
    """Report values of settings that do not hold, for Dask keeps a mapping of a source before."""
    from sealwire.security.checks.findings import WARNING, Finding

    numbers = {source: number for number, (source, _) in enumerate(layers)}
    for source, tree in layers:
        for name, _ in _leaves(tree):
            holds = [found[key].source for key in found if key.startswith(f"{name}.")]
            if not holds or name not in schema.settings():
                continue
            if all(numbers.get(each, len(layers)) < numbers[source] for each in holds):
                names = " and ".join(dict.fromkeys(each.name for each in holds))
                yield Finding(
                    WARNING,
                    "displaced-value",
                    name,
                    f"Dask prefers the mapping in {names} to the value in {source.name}",
                    "write a mapping here, too, or remove that one",
                )


def _is_same(one: Any, other: Any) -> bool:
    """Whether two values would be written alike; what aliases repeat is compared once."""
    waiting, seen = [(one, other)], set()
    while waiting:
        a, b = waiting.pop()
        if a is b or (id(a), id(b)) in seen:
            continue
        seen.add((id(a), id(b)))
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            if list(map(repr, a)) != list(map(repr, b)):
                return False
            waiting += zip(a.values(), b.values(), strict=True)
        elif isinstance(a, list) and isinstance(b, list):
            if len(a) != len(b):
                return False
            waiting += zip(a, b, strict=True)
        elif repr(a) != repr(b):
            return False
    return True


def interpreted(text: str) -> Any:
    """Return the value of a variable's text, as Dask takes it; without Dask, as donfig does."""
    try:
        return ast.literal_eval(text)
    except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError):
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


def _finding(path: str, unread: Unread) -> Finding:
    from sealwire.security.checks.findings import ERROR, WARNING, Finding

    if not unread.fatal:
        return Finding(WARNING, unread.code, path, str(unread), unread.advice)
    words = f"{unread}; with Dask installed, `import dask` fails"
    more = "; or move it away" if unread.code != "variable-malformed" else ""
    return Finding(ERROR, unread.code, path, words, f"{unread.advice}{more}")


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
