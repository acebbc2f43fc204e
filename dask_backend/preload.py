"""Preload module for ``dask scheduler``, ``dask worker`` and the ``preload`` settings.

Importing it installs: schedulers, workers and nannies open their listeners before a preload's
``dask_setup`` runs. ``dask_setup`` replaces the contexts that were created before the import.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

from .adoption import adopt
from .dashboard.attached import attach
from .patches import install
from .startup import tell_configuration, tell_nanny, tell_plain

__all__ = ["dask_setup"]


def dask_setup(server: Any) -> Awaitable[None] | None:
    """Adopt a server or client that has started, and warn of what does not protect it."""
    adopt(server)
    attach(server)
    tell_plain(server)
    return tell_nanny(server) if getattr(server, "nanny", None) else None


install()
tell_configuration()
