"""Settings for every test.

With ``SEALWIRE_HOLD_GIL=off`` comms receive large frames as `ssl` does, unless a test says which.
Processes that the tests start are told by Dask's configuration, where they use Dask.
"""

from __future__ import annotations

import os
import sys

import pytest
from hypothesis import HealthCheck, settings

# Time is no verdict on a shared machine.
settings.register_profile("shared", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared")


def pytest_configure() -> None:
    """Turn off by default what the environment says."""
    choice = os.environ.get("SEALWIRE_HOLD_GIL", "on")
    if choice == "off":
        from sealwire.comm.transport import switch_interval

        for made in (switch_interval.Policy.__new__, switch_interval.configure):
            made.__defaults__ = (*made.__defaults__[:-1], False)
        switch_interval.configure()
        os.environ["DASK_SEALWIRE__TLS__HOLD_GIL"] = "false"
    elif choice != "on":
        raise pytest.UsageError(f"bad SEALWIRE_HOLD_GIL {choice!r}: need on or off")


def pytest_sessionfinish() -> None:
    """Leave nothing in the temporary folder."""
    target = sys.modules.get("support.target")
    if target is not None:
        target.clean_up()
