"""The registry of backends by scheme. Third parties register theirs in code or by entry point.

An entry point of the group ``sealwire.backends`` is named after its scheme and refers to a
`Backend` class; it is imported at the first use of the scheme.
"""

from __future__ import annotations

from importlib import import_module

from .errors import AddressError
from .interfaces import Backend

__all__ = ["get_backend", "register"]

ENTRY_POINT_GROUP = "sealwire.backends"

_OWN = {"tcp": "TCPBackend", "tls": "TLSBackend"}
_backends: dict[str, Backend] = {}


def register(scheme: str, backend: Backend) -> None:
    """Use `backend` for every ``scheme://`` address of this process, from now on.

    Parameters
    ----------
    scheme : str
        In lower case, without ``://``.
    backend : Backend
        Replaces the backend that the scheme has, if any.
    """
    _backends[scheme] = backend


def get_backend(scheme: str) -> Backend:
    """Return the backend of a scheme. Raises `AddressError` if there is none."""
    backend = _backends.get(scheme)
    if backend is None:
        backend = _backends[scheme] = _load(scheme)
    return backend


def _load(scheme: str) -> Backend:
    if scheme in _OWN:
        backend_class = getattr(import_module(".tcp", __package__), _OWN[scheme])
    else:
        from importlib.metadata import entry_points  # takes as long as all our imports

        found = entry_points(group=ENTRY_POINT_GROUP)
        names = {entry.name: entry for entry in found}
        if scheme not in names:
            known = ", ".join(sorted({*_OWN, *_backends, *names}))
            raise AddressError(f"no backend for scheme {scheme!r}: known are {known}; use one")
        backend_class = names[scheme].load()
    backend = backend_class()
    if not isinstance(backend, Backend):
        raise AddressError(
            f"no backend for scheme {scheme!r}: its entry point gives a {type(backend).__name__}, "
            f"not a Backend; mend the package that declares it"
        )
    return backend
