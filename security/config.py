"""The only reader of configuration: Dask's keys, with or without Dask.

If Dask can be imported, values come from `dask.config`, with its rules: files and environment are
read when Dask is imported, `dask.config.set` and `refresh` apply. Without Dask,
`donfig.Config("dask")` reads the same YAML files and `DASK_…` variables, anew at each `read()`, so
that a variable set before a `Security` is constructed applies. What is read here has no defaults: a
missing key is None.

An unused key under `distributed.comm.tls` or `sealwire` is most often a misspelt one, whose
author relies on a protection that does not exist. It is logged once, with the nearest known key,
and listed by `unknown_keys()`. It is not an error: the first section belongs to Dask, whose
releases may add keys, and a cluster must not fail for that.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from . import config_files
from .config_tree import getter, places
from .errors import ConfigError
from .parameters import is_nothing
from .passed_over import in_two_forms, misplaced, unheeded
from .paths import expanded
from .pem import is_text
from .quoting import hides_key, shown
from .schema import ROOT, defaults, sections, settings

__all__ = [
    "KEYS",
    "PRELOAD",
    "PROCESSES",
    "UnknownKey",
    "duration",
    "files",
    "leaves",
    "located",
    "read",
    "sets_nothing",
    "text",
    "truth",
    "unknown_in",
    "unknown_keys",
    "warn_of_unknown",
    "without_preload",
]

logger = logging.getLogger("sealwire.security")

_TLS = "distributed.comm.tls"
_OWN = "sealwire.tls"
ABOVE_TLS = ("distributed", "distributed.comm")  # sections that have it below them

#: field of `Security` -> configuration key
KEYS = {
    "require_encryption": "distributed.comm.require-encryption",
    "tls_ca_file": f"{_TLS}.ca-file",
    "tls_ciphers": f"{_TLS}.ciphers",
    "tls_min_version": f"{_TLS}.min-version",
    "tls_max_version": f"{_TLS}.max-version",
    "tls_client_cert": f"{_TLS}.client.cert",
    "tls_client_key": f"{_TLS}.client.key",
    "tls_scheduler_cert": f"{_TLS}.scheduler.cert",
    "tls_scheduler_key": f"{_TLS}.scheduler.key",
    "tls_worker_cert": f"{_TLS}.worker.cert",
    "tls_worker_key": f"{_TLS}.worker.key",
    "tls_crl_file": f"{_OWN}.crl-file",
    "tls_key_password": f"{_OWN}.key-password",
    "tls_allowed_peers": f"{_OWN}.allowed-peers",
    "tls_reload_interval": f"{_OWN}.reload-interval",
    "tls_expiry_warning": f"{_OWN}.expiry-warning",
    "tls_server_hostname": f"{_OWN}.server-hostname",
}


def _variable(key: str) -> str:
    return "DASK_" + key.replace(".", "__").replace("-", "_").upper()


# What an empty variable does not set, nor take away from a file. Allowed peers are no single value.
_SINGLE = {_variable(key) for field, key in KEYS.items() if field != "tls_allowed_peers"}
_PATHS = ("_file", "_cert", "_key")  # how fields end that are paths or PEM text

#: our preload module, and the processes that have a setting for preloads
PRELOAD = "sealwire.dask_backend.preload"
PROCESSES = ("scheduler", "worker", "nanny", "client")
_UNITS = {
    **dict.fromkeys(("s", "sec", "second", "seconds"), 1.0),
    **dict.fromkeys(("m", "min", "minute", "minutes"), 60.0),
    **dict.fromkeys(("h", "hour", "hours"), 3600.0),
    **dict.fromkeys(("d", "day", "days"), 86400.0),
    **dict.fromkeys(("w", "week", "weeks"), 7 * 86400.0),
    "ms": 0.001,
}
_DURATION = re.compile(rf"([0-9]+(?:\.[0-9]*)?|\.[0-9]+) *({'|'.join(_UNITS)})?")

_WORDS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}

_reported: set[str] = set()  # what has been logged, and the places of files that were looked at
_examined: list[Any] = [None]  # allowed peers of which is known that they are in one form


class UnknownKey(NamedTuple):
    """A configuration key that nothing reads.

    Attributes
    ----------
    key : str
        Its dotted name.
    nearest : str or None
        The most similar known key, if any is similar.
    """

    key: str
    nearest: str | None


def read(file: str | None = None) -> dict[str, Any]:
    """Return the configured value of every field of `KEYS`, None where nothing is set.

    With `file`, as a process would read it for which `DASK_CONFIG` is that file.
    `require_encryption` is a bool or None, and in paths `~` and `$NAME` are replaced; other values
    are as configured. Logs unknown keys. Raises `ConfigError` if the configuration is malformed.
    """
    get = getter(file)
    _warn_of_unknown(get)
    if file is None:
        _warn_of_lost()
    values = {field: located(field, _held(get, key, file)) for field, key in KEYS.items()}
    values["tls_key_password"] = _as_written(KEYS["tls_key_password"], values["tls_key_password"])
    values["require_encryption"] = truth(KEYS["require_encryption"], values["require_encryption"])
    _must_be_in_one_form(values["tls_allowed_peers"], file)
    return values


def sets_nothing(variable: str, text: str) -> bool:
    """Whether a variable is empty, and so sets none of the values of `KEYS`."""
    return not text and variable.upper() in _SINGLE


def _held(get: Callable[[str], Any], key: str, file: str | None) -> Any:
    """Return a value; where an empty variable has taken its place, that of the files."""
    value, variable = get(key), _variable(key)
    if value != "" or not any(
        name.upper() == variable and sets_nothing(name, text) for name, text in os.environ.items()
    ):
        return value
    return getter(file, variables={})(key)


def _must_be_in_one_form(peers: Any, file: str | None) -> None:
    """Raise `ConfigError` if Dask has dropped one of two lists of allowed peers."""
    if peers is None or (file is None and peers == _examined[0]):
        return
    key, dask_config = KEYS["tls_allowed_peers"], sys.modules.get("dask.config")
    if dask_config is not None and in_two_forms(key, peers, places(file), dask_config):
        raise ConfigError(
            f"cannot use {key}: it is set for all roles in one place and by role in another (files "
            "and DASK_… variables), and Dask drops one of the two; write both by role, such as "
            f"{key}.worker (DASK_SEALWIRE__TLS__ALLOWED_PEERS__WORKER)"
        )
    if file is None:
        _examined[0] = peers


def unknown_keys(file: str | None = None) -> list[UnknownKey]:
    """List the keys under ``distributed.comm.tls`` and ``sealwire`` that nothing reads.

    Also those that belong there and are in a wrong place.

    Parameters
    ----------
    file : str, optional
        A configuration file to read as if `DASK_CONFIG` named it.

    Returns
    -------
    list of UnknownKey

    Raises
    ------
    ConfigError
        If the configuration is malformed.
    """
    return list(unknown_in(getter(file)))


def warn_of_unknown() -> None:
    """Log what is configured and does not hold, each once: files, unknown keys, variables."""
    _warn_of_unknown(getter())
    _warn_of_lost()


def _warn_of_lost() -> None:
    """Log what is in files and does not hold; they are looked at once, as Dask does."""
    paths = places()
    looked_at = "\n".join(paths)
    if looked_at in _reported:
        return
    _reported.add(looked_at)
    for why, advice in config_files.lost(paths):
        logger.warning("%s; %s", why, advice)


def _warn_of_unknown(get: Callable[[str], Any]) -> None:
    for unknown in unknown_in(get):
        if unknown.key not in _reported:
            _reported.add(unknown.key)
            hint = f"; did you mean {unknown.nearest}?" if unknown.nearest else ""
            logger.warning("unknown configuration key %s is ignored%s", unknown.key, hint)
    for name in unheeded(get, os.environ):
        if name not in _reported:
            _reported.add(name)
            logger.warning(
                "the variable %s does not hold in this process: its configuration has no such "
                "value; set the variable before Dask is imported, or for the worker of a nanny in "
                "the nanny's environment, or give the nanny config=",
                name,
            )


def without_preload(file: str | None = None) -> list[str]:
    """Return the preload settings of Dask that do not name our module."""
    get = getter(file)
    found = []
    for process in PROCESSES:
        key = f"distributed.{process}.preload"
        modules = get(key)
        if PRELOAD not in (modules if isinstance(modules, (list, tuple)) else [modules]):
            found.append(key)
    return found


def files(file: str | None = None) -> list[str]:
    """Return the existing configuration files that `read` uses; `file` as there."""
    return list(filter(os.path.isfile, config_files.listed(places(file))))


def truth(name: str, value: object) -> bool | None:
    """Return a bool or None from arguments, YAML or the environment, such as "true" or 0.

    An empty text, as of an empty variable, is None.

    Raises `ConfigError`, naming `name`, for anything else.
    """
    if value is None or isinstance(value, bool):
        return value
    if is_nothing(value):
        return None
    if isinstance(value, str) and value.lower() in _WORDS:
        return _WORDS[value.lower()]
    with contextlib.suppress(ValueError):  # of an array
        if value in (0, 1):
            return bool(value)
    raise ConfigError(f"cannot use {name}: expected true or false, got {shown(value)}")


def text(name: str, value: object, *, number: bool = False) -> str | None:
    """Return a text, None for None and ""; with `number`, that of a number, too.

    Raises `ConfigError`, naming `name`, for anything else.
    """
    if is_nothing(value):
        return None
    types = (str, int, float) if number else (str,)
    if isinstance(value, types) and not isinstance(value, bool):
        return str(value)
    raise ConfigError(f"cannot use {name}: expected a text, got {shown(value)}; put it in quotes")


def duration(name: str, value: object, *, bare: str) -> float | None:
    """Seconds from a number or a text such as "5 s", "2h" or "30 days"; None for None and "".

    `bare` is the unit of a number without one. False, "never" and infinity are infinity. Raises
    `ConfigError`, naming `name`, for anything else.
    """
    if is_nothing(value):
        return None
    if value is False or (isinstance(value, str) and value == "never"):
        return math.inf
    text = ""
    if isinstance(value, (str, int, float)):
        with contextlib.suppress(ValueError):  # of an int of very many digits
            text = str(value).strip(" ").lower()
    found = _DURATION.fullmatch(text) if value is not True else None
    if text in ("inf", ".inf"):
        return math.inf
    if found is None:
        raise ConfigError(
            f"cannot use {name}: expected a time such as 5 or '30 days', or 'never', "
            f"got {shown(value)}"
        )
    return float(found[1]) * _UNITS[found[2] or bare]


def located(field: str, value: Any) -> Any:
    """Return the configured value of a field, with `~` and `$NAME` replaced if it is a path."""
    if not field.endswith(_PATHS) or not isinstance(value, str) or is_text(value):
        return value
    return expanded(KEYS[field], value)


def _as_written(key: str, value: Any) -> Any:
    """Return a variable's text instead of the number, None or list that the parser made of it."""
    if isinstance(value, Mapping):
        return {name: _as_written(f"{key}.{name}", each) for name, each in value.items()}
    variable = _variable(key)
    return value if isinstance(value, (str, bytes)) else os.environ.get(variable, value)


