"""What a socket is told about a silent peer, and what the kernel will make of it."""

from __future__ import annotations

import errno
import logging
import socket
import sys
from collections.abc import Iterator

import pytest

from sealwire.comm.transport import sockets

linux = pytest.mark.skipif(sys.platform != "linux", reason="options of Linux")
SECONDS = [1, 2, 3, 5, 7.5, 12, 20, 30, 40, 60, 300, 900, 86_400, 1e9]


@pytest.fixture
def sock() -> Iterator[socket.socket]:
    with socket.socket() as made:
        yield made


def option(sock: socket.socket, name: str) -> int:
    return sock.getsockopt(socket.IPPROTO_TCP, getattr(socket, name))


@linux
@pytest.mark.parametrize("seconds", SECONDS)
def test_an_idle_peer_is_asked_often_and_given_up_in_time(
    seconds: float, sock: socket.socket
) -> None:
    sockets.tune(sock, seconds)
    idle, interval = option(sock, "TCP_KEEPIDLE"), option(sock, "TCP_KEEPINTVL")
    probes = option(sock, "TCP_KEEPCNT")
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    assert probes >= 2, "one lost packet would end an idle connection"
    if 3 < seconds < 60_000:
        given_up = idle + interval * probes  # after the last answer
        assert given_up <= 0.97 * seconds
        overlooked = idle + interval  # of an absence: before its first second, and after its last
        assert given_up - overlooked >= (0.8 if seconds >= 20 else 0.3) * seconds
        assert idle <= max(1, seconds / 10)


@linux
@pytest.mark.parametrize("retries", [3, 8, 15, 40])
@pytest.mark.parametrize("seconds", SECONDS)
def test_the_kernel_does_not_give_up_before_we_do(seconds: float, retries: int) -> None:
    pause = sockets._longest_pause(seconds, retries)
    assert 1 <= pause <= 120
    if pause < 120:  # else no bound helps, and the kernel's own holds
        assert sockets._gives_up_after(pause, retries) > seconds
    if retries >= 15 and seconds <= 30:
        assert pause <= 2.5


@linux
@pytest.mark.parametrize(
    ("pause", "retries", "seconds"), [(120, 15, 924.6), (120, 8, 102.2), (2.5, 15, 33.0)]
)
def test_the_kernel_is_reckoned_with_as_documented(
    pause: float, retries: int, seconds: float
) -> None:
    """924.6 s for tcp_retries2 = 15, as the kernel's ip-sysctl says."""
    assert sockets._gives_up_after(pause, retries) == pytest.approx(seconds)


@linux
def test_a_kernel_without_the_bound_is_told_of_once(
    sock: socket.socket, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "sealwire.comm")
    monkeypatch.setattr(sockets, "_bounded", True)
    monkeypatch.setattr(sockets, "_RTO_MAX_MS", 250)  # which no kernel knows
    with pytest.raises(OSError, match=r".") as caught:
        sock.setsockopt(socket.IPPROTO_TCP, 250, 1000)
    assert caught.value.errno == errno.ENOPROTOOPT
    for _ in range(3):
        sockets.tune(sock, 30)
    (record,) = caplog.records
    assert "Linux 6.15" in record.getMessage()
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        (("127.0.0.1", 80), ("127.0.0.1", 80)),
        (("::1", 80, 0, 0), ("::1", 80)),
        (("fe80::1", 80, 0, 1), (f"fe80::1%{socket.if_indextoname(1)}", 80)),
        (("fe80::1", 80, 0, 65_000), ("fe80::1%65000", 80)),
        (("fe80::1%eth0", 80, 0, 2), ("fe80::1%eth0", 80)),
    ],
)
def test_a_link_local_host_keeps_its_zone(
    address: tuple[object, ...], expected: tuple[str, int]
) -> None:
    assert sockets.host_and_port(address) == expected


@linux
def test_the_round_trip_is_the_kernels() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        near = socket.create_connection(listening.getsockname(), timeout=60)
        far, _ = listening.accept()
    with near, far:
        near.sendall(b"x")
        assert far.recv(1) == b"x"
        far.sendall(b"y")
        assert near.recv(1) == b"y"
        for end in (near, far):
            seconds = sockets.round_trip(end)
            assert seconds is not None
            assert 0 < seconds < 60
    assert sockets.round_trip(near) is None  # it is closed
    one, other = socket.socketpair()
    with one, other:
        assert sockets.round_trip(one) is None
