"""A peer that takes nothing for long, but whose machine goes on acknowledging, is alive."""

from __future__ import annotations

import sys
import time

import pytest

from support import attacker
from support.attacker import packed
from support.target import MODES, MiB, Target, check, count, figure

each_kind = pytest.mark.parametrize("kind", ["standalone", "dask"])
each_scheme = pytest.mark.parametrize("scheme", ["tcp", "tls"])
MESSAGES = 500  # of 64 KiB: more than both kernels hold
linux = pytest.mark.skipif(sys.platform != "linux", reason="acknowledgements are told by Linux")


@linux
@each_scheme
@each_kind
def test_a_peer_that_takes_nothing_for_long_is_waited_for(kind: str, scheme: str) -> None:
    """Several times as long as it takes to notice one that is gone; then all of it comes."""
    silence = count(40, 4)
    with Target(kind, scheme, keepalive_timeout=1.0) as target:
        tls = attacker.context() if scheme == "tls" else None
        other = attacker.enter(target.address, tls=tls)
        slow = attacker.enter(target.address, tls=tls)
        slow.sendall(packed({"op": "source", "count": MESSAGES}))
        attacker.receive(slow)
        start = time.monotonic()
        while time.monotonic() - start < silence:
            attacker.ping(other)
            check(not target.ask("stats")["broken"], target.log())
            time.sleep(0.05)
        for _ in range(MESSAGES - 1):
            attacker.receive(slow)
        attacker.ping(slow)
        figure(f"{MESSAGES / 16:.0f} MiB waited {silence} s, and came whole")
        slow.close()
        other.close()


@each_kind
def test_what_was_sent_before_a_close_arrives(kind: str) -> None:
    """Also if the peer takes nothing for as long as a task may hold its loop."""
    silence = count(20, 6)
    with Target(kind, "tcp") as target:
        sock = attacker.enter(target.address)
        sock.sendall(packed({"op": "source", "count": MESSAGES}) + packed({"op": "close"}))
        attacker.receive(sock)
        time.sleep(silence)
        for _ in range(MESSAGES - 1):
            attacker.receive(sock)
        check(attacker.ended(sock) == b"", "more than was sent")
        check(target.ask("stats")["broken"] == {}, target.log())
        sock.close()


@linux
@pytest.mark.parametrize("mode", MODES)
def test_a_peer_that_goes_while_it_takes_nothing_is_noticed(mode: str) -> None:
    """The kernel asks it for room again and again, and gets no answer."""
    with Target("standalone", "tcp", keepalive_timeout=1.0, **MODES[mode]) as target:
        sock = attacker.enter(target.address)
        sock.sendall(packed({"op": "source", "count": MESSAGES}))
        attacker.receive(sock)
        seen = -1
        while seen != (seen := target.ask("sent")) or not seen:
            time.sleep(0.3)
        check(seen < MESSAGES / 16 * MiB, "it has taken all of it")
        attacker.vanish(sock)
        start = time.monotonic()
        target.until(lambda: target.ask("stats")["broken"] == {"lost": 1}, "nobody noticed")
        check("connection timed out" in target.log(), target.log())
        figure(f"keepalive 1 s, noticed after {time.monotonic() - start:.1f} s")
        sock.close()
