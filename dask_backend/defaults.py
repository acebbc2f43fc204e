"""Our defaults in Dask's configuration, as every package of Dask's adds its own.

They set nothing that would install the backend: under ``sealwire.tls`` all of them are null. Dask
hands its configuration, defaults included, to the processes it starts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

try:
    import dask
    import distributed as _distributed  # noqa: F401 (the first import of this package's)
except ModuleNotFoundError as error:
    if error.name not in ("dask", "distributed"):
        raise
    raise ModuleNotFoundError(
        f"cannot use the Dask backend: {error.name} is not installed; pip install 'sealwire[dask]'",
        name=error.name,
    ) from error

from sealwire.security import schema

__all__ = ["add"]


def add() -> None:
    """Add the defaults, unless that is done."""
    new = schema.defaults()
    if any(each is new for each in dask.config.defaults):
        return
    kept = dict(_malformed(schema.ROOT, new[schema.ROOT], dask.config.get(schema.ROOT, None)))
    dask.config.update_defaults(new)
    if kept:
        dask.config.set(kept)


def _malformed(name: str, new: Mapping[str, Any], there: Any) -> list[tuple[str, Any]]:
    """Return what is no mapping and should be one.

    Dask would replace it, and nobody would learn that what is written there does not hold.
    """
    if not isinstance(there, Mapping):
        return [] if there is None else [(name, there)]
    return [
        found
        for section, settings in new.items()
        if isinstance(settings, Mapping)
        for found in _malformed(f"{name}.{section}", settings, there.get(section))
    ]
