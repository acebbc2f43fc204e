"""A peer that takes nothing for long, but whose machine goes on acknowledging, is alive.

Mostly these wait: all kinds of servers do so at once.
"""

from __future__ import annotations

import contextlib
import itertools
import sys
import time

import pytest

from support import attacker
from support.attacker import packed
from support.target import MODES, MiB, Target, check, count, figure

KINDS = ["standalone", "dask"]
MESSAGES = 500  # of 64 KiB: more than both kernels hold
linux = pytest.mark.skipif(sys.platform != "linux", reason="acknowledgements are told by Linux")


@linux
def test_a_peer_that_takes_nothing_for_long_is_waited_for() -> None:
    """Several times as long as it takes to notice one that is gone; then all of it comes."""
    silence = count(40, 4)
    with contextlib.ExitStack() as running:
        targets = [
            running.enter_context(Target(kind, scheme, keepalive_timeout=1.0))
            for kind, scheme in itertools.product(KINDS, ["tcp", "tls"])
        ]
        others = [running.enter_context(attacker.enter(each.address)) for each in targets]
        slow = [running.enter_context(attacker.enter(each.address)) for each in targets]
        for sock in slow:
            sock.sendall(packed({"op": "source", "count": MESSAGES}))
            attacker.receive(sock)
        start = time.monotonic()
        while time.monotonic() - start < silence:
            for target, other in zip(targets, others, strict=True):
                attacker.ping(other)
                check(not target.ask("stats")["broken"], target.log())
            time.sleep(0.05)
        for sock in slow:
            for _ in range(MESSAGES - 1):
                attacker.receive(sock)
            attacker.ping(sock)
        figure(f"{MESSAGES / 16:.0f} MiB waited {silence} s, and came whole")


def test_what_was_sent_before_a_close_arrives() -> None:
    """Also if the peer takes nothing for as long as a task may hold its loop."""
    silence = count(20, 3)
    with contextlib.ExitStack() as running:
        targets = [running.enter_context(Target(kind, "tcp")) for kind in KINDS]
        slow = [running.enter_context(attacker.enter(each.address)) for each in targets]
        for sock in slow:
            sock.sendall(packed({"op": "source", "count": MESSAGES}) + packed({"op": "close"}))
            attacker.receive(sock)
        time.sleep(silence)
        for target, sock in zip(targets, slow, strict=True):
            for _ in range(MESSAGES - 1):
                attacker.receive(sock)
            check(attacker.ended(sock) == b"", "more than was sent")
            check(target.ask("stats")["broken"] == {}, target.log())


@linux
def test_a_peer_that_goes_while_it_takes_nothing_is_noticed() -> None:
    """The kernel asks it for room again and again, and gets no answer."""
    with contextlib.ExitStack() as running:
        targets = [
            running.enter_context(Target("standalone", "tcp", keepalive_timeout=1.0, **mode))
            for mode in MODES.values()
        ]
        socks = [running.enter_context(attacker.enter(each.address)) for each in targets]
        for sock in socks:
            sock.sendall(packed({"op": "source", "count": MESSAGES}))
            attacker.receive(sock)
        seen: list[int] = []
        while seen != (seen := [each.ask("sent") for each in targets]) or not all(seen):
            time.sleep(0.3)
        check(max(seen) < MESSAGES / 16 * MiB, "it has taken all of it")
        for sock in socks:
            attacker.vanish(sock)
        start = time.monotonic()
        for target in targets:
            target.until(
                lambda each=target: each.ask("stats")["broken"] == {"lost": 1}, "nobody noticed"
            )
            check("connection timed out" in target.log(), target.log())
        figure(f"keepalive 1 s, noticed after {time.monotonic() - start:.1f} s")
