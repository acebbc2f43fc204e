"""Settings for every test."""

from __future__ import annotations

import sys

from hypothesis import HealthCheck, settings

# Time is no verdict on a shared machine.
settings.register_profile("shared", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared")


def pytest_sessionfinish() -> None:
    """Leave nothing in the temporary folder."""
    target = sys.modules.get("support.target")
    if target is not None:
        target.clean_up()
