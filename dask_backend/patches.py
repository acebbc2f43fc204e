"""Everything that we change in a process, in one table that is applied and undone.

Importing this package changes nothing. These install: `install` itself, importing the preload, and
creating or unpickling our `Security`. The only other change, at the first connection and by
configuration alone, is the interpreter's switch interval (`settings.apply_gil_policy`).
"""

from __future__ import annotations

import multiprocessing.context
import threading
from collections.abc import Callable
from typing import Any, Protocol

import distributed.scheduler
import distributed.worker
from distributed.client import Client
from distributed.comm import registry
from distributed.comm import tcp as stock
from distributed.comm.registry import backends
from distributed.deploy.spec import SpecCluster
from distributed.node import ServerNode
from distributed.security import Security as DaskSecurity

from . import (
    adoption,
    connectors,
    deployers,
    exported,
    guard,
    logs,
    membership,
    refusals,
    settings,
    silence,
    sizes,
    startup,
)
from .backend import TCP, TLS, TCPBackend, TLSBackend
from .dashboard.attached import extension
from .dashboard.report import NAME, metric
from .unix import UnixBackend, available

__all__ = [
    "Change",
    "Patch",
    "Steps",
    "decided",
    "install",
    "install_unless_decided",
    "installed",
    "uninstall",
]

_MISSING: Any = object()  # stands for an attribute that an object does not have itself


class Change(Protocol):
    """One row of the table. Applying or undoing it twice does no harm."""

    why: str

    def apply(self) -> None:
        """Make the change."""

    def undo(self) -> None:
        """Restore the previous state."""


class Patch:
    """A temporary replacement of an attribute of a class or module, or of a dictionary's item.

    Parameters
    ----------
    target, name
        The object or dictionary, and the attribute or key.
    make
        Makes our value from the current one.
    why
        Its purpose.
    stands
        Whether a value is as good as ours. Without it, any value that replaces ours is assumed to
        build upon it.
    retire
        Called with our value when it is undone, since others may still hold it.
    """

    def __init__(
        self,
        target: Any,
        name: str,
        make: Callable[[Any], Any],
        why: str,
        *,
        stands: Callable[[Any], bool] | None = None,
        retire: Callable[[Any], None] | None = None,
    ) -> None:
        self.target = target
        self.name = name
        self.why = why
        self._make = make
        self._stands = stands
        self._retire = retire
        self._was = self._ours = _MISSING
        self._left: list[tuple[Any, Any]] = []  # undone values that others held, and the originals

    def apply(self) -> None:
        """Replace the value, unless that is done."""
        self._sweep()
        there = self._there()
        if self._stands(there) if self._stands else self._ours is not _MISSING:
            return
        self._ours, self._was = self._make(there), there
        self._put(self._ours)

    def undo(self) -> None:
        """Restore the original, unless somebody else has replaced our value."""
        ours, was = self._ours, self._was
        self._ours = self._was = _MISSING
        if ours is not _MISSING:
            if self._retire is not None:
                self._retire(ours)
            self._left.append((ours, was))
        self._sweep()

    def _sweep(self) -> None:
        """Remove undone values of ours that somebody has put back since."""
        for index in reversed(range(len(self._left))):
            ours, was = self._left[index]
            if self._there() is ours:
                self._put(was)
                del self._left[index]

    def _there(self) -> Any:
        values = self.target if isinstance(self.target, dict) else vars(self.target)
        return values.get(self.name, _MISSING)

    def _put(self, value: Any) -> None:
        if isinstance(self.target, dict):
            if value is _MISSING:
                self.target.pop(self.name, None)
            else:
                self.target[self.name] = value
        elif value is _MISSING:
            delattr(self.target, self.name)
        else:
            setattr(self.target, self.name, value)


class Steps:
    """A change that is not a single value, with functions to apply and undo it."""

    def __init__(self, apply: Callable[[], Any], undo: Callable[[], Any], why: str) -> None:
        self.apply = apply
        self.undo = undo
        self.why = why


def _nothing() -> None:
    """`abc` cannot undo a registration."""


def _register() -> None:
    stock.TCP.register(TCP)
    stock.TLS.register(TLS)


def _forget() -> None:
    settings.forget()
    sizes.forget()
    connectors.forget()
    refusals.forget()
    silence.forget()
    startup.forget()


def _reduce_ex(security: DaskSecurity, protocol: Any) -> str | tuple[Any, ...]:
    """Reduce as usual, but install our backends where a child of this process unpickles it.

    Only there: the receiver of a message may not have this package.
    """
    reduced = object.__reduce_ex__(security, protocol)
    spawning = multiprocessing.context.get_spawning_popen() is not None
    if (
        not installed()
        or adoption.is_own(type(security))
        or not spawning
        or isinstance(reduced, str)
    ):
        return reduced
    make, arguments, *state = reduced
    return _arrived, (make, arguments), *state


