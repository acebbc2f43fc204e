"""What an attacker can send: before the hello, as the hello, and as messages after it."""

from __future__ import annotations

import contextlib
import pickle
import struct
import time
from collections import Counter
from pathlib import Path
from typing import Any

import msgpack
import pytest

from sealwire.comm.wire import framing
from support import attacker
from support.attacker import HELLO, OUR_HELLO, message, words
from support.target import COMBINATIONS, MODES, MiB, Target, check, count, figure

each_kind = pytest.mark.parametrize("kind", ["standalone", "dask"])
each_combination = pytest.mark.parametrize(("kind", "scheme", "mode"), COMBINATIONS)

HUGE = 1 << 62
BAD_FRAMES = {
    "zero": words(0, 0),
    "no frames": words(16, 0, 0),
    "a huge block": words(HUGE, 1),
    "a huge count": words(8 + 8 * 5, HUGE),
    "a frame more than allowed": words(8 + 8 * ((1 << 20) + 1), (1 << 20) + 1),
    "a huge frame": words(16, 1, HUGE),
    "frames that sum up beyond 64 bits": words(24, 2, HUGE * 2, HUGE * 2),
    "a block that ends in a frame": words(8 + 16 + 3, 2, 2, 2) + b"abcd",
    "a block longer than its frames": words(8 + 8 + 9, 1, 2) + bytes(9),
    "more lengths than the block holds": words(16, 2, 1, 1) + b"ab",
    "HTTP": b"GET /status HTTP/1.1\r\nHost: x\r\n\r\n",
    "a ClientHello": attacker.client_hello(attacker.context(None)),
    "nonsense": bytes(range(255, 100, -1)),
}

deep = 100_000
BAD_MESSAGES = {
    "no msgpack": b"\xc1",
    "nothing": b"",
    "text cut short": b"\xd9\xff" + b"x" * 10,
    "more than one value": b"\x01\x02",
    "nested too deeply": b"\x91" * deep + b"\xc0",
    "maps nested too deeply": b"\x81\x01" * deep + b"\xc0",
    "a list of four thousand million": b"\xdd\xff\xff\xff\xff",
    "a map of four thousand million": b"\xdf\xff\xff\xff\xff",
    "bytes of four thousand million": b"\xc6\xff\xff\xff\xff",
    "invalid UTF-8": b"\xa2\xff\xfe",
    "an unhashable key": b"\x81\x90\x01",
    "a timestamp of three bytes": b"\xc7\x03\xff\x00\x00\x00",
    "a timestamp out of range": b"\xc7\x0c\xff" + struct.pack(">Iq", 0, 1 << 62),
    "an unknown extension": b"\xd4\x63\x00",
    "a reference to no frame": msgpack.packb(msgpack.ExtType(1, msgpack.packb([7]))),
    "a reference to itself": msgpack.packb(msgpack.ExtType(1, msgpack.packb([0]))),
    "a negative reference": msgpack.packb(msgpack.ExtType(1, msgpack.packb([-1]))),
    "an array of objects": msgpack.packb(
        msgpack.ExtType(2, msgpack.packb(["|O", [1], "C", bytes(8)]))
    ),
    "an array larger than its bytes": msgpack.packb(
        msgpack.ExtType(2, msgpack.packb(["<f8", [1 << 40], "C", bytes(8)]))
    ),
    "an array of negative shape": msgpack.packb(
        msgpack.ExtType(2, msgpack.packb(["<f8", [-1, -1], "C", bytes(8)]))
    ),
    "an unregistered type": msgpack.packb(msgpack.ExtType(3, msgpack.packb(["os.system", "true"]))),
    "a date that is none": msgpack.packb(msgpack.ExtType(5, b"2026-99-99")),
}


# Lengths and messages


