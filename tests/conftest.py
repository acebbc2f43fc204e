"""Settings for every test."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# Time is no verdict on a shared machine.
settings.register_profile("shared", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared")
