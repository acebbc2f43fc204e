"""No limit is cumulative: one comm carries any number of bytes and of messages."""

from __future__ import annotations

import time

import pytest

from support import attacker, endless
from support.target import FULL, MiB, Target, check, count, figure

GiB = 1 << 30
SCHEMES = ["tcp", "tls"] if FULL else ["tcp"]
KINDS = ["standalone", "dask"]
each_kind = pytest.mark.parametrize("kind", KINDS)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_gigabytes_through_one_comm(scheme: str) -> None:
    """In full runs more than 32 bits count, each way; a message at a time is held.

    tests/comm/transport/test_huge_messages.py has the counters beyond that in every run.
    """
    size = count(9 * GiB // 2, GiB // 4)
    with Target("standalone", scheme) as target:
        tls = attacker.context() if scheme == "tls" else None
        before = target.resident()
        start = time.monotonic()
        *_, done = endless.pour(target.address, size, tls)
        seconds = time.monotonic() - start
        check(done >= size, done)
        stats = target.until_stats(greeted=1)
        check(not stats["refused"] and not stats["broken"] and not target.log(), target.log())
        grown = target.resident() - before
        check(grown < 64 * MiB, f"{grown / MiB:.0f} MiB")
        figure(f"{done / GiB:.2f} GiB each way in {seconds:.1f} s, {grown / MiB:.0f} MiB of memory")


@pytest.mark.parametrize("scheme", SCHEMES)
@each_kind
def test_a_million_messages_through_one_comm(kind: str, scheme: str) -> None:
    """They leave nothing, not even 64 bytes each."""
    number = count(1_000_000, 50_000)
    with Target(kind, scheme) as target:
        tls = attacker.context() if scheme == "tls" else None
        with attacker.enter(target.address, tls=tls) as sock:
            endless.chatter(sock, 0, 20_000)
            before = target.resident()
            start = time.monotonic()
            endless.chatter(sock, 20_000, number)
            seconds = time.monotonic() - start
            grown = target.resident() - before
            attacker.ping(sock)
        check(grown < 64 * number, f"{grown / number:.1f} bytes a message")
        check(not target.ask("stats")["broken"] and not target.log(), target.log())
        figure(f"{number} messages in {seconds:.1f} s, {grown / number:.1f} bytes each stay")