@each_combination
def test_bad_bytes_close_the_comm(kind: str, scheme: str, mode: str) -> None:
    """After the hello, each alone: closed at once, nothing delivered, one line, no traceback."""
    with Target(kind, scheme, **MODES[mode]) as target:
        tls = attacker.context() if scheme == "tls" else None
        for name, data in BAD_FRAMES.items():
            sock = attacker.enter(target.address, tls=tls)
            sock.sendall(data)
            check(attacker.ended(sock, 5) == b"", f"{name} was answered")
            sock.close()

        def ends() -> Counter[str]:  # what comes in one piece with the hello is refused with it
            stats = target.ask("stats")
            return Counter(stats["broken"]) + Counter(stats["refused"])

        target.until(lambda: ends().total() == len(BAD_FRAMES), "not counted")
        check(set(ends()) == {"framing", "too-large"}, ends())
        log = target.log()
        check("Traceback" not in log, log)
        for said in (
            "a message of 0 frames",
            "2 frames need a first block of 24 bytes, it is said to have 16",
            "too large: 1048577 frames, the limit is 1048576",
            "is a TLS ClientHello; use tls://",
            "is HTTP; this port speaks",
        ):
            check(said in log, said, log)
        own = [line for line in log.splitlines() if "sealwire" in line]
        check(len(own) == len(BAD_FRAMES), log)
        check(all("://127.0.0.1:" in line for line in own), log)
        attacker.visit(target.address, tls)


@pytest.mark.parametrize("mode", MODES)
def test_bad_messages_close_the_comm(mode: str) -> None:
    """Well framed, but not messages of the standalone comm."""
    with Target("standalone", "tcp", **MODES[mode]) as target:
        for name, header in BAD_MESSAGES.items():
            sock = attacker.enter(target.address, hello=OUR_HELLO)
            frames = [b"a frame"] if "reference" in name else []
            sock.sendall(message(header, *frames))
            check(attacker.ended(sock, 5) == b"", f"{name} was answered")
            sock.close()
        stats = target.until_stats(greeted=len(BAD_MESSAGES))
        target.until(
            lambda: target.ask("stats")["broken"] == {"message": len(BAD_MESSAGES)}, str(stats)
        )
        check("Traceback" not in target.log(), target.log())
        check(target.log().count("does not decode") == len(BAD_MESSAGES), target.log())
        attacker.visit(target.address)


@each_kind
@pytest.mark.parametrize("name", ["no msgpack", "nested too deeply"])
def test_a_bad_message_leaves_the_others_alone(kind: str, name: str) -> None:
    with Target(kind, "tcp") as target:
        other = attacker.enter(target.address)
        sock = attacker.enter(target.address)
        sock.sendall(message(BAD_MESSAGES[name]))
        attacker.ended(sock, 5)
        attacker.ping(other)
        sock.close()
        other.close()


# Before and in the hello


HELLOS: dict[str, bytes] = {
    **BAD_FRAMES,
    "no msgpack": message(b"\xc1\xc1"),
    "a list": attacker.packed([1, 2]),
    "a number": attacker.packed(5),
    "two frames": message(b"\x80", b"\x80"),
    "a pickle": message(pickle.dumps({"python": (3, 11)})),
    "nested too deeply": message(b"\x91" * 60_000),
    "over the limit": attacker.packed({**msgpack.unpackb(HELLO[24:]), "more": "x" * 70_000}),
}


@each_combination
def test_bad_hellos_are_refused(kind: str, scheme: str, mode: str) -> None:
    """Of an authenticated peer, or of anybody on a plain port."""
    with Target(kind, scheme, **MODES[mode]) as target:
        tls = attacker.context() if scheme == "tls" else None
        for name, data in HELLOS.items():
            with attacker.dial(target.address, tls=tls) as sock:
                with contextlib.suppress(OSError):  # it may be refused before all of it is sent
                    sock.sendall(data)
                check(b"ping" not in attacker.ended(sock, 5), name)
        target.until(
            lambda: sum(target.ask("stats")["refused"].values()) == len(HELLOS),
            "not all were refused",
        )
        log = target.log()
        check("Traceback" not in log, log)
        check(target.ask("stats")["greeted"] == 0)
        own = [line for line in log.splitlines() if "sealwire" in line]
        check(len(own) == len(HELLOS), log)
        attacker.visit(target.address, tls)


