"""Our contexts for distributed's own `Security`, while our backends are installed.

`dask scheduler` and `dask worker` create a `distributed.Security` from their options. Its contexts
would ignore what is configured under `sealwire.tls`, above all a CRL, and would not follow their
files. So `install` makes its two methods return what ours would for the same values. Worker, nanny
and client ask once before they import a preload: `adopt` corrects that. And a nanny's worker asks
before it imports one: the `Security` that it is started with installs our backends there when it is
unpickled, so that an encrypted key is opened with its password.

A subclass that leaves the two methods alone, or calls them, gets ours. One that creates its
contexts itself is logged; where a CRL or an allow-list is configured that its context does not
enforce, it is refused.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from distributed.security import Security as DaskSecurity

from sealwire.security import ConfigError, SecurityError, config
from sealwire.security import Security as OwnSecurity
from sealwire.security.belonging import not_meant
from sealwire.security.contexts.policy import SealedContext
from sealwire.security.native import is_context
from sealwire.security.pem import is_text, source
from sealwire.security.pem_blocks import blocks
from sealwire.security.security import FIELDS, ROLES

from .protection import configured, unprotected
from .settings import ROLE

__all__ = [
    "adopt",
    "adopting",
    "begin",
    "complete",
    "end",
    "given_out",
    "is_own",
    "subclassed",
    "unwatch",
    "watch_all",
]

logger = logging.getLogger("sealwire.dask_backend")

_METHODS = ("get_connection_args", "get_listen_args")
_MAKER = "_get_tls_context"  # distributed's method that creates them
_on = False  # checked by our methods, which may be wrapped or kept by others after `end`
_reported: set[str] = set()  # classes that create their own contexts, already logged

# Wrapped methods of subclasses: the class, the method's name, the original, and the wrapper.
_watched: list[tuple[weakref.ref[type[Any]], str, Any, Any]] = []

_home = ""  # the working folder at installation, to which configured relative paths refer

# Requests for the same role share contexts; a process has few.
_known: deque[OwnSecurity] = deque(maxlen=16)


def begin() -> None:
    """Start to return our contexts, once the methods of `distributed.Security` are patched."""
    global _on, _home
    _on = True
    if not _home:
        with contextlib.suppress(OSError):  # the working folder may have been removed
            _home = os.getcwd()


def end() -> None:
    """Undo `begin`, and drop all contexts and key passwords."""
    global _on, _home
    _on = False
    _home = ""
    _known.clear()
    _reported.clear()


def adopt(server: Any) -> None:
    """Replace the context of a scheduler, worker, nanny or client that existed before `install`.

    Raises what `sealwire.security.Security` does; the server then cannot dial at all.
    """
    args, security = server.connection_args, server.security
    context = args.get("ssl_context")
    if isinstance(context, SealedContext) or not isinstance(security, DaskSecurity):
        return
    role = _role_of(server)
    if context is None:
        args.setdefault(ROLE, role)
        return
    args["ssl_context"] = None
    try:
        if not security.get_tls_config_for_role(role).get("cert"):  # a client inside a worker
            role = "worker"
    except AttributeError:  # a subclass that has not all of distributed's attributes
        pass
    args["ssl_context"] = security.get_connection_args(role)["ssl_context"]


def _role_of(server: Any) -> str:
    """Return the role in which a server or client, or one of a subclass, asks for its context."""
    kinds = {kind.__name__ for kind in type(server).__mro__}
    if "Scheduler" in kinds:
        return "scheduler"
    # A client that a task gets from its worker presents the worker's certificate.
    of_worker = str(getattr(server, "id", "")).startswith("Client-worker-")
    return "client" if "Client" in kinds and not of_worker else "worker"


def adopting(original: Callable[..., Any]) -> Callable[..., Any]:
    """`Client._start`, which connects before a preload's `dask_setup` is called."""

    @functools.wraps(original)
    async def start(self: Any, *args: Any, **kwargs: Any) -> Any:
        if _on:
            try:
                adopt(self)
            except BaseException:
                await self._close()
                raise
        return await original(self, *args, **kwargs)

    return start


def is_own(kind: type) -> bool:
    """Whether a subclass of distributed's class is of this package."""
    return kind.__module__.startswith("sealwire.")


