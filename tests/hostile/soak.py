"""Mixed load on one server for SOAK_SECONDS (default 300): good clients, silent ones, floods, bad
bytes, resets and stalls at once; both kinds and schemes in turn. Then SOAK_BYTES (default 8 GiB)
each way through one comm, over tcp and over tls. Prints a line a while, and fails if memory or
descriptors grow, a message is altered or out of order, a good client waits too long, or a
traceback appears.

    PYTHONPATH=tests .venv/bin/python tests/hostile/soak.py
"""

from __future__ import annotations

import contextlib
import os
import random
import threading
import time
from collections.abc import Callable

from support import attacker, endless
from support.target import MiB, Target, check, clean_up

SECONDS = float(os.environ.get("SOAK_SECONDS", "300"))
BYTES = int(float(os.environ.get("SOAK_BYTES", 8 << 30)))
CHAT = 1000  # messages of one go


class Load:
    """Threads that each do one thing over and over until `over`."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.over = threading.Event()
        self.waits: list[float] = []
        self.chats = 0
        self.failed: list[BaseException] = []
        scheme = target.scheme
        self.good = attacker.context() if scheme == "tls" else None
        self.foreign = attacker.context("foreign") if scheme == "tls" else None
        self.threads = [
            threading.Thread(target=self._repeat, args=(act, i, strict))
            for i, (act, strict) in enumerate(
                [(self.visit, True), (self.stay, True), (self.move, True), (self.chat, True)]
                + [(self.stall, False)] * 2
                + [(self.knock, False)] * 3
                + [(self.babble, False)] * 2
                + [(self.break_off, False)] * 2
            )
        ]

    def _repeat(self, act: Callable[[random.Random], None], seed: int, strict: bool) -> None:
        source = random.Random(seed)
        while not self.over.is_set():
            try:
                act(source)
            except OSError as error:
                if strict:
                    self.failed.append(error)
                    return
            except BaseException as error:
                self.failed.append(error)
                return

    def starved(self) -> bool:
        """Whether good clients wait too long, or have not been answered at all."""
        return not self.waits or attacker.percentile(self.waits) > 0.5

    def visit(self, source: random.Random) -> None:
        self.waits.append(attacker.visit(self.target.address, self.good))
        time.sleep(0.05)

    def stay(self, source: random.Random) -> None:
        with attacker.enter(self.target.address, tls=self.good) as sock:
            for _ in range(100):
                if self.over.is_set():  # a server that starves everybody is not waited for
                    return
                self.waits.append(attacker.ping(sock))
                time.sleep(0.01)

    def move(self, source: random.Random) -> None:
        with attacker.enter(self.target.address, tls=self.good) as sock:
            data = source.randbytes(source.choice([100, 10_000, 1_000_000]))
            check(attacker.ask(sock, data) == data, f"{len(data)} bytes came back altered")
        time.sleep(0.1)

    def chat(self, source: random.Random) -> None:
        """One comm for the whole time, and so many messages that what each leaves is seen."""
        with attacker.enter(self.target.address, tls=self.good) as sock:
            while not self.over.is_set():
                endless.chatter(sock, self.chats, CHAT)
                self.chats += CHAT
                time.sleep(0.02)

    def stall(self, source: random.Random) -> None:
        peers = [attacker.dial(self.target.address) for _ in range(50)]
        for peer in peers:
            with contextlib.suppress(OSError):
                peer.sendall(attacker.client_hello()[: source.randrange(600)])
        self.over.wait(source.random() * 3)
        for peer in peers:
            peer.close()

    def knock(self, source: random.Random) -> None:
        if self.foreign is None or source.random() < 0.5:
            with attacker.dial(self.target.address) as sock:
                sock.sendall(source.choice([b"GET / HTTP/1.1\r\n\r\n", bytes(100), b"\x16\x03"]))
                attacker.ended(sock, 1)
        else:
            with attacker.dial(self.target.address, tls=self.foreign) as sock:
                sock.recv(1)

    def babble(self, source: random.Random) -> None:
        with attacker.enter(self.target.address, tls=self.good) as sock:
            sock.sendall(attacker.message(b"\xc1" + source.randbytes(source.randrange(100)))[
                source.randrange(9):
            ])  # fmt: skip
            attacker.ended(sock, 1)

    def break_off(self, source: random.Random) -> None:
        if self.good is not None and source.random() < 0.5:
            sock, _ = attacker.shake_up_to(self.target.address, self.good, source.randrange(2500))
        else:
            sock = attacker.enter(self.target.address, tls=self.good)
            sock.sendall(attacker.packed(bytes(5000))[: source.randrange(5000)])
        attacker.reset(sock)


def soak(kind: str, scheme: str, seconds: float) -> None:
    with Target(kind, scheme, handshake_timeout=2.0) as target:
        load = Load(target)
        for thread in load.threads:
            thread.start()
        try:
            load.over.wait(min(10.0, seconds / 4))  # until everything has been met once
            memory = target.resident()
            deadline = time.monotonic() + seconds * 3 / 4
            while time.monotonic() < deadline and not load.failed and not load.starved():
                load.over.wait(min(5.0, seconds / 8))
                print(
                    f"{kind} {scheme}: {target.resident() / MiB:.0f} MiB, "
                    f"{target.descriptors()} descriptors, p99 "
                    f"{attacker.percentile(load.waits) * 1000:.0f} ms, {load.chats} messages of "
                    f"one comm, {target.ask('stats')}",
                    flush=True,
                )
        finally:
            load.over.set()
            for thread in load.threads:
                thread.join()
        check(not load.failed, load.failed)
        check(not load.starved(), f"p99 of good clients {attacker.percentile(load.waits):.2f} s")
        stats = target.until_stats(pending=0)
        check(scheme == "tcp" or stats["refused"].get("timeout"), "nobody ran out of time", stats)
        target.until(lambda: target.descriptors() <= 12, "descriptors are left")
        grown = target.resident() - memory
        print(
            f"{kind} {scheme}: {grown / MiB:.1f} MiB grown in {seconds * 3 / 4:.0f} s", flush=True
        )
        check(grown < 16 * MiB, f"{grown / MiB:.1f} MiB grown")
        if kind == "standalone":
            check("Traceback" not in target.log(), target.log()[-3000:])


def pour(scheme: str, size: int) -> None:
    """Through one comm, however long it takes."""
    with Target("standalone", scheme) as target:
        start, told = time.monotonic(), 0.0
        for done in endless.pour(
            target.address, size, attacker.context() if scheme == "tls" else None
        ):
            now = time.monotonic() - start
            if now - told > 10 or done >= size:
                told = now
                print(
                    f"{scheme}: {done / 1e9:.1f} GB each way through one comm in {now:.0f} s, "
                    f"{target.resident() / MiB:.0f} MiB",
                    flush=True,
                )
        check(target.log() == "", target.log())


if __name__ == "__main__":
    try:
        for kind in ("standalone", "dask"):
            for scheme in ("tcp", "tls"):
                soak(kind, scheme, SECONDS / 4)
        for scheme in ("tcp", "tls"):
            pour(scheme, BYTES)
    finally:
        clean_up()
    print("the soak is over and all is well")
