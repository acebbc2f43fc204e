"""The server name in a ClientHello is what anybody may write: it reaches no output of ours."""

from __future__ import annotations

import ssl
import struct

import pytest

from support import attacker
from support.target import MODES, Target, check, count

NAMES = {
    "ASCII": b"scheduler.example",
    "Latin-1": b"sched\xfcler",
    "UTF-8": "schedüler.example".encode(),
    "no UTF-8": b"\xff\xfe\x80",
    "every byte from 0x80": bytes(range(0x80, 0x100)),
    "mixed": b"a.\xff.b",
    "IDNA": b"xn--bcher-kva.example",
    "IDNA that is none": b"xn--\xff",
    "IDNA of nothing": b"xn--",
    "empty": b"",
    "null byte": b"sched\0uler",
    "control characters": b"\x1b[31m\r\nINFO:sealwire.comm:let in",
    "dots": b"....",
    "a label of 64": b"a" * 64,
    "255": b"a" * 255,
    "255 that are no ASCII": b"\xff" * 255,
    "256": b"\xff" * 256,
    "16 KiB": b"\xe9" * 16000,
    "surrogates": b"\xed\xa0\x80",
    "an address": b"127.0.0.1",
}
VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
PLACEHOLDER = b"placeholder.example"


def client_hello(name: bytes, version: ssl.TLSVersion, kind: int = 0) -> bytes:
    """A TLS record with a ClientHello that asks for `name`."""
    context = attacker.context(None, version)
    out = ssl.MemoryBIO()
    tls = context.wrap_bio(ssl.MemoryBIO(), out, server_hostname=PLACEHOLDER.decode())
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    body = out.read()[9:]  # without record and handshake headers
    at = 34  # version and random
    at += 1 + body[at]
    at += 2 + int.from_bytes(body[at : at + 2], "big")
    at += 1 + body[at]
    extensions = body[at + 2 :]
    asked = struct.pack(">HHHBH", 0, len(name) + 5, len(name) + 3, kind, len(name)) + name
    before = struct.pack(
        ">HHHBH", 0, len(PLACEHOLDER) + 5, len(PLACEHOLDER) + 3, 0, len(PLACEHOLDER)
    )
    check(extensions.count(before + PLACEHOLDER) == 1, "this OpenSSL writes it otherwise")
    extensions = extensions.replace(before + PLACEHOLDER, asked)
    body = body[:at] + len(extensions).to_bytes(2, "big") + extensions
    handshake = b"\x01" + len(body).to_bytes(3, "big") + body
    return b"".join(
        b"\x16\x03\x01" + len(piece).to_bytes(2, "big") + piece
        for piece in (handshake[i : i + 16384] for i in range(0, len(handshake), 16384))
    )


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("kind", "mode"),
    [("standalone", "plain"), ("standalone", "optimised"), ("dask", "plain"), ("dask", "uvloop")],
)
def test_no_server_name_prints_anything(kind: str, mode: str, version: str) -> None:
    """Nor is it of any use: who has a certificate is let in under each that OpenSSL takes."""
    hellos = {name: client_hello(text, VERSIONS[version]) for name, text in NAMES.items()}
    hellos["of another kind"] = client_hello(b"\xff\xff", VERSIONS[version], 0xFF)
    answered = 0
    with Target(kind, "tls", **MODES[mode]) as target:
        for _ in range(count(full=50, reduced=2)):
            for name, hello in hellos.items():
                with attacker.dial(target.address) as sock:
                    sock.sendall(hello)
                    first = sock.recv(1)
                    check(first in (b"\x15", b"\x16"), f"{name} was answered with {first!r}")
                    answered += first == b"\x16"
        target.until_stats(pending=0)
        log = target.log()
        check(answered >= 10, answered)
        for line in log.splitlines():
            check(line.startswith("INFO:sealwire.comm:listener on tls://127.0.0.1:"), log[:3000])
        check(len(log) < 64 << 10, len(log))
        check(log.isascii(), log[:3000])
        attacker.visit(target.address, attacker.context("client", VERSIONS[version]))
