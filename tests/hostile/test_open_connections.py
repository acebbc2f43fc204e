"""Open comms whose peers misbehave: they do not read, vanish, stop, break off at any byte."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable

import pytest

from support import attacker, forking, programs
from support.attacker import Socket, packed
from support.target import (
    COMBINATIONS,
    MODES,
    MiB,
    Target,
    check,
    count,
    figure,
    identities,
    within,
)

KINDS = ["standalone", "dask"]
VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]
each_kind = pytest.mark.parametrize("kind", KINDS)
each_scheme = pytest.mark.parametrize("scheme", ["tcp", "tls"])
each_combination = pytest.mark.parametrize(("kind", "scheme", "mode"), COMBINATIONS)
each_version = pytest.mark.parametrize("version", VERSIONS, ids=lambda version: version.name)


def context_for(scheme: str) -> ssl.SSLContext | None:
    return attacker.context() if scheme == "tls" else None


# Handlers and back-pressure


@each_combination
def test_a_handler_that_raises_closes_its_comm(kind: str, scheme: str, mode: str) -> None:
    with Target(kind, scheme, **MODES[mode]) as target:
        tls = context_for(scheme)
        other = attacker.enter(target.address, tls=tls)
        sock = attacker.enter(target.address, tls=tls)
        sock.sendall(packed({"op": "raise"}))
        start = time.monotonic()
        check(attacker.ended(sock, 5) == b"")
        seconds = time.monotonic() - start
        check(seconds < within(1), seconds)
        figure(f"closed after {seconds * 1000:.0f} ms")
        attacker.ping(other)
        check(target.log().count("ZeroDivisionError: asked for") == 1, target.log())
        sock.close()
        other.close()


@each_scheme
def test_a_handler_that_returns_closes_its_comm(scheme: str) -> None:
    with Target("standalone", scheme) as target:
        sock = attacker.enter(target.address, tls=context_for(scheme))
        sock.sendall(packed({"op": "return"}))
        check(attacker.ended(sock, 5) == b"")
        check(target.log() == "", target.log())
        sock.close()


@pytest.mark.parametrize(("scheme", "size"), [("tcp", 65536), ("tls", 65536), ("tcp", 8192)])
def test_a_peer_that_does_not_read_holds_back_the_writer(scheme: str, size: int) -> None:
    """Of 256 MiB, less than 64 leave the handler; the rest waits, and comes whole.

    In large messages, which are sent from where they lie, and in small ones, which are copied.
    """
    messages = 256 * MiB // size
    with Target("standalone", scheme) as target:
        tls = context_for(scheme)
        other = attacker.enter(target.address, tls=tls)
        sock = attacker.enter(target.address, tls=tls)
        before = target.resident()
        sock.sendall(packed({"op": "source", "count": messages, "size": size}))
        seen = -1
        while seen != (seen := target.ask("sent")) or not seen:
            time.sleep(0.3)
            attacker.ping(other)
        grown = target.resident() - before
        check(seen < 64 * MiB, f"{seen / MiB:.0f} MiB written")
        check(grown < 64 * MiB, grown)
        figure(f"{seen / MiB:.1f} of 256 MiB have left, {grown / MiB:.1f} MiB of memory")
        for _ in range(messages):
            (header,) = attacker.receive(sock)
            check(len(header) > size)
        check(target.ask("sent") == 256 * MiB)
        sock.close()
        other.close()


# Ends


@each_version
@each_kind
def test_close_sends_close_notify(kind: str, version: ssl.TLSVersion) -> None:
    """With close_notify, so that whoever looks can tell it from an end that was forced."""
    with Target(kind, "tls") as target:
        raw = attacker.dial(target.address)
        tls = attacker.context(version=version).wrap_socket(raw, suppress_ragged_eofs=False)
        tls.sendall(attacker.HELLO)
        attacker.receive(tls)
        tls.sendall(packed({"op": "close"}))
        check(tls.recv(100) == b"")  # raises SSLEOFError without it
        tls.close()


@each_combination
def test_an_end_in_mid_message_is_one(kind: str, scheme: str, mode: str) -> None:
    with Target(kind, scheme, **MODES[mode]) as target:
        tls = context_for(scheme)
        whole = packed({"x": bytes(1000)})
        for size in (1, 8, 15, 16, 20, 24, 500, len(whole) - 1):
            sock = attacker.enter(target.address, tls=tls)
            sock.sendall(whole[:size])
            sock.close()
        target.until(lambda: target.ask("stats")["broken"] == {"lost": 8}, "not seen as broken")
        check(target.log().count("middle of a message") == 8, target.log())
        check("Traceback" not in target.log(), target.log())


@each_combination
def test_half_closed(kind: str, scheme: str, mode: str) -> None:
    """Who has no more to say is done with; what it said before is answered."""
    with Target(kind, scheme, **MODES[mode]) as target:
        sock = attacker.enter(target.address, tls=context_for(scheme))
        attacker.ping(sock)
        if scheme == "tls":
            assert isinstance(sock, ssl.SSLSocket)
            sock.unwrap()  # raises SSLError unless our close_notify is answered
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_WR)
        check(attacker.ended(sock, 5) == b"")
        check(target.ask("stats")["broken"] == {}, target.log())
        sock.close()


@pytest.mark.skipif(sys.platform != "linux", reason="packet filters on sockets are Linux's")
def test_a_peer_whose_machine_is_gone_is_noticed() -> None:
    """Idle, by keepalive; and while it is written to, by what the kernel counts.

    Mostly this waits: all combinations do so at once.
    """
    seconds = count(2, 1)
    with contextlib.ExitStack() as running:
        left: list[tuple[Target, Socket, int]] = []
        for kind, scheme, mode in COMBINATIONS:
            limits = {"keepalive_timeout": seconds}
            target = running.enter_context(Target(kind, scheme, **limits, **MODES[mode]))
            tls = context_for(scheme)
            idle, busy, well = (
                running.enter_context(attacker.enter(target.address, tls=tls)) for _ in range(3)
            )
            target.until_stats(greeted=3)
            left.append((target, well, target.descriptors() - 2))
            attacker.vanish(idle)
            busy.sendall(packed({"op": "source", "count": 1000}))
            attacker.vanish(busy)
        start = time.monotonic()
        for target, well, descriptors in left:
            target.until(
                lambda one=target, most=descriptors: one.descriptors() <= most, "nobody noticed"
            )
            attacker.ping(well)
            check(target.log().count("connection timed out") == 2, target.log())
        took = time.monotonic() - start
        check(took < within(10), took)
        figure(f"keepalive {seconds} s, noticed after {took:.1f} s")


@each_scheme
def test_a_stopped_peer_costs_little_and_loses_nothing(scheme: str) -> None:
    with Target("standalone", scheme) as target:
        other = attacker.enter(target.address, tls=context_for(scheme))
        before = target.resident()
        with forking.Popen(
            "standalone",
            programs.command("stopped_reader", target.address),
            cwd=programs.HOME,
            text=True,
            env=programs.environment(HOSTILE_FILES=json.dumps(identities())),
        ) as peer:
            assert peer.stdout is not None
            try:
                check(peer.stdout.readline() == "begun\n")
                peer.send_signal(signal.SIGSTOP)
                deadline = time.monotonic() + count(1, 0.3)
                while time.monotonic() < deadline:
                    check(attacker.ping(other) < within(0.5))
                check(target.resident() - before < 64 * MiB)
                peer.send_signal(signal.SIGCONT)
                check(peer.stdout.readline() == "still in step\n")
                check(peer.wait(60) == 0)
            finally:
                peer.kill()  # a stopped one would be waited for
        other.close()


# Resets


@each_version
def test_a_reset_at_every_byte_of_a_handshake(version: ssl.TLSVersion) -> None:
    """Whatever of the client's side has been sent when it breaks off, and whether the server has
    looked at it before."""
    with Target("standalone", "tls") as target:
        tls = attacker.context(version=version)
        sock, whole = attacker.shake_up_to(target.address, tls, 1 << 20)
        sock.close()
        attacker.visit(target.address, tls)
        before = target.descriptors()
        sizes = {*range(12), *range(0, whole + 1, count(1, 11))}  # a record begins with 5 bytes
        for size in sorted(sizes):
            for seen in (False, True):
                sock, sent = attacker.shake_up_to(target.address, tls, size)
                check(sent == size or size > whole - 16, size, sent)  # signatures differ in length
                if seen:
                    target.has_looked()
                attacker.reset(sock)
        target.until_stats(pending=0)
        target.until(lambda: target.descriptors() <= before, "descriptors are left")
        check("Traceback" not in target.log(), target.log())
        figure(f"{2 * len(sizes)} resets within {whole} bytes")
        attacker.visit(target.address, tls)


@each_combination
def test_a_reset_at_every_byte_of_hello_and_message(kind: str, scheme: str, mode: str) -> None:
    with Target(kind, scheme, **MODES[mode]) as target:
        tls = context_for(scheme)
        attacker.visit(target.address, tls)
        whole = attacker.HELLO + packed({"some": "message"})
        before = target.descriptors()
        for size in range(0, len(whole) + 1, 1 if scheme == "tcp" else count(1, 7)):
            for seen in (False, True):
                sock = attacker.dial(target.address, tls=tls)
                sock.sendall(whole[:size])
                if seen:
                    target.has_looked()
                attacker.reset(sock)
        target.until_stats(pending=0)
        target.until(lambda: target.descriptors() <= before, "descriptors are left")
        check("Traceback" not in target.log(), target.log())
        attacker.visit(target.address, tls)


# Many


@each_combination
def test_cycles_leave_nothing(kind: str, scheme: str, mode: str) -> None:
    cycles = count(10_000, 300) if mode == "plain" else 300
    with Target(kind, scheme, **MODES[mode]) as target:
        tls = context_for(scheme)
        for _ in range(100):
            attacker.visit(target.address, tls)
        target.until_stats(greeted=100)
        before, descriptors = target.resident(), target.descriptors()

        def visits(number: int) -> None:
            for _ in range(number):
                attacker.visit(target.address, tls)

        threads = [threading.Thread(target=visits, args=(cycles // 4,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        target.until_stats(greeted=100 + cycles // 4 * 4)
        target.until(lambda: target.descriptors() <= descriptors, "descriptors are left")
        grown = target.resident() - before
        check(grown < 8 * MiB * (1 if cycles == 10_000 else 0.5), f"{grown / MiB:.1f} MiB")
        figure(f"{cycles} cycles, {grown / MiB:.2f} MiB")


def _reset(address: str, tls: ssl.SSLContext | None) -> None:
    sock = attacker.enter(address, tls=tls)
    attacker.ping(sock)
    attacker.reset(sock)


def _break_off(address: str, tls: ssl.SSLContext | None) -> None:
    with attacker.enter(address, tls=tls) as sock:
        sock.sendall(packed(bytes(100))[:50])


def _bad_hello(address: str, tls: ssl.SSLContext | None) -> None:
    with attacker.dial(address, tls=tls) as sock:
        sock.sendall(attacker.message(b"\xc1\xc1"))
        attacker.ended(sock)


def _bad_frame(address: str, tls: ssl.SSLContext | None) -> None:
    with attacker.enter(address, tls=tls) as sock:
        sock.sendall(bytes(16))
        attacker.ended(sock)


def _bad_message(address: str, tls: ssl.SSLContext | None) -> None:
    with attacker.enter(address, tls=tls, hello=attacker.OUR_HELLO) as sock:
        sock.sendall(attacker.message(b"\xc1"))
        attacker.ended(sock)


@pytest.mark.parametrize("act", [_reset, _break_off, _bad_hello, _bad_frame, _bad_message])
@each_combination
def test_no_end_leaves_a_stream(
    kind: str, scheme: str, mode: str, act: Callable[[str, ssl.SSLContext | None], None]
) -> None:
    """An error leads to frames, and those to whoever met it: none of it may stay."""
    with Target(kind, scheme, **MODES[mode]) as target:
        tls = context_for(scheme)
        for _ in range(20):
            act(target.address, tls)
        target.until_stats(accepted=20, pending=0)
        target.until(lambda: target.ask("alive") == 0, f"{target.ask('alive')} streams are left")


@each_kind
def test_idle_comms_cost_little(kind: str) -> None:
    number = count(1000, 200)
    with Target(kind, "tls") as target:
        tls = attacker.context()
        attacker.visit(target.address, tls)
        before = target.resident()
        inside: list[Socket] = [attacker.enter(target.address, tls=tls) for _ in range(number)]
        for sock in inside:
            attacker.ping(sock)
        each = (target.resident() - before) / number
        check(each < 64 * 1024, f"{each / 1024:.1f} KiB each")
        # The server's own heartbeat of 200 Hz is in it.
        used = target.cpu(lambda: time.sleep(count(2, 1)))
        check(used < 0.05, f"{used:.1%} of a CPU")
        figure(f"{number} comms, {each / 1024:.1f} KiB each, {used:.1%} of a CPU together")
        for sock in inside:
            sock.close()
