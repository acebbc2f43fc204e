"""Our backends in place of distributed's, for this process, and back."""

from __future__ import annotations

from typing import Any

from distributed.comm.registry import backends

from . import adoption, guard, logs
from .backend import TCPBackend, TLSBackend

__all__ = ["install", "installed", "uninstall"]

_OURS: dict[str, type[Any]] = {"tcp": TCPBackend, "tls": TLSBackend}
_replaced: dict[str, Any] = {}


def install() -> None:
    """Use our backends for every ``tcp://`` and ``tls://`` address from now on.

    A `distributed.Security` gives out our contexts from now on, which follow their files and what
    is configured under ``sealwire.tls``, and our log goes where distributed's goes. Where
    encryption is required, schemes of other backends that have none are refused too. Comms and
    listeners that exist already keep theirs, so install first. Doing it twice does no harm.
    """
    adoption.take_over()
    guard.begin()
    logs.follow_distributed()
    for scheme, backend_class in _OURS.items():
        if not isinstance(backends[scheme], backend_class):
            _replaced[scheme] = backends[scheme]
            backends[scheme] = backend_class()


def uninstall() -> None:
    """Undo `install`: new comms and listeners are what they were before."""
    adoption.give_back()
    guard.end()
    logs.unfollow()
    for scheme, backend_class in _OURS.items():
        if isinstance(backends[scheme], backend_class):
            backends[scheme] = _replaced.pop(scheme)


def installed() -> bool:
    """Whether new comms and listeners of both schemes are ours."""
    return all(isinstance(backends[scheme], kind) for scheme, kind in _OURS.items())
