"""The configuration as a tree: Dask's own where Dask can be imported, else as Dask would read it.

Without Dask, donfig reads the same YAML files and ``DASK_…`` variables, anew each time; where a
later source has another kind of value than an earlier one, as Dask would have it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

from . import config_files
from .errors import ConfigError
from .quoting import redacted

__all__ = ["getter", "places"]

#: what reading a file ends with, and `import dask`, which reads all of them and variables
_MALFORMED = (ValueError, TypeError, MemoryError, RecursionError)


def getter(
    file: str | None = None, variables: Mapping[str, str] | None = None
) -> Callable[[str], Any]:
    """Return what looks a dotted name up in the configuration, and returns all of it for "".

    None stands for what is not set. `file` as for `config.read`, and so are the errors. With
    `variables`, of the files and these, in place of what holds in this process.
    """
    if "dask.config" not in sys.modules:  # which has read them already
        _must_end(file)
    try:
        import dask.config
    except ImportError:
        return _without_dask(file, variables)
    except _MALFORMED as error:
        raise _unreadable(error, file) from None
    tree = dask.config.config
    if file is not None or variables is not None:
        try:
            tree = dask.config.collect(places(file), env=variables)
        except Exception:  # of any type; `import dask` fails with it, and donfig may not
            return _without_dask(file, variables)
    return lambda key: dask.config.get(key, default=None, config=tree) if key else tree


def _must_end(file: str | None) -> None:
    """Raise `ConfigError` for a file that `import dask` would never have read."""
    for path in config_files.listed(places(file)):
        try:
            config_files.must_end(path)
        except config_files.Unread as found:
            raise _named(path, found) from None


def _without_dask(file: str | None, variables: Mapping[str, str] | None) -> Callable[[str], Any]:
    import donfig

    class AsDask(donfig.Config):  # type: ignore[misc]
        """Takes a section also where a file before has a text or a list, where donfig fails."""

        def collect(self, paths: Any = None, env: Any = None) -> dict[str, Any]:
            found: dict[str, Any] = {}
            for path in config_files.listed(self.paths if paths is None else paths):
                _lay(found, super().collect([path], {}), donfig.config_obj.canonical_name)
            _lay(found, super().collect([], env), donfig.config_obj.canonical_name)
            return found

    try:
        config = AsDask("dask", env=variables)
        if file is not None:
            config = AsDask("dask", paths=[*config.paths, file], env=variables)
    except _MALFORMED as error:
        raise _unreadable(error, file) from None
    return lambda key: config.get(key, default=None) if key else config.config


def _lay(
    below: dict[str, Any], above: Mapping[str, Any], canonical: Callable[[str, Any], str]
) -> None:
    """Lay one source of configuration over another, as `dask.config.update` does."""
    for name, value in above.items():
        key = canonical(name, below)
        if isinstance(value, Mapping):
            if not isinstance(below.get(key), dict):
                below[key] = {}
            _lay(below[key], value, canonical)
        else:
            below[key] = value


def _unreadable(error: Exception, file: str | None) -> ConfigError:
    """Return an error that names what cannot be read, and says what to do."""
    for path in config_files.listed(places(file)):
        try:
            config_files.read(path)
        except config_files.Unread as found:
            if found.fatal:
                return _named(path, found)
    for name, malformed in config_files.variables(os.environ):
        return _named(f"in the variable {name}", malformed)
    why = " ".join(redacted(str(error)).split()) or type(error).__name__
    return ConfigError(f"cannot read the configuration: {why}; see which file: sealwire config")


def _named(path: str, found: config_files.Unread) -> ConfigError:
    return ConfigError(f"cannot read the configuration {path}: {found}; {found.advice}")


def places(file: str | None = None) -> list[str]:
    """Return the files and folders in which is looked for configuration."""
    dask_config = sys.modules.get("dask.config")  # which has its own since it was imported
    paths = dask_config.paths if dask_config is not None else config_files.places(os.environ)
    return list(dict.fromkeys([*paths, *([file] if file is not None else ())]))
