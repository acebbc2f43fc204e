"""distributed's own `Security`, with our contexts while our backends are installed.

`dask scheduler` and `dask worker` make a `distributed.Security` of their options. Its contexts
would know nothing of what is configured under `sealwire.tls`, above all of a CRL, and would not
follow their files. So `install` makes its two methods return what ours would for the same values.
Worker, nanny and client ask once before they import a preload: `adopt` makes up for it. And a
nanny's worker asks before it imports one: the `Security` that it is started with installs our
backends there as it arrives, so that an encrypted key is opened with its password.
"""

from __future__ import annotations

import contextlib
import functools
import multiprocessing.context
import os
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from distributed.security import Security as DaskSecurity

from sealwire.security import Security as OwnSecurity
from sealwire.security import config
from sealwire.security.pem import is_text
from sealwire.security.security import FIELDS
from sealwire.security.tls import SealedContext

__all__ = ["adopt", "give_back", "take_over"]

_METHODS = ("get_connection_args", "get_listen_args")
_PICKLING = "__reduce_ex__"  # which distributed's class leaves to object
_replaced: dict[str, Callable[..., dict[str, Any]]] = {}

_home = ""  # the working folder when we came: what is configured is meant from there

# Who asks for the same role again shares its contexts; a process has few.
_known: deque[OwnSecurity] = deque(maxlen=16)


def take_over() -> None:
    """Let a `distributed.Security` return our contexts. Doing it twice does no harm."""
    global _home
    if not _home:
        with contextlib.suppress(OSError):  # it may have been removed
            _home = os.getcwd()
    for name in _METHODS:
        if name not in _replaced:
            original = _replaced[name] = getattr(DaskSecurity, name)
            setattr(DaskSecurity, name, _ours(original))
    setattr(DaskSecurity, _PICKLING, _reduce_ex)


def give_back() -> None:
    """Undo `take_over`."""
    global _home
    _home = ""
    if _PICKLING in vars(DaskSecurity):
        delattr(DaskSecurity, _PICKLING)
    for name in _METHODS:
        if name in _replaced:
            setattr(DaskSecurity, name, _replaced.pop(name))


def adopt(server: Any) -> None:
    """Let a scheduler, worker, nanny or client that was there before us dial with our context.

    Raises what `sealwire.security.Security` does; the server then cannot dial at all.
    """
    args, security = server.connection_args, server.security
    context = args.get("ssl_context")
    if context is None or isinstance(context, SealedContext) or type(security) is not DaskSecurity:
        return
    args["ssl_context"] = None
    role = {"Scheduler": "scheduler", "Client": "client"}.get(type(server).__name__, "worker")
    if not getattr(security, f"tls_{role}_cert"):  # a client inside a worker
        role = "worker"
    args["ssl_context"] = security.get_connection_args(role)["ssl_context"]


def _reduce_ex(security: DaskSecurity, protocol: Any) -> str | tuple[Any, ...]:
    """As it pickles else, but imports this module where a child of this process unpickles it.

    Nowhere else: whoever is sent one in a message may not have us.
    """
    reduced = object.__reduce_ex__(security, protocol)
    spawning = multiprocessing.context.get_spawning_popen() is not None
    if type(security) is not DaskSecurity or not spawning or isinstance(reduced, str):
        return reduced
    make, arguments, *state = reduced
    return _arrived, (make, arguments), *state


def _arrived(make: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    """A `distributed.Security` in a child of a process in which our backends are installed."""
    return make(*arguments)


def _ours(original: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    @functools.wraps(original)
    def get_args(self: Any, role: str) -> dict[str, Any]:
        identity = self.get_tls_config_for_role(role)
        if type(self) is not DaskSecurity or not (identity.get("ca_file") and identity.get("cert")):
            return original(self, role)
        args: dict[str, Any] = getattr(_equal_of(self, role), original.__name__)(role)
        return args

    return get_args


def _equal_of(stock: Any, role: str) -> OwnSecurity:
    """Ours with the values of a `distributed.Security` for one role, and our own configuration."""
    values = dict.fromkeys(name for name in FIELDS if name.endswith(("_cert", "_key")))
    for name in ("tls_ca_file", "tls_ciphers", "tls_min_version", "tls_max_version",
                 "extra_conn_args", f"tls_{role}_cert", f"tls_{role}_key"):  # fmt: skip
        values[name] = getattr(stock, name)
    crl = config.read()["tls_crl_file"]
    if isinstance(crl, str) and not is_text(crl):
        values["tls_crl_file"] = Path(_home, crl)
    made = OwnSecurity(bool(stock.require_encryption), **values)
    for name in ("tls_ca_file", f"tls_{role}_cert", f"tls_{role}_key"):
        setattr(stock, name, getattr(made, name))  # a relative path means what it meant first
    for known in _known:
        if known.fields() == made.fields():
            return known
    _known.append(made)
    return made
