"""Preload module for ``dask scheduler``, ``dask worker`` and the ``preload`` settings.

Importing it installs: schedulers, workers and nannies open their listeners before a preload's
``dask_setup`` would run.
"""

from __future__ import annotations

from .registration import install

install()
