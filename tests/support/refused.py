"""Every way a handshake is refused, made to happen: what each side then says.

PYTHONPATH=tests .venv/bin/python tests/support/refused.py    prints the table of docs/errors.md
"""

from __future__ import annotations

import asyncio
import logging
import re
import ssl
from dataclasses import dataclass, field
from typing import Any

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from sealwire.comm import Comm, HandshakeError, connect, listen
from support import certs
from support.handshakes import VERSIONS, foreign_context, security

CA = certs.root("our CA")
OTHER_CA = certs.root("another CA")
GOOD = certs.leaf(CA, "good")
WEAK = "ALL:@SECLEVEL=0"


@dataclass
class Cause:
    """A certificate that is refused, and what the side that refuses it trusts and checks."""

    bad: certs.Node | None
    trust: list[certs.Node] = field(default_factory=lambda: [CA])
    crl: str | None = None
    allowed: list[str] | None = None
    sides: tuple[str, ...] = ("client", "server")
    described: bool = True  # whether the context that shows it knows its file


def _via(**changes: Any) -> certs.Node:
    between = certs.intermediate(CA, **changes)
    return certs.leaf(between, via=[between])


def _too_deep() -> certs.Node:
    first = certs.intermediate(CA, "first", constraints=x509.BasicConstraints(True, 0))
    second = certs.intermediate(first, "second")
    return certs.leaf(second, via=[second, first])


def _constrained() -> Cause:
    permitted = x509.NameConstraints([x509.DNSName("inside.example")], None)
    root = certs.root("constrained", extra=[(permitted, True)])
    return Cause(certs.leaf(root, "outside.example"), [CA, root])


def _broken_hash() -> Cause:
    root = certs.root("RSA root", key=certs.rsa_key(2048))
    # Only some releases of OpenSSL load it into a context of ours.
    return Cause(certs.with_sha1(certs.leaf(root), root), [CA, root], described=False)


def causes() -> dict[str, Cause]:
    """By the words of docs/errors.md."""
    leaf = certs.leaf
    revoked = leaf(CA)
    critical = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00")
    return {
        "expired": Cause(leaf(CA, end=-certs.SECOND)),
        "not valid yet": Cause(leaf(CA, start=certs.HOUR / 2)),
        "signed by another CA": Cause(leaf(OTHER_CA)),
        "signed by a CA of the same name": Cause(leaf(certs.root("our CA"))),
        "self-signed": Cause(certs.make("alone", names=["alone"])),
        "its intermediate is not sent": Cause(leaf(certs.intermediate(CA))),
        "an intermediate has expired": Cause(_via(end=-certs.SECOND)),
        "an intermediate is no CA": Cause(_via(constraints=None)),
        "chain too long": Cause(_too_deep()),
        "signature damaged": Cause(certs.with_flipped_signature(leaf(CA))),
        "for another purpose": Cause(leaf(CA, purposes=[ExtendedKeyUsageOID.CODE_SIGNING])),
        "name not allowed to its CA": _constrained(),
        "unknown critical extension": Cause(leaf(CA, extra=[(critical, True)])),
        "RSA key of 1024 bits": Cause(leaf(CA, key=certs.rsa_key(1024))),
        "SHA-1 signature": _broken_hash(),
        "revoked": Cause(revoked, crl=certs.crl(CA, revoked)),
        "revocation list expired": Cause(leaf(CA), crl=certs.crl(CA, end=-certs.SECOND)),
        "revocation list missing": Cause(leaf(CA), crl=certs.crl(OTHER_CA)),
        "not on the allow-list": Cause(leaf(CA, "worker"), allowed=["scheduler*"]),
        "no certificate": Cause(None, sides=("client",)),
    }


@dataclass(frozen=True)
class Words:
    """What the two sides of a refused handshake say, and the kind of the refuser's error."""

    refuser: str
    refused: str
    kind: str


