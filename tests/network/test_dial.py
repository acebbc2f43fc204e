"""Who dials over a network that is away, slow, or has more than one address for a name."""

from __future__ import annotations

import socket
import time
from contextlib import suppress
from typing import Any

import pytest
from tornado.netutil import Resolver

from sealwire.comm import Address
from sealwire.comm.transport.client import FrameClient
from support.activities import until
from support.faces import Face, keep
from support.kernel import descriptors
from support.network import DEVICE, HOSTS, HOSTS_6, LINK_LOCAL, NOBODY, Network, Side

TIMEOUT = 20.0


@pytest.fixture(autouse=True)
def nothing_left() -> Any:
    """No descriptor outlives a test; those of the sides are closed with them."""
    before = descriptors()
    yield
    until(lambda: descriptors() <= before, "descriptors are left", 10)


async def dial(face: Face, address: str, timeout: float, start: float) -> float:
    comm = await face.connect(address, timeout)
    seconds = time.monotonic() - start
    await comm.close()
    return seconds


def listening(faces: list[Face], far: Side, host: str) -> list[tuple[Face, Any]]:
    return [(face, far.do(face.listen(host, keep))) for face in faces]


def stop(listeners: list[tuple[Face, Any]], far: Side) -> None:
    async def all_of_them() -> None:
        for _, listener in listeners:
            listener.stop()

    far.do(all_of_them())


def test_a_network_that_comes_back_is_used_at_once(
    network: Network, near: Side, far: Side, both_faces: list[Face]
) -> None:
    """Not when the kernel would send again: after 6 s of silence that may take 4 more."""
    away = 6.2
    listeners = listening(both_faces, far, HOSTS[1])
    network.both(cut=True)
    start = time.monotonic()
    dials = [
        near.begin(dial(face, listener.contact_address, TIMEOUT, start))
        for face, listener in listeners
    ]
    time.sleep(away)
    assert not [attempt for attempt in dials if attempt.done()]
    network.both(cut=False)
    took = [attempt.result(60) for attempt in dials]
    assert max(took) < away + 2.5, took
    stop(listeners, far)


def test_a_slow_network_is_given_the_time_of_one_dial(
    network: Network, near: Side, far: Side, both_faces: list[Face]
) -> None:
    """Dask's first attempt has a fifth of the time: two round trips of the three over TLS."""
    round_trip = 0.6
    listeners = listening(both_faces, far, HOSTS[1])
    network.both(delay=round_trip / 2)
    dials = []
    for face, listener in listeners:
        trips = 3 if face.scheme == "tls" else 2
        first = (trips - 0.5) * round_trip
        dialling = dial(face, listener.contact_address, 5 * first, time.monotonic())
        dials.append((face, trips, first, near.begin(dialling)))
    for face, trips, first, attempt in dials:
        took = attempt.result(60)
        assert trips * round_trip <= took < trips * round_trip + first, (str(face), took)
    stop(listeners, far)


def test_a_dial_that_ends_in_vain_leaves_nothing(
    network: Network, near: Side, far: Side, both_faces: list[Face]
) -> None:
    """Whatever it waits for: anybody at all, TLS, or the hello."""
    listeners = listening(both_faces, far, HOSTS[1])
    before = descriptors()
    for cut, delay in ((True, 0.0), (False, 0.3)):
        network.both(cut=cut, delay=delay)
        attempts = [
            near.begin(dial(face, listener.contact_address, seconds, 0.0))
            for face, listener in listeners
            for seconds in (0.1, 0.4, 0.8)
        ]
        for attempt in attempts:
            with suppress(OSError):
                attempt.result(60)
    network.both(cut=False, delay=0.0)
    until(lambda: descriptors() <= before, "descriptors are left", 10)
    stop(listeners, far)


class Fixed(Resolver):
    """Knows one list of addresses."""

    def initialize(self, *addresses: tuple[socket.AddressFamily, Any]) -> None:  # type: ignore[override]
        self.addresses = addresses

    async def resolve(self, host: str, port: int, family: Any = None) -> Any:
        return [(af, (address, port)) for af, address in self.addresses]


@pytest.mark.parametrize(
    "dead", [(socket.AF_INET, NOBODY), (socket.AF_INET6, "fd77::99")], ids=["same", "other"]
)
def test_a_name_whose_first_address_is_dead(
    dead: tuple[socket.AddressFamily, str], network: Network, near: Side, far: Side
) -> None:
    """Connects by its second, within one family too."""

    async def serve() -> socket.socket:
        return socket.create_server((HOSTS[1], 0))

    async def dialled(port: int) -> tuple[float, Any]:
        start = time.monotonic()
        client = FrameClient(resolver=Fixed(dead, (socket.AF_INET, HOSTS[1])))
        stream = await client.dial(Address("tcp", "name", port))
        peer = stream.socket.getpeername()
        stream.close()
        return time.monotonic() - start, peer

    with far.do(serve()) as server:
        port = server.getsockname()[1]
        seconds, peer = near.do(dialled(port))
        assert peer == (HOSTS[1], port)
        assert 0.2 < seconds < 1.5


@pytest.mark.parametrize("host", [HOSTS_6[1], f"{LINK_LOCAL[1]}%{DEVICE}"])
def test_ipv6(host: str, network: Network, near: Side, far: Side, both_faces: list[Face]) -> None:
    """A link-local address keeps its zone: where it is told it can be dialled."""

    met: list[str] = []

    async def note(comm: Any) -> None:
        met.append(comm.peer_address)
        assert await comm.read() == "hello"
        await comm.close()

    async def listened(face: Face) -> tuple[Any, str, str]:
        listener = await face.listen(host, note)
        return listener, listener.listen_address, listener.contact_address

    async def talk(face: Face, address: str) -> tuple[str, str]:
        comm = await face.connect(address)
        await comm.write("hello")
        ends = comm.local_address, comm.peer_address
        with suppress(OSError):
            await comm.read()  # until the other side has done
        await comm.close()
        return ends

    zone = host.partition("%")[2]
    for face in both_faces:
        listener, bound, contact = far.do(listened(face))
        try:
            assert f"[{host}]" in bound
            local, peer = near.do(talk(face, contact))
            assert f"[{host}]" in peer
            assert met.pop() == local
            assert (f"%{zone}]" in local) == bool(zone)
        finally:
            stop([(face, listener)], far)
