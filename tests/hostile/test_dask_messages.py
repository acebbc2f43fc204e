"""What an authenticated or plain peer of the Dask backend sends after its hello."""

from __future__ import annotations

import asyncio

import pytest

from sealwire.comm import DecodeError
from sealwire.dask_backend import codec
from support import attacker
from support.attacker import message
from support.target import MODES, Target, check

BAD = {
    "no msgpack": b"\xc1",
    "nothing": b"",
    "text cut short": b"\xd9\xff" + b"x" * 10,
    "more than one value": b"\x01\x02",
    "nested too deeply": b"\x91" * 100_000 + b"\xc0",
    "a list of four thousand million": b"\xdd\xff\xff\xff\xff",
    "invalid UTF-8": b"\xa2\xff\xfe",
    "a timestamp of three bytes": b"\xc7\x03\xff\x00\x00\x00",
}


@pytest.mark.parametrize("mode", MODES)
def test_bad_messages_close_a_comm_of_dask(mode: str) -> None:
    """A `CommClosedError` from `read()` for each, which the handler takes for an end; one line."""
    with Target("dask", "tcp", **MODES[mode]) as target:
        for name, header in BAD.items():
            sock = attacker.enter(target.address)
            sock.sendall(message(header))
            check(attacker.ended(sock, 5) == b"", f"{name} was answered")
            sock.close()
        check("Traceback" not in target.log(), target.log()[:3000])
        target.until(
            lambda: target.ask("stats")["broken"] == {"message": len(BAD)}, "not all were counted"
        )
        check(target.log().count("does not decode") == len(BAD), target.log())


@pytest.mark.parametrize("kind", ["standalone", "dask"])
def test_a_reset_over_tls_is_no_clean_end(kind: str) -> None:
    """Between two messages, but without close_notify and by force: it is counted as a loss."""
    with Target(kind, "tls") as target:
        sock = attacker.enter(target.address)
        attacker.ping(sock)
        attacker.reset(sock)
        target.until(lambda: target.ask("stats")["broken"] == {"lost": 1}, "a clean end")
        check("reset by peer" in target.log(), target.log())


@pytest.mark.parametrize("kind", ["standalone", "dask"])
def test_an_end_without_close_notify_is_clean(kind: str) -> None:
    """As stock ends: between two messages, with nothing unread, in order but for close_notify."""
    with Target(kind, "tls") as target:
        for _ in range(20):
            attacker.visit(target.address)
        target.until_stats(greeted=20)
        target.until(lambda: target.descriptors() <= 8, "descriptors are left")
        check(target.ask("stats")["broken"] == {}, target.log())
        check(target.log() == "", target.log())


@pytest.mark.parametrize("seconds", [2, 60_000, 3e6, 1e9])
def test_any_keepalive_timeout_can_be_set(seconds: float) -> None:
    """Beyond what the kernel takes, the longest it takes."""
    with Target("standalone", "tcp", keepalive_timeout=seconds) as target:
        attacker.visit(target.address)
        target.until_stats(greeted=1)
        check(target.log() == "", target.log())


# Without a socket


def test_bad_bytes_are_refused_in_a_line() -> None:
    with pytest.raises(DecodeError, match="bad message from tcp://a:1: a header of 1 bytes"):
        codec.decode_short([bytearray(b"\xc1")], peer="tcp://a:1")


@pytest.mark.parametrize("header", [b"\xc1", b"", b"\xa3__", b"\xa2__\x01", b"\x91" * 100_000])
def test_a_header_is_looked_at_before_its_frames(header: bytes) -> None:
    decoding = codec.decode(
        [bytearray(header), bytearray(b"frame")],
        deserialize=True,
        deserializers=None,
        allow_offload=True,
        peer="tcp://a:1",
    )
    with pytest.raises(DecodeError, match="bad message from tcp://a:1: a header of"):
        asyncio.run(decoding)
