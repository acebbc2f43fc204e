"""The registry of backends by scheme. Third parties register theirs in code or by entry point.

An entry point of the group ``sealwire.backends`` is named after its scheme and refers to a
`Backend` class; it is imported at the first use of the scheme.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Collection
from importlib import import_module

from .addressing import declare_scheme
from .arguments import expect_bool
from .errors import AddressError
from .interfaces import Backend
from .words import repr_of

__all__ = ["get_backend", "register"]

ENTRY_POINT_GROUP = "sealwire.backends"

_OWN = {
    "tcp": ("tcp", "TCPBackend"),
    "tls": ("tcp", "TLSBackend"),
    "unix": ("unix", "UnixBackend"),
    "mem": ("memory", "MemoryBackend"),
}
_SCHEME = re.compile("[a-z][a-z0-9+-]*")
_backends: dict[str, Backend] = {}


def register(scheme: str, backend: Backend, *, replace: bool = False) -> None:
    """Use `backend` for every ``scheme://`` address of this process, from now on.

    Parameters
    ----------
    scheme : str
        Lower-case letters, digits, ``+`` and ``-``, without ``://``.
    backend : Backend
        An instance.
    replace : bool, default False
        Whether it may take the place of another backend.

    Raises
    ------
    TypeError
        For anything but a `Backend` whose methods can be called as `Backend` says.
    ValueError
        For a scheme of another form, or one that has another backend.
    """
    if not isinstance(scheme, str):
        raise TypeError(f"cannot register scheme {repr_of(scheme)}: need a str, such as 'quic'")
    if not _SCHEME.fullmatch(scheme):
        raise ValueError(
            f"cannot register scheme {scheme!r}: need a lower-case letter, then lower-case "
            f"letters, digits, + and -; leave out ://"
        )
    expect_bool("register_backend()", "replace", replace)
    why = _unfit(backend)
    if why is not None:
        raise TypeError(f"cannot register a backend for {scheme}://: {why}")
    known = _backends.get(scheme)
    taken = scheme in _OWN if known is None else known is not backend
    if taken and not replace:
        by = f"a {type(known).__name__}" if known is not None else "this package's own backend"
        raise ValueError(
            f"cannot register a {type(backend).__name__} for {scheme}://: it has {by}; take "
            f"another scheme, or pass replace=True"
        )
    _backends[scheme] = backend
    declare_scheme(scheme, host_port=backend.host_port)


def _unfit(backend: object) -> str | None:
    """Say why an object cannot be a backend, if it cannot."""
    if inspect.isclass(backend):
        return f"got the class {backend.__name__}, need an instance; write {backend.__name__}()"
    if not isinstance(backend, Backend):
        return f"got {repr_of(backend)}, need an instance of a class derived from Backend"
    name = type(backend).__name__
    for attribute in ("connect_arguments", "listen_arguments"):
        value = getattr(backend, attribute)
        named = isinstance(value, Collection) and not isinstance(value, (str, bytes))
        if not named or not all(isinstance(each, str) for each in value):
            return f"{name}.{attribute} is {repr_of(value)}, need a collection of names"
    if not isinstance(backend.host_port, bool):
        return f"{name}.host_port is {repr_of(backend.host_port)}, need a bool"
    given = (None, None, None), {"ssl_context": None, "require_encryption": None}
    for method, (positional, named_ones), how in (
        (backend.connector, ((), {}), "connector()"),
        (backend.listener, given, "listener(address, handler, limits, **connection_args)"),
    ):
        if inspect.iscoroutinefunction(method):
            return f"{name}.{how} is a coroutine function, need a plain one"
        try:
            inspect.signature(method).bind(*positional, **named_ones)
        except TypeError as error:
            return f"it cannot be called as {name}.{how} ({error}); give it these parameters"
    return None


def get_backend(scheme: str) -> Backend:
    """Return the backend of a scheme. Raises `AddressError` if there is none."""
    backend = _backends.get(scheme)
    if backend is None:
        backend = _backends[scheme] = _load(scheme)
    return backend


def _load(scheme: str) -> Backend:
    if scheme in _OWN:
        module, name = _OWN[scheme]
        backend_class = getattr(import_module(f".{module}", __package__), name)
    else:
        from importlib.metadata import entry_points  # takes as long as all our imports

        found = entry_points(group=ENTRY_POINT_GROUP)
        names = {entry.name: entry for entry in found}
        if scheme not in names:
            known = ", ".join(sorted({*_OWN, *_backends, *names}))
            raise AddressError(f"no backend for scheme {scheme!r}: known are {known}; use one")
        backend_class = names[scheme].load()
    backend = backend_class()
    why = _unfit(backend)
    if why is not None:
        raise AddressError(
            f"no backend for scheme {scheme!r}: {why}; mend the package whose entry point gives it"
        )
    assert isinstance(backend, Backend)
    declare_scheme(scheme, host_port=backend.host_port)
    return backend