def _arrived(make: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    """Unpickle a `distributed.Security` in a child of a process that has our backends installed."""
    install()
    return make(*arguments)


def _backend(scheme: str, kind: type[Any]) -> Patch:
    return Patch(
        backends,
        scheme,
        lambda _: kind(),
        f"new comms and listeners of {scheme}:// are ours",
        stands=lambda there: isinstance(there, kind),
    )


_OURS: dict[str, type[Any]] = {"tcp": TCPBackend, "tls": TLSBackend}
if available():
    _OURS["unix"] = UnixBackend

_TABLE: tuple[Change, ...] = (
    Steps(logs.follow_distributed, logs.unfollow, "our log goes where distributed's goes"),
    Steps(
        membership.begin,
        membership.end,
        "where a service to join is named, the process has an identity before anything is ours",
    ),
    Steps(_nothing, _forget, "what was read and found meanwhile is not kept"),
    Steps(
        adoption.begin, adoption.end, "a relative path means what it meant first; no key is kept"
    ),
    Patch(
        DaskSecurity,
        "get_connection_args",
        adoption.given_out,
        "who dials has our context: with what is configured under sealwire.tls, and followed files",
    ),
    Patch(
        DaskSecurity,
        "get_listen_args",
        adoption.given_out,
        "and so has who listens, in the same way",
    ),
    Patch(
        DaskSecurity,
        "get_tls_config_for_role",
        adoption.complete,
        "who writes command lines of it finds the key that stands in the certificate's file",
    ),
    Patch(
        Client,
        "_start",
        adoption.adopting,
        "a client whose preload brought us dials its scheduler with our context, too",
    ),
    Patch(
        DaskSecurity,
        "__reduce_ex__",
        lambda _: _reduce_ex,
        "the worker of a nanny is told of us before it opens its key",
    ),
    Patch(
        DaskSecurity,
        "__init_subclass__",
        lambda _: classmethod(adoption.subclassed),
        "a subclass that makes its own contexts is looked at as it is defined",
    ),
    Steps(adoption.watch_all, adoption.unwatch, "and those that are defined already"),
    Patch(
        registry,
        "get_backend",
        guard.Guard,
        "no plain scheme of anybody's is used where encryption is required",
        retire=guard.Guard.end,
    ),
    Patch(
        SpecCluster,
        "_start",
        deployers.careful,
        "a cluster whose processes would not get its Security starts none, and leaves none behind",
    ),
    Patch(
        distributed.worker,
        "connect",
        refusals.patient,
        "a worker that its scheduler refuses does not dial nine times a second",
    ),
    Patch(
        ServerNode,
        "start_http_server",
        exported.serving,
        "/metrics has our series, where prometheus-client is installed",
    ),
    Steps(lambda: exported.begin(installed), _nothing, "and so it has where it is served already"),
    Patch(
        distributed.worker.DEFAULT_METRICS,
        NAME,
        lambda _: metric,
        "a worker's heartbeats tell of its links, as the dashboard's page shows them",
    ),
    Patch(
        distributed.scheduler.DEFAULT_EXTENSIONS,
        NAME,
        lambda _: extension,
        "and a scheduler has that page",
    ),
    Steps(_register, _nothing, "who asks distributed's classes whether our comm is one is told so"),
    *(_backend(scheme, kind) for scheme, kind in _OURS.items()),
)

_lock = threading.RLock()
_decided = False  # whether a program has installed or uninstalled


def install() -> None:
    """Use our backends for every ``tcp://`` and ``tls://`` address from now on.

    On Linux there is ``unix://`` as well, which distributed does not have.

    Also from now on a `distributed.Security` returns our contexts, which follow their files and the
    configuration under ``sealwire.tls``; our log goes where distributed's goes; and where
    encryption is required, plain schemes of other backends are refused. Existing comms and
    listeners are not affected, so install first. Calling it twice does no harm.

    Notes
    -----
    If a step fails, everything is undone and the error raised. The next use tries again, where
    something is configured for it: it must not go on without.
    """
    global _decided
    with _lock:
        before, _decided = _decided, True
        try:
            for change in _TABLE:
                change.apply()
        except BaseException:
            uninstall()
            _decided = before
            raise


def uninstall() -> None:
    """Undo `install`: new comms and listeners are the stock ones again.

    What others have put in the place of our objects since then stays. Shared contexts and key
    passwords are dropped.
    """
    global _decided
    with _lock:
        _decided = True
        for change in reversed(_TABLE):
            change.undo()


def install_unless_decided(ready: Callable[[], None] = lambda: None) -> None:
    """Install for a configuration that names something of ours.

    Not after `uninstall`: a program that has called it wants distributed's own backends. `ready` is
    called in any case once nothing is waited for any more. Other threads that ask wait here.
    """
    with _lock:
        if _decided:
            ready()
            return
        membership.begin()
        ready()
        install()


def decided() -> bool:
    """Whether a program has called `install` or `uninstall`, itself or by a preload."""
    return _decided


def installed() -> bool:
    """Whether new comms and listeners of all our schemes are ours.

    Returns
    -------
    bool
    """
    return all(isinstance(backends.get(scheme), kind) for scheme, kind in _OURS.items())
