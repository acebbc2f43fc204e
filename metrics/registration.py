"""Adds the collector to a registry, once, whoever asks for it how often from which thread."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from .series import SERIES

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

__all__ = ["register", "tell_backend"]

_INFO = "sealwire_info"
_lock = threading.Lock()


def _renew_lock() -> None:
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)


def _no_dask() -> str:
    return "none"


_backend: Callable[[], str] = _no_dask


def tell_backend(backend: Callable[[], str]) -> None:
    """Have `backend` asked which one Dask has for new comms."""
    global _backend
    _backend = backend


def register(registry: CollectorRegistry | None = None) -> bool:
    """Add the series to a registry.

    Parameters
    ----------
    registry : prometheus_client.CollectorRegistry, optional
        The default one, ``prometheus_client.REGISTRY``, if it is left out. `install` of the Dask
        backend has the series added to that one wherever Dask serves ``/metrics``.

    Returns
    -------
    bool
        Whether they were added; False if the registry has them already.

    Raises
    ------
    ModuleNotFoundError
        If prometheus-client is not installed.
    TypeError
        For anything but a registry.
    ValueError
        If the registry has series of these names from something else.
    """
    try:
        import prometheus_client
    except ModuleNotFoundError as error:
        if error.name != "prometheus_client":
            raise
        raise ModuleNotFoundError(
            "cannot export metrics: prometheus-client is not installed; "
            "pip install 'sealwire[metrics]'",
            name=error.name,
        ) from error
    from .collector import Collector

    if registry is None:
        registry = prometheus_client.REGISTRY
    if not isinstance(registry, prometheus_client.CollectorRegistry):
        raise TypeError(
            f"cannot export metrics to {registry!r}: need a prometheus_client.CollectorRegistry; "
            f"leave it out for the default one"
        )
    with _lock:
        if _has_them(registry):
            return False
        try:
            registry.register(Collector(lambda: _backend()))
        except ValueError as error:  # which names the series
            raise ValueError(
                f"cannot export metrics: something else has added series of these names: {error}; "
                f"rename those, or give ours a registry of their own"
            ) from None
        return True


def _has_them(registry: CollectorRegistry) -> bool:
    """Whether it has our series, also if another import of this package has added them."""
    for family in registry.restricted_registry([_INFO]).collect():
        if family.name == _INFO:
            return all(set(sample.labels) == set(SERIES[_INFO].labels) for sample in family.samples)
    return False
