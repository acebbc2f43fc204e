"""`connect` against servers that mean no good, in the standalone comm and in the Dask backend."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from collections.abc import Callable, Iterator
from typing import Any

import distributed.comm
import msgpack
import psutil
import pytest

from sealwire.comm import CommClosedError, connect
from sealwire.dask_backend import install, installed, uninstall
from sealwire.security import Security
from support import ambush, attacker
from support.aio import aio
from support.ambush import Ambush, behind_tls, say
from support.attacker import HELLO, message, words
from support.target import Target, check, count, figure, identities

KINDS = ["standalone", "dask"]
each_kind = pytest.mark.parametrize("kind", KINDS)
HANG = 30.0


@functools.cache
def security() -> Security:
    files = identities()
    return Security(tls_ca_file=files["ca"], tls_worker_cert=files["client"])


async def dial(kind: str, address: str, timeout: float = HANG) -> Any:
    """A comm of either kind."""
    encrypted = address.startswith("tls")
    args = security().get_connection_args("worker") if encrypted else {}
    if kind == "standalone":
        return await connect(address, timeout=timeout, **args)
    with backends_installed():
        return await distributed.comm.connect(
            address, timeout=timeout, **args, **({} if encrypted else {"encryption_decided": True})
        )


@contextlib.contextmanager
def backends_installed() -> Iterator[None]:
    before = installed()
    install()
    try:
        yield
    finally:
        if not before:
            uninstall()


SILENCE: dict[str, tuple[str, Callable[[], ambush.Act]]] = {
    "silent": ("tcp", lambda: say(b"")),
    "trickling hello": ("tcp", lambda: ambush.trickle(HELLO)),
    "silent for TLS": ("tls", lambda: say(b"")),
    "trickling TLS record": ("tls", lambda: ambush.trickle(b"\x16\x03\x03\x40\x00" + bytes(500))),
    "silent behind TLS": ("tls", lambda: behind_tls(say(b""))),
    "trickling behind TLS": ("tls", lambda: behind_tls(ambush.trickle(HELLO))),
    "half a hello behind TLS": ("tls", lambda: behind_tls(say(HELLO[:20]))),
}


@each_kind
@aio
async def test_the_timeout_covers_the_hello(kind: str) -> None:
    """`connect(timeout=2)` is back within 3 s and leaves no descriptor (shorter here).

    Mostly this waits: for all kinds of servers at once.
    """
    timeout = count(20, 7) / 10
    # A full run holds it to the promise; an everyday one may share two cores with floods.
    late = count(1, 4)

    async def meet(name: str, server: Ambush) -> None:
        start = time.monotonic()
        with pytest.raises(OSError, match=r"[Tt]ime|no answer|no hello"):
            await dial(kind, server.address, timeout)
        seconds = time.monotonic() - start
        check(timeout - 0.2 < seconds < timeout + late, name, seconds)
        figure(f"{name}: timeout {timeout:g} s, back after {seconds:.2f} s")

    with contextlib.ExitStack() as running:
        servers = {
            name: running.enter_context(Ambush(scheme, act()))
            for name, (scheme, act) in SILENCE.items()
        }
        with backends_installed():
            await asyncio.gather(*(meet(name, server) for name, server in servers.items()))
        ports = {int(server.address.rpartition(":")[2]) for server in servers.values()}
        mine = [
            c
            for c in psutil.Process().net_connections("tcp")
            if c.raddr and c.raddr.port in ports and c.status == psutil.CONN_ESTABLISHED
        ]
        check(not mine, mine)


ANSWERS = {
    "zeros": words(0, 0),
    "a huge block": words(1 << 62, 1),
    "no frames": words(16, 0, 0),
    "a huge frame": words(16, 1, 1 << 62),
    "no msgpack": message(b"\xc1"),
    "a list": attacker.packed([1]),
    "nested too deeply": message(b"\x91" * 60_000),
    "over the limit": attacker.packed({**msgpack.unpackb(HELLO[24:]), "more": "x" * 70_000}),
    "HTTP": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "a ClientHello": attacker.client_hello(attacker.context(None)),
}


@pytest.mark.parametrize("scheme", ["tcp", "tls"])
@pytest.mark.parametrize("name", ANSWERS)
@each_kind
@aio
async def test_a_bad_answer_ends_connect_at_once(kind: str, name: str, scheme: str) -> None:
    act = say(ANSWERS[name])
    with Ambush(scheme, behind_tls(act) if scheme == "tls" else act) as server:
        start = time.monotonic()
        with pytest.raises(OSError, match=server.address) as caught:
            await dial(kind, server.address)
        check(time.monotonic() - start < 5)
        check("CommClosedError" in str(type(caught.value).__mro__), repr(caught.value))
        check(server.accepted == 1, f"{server.accepted} attempts")


NO_TLS = {
    "our own wire": HELLO,
    "HTTP": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "an SSH banner": b"SSH-2.0-OpenSSH_9.2\r\n",
    "zeros": bytes(100),
    "a record of 64 KiB": b"\x16\x03\x03\xff\xff" + bytes(100),
    "an alert": b"\x15\x03\x03\x00\x02\x02\x28",
    "injected before TLS": HELLO + b"\x16\x03\x03\x00\x7a\x02\x00\x00\x76\x03\x03" + bytes(116),
}


@pytest.mark.parametrize("name", NO_TLS)
@each_kind
@aio
async def test_a_server_without_tls_ends_connect_at_once(kind: str, name: str) -> None:
    with Ambush("tls", say(NO_TLS[name])) as server:
        with pytest.raises(OSError, match=server.address):
            await dial(kind, server.address)
        check(server.accepted == 1, f"{server.accepted} attempts")


@pytest.mark.parametrize("name", ["foreign", "expired"])
@each_kind
@aio
async def test_a_bad_certificate_ends_connect_at_once(kind: str, name: str) -> None:
    said = {"foreign": r"our CA: tls_ca_file \(.*ca\.pem\)", "expired": "it has expired"}[name]
    with Ambush("tls", behind_tls(say(HELLO), name=name)) as server:
        with pytest.raises(OSError, match=said):
            await dial(kind, server.address)
        check(server.accepted == 1, f"{server.accepted} attempts")


@pytest.mark.parametrize("scheme", ["tcp", "tls"])
@aio
async def test_a_slow_network_changes_nothing(scheme: str) -> None:
    """Pieces of any size, with pauses: every message comes whole and in order."""
    with (
        Target("standalone", scheme) as target,
        Ambush(scheme, ambush.proxy(target.address)) as between,
    ):
        comm = await dial("standalone", between.address)
        sizes = [0, 1, 100, 4096, 70_000, 500_000] * count(5, 1)
        for number, size in enumerate(sizes):
            await comm.write([number, bytes([number]) * size])
        for number, size in enumerate(sizes):
            check(await comm.read() == [number, bytearray([number]) * size], number)
        await comm.close()
        check(target.ask("stats")["broken"] == {})


@pytest.mark.parametrize("scheme", ["tcp", "tls"])
@aio
async def test_a_cut_delivers_whole_messages_and_an_error(scheme: str) -> None:
    """Wherever the connection is cut."""
    with Target("standalone", scheme) as target:
        for cut in range(50, 10_000, count(97, 997)):
            with Ambush(scheme, ambush.proxy(target.address, cut_after=cut, seed=cut)) as between:
                got = []
                with pytest.raises(CommClosedError):  # noqa: PT012
                    try:
                        comm = await dial("standalone", between.address, timeout=0.3)
                    except OSError as error:  # in the handshake, at each attempt
                        raise CommClosedError(str(error)) from error
                    for number in range(20):
                        with contextlib.suppress(CommClosedError):
                            await comm.write([number, bytes(500)])
                    while True:
                        got.append(await comm.read())
                check(got == [[number, bytearray(500)] for number in range(len(got))])
        check("Traceback" not in target.log(), target.log())
