"""Preload module for ``dask scheduler``, ``dask worker`` and the ``preload`` settings.

Importing it installs: schedulers, workers and nannies open their listeners before a preload's
``dask_setup`` runs. ``dask_setup`` replaces the contexts that were created before the import.
"""

from __future__ import annotations

from .adoption import adopt as dask_setup
from .patches import install

__all__ = ["dask_setup"]

install()
