"""Pending connections: silent, slow, many, and with too few descriptors for them all."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable

import msgpack
import pytest

from support import HANG, attacker
from support.attacker import HELLO, Socket
from support.crowds import crowd, meanwhile
from support.target import COMBINATIONS, MODES, Target, check, count, figure, within

SCHEMES = ["tcp", "tls"]
KINDS = ["standalone", "dask"]
each_kind = pytest.mark.parametrize("kind", KINDS)
each_combination = pytest.mark.parametrize(("kind", "scheme", "mode"), COMBINATIONS)
each_scheme = pytest.mark.parametrize("scheme", SCHEMES)


# Time


# It would take longer than any deadline that a busy machine has put off.
LONG_HELLO = attacker.packed({**msgpack.unpackb(HELLO[24:]), "more": "x" * 5000})


def trickle(sock: Socket, data: bytes) -> Callable[[], None]:
    rest = iter(data)

    def step() -> None:
        sock.send(bytes([next(rest)]))

    return step


@each_combination
def test_a_connection_pending_past_its_deadline_is_dropped(
    kind: str, scheme: str, mode: str
) -> None:
    """Silent or one byte at a time, with and without TLS, authenticated or not."""
    with Target(kind, scheme, handshake_timeout=1.0, **MODES[mode]) as target:
        address = target.address
        steps: dict[Socket, Callable[[], None]] = {}
        peers = {"silent": attacker.dial(address)}
        if scheme == "tcp":
            peers["trickling hello"] = slow = attacker.dial(address)
            steps[slow] = trickle(slow, LONG_HELLO)
        else:
            peers["trickling ClientHello"] = slow = attacker.dial(address)
            steps[slow] = trickle(slow, attacker.client_hello())
            peers["ClientHello and silence"] = half = attacker.dial(address)
            half.sendall(attacker.client_hello())
            tls = attacker.context()
            peers["authenticated and silent"] = attacker.dial(address, tls=tls)
            peers["authenticated and trickling"] = slow = attacker.dial(address, tls=tls)
            steps[slow] = trickle(slow, LONG_HELLO)
        start = time.monotonic()
        left = dict(peers)
        while left:
            check(time.monotonic() - start < within(4.0), f"still there: {list(left)}")
            for step in list(steps.values()):
                with contextlib.suppress(OSError):
                    step()
            left = {name: sock for name, sock in left.items() if not attacker.gone(sock)}
            time.sleep(0.02)
        seconds = time.monotonic() - start
        check(seconds > 0.7, "gone before their time")
        figure(f"deadline 1 s, {len(peers)} peers gone after {seconds:.2f} s")
        stats = target.until_stats(pending=0)
        check(stats["refused"] == {"timeout": len(peers)}, stats)
        check(target.log().count("dropped: no ") == len(peers), target.log())
        check("Traceback" not in target.log(), target.log())
        attacker.visit(address)
        for sock in peers.values():
            sock.close()


def test_tls_and_hello_share_their_time() -> None:
    """Who is done with TLS late has no more time for its hello than if it had been early."""
    with contextlib.ExitStack() as running:
        targets = [running.enter_context(Target(k, "tls", handshake_timeout=2.0)) for k in KINDS]
        start = time.monotonic()
        late = [attacker.dial(target.address) for target in targets]
        for target in targets:
            target.until_stats(accepted=1)
        time.sleep(0.5)
        after = [attacker.dial(target.address) for target in targets]
        for target in targets:
            target.until_stats(accepted=2)
        time.sleep(0.5)
        late = [attacker.context().wrap_socket(sock) for sock in late]
        check(time.monotonic() - start < 2.0, "the handshake was not in time")
        for target, first, second in zip(targets, late, after, strict=True):
            target.until(lambda sock=second: attacker.gone(sock), "the one after is still there")
            check(attacker.gone(first), "its time began anew")
            check(target.until_stats(pending=0)["refused"] == {"timeout": 2})
        for sock in (*late, *after):
            sock.close()


# Number


@each_combination
def test_128_descriptors_and_300_silent_connections(kind: str, scheme: str, mode: str) -> None:
    """A good client is in within 5 s, and so is the next."""
    with (
        Target(kind, scheme, descriptors=128, **MODES[mode]) as target,
        crowd(300, target.address),
    ):
        visits = [attacker.visit(target.address) for _ in range(3)]
        check(max(visits) < within(5), visits)
        stats = target.ask("stats")
        check(stats["pending"] <= 64, stats)
        figure(f"in after {max(visits) * 1000:.0f} ms at most")
        check(stats["refused"]["crowded"] >= 300 - 64, stats)


def test_the_oldest_is_dropped_first() -> None:
    with Target("standalone", "tls", max_pending=10) as target, crowd(25, target.address) as peers:
        target.until_stats(accepted=25)
        target.until(lambda: attacker.gone(peers[14]), "the fifteenth is still there")
        check([attacker.gone(peer) for peer in peers] == [True] * 15 + [False] * 10)
        # The line is written after the socket is closed, a turn of the loop later.
        target.until(
            lambda: "10 others are pending, which is the limit" in target.log(), "no line tells why"
        )


@each_kind
def test_no_descriptor_is_left(kind: str) -> None:
    """All are taken by open comms; open comms go on, the next waits its turn."""
    with Target(kind, "tcp", descriptors=100) as target:
        inside: list[Socket] = []
        while target.descriptors() < 100:
            inside.append(attacker.enter(target.address))
        with crowd(50, target.address):
            target.until(lambda: target.ask("stats")["starved"], "it does not starve")
            before = len(target.log())
            pings: list[float] = []

            def watch() -> None:
                for _ in range(count(40, 15)):
                    pings.append(attacker.ping(inside[0]))
                    time.sleep(0.05)

            used = target.cpu(watch)
            check(used < 0.5, f"CPU {used:.0%}")
            check(len(target.log()) - before < 2 * 65536, "log grows")
            check(max(pings) < within(0.5), max(pings))
            figure(
                f"CPU {used:.1%}, {len(target.log()) - before} bytes of log, "
                f"ping {max(pings) * 1000:.1f} ms at most"
            )
            for sock in inside[1:]:
                sock.close()
            check(attacker.visit(target.address) < within(5))
        check(target.log().count("cannot accept: too many open files") == 1, target.log())
        inside[0].close()


@each_kind
def test_pending_connections_give_way_when_descriptors_run_out(kind: str) -> None:
    with Target(kind, "tcp", descriptors=100) as target:
        inside: list[Socket] = []
        while target.descriptors() < 90:
            inside.append(attacker.enter(target.address))
        with crowd(50, target.address):
            for _ in range(3):
                check(attacker.visit(target.address) < within(5))
            stats = target.ask("stats")
            check(stats["starved"] and stats["refused"]["crowded"], stats)
            check(attacker.ping(inside[0]) < within(0.5))
        for sock in inside:
            sock.close()


def test_thousands_at_once_do_not_meet_the_limit() -> None:
    """As many as a large cluster has workers: all are pending before the first goes on, and
    all send a flight before the first looks for an answer."""
    number = count(2000, 400)
    with Target("standalone", "tls") as target, crowd(number, target.address) as peers:
        target.until_stats(pending=number)
        tls = attacker.context()
        shakes = [attacker.Shake(peer, tls) for peer in peers]
        start = time.monotonic()
        for shake in shakes:
            shake.send()
        for shake in shakes:
            shake.receive()
            shake.say(HELLO)
        for shake in shakes:
            shake.send()
        for shake in shakes:
            check(b"pickle-protocol" in shake.hear(), "no hello")
        stats = target.until_stats(greeted=number, pending=0)
        check(not stats["refused"] and stats["accepted"] == number, stats)
        figure(f"{number} in after {time.monotonic() - start:.1f} s")


# Load


@each_kind
def test_stalled_handshakes_slow_no_other_connection(kind: str) -> None:
    stalled = 200
    with Target(kind, "tls") as target:
        tls = attacker.context()
        before = [attacker.visit(target.address, tls) for _ in range(count(200, 40))]
        memory = target.resident()
        with crowd(stalled, target.address) as peers:
            for peer, part in zip(peers, itertools.cycle([0, 1, 100, 1000])):
                peer.sendall(attacker.client_hello()[:part])
            target.until_stats(pending=stalled)
            after = [attacker.visit(target.address, tls) for _ in range(count(200, 40))]
            grown = (target.resident() - memory) / stalled
            limit = max(within(0.25), 3 * attacker.percentile(before))
            check(attacker.percentile(after) < limit, attacker.percentile(after), limit)
            check(grown < 128 * 1024, f"{grown / 1024:.0f} KiB each")
            p99 = [attacker.percentile(visits) * 1000 for visits in (before, after)]
            figure(f"p99 {p99[0]:.0f} ms before, {p99[1]:.0f} ms then; {grown / 1024:.0f} KiB each")


@each_kind
def test_a_flood_of_refused_handshakes(kind: str) -> None:
    """Open comms answer, new clients come in, and the log stays short."""
    with Target(kind, "tls") as target:
        tls = attacker.context()
        inside = attacker.enter(target.address, tls=tls)
        foreign = attacker.context("foreign")

        def flood() -> None:
            with attacker.dial(target.address, tls=foreign) as sock:
                sock.recv(1)

        pings: list[float] = []
        visits: list[float] = []
        with meanwhile(flood, 8) as times:
            begun = time.monotonic()
            # A busy machine may need longer than that for a flood.
            while (seconds := time.monotonic() - begun) < count(20, 0.3) or times() <= 150:
                check(seconds < HANG, times())
                pings += [attacker.ping(inside) for _ in range(10)]
                visits.append(attacker.visit(target.address, tls))
        check(attacker.percentile(pings) < within(0.5), attacker.percentile(pings))
        check(max(visits) < within(1.5), max(visits))
        stats = target.ask("stats")
        check(stats["refused"]["other-ca"] > 100, stats)
        lines = target.log().splitlines()
        check(len(lines) < 70 * (1 + seconds // 60), len(lines))
        check(stats["unlogged"] > 0, stats)
        check("Traceback" not in target.log())
        figure(
            f"{stats['refused']['other-ca']} refused, ping p99 "
            f"{attacker.percentile(pings) * 1000:.0f} ms, new ones in after "
            f"{max(visits) * 1000:.0f} ms at most"
        )
        inside.close()


@each_kind
def test_handshakes_that_are_ready_at_once_take_turns(kind: str) -> None:
    """Hundreds of clients send the same flight in the same moment; the loop comes round between
    their steps, which would hold it for half a second together."""
    number = 600
    foreign = attacker.context("foreign")
    with Target(kind, "tls", max_log_lines=1) as target, crowd(number, target.address) as peers:
        target.until_stats(accepted=number)
        shakes = [attacker.Shake(peer, foreign) for peer in peers]
        target.ask("held")
        for shake in shakes:
            shake.send()
        for shake in shakes:
            shake.receive()
        check(target.ask("held") < 0.2, "their first flights held the loop")
        for shake in shakes:
            shake.send()
        stats = target.until_stats(pending=0)
        held = target.ask("held")
        check(held < 0.2, f"their second flights held the loop for {held:.3f} s")
        check(stats["refused"] == {"other-ca": number}, stats)
        figure(f"{number} at once, the loop held for {held * 1000:.0f} ms at most")


@each_combination
def test_stop_drops_pending_connections(kind: str, scheme: str, mode: str) -> None:
    with Target(kind, scheme, **MODES[mode]) as target, crowd(20, target.address) as peers:
        inside = attacker.enter(target.address)
        target.until_stats(pending=20)
        start = time.monotonic()
        target.ask("stop")
        target.until(lambda: all(map(attacker.gone, peers)), "they are still there")
        seconds = time.monotonic() - start
        check(seconds < within(1.0), seconds)
        figure(f"gone after {seconds:.2f} s")
        attacker.ping(inside)
        with pytest.raises(ConnectionRefusedError):
            attacker.dial(target.address)
        check(target.ask("stats")["refused"] == {"stopped": 20}, target.ask("stats"))
        inside.close()
