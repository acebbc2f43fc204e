"""What every process that imports Dask imports of us: the backend follows where it is configured.

Not every process is started by a command whose plugin finds our settings, nor has a preload: a
script with a `Client` or a `LocalCluster`, ``python -m distributed.cli.dask_worker``, which job
queues and `dask ssh` run, the nanny of its workers. Settings under ``sealwire.tls`` must hold
there, and a service in `SEALWIRE_JOIN` be joined. Dask has no entry point for that; the one for
`sizeof` is loaded by every `import dask`.

It arms distributed's `Security`, which every scheduler, worker, nanny, client and cluster asks for
its TLS contexts, and the registry of backends, which whoever brings a context of their own asks:
the first use for which something is configured installs the backend. Without such settings nothing
else of this package is imported. Imports nothing but the standard library, since an error here
would be one of `import dask`.
"""

from __future__ import annotations

import functools
import importlib.util
import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

__all__ = ["arm", "is_set"]

_SECURITY, _REGISTRY = "distributed.security", "distributed.comm.registry"
_ENDINGS = (".json", ".yaml", ".yml")
_LARGEST = 1 << 20  # bytes of a file that are looked at
_OFTEN = "get_connection_args"  # called for each connection
_METHODS = ("__init__", _OFTEN, "get_listen_args")

logger = logging.getLogger("sealwire.dask_backend")

_told: set[object] = set()  # looked at, and warned of: roles, a DASK_CONFIG, wrong places
_armed: list[tuple[Any, str, Any, Any]] = []  # class or module, function, original, ours


def arm(_: object = None) -> None:
    """Arm distributed's modules, now or when they are imported; dask passes its `sizeof`."""
    for name in (_SECURITY, _REGISTRY):
        module = sys.modules.get(name)
        if module is not None:
            _arm(module)
        elif not any(isinstance(each, _Finder) and each.name == name for each in sys.meta_path):
            sys.meta_path.insert(0, _Finder(name))


class _Finder:
    """Finds nothing itself, and arms one module as soon as it has been executed."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._asking = False

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != self.name or self._asking:
            return None
        self._asking = True
        try:
            spec = importlib.util.find_spec(name)
        finally:
            self._asking = False
        if spec is not None and spec.loader is not None:
            # Of the loader itself, not a wrapper of it: others ask it for the module's source.
            loader: Any = spec.loader
            loader.exec_module = functools.partial(self._execute, loader, loader.exec_module)
        return spec

    def _execute(
        self, loader: Any, execute: Callable[[ModuleType], None], module: ModuleType
    ) -> None:
        del loader.exec_module
        execute(module)
        if self in sys.meta_path:
            sys.meta_path.remove(self)
        _arm(module)


def _arm(module: ModuleType) -> None:
    if module.__name__ == _REGISTRY:
        _replace(module, "get_backend", _finding)
        return
    kind = getattr(module, "Security", None)
    if isinstance(kind, type):
        for name in _METHODS:
            _replace(kind, name, _asking_first)


def _replace(target: Any, name: str, make: Callable[[Any, str, Any], Any]) -> None:
    original = vars(target).get(name)
    if callable(original) and not any((at, of) == (target, name) for at, of, _, _ in _armed):
        ours = make(target, name, original)
        _armed.append((target, name, original, ours))
        setattr(target, name, ours)


def _disarm() -> None:
    while _armed:
        target, name, original, ours = _armed.pop()
        if vars(target).get(name) is ours:
            setattr(target, name, original)


def _asking_first(kind: type[Any], name: str, original: Callable[..., Any]) -> Callable[..., Any]:
    looked = False

    @functools.wraps(original)
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        nonlocal looked
        asked = vars(kind).get(name) is method  # not by who has replaced it since
        _install(look=not looked)
        looked = name == _OFTEN
        present = getattr(kind, name)
        if asked and present is not method:
            return present(self, *args, **kwargs)
        made = original(self, *args, **kwargs)
        if isinstance(made, dict) and made.get("require_encryption") and args:
            _tell_missing(made, *args)
        return made

    return method


def _finding(registry: Any, name: str, original: Callable[[str], Any]) -> Callable[[str], Any]:
    looked = False

    @functools.wraps(original)
    def get_backend(scheme: str) -> Any:
        nonlocal looked
        if not _armed:  # others have wrapped this; a connection comes here nine times
            return original(scheme)
        asked = vars(registry).get(name) is get_backend
        _install(look=not looked)
        looked = True
        present = getattr(registry, name)
        return (present if asked and present is not get_backend else original)(scheme)

    return get_backend


def _tell_missing(made: dict[str, Any], role: object) -> None:
    """Warn of a role without a certificate, of which distributed's error names no setting."""
    if made.get("ssl_context", _armed) is None and role not in _told:
        _told.add(role)
        logger.warning(
            "role %s has no certificate or no CA, and encryption is required: it can neither "
            "connect nor listen; set distributed.comm.tls.%s.cert and distributed.comm.tls.ca-file "
            "(tls_%s_cert and tls_ca_file of a Security)",
            role,
            role,
            role,
        )