STRANGE_TLS = {
    "our own wire": (HELLO, "it does not speak TLS but plain tcp://"),
    "HTTP": (b"GET / HTTP/1.1\r\n\r\n", "it speaks plain HTTP"),
    "an alert": (b"\x15\x03\x03\x00\x02\x02\x28", "it does not speak TLS"),
    "a record of 64 KiB": (b"\x16\x03\x03\xff\xff" + bytes(1000), "TLS handshake with"),
    "a handshake message of 16 MiB": (
        b"\x16\x03\x03\x00\x04\x01\xff\xff\xff" + b"\x16\x03\x03\x40\x00" + bytes(16384),
        "TLS handshake with",
    ),
    "an empty record": (b"\x16\x03\x01\x00\x00" * 100, "TLS handshake with"),
    "a ServerHello": (b"\x16\x03\x03\x00\x06\x02\x00\x00\x02\x03\x03", "TLS handshake with"),
    "injected before the ClientHello": (
        HELLO + attacker.client_hello(attacker.context(None)),
        "it does not speak TLS but plain tcp://",
    ),
    "application data": (b"\x17\x03\x03\x00\x10" + bytes(16), "it does not speak TLS"),
}


@each_kind
def test_what_is_no_handshake_is_named_and_closed(kind: str) -> None:
    with Target(kind, "tls") as target:
        descriptors = target.descriptors()
        for name, (data, said) in STRANGE_TLS.items():
            before = len(target.log())
            sock = attacker.dial(target.address)
            sock.sendall(data)
            attacker.ended(sock, 5)
            sock.close()
            target.until(lambda start=before: "\n" in target.log()[start:], f"{name}: no line")
            check(said in target.log()[before:], name, target.log()[before:])
        check("Traceback" not in target.log(), target.log())
        check(sum(target.ask("stats")["refused"].values()) == len(STRANGE_TLS))
        target.until(lambda: target.descriptors() <= descriptors, "descriptors are left")
        attacker.visit(target.address)