async def refuse(cause: Cause, side: str, version: ssl.TLSVersion) -> Words:
    """Let the `side` with the bad certificate meet a good one that refuses it."""
    node = cause.bad or GOOD
    bad = foreign_context(side, cause.bad, [CA, *cause.trust], version=version, ciphers=WEAK)
    ours = security(GOOD, cause.trust, tls_crl_file=cause.crl, tls_allowed_peers=cause.allowed)
    if side == "client":
        good = ours.get_listen_args("scheduler")["ssl_context"]
        server, client = good, bad
    else:
        good = ours.get_connection_args("worker")["ssl_context"]
        server, client = bad, good
    known = security(node, [CA]) if cause.described and node.key and _loads(node) else None
    if known is not None:
        role = known.get_listen_args("scheduler")["ssl_context"]
        bad.describe = role.describe  # type: ignore[attr-defined]
    told: list[str] = []
    handled: list[Comm] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            told.append(record.getMessage())

    logger = logging.getLogger("sealwire.comm")
    keep, level = Keep(), logger.level
    logger.addHandler(keep)
    logger.setLevel(logging.INFO)
    try:
        async with listen("tls://127.0.0.1:0", handled.append, ssl_context=server) as listener:
            try:
                comm = await connect(listener.contact_address, timeout=20, ssl_context=client)
            except HandshakeError as error:
                client_error = error
            else:
                await comm.close()
                raise AssertionError("it was let in")
            while not told:
                await asyncio.sleep(0.001)
            stats = listener.stats
    finally:
        logger.removeHandler(keep)
        logger.setLevel(level)
    if handled or len(told) != 1 or sum(stats.refused.values()) != 1 or client_error.retryable:
        raise AssertionError(f"{handled}, {told}, {stats}, {client_error!r}")
    server_words = told[0].partition(": ")[2]
    (server_kind,) = stats.refused
    if side == "client":
        return Words(plain(server_words), plain(str(client_error)), server_kind)
    return Words(plain(str(client_error)), plain(server_words), client_error.kind)


def _loads(node: certs.Node) -> bool:
    """Whether our own contexts take the identity at all."""
    try:
        security(node, [CA]).get_listen_args("scheduler")
    except Exception:
        return False
    return True


def plain(words: str) -> str:
    """Without what differs from run to run."""
    words = re.sub(r"tls://[\d.]+:\d+", "tls://…", words)
    date = r"\d{4}-\d\d-\d\d( [\d:]+ UTC)?"
    words = re.sub(rf" \(it is [^,()]+, [^()]+ {date}\)", "", words)  # said by clients
    words = re.sub(date, "2026-11-20", words)
    words = re.sub(r"tls_\w+_cert \(PEM text in memory\)", "tls_worker_cert (worker.pem)", words)
    words = words.replace("tls_crl_file (PEM text in memory)", "tls_crl_file (crl.pem)")
    words = words.replace("(PEM text in memory)", "(ca.pem)")
    return words.removeprefix("TLS handshake with tls://… failed: ")


async def table() -> str:
    """The rows of docs/errors.md: real handshakes, both sides bad in turn, TLS 1.2 and 1.3."""
    rows = ["| cause | kind | who refuses says | who is refused says |", "|---|---|---|---|"]
    for name, cause in causes().items():
        seen: dict[tuple[str, str], Words] = {}
        for side in cause.sides:
            for version in VERSIONS:
                seen[side, version.name] = await refuse(cause, side, version)
        kinds = {words.kind for words in seen.values()}
        refuser = {words.refuser for words in seen.values()}
        refused = sorted({words.refused for words in seen.values()})
        if len(kinds) != 1 or len(refuser) != 1:
            raise AssertionError(f"{name}: {seen}")
        cells = [name, *(f"`{kind}`" for kind in kinds), *refuser, " *or* ".join(refused)]
        rows.append("| " + " | ".join(cells) + " |")
    return "\n".join(rows)


if __name__ == "__main__":
    print(asyncio.run(table()))