def unknown_in(get: Callable[[str], Any]) -> Iterator[UnknownKey]:
    """Yield the unknown keys of a configuration, of which `get` returns a value or mapping.

    For an empty name, it returns all of it.
    """
    theirs = [key.removeprefix(f"{_TLS}.") for key in KEYS.values() if key.startswith(_TLS)]
    for section in ABOVE_TLS:
        _tree(get, section)
    for name, home in misplaced(get, list(KEYS.values())):
        yield UnknownKey(_as_key(name), home)
    for name in leaves(_tree(get, _TLS)):
        yield from _unless_known(_TLS, name, theirs)
    ours = _tree(get, ROOT)
    if not ours or ours == defaults()[ROOT]:  # nothing is set: the schema need not be read
        return
    for name in map(_as_key, map(str, ours)):
        yield from _unless_known(ROOT, name, list(sections()))
    for section in sections():
        root = f"{ROOT}.{section}"
        known = {
            key.removeprefix(f"{root}."): each.about
            for key, each in settings().items()
            if key.startswith(f"{root}.")
        }
        for name in leaves(_tree(get, root)):
            if not known.get(name.partition(".")[0], {}).get("x-role"):
                yield from _unless_known(root, name, list(known))


def _tree(get: Callable[[str], Any], root: str) -> Mapping[str, Any]:
    tree = get(root)
    if tree is not None and not isinstance(tree, Mapping):
        raise ConfigError(
            f"cannot use {root}: expected a mapping, got {type(tree).__name__}; write its settings "
            "below it, as `name: value` lines"
        )
    return tree or {}


def _unless_known(root: str, name: str, known: Sequence[str]) -> Iterator[UnknownKey]:
    if name not in known:
        from difflib import get_close_matches  # takes longer to import than all else here to run

        near = [f"{root}.{each}" for each in get_close_matches(name.lower(), known, n=1)]
        elsewhere = [f"{section}.{name}" for section in (_TLS, _OWN) if section != root]
        there = [key for key in elsewhere if _is_setting(key)]
        yield UnknownKey(f"{root}.{name}", next(iter([*there, *near]), None))


def _is_setting(key: str) -> bool:
    return key in KEYS.values() or any(key.startswith(f"{each}.") for each in KEYS.values())


def leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Yield dotted names of all values, with `-` for `_` as in Dask."""
    for key, value in tree.items():
        name = prefix + _as_key(str(key))
        if isinstance(value, Mapping):
            yield from leaves(value, f"{name}.")
        else:
            yield name


def _as_key(name: str) -> str:
    return "…" if hides_key(name) else name.replace("_", "-")
