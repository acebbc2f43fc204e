"""Fixtures for pytest: ``pytest_plugins = ["sealwire.testing.fixtures"]`` in a module of tests.

==============================  ====================================================================
``sealwire_security``           a `sealwire.security.Security` in memory, for `connect` and `listen`
``sealwire_dask_security``      the same for Dask; the backend is installed while the test runs
``make_sealwire_certificates``  a function: `temporary_certificates`, until the test has ended
``sealwire_cluster``            a `tls_cluster` of two workers, one for all tests of a module
``make_sealwire_cluster``       a function: `tls_cluster`, until the test has ended
==============================  ====================================================================
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from sealwire import dask_backend, security

    from . import Certificates, Cluster

__all__ = [
    "make_sealwire_certificates",
    "make_sealwire_cluster",
    "sealwire_cluster",
    "sealwire_dask_security",
    "sealwire_security",
]


@pytest.fixture
def sealwire_security() -> security.Security:
    """Return certificates in memory: a CA, and an identity for each role."""
    from sealwire.security import Security

    return Security.temporary()


@pytest.fixture
def sealwire_dask_security() -> Iterator[dask_backend.Security]:
    """Yield the same for Dask's schedulers, workers and clients in this process."""
    from sealwire.dask_backend import Security

    from .clusters import installed_as_before

    with installed_as_before():
        yield Security.temporary()


@pytest.fixture
def make_sealwire_certificates() -> Iterator[Callable[..., Certificates]]:
    """Yield a function with the parameters of `temporary_certificates`."""
    from . import temporary_certificates

    with contextlib.ExitStack() as stack:
        yield lambda **faults: stack.enter_context(temporary_certificates(**faults))


@pytest.fixture(scope="module")
def sealwire_cluster() -> Iterator[Cluster]:
    """Yield a cluster of two workers, which the tests of a module share."""
    from . import tls_cluster

    with tls_cluster(workers=2) as cluster:
        yield cluster


@pytest.fixture
def make_sealwire_cluster() -> Iterator[Callable[..., Cluster]]:
    """Yield a function with the parameters of `tls_cluster`."""
    from . import tls_cluster

    with contextlib.ExitStack() as stack:
        yield lambda workers=1, **further: stack.enter_context(tls_cluster(workers, **further))