def given_out(original: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    """Wrap a method of `distributed.Security` to return what ours would for the same values."""

    @functools.wraps(original)
    def get_args(self: Any, role: str) -> dict[str, Any]:
        if not _on:
            return original(self, role)
        identity = self.get_tls_config_for_role(role)
        if not (identity.get("ca_file") and identity.get("cert")):
            given = original(self, role)
            return {**given, ROLE: role} if given.get("ssl_context") is None else given
        if getattr(type(self), _MAKER, None) is not getattr(DaskSecurity, _MAKER, None):
            return _check_protected(type(self), _MAKER, role, original(self, role))
        ours = role if role in ROLES else "worker"  # any other role is the subclass's business
        args: dict[str, Any] = getattr(_our_equivalent(self, ours, identity), original.__name__)(
            ours
        )
        return args

    return get_args


def complete(original: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    """Wrap `get_tls_config_for_role`: add the key's path if the certificate's file contains it."""

    @functools.wraps(original)
    def get_tls_config(self: Any, role: str) -> dict[str, Any]:
        given = original(self, role)
        certificate = given.get("cert")
        if _on and given.get("key") is None and certificate and _contains_key(certificate):
            return {**given, "key": certificate}
        return given

    return get_tls_config


def _contains_key(certificate: Any) -> bool:
    """Whether a path leads to a file with a private key."""
    try:
        file = source("tls_cert", certificate)
        return (
            file is not None
            and not file.in_memory
            and any(block.is_private_key for block in blocks(file.read()))
        )
    except SecurityError:  # whoever uses the file is told what is wrong with it
        return False


def _our_equivalent(stock: Any, role: str, identity: Mapping[str, Any]) -> OwnSecurity:
    """Our `Security` with a `distributed.Security`'s values for one role, and our configuration."""
    values: dict[str, Any] = dict.fromkeys(
        name for name in FIELDS if name.endswith(("_cert", "_key"))
    )
    for name in ("tls_min_version", "tls_max_version", "extra_conn_args"):
        values[name] = getattr(stock, name)
    values["tls_ca_file"] = identity["ca_file"]
    values["tls_ciphers"] = identity.get("ciphers")
    values[f"tls_{role}_cert"] = identity["cert"]
    own = identity.get("key") == identity["cert"] and getattr(stock, f"tls_{role}_key") is None
    values[f"tls_{role}_key"] = None if own else identity.get("key")
    configured = config.read()
    for name in ("tls_ca_file", "tls_crl_file"):
        value = configured[name]
        if value and isinstance(value, str) and not is_text(value):
            configured[name] = Path(_home, value)
    if isinstance(configured["tls_crl_file"], Path):
        values["tls_crl_file"] = configured["tls_crl_file"]
    given = source("tls_ca_file", identity["ca_file"])
    values.update(dict.fromkeys(not_meant(given, configured)))
    made = OwnSecurity(bool(stock.require_encryption), **values)
    fields = {"ca_file": "tls_ca_file", "cert": f"tls_{role}_cert", "key": f"tls_{role}_key"}
    for part, name in fields.items():
        if getattr(stock, name) == identity.get(part):  # subclasses may return others
            setattr(stock, name, getattr(made, name))  # so a relative path keeps its meaning
    for known in _known:
        if known.fields() == made.fields():
            return known
    _known.append(made)
    return made


# Subclasses


def _all_subclasses(kind: type[Any]) -> Iterator[type[Any]]:
    subclass: type[Any]
    for subclass in kind.__subclasses__():
        yield subclass
        yield from _all_subclasses(subclass)


def subclassed(subclass: type[Any], /, **options: Any) -> None:
    """`DaskSecurity.__init_subclass__`."""
    super(DaskSecurity, subclass).__init_subclass__(**options)
    if _on:
        _watch(subclass)


def watch_all() -> None:
    """Wrap the methods of the existing subclasses, unless that is done."""
    watched = {(seen(), name) for seen, name, _, _ in _watched}
    for subclass in _all_subclasses(DaskSecurity):
        if not any((subclass, name) in watched for name in _METHODS):
            _watch(subclass)


def unwatch() -> None:
    """Undo `watch_all`, except for methods that others have replaced since."""
    while _watched:
        seen, name, was, ours = _watched.pop()
        subclass = seen()
        if subclass is None or vars(subclass).get(name) is not ours:
            continue
        if was is None:
            delattr(subclass, name)
        else:
            setattr(subclass, name, was)


def _watch(subclass: type) -> None:
    """Wrap a class's own methods, and those of its bases besides `distributed.Security`."""
    if is_own(subclass):
        return
    for name in _METHODS:
        owner = next(each for each in subclass.__mro__ if name in vars(each))
        if owner is subclass or not issubclass(owner, DaskSecurity):
            ours = _checked(subclass, name, vars(owner)[name])
            _watched.append((weakref.ref(subclass), name, vars(subclass).get(name), ours))
            setattr(subclass, name, ours)


def _checked(subclass: type, name: str, original: Any) -> Callable[..., dict[str, Any]]:
    def get_args(self: Any, role: str, *more: Any, **named: Any) -> dict[str, Any]:
        method = original.__get__(self, type(self))
        return _check_protected(subclass, name, role, method(role, *more, **named))

    return functools.wraps(original)(get_args) if callable(original) else get_args


def _check_protected(subclass: type, name: str, role: str, args: dict[str, Any]) -> dict[str, Any]:
    """Return `args`, unless their context does not do what is configured.

    Raises `ConfigError` then. A context that is not ours is logged, once per class.
    """
    context = args.get("ssl_context")
    if not _on or not is_context(context):
        return args
    where = f"{subclass.__module__}.{subclass.__qualname__}.{name}"
    lacks = unprotected(context, role) if configured(role) else []
    if lacks:
        raise ConfigError(
            f"cannot use the TLS context that {where} makes for role {role}: {lacks[0]}; leave "
            f"the method out or let it call that of distributed.Security, which gives out ours"
        )
    if not isinstance(context, SealedContext) and where not in _reported:
        _reported.add(where)
        logger.warning(
            "%s makes a TLS context that is not ours: it does not follow its files, and what is "
            "configured under sealwire.tls does not hold for it",
            where,
        )
    return args
