"""Who opens a port and closes it, every few seconds for years, fills no log."""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
from collections.abc import Callable
from typing import Any

import pytest

from sealwire import comm
from sealwire.comm import listener_log
from support import certs
from support.aio import aio
from support.handshakes import security

CA = certs.root()


def as_kubelet(sock: socket.socket) -> None:
    """Connect, close."""


def as_haproxy(sock: socket.socket) -> None:
    """Connect, reset."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def as_half(sock: socket.socket) -> None:
    """Say that nothing will come."""
    sock.shutdown(socket.SHUT_WR)


def as_proxy(sock: socket.socket) -> None:
    sock.sendall(b"PROXY TCP4 127.0.0.1 127.0.0.1 1 2\r\n")


def as_browser(sock: socket.socket) -> None:
    sock.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")


def as_cut_off(sock: socket.socket) -> None:
    sock.sendall(b"\x16\x03")
    sock.shutdown(socket.SHUT_WR)
    sock.recv(100)


async def knock(address: str, how: Callable[[socket.socket], None], times: int) -> None:
    host, port = address.rpartition("://")[2].rsplit(":", 1)

    def once() -> None:
        with socket.create_connection((host, int(port)), 60) as sock:
            how(sock)

    for _ in range(times):
        await asyncio.to_thread(once)


async def nobody(comm: Any) -> None:
    raise AssertionError("let in")


@pytest.fixture(params=["tcp", "tls"])
def scheme(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def listening(scheme: str) -> Any:
    args: dict[str, Any] = {}
    if scheme == "tls":
        args = security(certs.leaf(CA, "scheduler"), [CA]).get_listen_args("scheduler")
    return comm.listen(f"{scheme}://127.0.0.1:0", nobody, **args)


@pytest.mark.parametrize("how", [as_kubelet, as_haproxy, as_half])
@aio
async def test_who_says_nothing_is_counted_for_an_hour(
    how: Callable[[socket.socket], None],
    scheme: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    caplog.set_level(logging.INFO, "sealwire")
    hours: list[tuple[float, Callable[[], None]]] = []
    loop = asyncio.get_running_loop()
    later = loop.call_later

    def call_later(delay: float, call: Any, *args: Any, **kwargs: Any) -> Any:
        if delay == listener_log._HOUR:
            hours.append((delay, call))
        return later(delay, call, *args, **kwargs)

    monkeypatch.setattr(loop, "call_later", call_later)
    async with listening(scheme) as listener:
        for hour in range(2):
            await knock(listener.contact_address, how, 20)
            while sum(listener.stats.refused.values()) < 20 * (hour + 1):
                await asyncio.sleep(0.01)
            assert listener.stats.refused == {"probe": 20 * (hour + 1)}
            assert len(caplog.records) == hour
            hours[-1][1]()
            assert len(hours) == hour + 1
            said = caplog.records[-1].getMessage()
            assert "within an hour 20 connections were opened and closed without a byte" in said
            assert caplog.records[-1].levelno == logging.INFO
    assert len(caplog.records) == 2


@pytest.mark.parametrize("how", [as_proxy, as_browser, as_cut_off])
@aio
async def test_who_says_something_is_a_line_as_ever(
    how: Callable[[socket.socket], None], scheme: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "sealwire.comm")
    async with listening(scheme) as listener:
        await knock(listener.contact_address, how, 3)
        while sum(listener.stats.refused.values()) < 3:
            await asyncio.sleep(0.01)
        assert "probe" not in listener.stats.refused
    assert len(caplog.records) == 3
