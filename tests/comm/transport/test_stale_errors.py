"""Errors that others have left in OpenSSL's queue are not those of a connection, nor are ours left.

OpenSSL keeps a queue for each thread, and reports from it why a call has brought nothing.
"""

from __future__ import annotations

import _ssl
import ctypes
import functools
import ssl
from collections.abc import Callable

import pytest

from sealwire.comm import CommClosedError, connect, listen
from sealwire.comm.transport import openssl
from sealwire.comm.transport.channel import SCRATCH, Channel, _close_notify, secure
from sealwire.comm.transport.switch_interval import Policy
from support.aio import aio
from support.links import connect_args, listen_args
from support.recordlink import RecordLink

versions = pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])


@functools.cache
def library() -> ctypes.PyDLL:
    return ctypes.PyDLL(_ssl.__file__)


def leave_an_error() -> None:
    """As anybody may who uses this OpenSSL: a parameter is missing."""
    library().BIO_new_mem_buf(None, -1)
    assert left()


def left() -> bool:
    peek = library().ERR_peek_error
    peek.restype = ctypes.c_ulong
    return bool(peek())


def channel_of(link: RecordLink, held: bool, monkeypatch: pytest.MonkeyPatch) -> Channel:
    monkeypatch.setattr("sealwire.comm.transport.channel.policy", lambda: Policy(hold_tls=held))
    channel = secure(link.near)
    assert channel.holds_gil is held
    return channel


def receive(channel: Channel, link: RecordLink) -> None:
    channel.receive(bytearray(SCRATCH))


def fill(channel: Channel, link: RecordLink) -> None:
    channel.fill(memoryview(bytearray(SCRATCH)), lambda size: None)


def send(channel: Channel, link: RecordLink) -> None:
    """Until the kernel takes no more."""
    for _ in range(10_000):
        channel.send(bytes(1 << 16))
        leave_an_error()


@pytest.mark.parametrize("held", [False, True], ids=["ssl", "held"])
@pytest.mark.parametrize(
    ("does", "waits"),
    [
        (receive, ssl.SSLWantReadError),
        (fill, ssl.SSLWantReadError),
        (send, ssl.SSLWantWriteError),
    ],
)
@versions
def test_who_must_wait_is_told_so(
    version: ssl.TLSVersion,
    does: Callable[[Channel, RecordLink], None],
    waits: type[ssl.SSLError],
    held: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    link = RecordLink(version)
    channel = channel_of(link, held, monkeypatch)
    leave_an_error()
    with pytest.raises(waits):
        does(channel, link)
    assert not left()


@versions
def test_nothing_is_left_at_the_close_of_a_connection(version: ssl.TLSVersion) -> None:
    """That was reset: since Python 3.14 `ssl` leaves why its close_notify could not be sent."""
    link = RecordLink(version)
    link.reset()
    for _ in range(2):
        _close_notify(link.near)
        assert not left()


@aio
async def test_a_handshake_does_not_fail_for_it() -> None:
    """Each step of it, on both sides, waits for the other."""

    async def serve(comm: object) -> None:
        pass

    forget = openssl.forgetter()
    with pytest.MonkeyPatch.context() as patch:
        seen: list[bool] = []

        def remembered() -> None:
            leave_an_error()
            seen.append(True)
            forget()

        patch.setattr("sealwire.comm.transport.handshake.forgetter", lambda: remembered)
        async with listen("tls://127.0.0.1:0", serve, **listen_args("tls")) as listener:
            args = connect_args("tls")
            async with connect(listener.contact_address, max_attempts=1, **args):
                assert len(seen) >= 3


@aio
async def test_other_comms_go_on_where_one_is_reset() -> None:
    async def echo(comm: object) -> None:
        try:
            async for message in comm:  # type: ignore[attr-defined]
                await comm.write(message)  # type: ignore[attr-defined]
        except CommClosedError:
            pass

    args = connect_args("tls")
    async with listen("tls://127.0.0.1:0", echo, **listen_args("tls")) as listener:
        stays = await connect(listener.contact_address, **args)
        for _ in range(3):
            goes = await connect(listener.contact_address, **args)
            await goes.write(bytes(1 << 20))
            goes.abort()
            for size in (1, 100_000, 3_000_000):
                await stays.write(bytes(size))
                assert len(await stays.read()) == size
            assert not left()
        await stays.close()
