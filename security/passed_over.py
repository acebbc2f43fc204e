"""What is written in a configuration and does not hold, although Dask says nothing of it.

Nobody reads a setting that is in the wrong place, under `distributed.sealwire` or `comm` without
`distributed`, with dots in its name. And where one file has a list and another, or a variable, a
mapping for the same name, Dask keeps one of the two; which one differs between its versions. A
variable counts only when Dask is imported, and in the worker of a nanny, whose `env` may have it,
not above the configuration that the nanny hands on, defaults included.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from .schema import ROOT

__all__ = ["in_two_forms", "misplaced", "unheeded"]

_TLS = "distributed.comm.tls"
_VARIABLES = "DASK_SEALWIRE__TLS__"
_NOTHING = ("", "none", "null")
_LETTERS = 5  # of the seven of our name are in whatever is a misspelling of it


def misplaced(get: Callable[[str], Any], known: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield names that belong elsewhere, and where; `get` returns a mapping, for "" the whole.

    `known` are the dotted names of the settings of TLS.
    """
    homes: dict[str, str] = {}
    for key in known:
        for section in (_TLS, f"{ROOT}.tls"):
            if key.startswith(f"{section}."):
                first = key.removeprefix(f"{section}.").partition(".")[0]
                homes[first] = f"{section}.{first}"
    below = {
        "": {"comm": "distributed.comm", "tls": _TLS},
        "distributed": {"tls": _TLS, "require-encryption": "distributed.comm.require-encryption"},
        "distributed.comm": homes,
    }
    for section, places in below.items():
        tree = get(section)
        for name, value in tree.items() if isinstance(tree, Mapping) else ():
            written = str(name).replace("_", "-")
            full = f"{section}.{written}" if section else written
            home = places.get(written) or _root_of(written, section)
            if home and (section or "." in written or home == ROOT or _is_ours(value, homes)):
                yield full, home


def _root_of(name: str, section: str) -> str:
    """Return what a name is hardly anything else than; "" if it may be something else."""
    first, *below = name.split(".")
    if below and (first.lower() == ROOT or name.startswith(_TLS)):
        nested = "…"
        for each in reversed(below):
            nested = f"{{{each}: {nested}}}"
        return f"{first.lower()}: {nested}"
    if name == ROOT and not section:
        return ""
    lower = name.lower()
    if lower.startswith(ROOT):
        return ROOT
    if len(set(ROOT) & set(lower)) < _LETTERS:
        return ""
    from difflib import get_close_matches  # takes longer to import than all else here to run

    return ROOT if get_close_matches(lower, [ROOT], cutoff=0.8) else ""


def _is_ours(value: Any, homes: Mapping[str, str]) -> bool:
    """Whether a mapping at the top has what belongs below `distributed.comm`."""
    names = {str(name).replace("_", "-") for name in value} if isinstance(value, Mapping) else set()
    return bool(names & {"tls", "require-encryption", "default-scheme", *homes})


def in_two_forms(key: str, value: Any, paths: Sequence[str], dask_config: Any) -> bool:
    """Whether a setting is a mapping in one source and something else in another.

    `value` is what holds; not if a program has set that itself. `dask_config` is `dask.config`.
    """
    get = dask_config.get
    try:
        forms = set()
        for tree in (*dask_config.collect_yaml(paths), dask_config.collect_env()):
            with contextlib.suppress(TypeError):  # no mapping above it
                if (found := get(key, default=None, config=tree)) is not None:
                    forms.add(isinstance(found, Mapping))
        # Only where it is in doubt is all of it read once more.
        return len(forms) > 1 and value == get(
            key, default=None, config=dask_config.collect(list(paths))
        )
    except Exception:  # whatever Dask cannot read is told by who reads it
        return False


def unheeded(get: Callable[[str], Any], environment: Mapping[str, str]) -> Iterator[str]:
    """Yield the variables that set something of ours, for which the configuration has nothing."""
    for name, text in environment.items():
        if name.startswith(_VARIABLES) and text.lower() not in _NOTHING:
            try:
                value = get(name.removeprefix("DASK_").lower().replace("__", "."))
            except TypeError:  # a value where the name has more below it; read with the rest
                continue
            if value is None:
                yield name
