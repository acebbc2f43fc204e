"""A network that can fail. Where none can be made the tests fail, and say how to leave them out."""

from __future__ import annotations

from collections.abc import Iterator

import dask
import pytest
import uvloop

from sealwire.comm import Limits
from sealwire.dask_backend import install, installed, uninstall
from support.faces import Face, faces
from support.network import Network, NoNetwork, Side


def pytest_itemcollected(item: pytest.Item) -> None:
    """Of this folder's tests only: pytest asks no other folder's conftest.py."""
    item.add_marker(pytest.mark.network)


@pytest.fixture(scope="session")
def link() -> Iterator[Network]:
    uvloop.new_event_loop().close()  # from its first loop on, libuv keeps a pipe
    try:
        network = Network()
    except NoNetwork as error:
        pytest.fail(
            f"cannot make network namespaces: {error}; run as root on Linux with /dev/net/tun, or "
            f"leave these tests out with -m 'not network'"
        )
    with network:
        yield network


@pytest.fixture
def network(link: Network) -> Iterator[Network]:
    link.reset()
    yield link
    link.reset()


@pytest.fixture
def near(network: Network) -> Iterator[Side]:
    side = network.side(0)
    yield side
    side.stop()


@pytest.fixture
def far(network: Network) -> Iterator[Side]:
    """On uvloop; near, who dials, is on asyncio."""
    side = network.side(1, make_loop=uvloop.new_event_loop)
    yield side
    side.stop()


@pytest.fixture
def keepalive() -> float:
    """Seconds; a test's module may have another fixture of this name."""
    return 3.0


@pytest.fixture
def both_faces(keepalive: float) -> Iterator[list[Face]]:
    """Standalone and Dask, over tcp and tls, with a short `keepalive`."""
    before = installed()
    install()
    with dask.config.set({"sealwire.limits.keepalive-timeout": f"{keepalive} s"}):
        yield faces(Limits(keepalive_timeout=keepalive))
    if not before:
        uninstall()