def is_set(tree: object) -> bool:
    """Whether something is set in a part of the configuration; null, as our defaults are, is not.

    As in `security.schema`, which is not imported here.
    """
    if isinstance(tree, dict):
        return any(map(is_set, tree.values()))
    return tree is not None


def _has_ending(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in _ENDINGS


def _is_read(path: str) -> bool:
    """Whether Dask reads anything of a file or folder; `config_files` has the words."""
    try:
        if os.path.isdir(path):
            return any(map(_has_ending, os.listdir(path)))
        return os.path.exists(path) and os.access(path, os.R_OK)
    except OSError:
        return False


def _is_configured(tree: Mapping[str, Any]) -> bool:
    """Whether a service to join is named, or anything is set under ``sealwire.tls``."""
    ours = tree.get("sealwire")
    if not isinstance(ours, dict):
        return False
    join = ours.get("join")
    return bool(isinstance(join, dict) and join.get("address")) or is_set(ours.get("tls"))


def _is_meant(tree: Mapping[str, Any]) -> bool:
    """Whether something is set under a name like ours, though nothing under ``sealwire.tls``."""
    if any(name.startswith("DASK_SEALWIRE__TLS__") for name in os.environ):
        return True
    places = [tree, tree.get("distributed")]
    return any(
        str(name).lower().startswith("sealwire") and is_set(value)
        for place in places
        if isinstance(place, dict)
        for name, value in place.items()
    )


def _is_lost(paths: Sequence[str]) -> bool:
    """Whether files may have something of ours that is not in the configuration.

    A file that Dask could not open, or one that mentions us. They are looked at once.
    """
    if _SECURITY in _told:
        return False
    _told.add(_SECURITY)
    try:
        for path in paths:
            inside = os.listdir(path) if os.path.isdir(path) else None
            for name in [""] if inside is None else filter(_has_ending, inside):
                file = os.path.join(path, name) if name else path
                if os.path.lexists(file):
                    with open(file, "rb") as opened:
                        if b"sealwire" in opened.read(_LARGEST):
                            return True
    except OSError:
        return True
    return False


def _install(look: bool) -> None:
    """Install the backend if something is configured for it.

    Joining may take a minute. Until it is done, other threads come here too, and wait. Once the
    program has decided by itself, nobody is asked any more. With `look`, which takes as long as
    half a connection, settings in wrong places are told.
    """
    if not _armed:
        return
    import dask

    named = os.environ.get("DASK_CONFIG") if look else None
    if named and named not in _told:
        _told.add(named)
        if not _is_read(named):
            from sealwire.dask_backend.startup import tell_configuration

            tell_configuration()
    if not os.environ.get("SEALWIRE_JOIN") and not _is_configured(dask.config.config):
        if (
            look
            and _REGISTRY not in _told
            and (_is_meant(dask.config.config) or _is_lost(dask.config.paths))
        ):
            _told.add(_REGISTRY)
            from sealwire.security.config import warn_of_unknown

            warn_of_unknown()
        patches = sys.modules.get("sealwire.dask_backend.patches")
        if patches is not None and patches.decided():
            _disarm()
        return
    from sealwire.dask_backend.patches import install_unless_decided

    try:
        install_unless_decided(_disarm)
    except BaseException:  # the next use must not go on without
        arm()
        raise
