"""Certificates of unauthenticated peers: how many are looked at, and who goes on meanwhile."""

from __future__ import annotations

import contextlib
import functools
import itertools
import ssl
import tempfile
import time

import pytest
from cryptography import x509

from sealwire.comm import HandshakeError, Limits, connect, listen
from sealwire.security import Security
from support import HANG, attacker, certs, handshakes
from support.aio import aio
from support.ambush import Ambush
from support.attacker import Context, Socket
from support.crowds import meanwhile
from support.links import echo
from support.target import Target, check, count, figure, within

KINDS = ["standalone", "dask"]
each_kind = pytest.mark.parametrize("kind", KINDS)
VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]
each_version = pytest.mark.parametrize("version", VERSIONS, ids=lambda version: version.name)


def shown(node: certs.Node, version: ssl.TLSVersion | None, server: bool = False) -> Context:
    """A context that shows a chain and verifies nobody."""
    context = Context(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if version is not None:
        context.minimum_version = context.maximum_version = version
    with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:
        file.write(node.pem + node.key_pem)
        file.flush()
        context.load_cert_chain(file.name)
    return context


@functools.cache
def long_chain(number: int) -> certs.Node:
    """A chain of that many certificates of one name, all signed by one key: 285 bytes each, and
    OpenSSL considers each of them for the issuer of each."""
    key = certs.p256()
    made = [
        certs.make("a", key=key, constraints=x509.BasicConstraints(True, None), subject_id=False)
        for _ in range(number)
    ]
    made[0].chain = made[1:]
    return made[0]


@functools.cache
def padded_chain() -> tuple[certs.Node, certs.Node]:
    """A CA, and a node of it behind three intermediates, of as many bytes as with RSA-4096 keys."""
    oid = x509.ObjectIdentifier("1.3.6.1.4.1.99999.1")
    padding = [(x509.UnrecognizedExtension(oid, bytes(1500)), False)]
    root = certs.root()
    chain = [root]
    for number in range(3):
        chain.append(certs.intermediate(chain[-1], f"intermediate {number}", extra=padding))
    return root, certs.leaf(chain[-1], "node", via=chain[:0:-1], extra=padding)


def knock(address: str, context: Context) -> None:
    with contextlib.suppress(OSError), attacker.dial(address, tls=context) as sock:
        sock.recv(1)


@each_kind
@each_version
def test_a_server_looks_at_no_more_than_a_real_chain(kind: str, version: ssl.TLSVersion) -> None:
    context = shown(long_chain(250), version)
    number = count(200, 20)
    with Target(kind, "tls", max_log_lines=number + 9) as target:
        target.ask("held")
        for _ in range(number):
            knock(target.address, context)
        stats = target.until_stats(accepted=number, pending=0)
        held = target.ask("held")
        check(stats["refused"] == {"too-large": number}, stats)
        check(held < 0.1, held)
        check("before it was done, the limit is 16384" in target.log(), target.log())
        check("Traceback" not in target.log(), target.log())
        figure(f"{number} chains of 71 KB, loop held for {held * 1000:.0f} ms at most")
        attacker.visit(target.address, attacker.context())


@each_version
@aio
async def test_a_client_looks_at_no_more_either(version: ssl.TLSVersion) -> None:
    context = shown(long_chain(250), version, server=True)

    def act(sock: Socket) -> None:
        with context.wrap_socket(sock, server_side=True) as tls:
            attacker.ended(tls, 20)

    security = Security.temporary()
    with Ambush("tls", act) as ambush:
        with pytest.raises(HandshakeError, match="before it was done, the limit is 16384") as error:
            await connect(ambush.address, timeout=20, **security.get_connection_args("worker"))
        check(ambush.accepted == 1, ambush.accepted)
    check(error.value.kind == "too-large" and not error.value.retryable)


@each_version
@aio
async def test_real_chains_are_let_in(version: ssl.TLSVersion) -> None:
    """On both sides, of the size that RSA-4096 keys give them; and longer ones by a limit."""
    root, node = padded_chain()
    size = sum(len(each.der) for each in (node, *node.chain))
    check(size > 7500, size)
    security = handshakes.security(node, [root])
    versions = {"tls_min_version": version, "tls_max_version": version}
    security = Security(**{**security.fields(), **versions})

    listener = listen("tls://127.0.0.1:0", echo, **security.get_listen_args("scheduler"))
    async with listener:
        args = security.get_connection_args("worker")
        async with connect(listener.contact_address, **args) as comm:
            await comm.write("in")
            check(await comm.read() == "in")
        with pytest.raises(HandshakeError, match=r"the limit is 4096.*Limits.max_handshake_size"):
            await connect(listener.contact_address, limits=Limits(max_handshake_size=4096), **args)


@each_kind
@each_version
def test_stalled_chains_cost_no_more(kind: str, version: ssl.TLSVersion) -> None:
    """They stop short of the end, one by one, with as much sent as is taken in."""
    number = count(150, 30)
    context = shown(long_chain(330), version)
    with Target(kind, "tls") as target:
        for warm in (context, attacker.context("foreign")):
            for _ in range(3):
                knock(target.address, warm)
        memory = target.resident()
        stalled = [attacker.shake_up_to(target.address, context, 16_000)[0] for _ in range(number)]
        target.until_stats(pending=number)
        grown = (target.resident() - memory) / number
        check(grown < 128 * 1024, f"{grown / 1024:.0f} KiB each")
        figure(f"{grown / 1024:.0f} KiB each")
        for sock in stalled:
            sock.sendall(bytes(5000))
        stats = target.until_stats(pending=0)
        check(sum(stats["refused"].values()) == number + 6, stats)
        for sock in stalled:
            sock.close()


OPENINGS = {
    "a hello of 100 KB": lambda: b"\x16\x03\x01\x40\x00\x01\x01\x86\xa0\x03\x03" + bytes(20_000),
    "records that change nothing": lambda: (
        attacker.client_hello() + b"\x14\x03\x03\x00\x01\x01" * 4000
    ),
    "alerts that end nothing": lambda: (
        attacker.client_hello() + b"\x15\x03\x03\x00\x02\x01\x5a" * 4000
    ),
}


@each_kind
@pytest.mark.parametrize("name", OPENINGS)
def test_what_leads_nowhere_ends(name: str, kind: str) -> None:
    """At the limit at the latest, whatever it is made of."""
    data = OPENINGS[name]()
    with Target(kind, "tls") as target:
        sock = attacker.dial(target.address)
        with contextlib.suppress(OSError):
            sock.sendall(data)
        attacker.ended(sock, 5)
        sock.close()
        target.until_stats(pending=0)
        check("Traceback" not in target.log(), target.log())
        attacker.visit(target.address, attacker.context())


@each_kind
def test_a_flood_of_long_chains(kind: str) -> None:
    """Some that are refused for their length, some as long as may be: open comms answer, and new
    clients come in."""
    contexts = [shown(long_chain(number), None) for number in (250, 50)]
    with Target(kind, "tls") as target:
        tls = attacker.context()
        inside = attacker.enter(target.address, tls=tls)
        turn = itertools.cycle(contexts)
        pings: list[float] = []
        visits: list[float] = []
        with meanwhile(lambda: knock(target.address, next(turn)), 8) as times:
            begun = time.monotonic()
            # A busy machine may need longer than that for a flood.
            while (seconds := time.monotonic() - begun) < count(20, 1) or times() <= 20:
                check(seconds < HANG, times())
                pings += [attacker.ping(inside) for _ in range(10)]
                visits.append(attacker.visit(target.address, tls))
            flooded = times()
        check(attacker.percentile(pings) < within(0.5), attacker.percentile(pings))
        check(max(visits) < within(1.5), max(visits))
        stats = target.ask("stats")
        check({"too-large", "other-ca"} & set(stats["refused"]), stats)
        figure(
            f"{flooded} connections, ping p99 {attacker.percentile(pings) * 1000:.0f} ms, "
            f"new ones in after {max(visits) * 1000:.0f} ms at most; {stats['refused']}"
        )
        inside.close()