class Armed:
    """Unpickling it makes a file."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path(self.path),)


@each_kind
def test_a_hello_runs_nothing(kind: str, tmp_path: Path) -> None:
    made = tmp_path / "made"
    armed = pickle.dumps(Armed(str(made)))
    pickle.loads(armed)
    check(made.exists(), "it is not armed")
    made.unlink()
    header = msgpack.packb({"python": [3, 11, 0], "pickle-protocol": 5, "compression": armed})
    tagged = msgpack.packb({"__Pickled__": 1, "x": armed})
    with Target(kind, "tcp") as target:
        for data in (
            message(armed),
            message(header),
            message(tagged),
            message(tagged, armed),
            message(b"\x80", armed, armed),
        ):
            sock = attacker.dial(target.address)
            sock.sendall(data)
            sock.settimeout(5)
            attacker.receive(sock)  # its hello, so that ours is being read
            sock.shutdown(1)
            attacker.ended(sock, 5)
            sock.close()
        target.until(lambda: target.log().count("bad hello") >= 3, "not refused")
        attacker.visit(target.address)
    check(not made.exists(), "the hello ran something")


# What it costs


@each_combination
def test_a_prefix_reserves_nothing(kind: str, scheme: str, mode: str) -> None:
    """That promises 8 GiB, or 200,000 frames: less than 64 MiB of address space, no memory."""
    with Target(kind, scheme, max_message_size=16 << 30, **MODES[mode]) as target:
        tls = attacker.context() if scheme == "tls" else None
        attacker.visit(target.address, tls)
        reserved, resident = target.reserved(), target.resident()
        socks = [attacker.enter(target.address, tls=tls) for _ in range(4)]
        for sock, data in zip(
            socks,
            (words(8 << 30), words(8 << 30, 1), words(24 + 8 * 200_000, 200_000), words(16)),
            strict=True,
        ):
            sock.sendall(data)
        other = attacker.enter(target.address, tls=tls)
        for _ in range(10):
            attacker.ping(other)
        reserved, resident = target.reserved() - reserved, target.resident() - resident
        check(reserved < 64 * MiB, reserved)
        check(resident < 4 * MiB, resident)
        figure(f"{reserved / MiB:.1f} MiB of address space, {resident / MiB:.1f} resident")
        for sock in (*socks, other):
            sock.close()


MILLION = 1_000_000
SMALL_FRAMES = {  # the lengths of two frames, and how many of them share the first block
    "empty": (0, 0, 0),
    "of one byte": (1, 1, 0),
    "of one byte, in the first block": (1, 1, MILLION),
    "of one byte or none": (1, 0, 0),
    "of one and seven bytes, half of them in the first block": (1, 7, MILLION // 2),
}


@pytest.mark.parametrize(
    ("kind", "name", "scheme"),
    [
        *(("standalone", name, "tcp") for name in SMALL_FRAMES),
        ("standalone", "empty", "tls"),
        ("standalone", "of one byte", "tls"),
        ("dask", "of one byte", "tls"),
        ("dask", "of one byte, in the first block", "tcp"),
    ],
)
def test_a_million_small_frames(kind: str, name: str, scheme: str) -> None:
    first, second, shared = SMALL_FRAMES[name]
    lengths = (first, second) * (MILLION // 2)
    data = framing.pack(lengths, shared) + bytes(sum(lengths))
    with Target(kind, scheme) as target, attacker.enter(target.address) as sock:
        attacker.ping(sock)
        target.ask("held")

        def send() -> None:
            sock.sendall(data)
            if first:
                attacker.receive(sock)  # a header of one zero is the message 0
            else:
                attacker.ended(sock)  # an empty one is no message

        grown = target.peak_since(send)
        held = target.ask("held")
        check(held < 0.25, f"the loop was held for {held:.3f} s")
        check(grown < (128 if first else 64) * MiB, f"{grown / MiB:.0f} MiB")
        figure(f"loop held for {held * 1000:.0f} ms, {grown / MiB:.0f} MiB")


@pytest.mark.parametrize(
    "name",
    ["lists", "maps", "bytes", "text", "extensions", "big ints", "claims", "objects", "times"],
)
def test_a_bomb_costs_a_bounded_multiple(name: str) -> None:
    """Of its own size; less than 100 times, whatever it unfolds to."""
    size = MiB // 2
    header = {
        "lists": b"\xdd" + struct.pack(">I", size) + b"\x90" * size,
        "maps": b"\xdd" + struct.pack(">I", size) + b"\x80" * size,
        "bytes": b"\xdd" + struct.pack(">I", size // 2) + b"\xc4\x00" * (size // 2),
        "text": b"\xdd" + struct.pack(">I", size // 2) + b"\xd9\x00" * (size // 2),
        "extensions": b"\xdd" + struct.pack(">I", size // 3) + b"\xd4\x04\x00" * (size // 3),
        "big ints": msgpack.packb([msgpack.ExtType(4, b"\x7f" * 1784)] * (size // 1788)),
        "claims": (b"\xdd" + struct.pack(">I", size // 2)) * 450 + bytes(size // 2),
        "objects": b"\xdd" + struct.pack(">I", size // 3) + b"\xd4\x03\xc0" * (size // 3),
        "times": b"\xdd" + struct.pack(">I", size // 6) + b"\xd6\xff\0\0\0\0" * (size // 6),
    }[name]
    with Target("standalone", "tcp") as target:
        sock = attacker.enter(target.address, hello=OUR_HELLO)
        attacker.ping(sock)
        sock.settimeout(120)

        def send() -> None:
            sock.sendall(message(b"\x81\xa1x" + header))
            if name in ("claims", "objects"):
                attacker.ended(sock)  # it is no message
            else:
                attacker.receive(sock)

        grown = target.peak_since(send)
        check(grown < 100 * len(header), f"{grown / len(header):.0f} times")
        figure(f"{grown / len(header):.0f} times its size")
        sock.close()


def test_many_small_bad_messages_are_a_short_log() -> None:
    number = count(5000, 500)
    with Target("standalone", "tcp") as target:
        start = time.monotonic()
        for _ in range(number):
            sock = attacker.enter(target.address)
            sock.sendall(words(0, 0))
            attacker.ended(sock)
            sock.close()
        seconds = time.monotonic() - start
        lines = target.log().count("\n")
        check(lines <= 62 + seconds, lines)
        stats = target.ask("stats")
        ends = Counter(stats["broken"]) + Counter(stats["refused"])
        check(ends == {"framing": number}, stats)
        check(stats["unlogged"] >= number - lines, stats)
        figure(f"{number} bad messages, {lines} lines")
