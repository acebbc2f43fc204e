"""A peer whose certificate says what nobody expects is served or refused, in words, by either side.

The CA has signed it. What Python's `ssl` makes of it is anybody's guess.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import ssl
from typing import Any

import distributed.comm
import pytest

from sealwire.comm import CommClosedError, HandshakeError, connect, listen
from sealwire.dask_backend import install, uninstall
from sealwire.security import PeerNotAllowed
from support import HANG, certs, oddities
from support.aio import aio
from support.handshakes import (
    VERSIONS,
    client_context,
    foreign_context,
    security,
    server_context,
    shake,
)

CA = certs.root()
GOOD = certs.leaf(CA, "good")
ODD = oddities.oddities(CA)
EVERYBODY, NOBODY, ODD_ONLY = ["*"], ["nobody*", "sha256:" + 64 * "0"], ["odd", "good*", "a"]
TLS1_2, TLS1_3 = VERSIONS
KINDS = {"certificate", "by-peer", "not-allowed", "expired", "not-yet-valid", "too-large"}
# OpenSSL 3.6 does not parse these, and says anything but that.
NOT_PARSED = {"registered ID unending", "directory name, no UTF-8", "names that do not parse"}
# The list is looked at before either face hears of a peer; and it is the same for both sides and
# versions, so every two of these values meet, and not every three.
ONE_WAY = [("client", TLS1_2), ("server", TLS1_3)]
OTHER_WAY = [("client", TLS1_3), ("server", TLS1_2)]
WAYS: dict[str, tuple[str, list[str] | None, list[tuple[str, ssl.TLSVersion]]]] = {
    "no list": ("standalone", None, ONE_WAY),
    "everybody": ("standalone", EVERYBODY, OTHER_WAY),
    "nobody": ("standalone", NOBODY, ONE_WAY),
    "odd": ("standalone", ODD_ONLY, OTHER_WAY),
    "dask, no list": ("dask", None, OTHER_WAY),
    "dask, odd": ("dask", ODD_ONLY, ONE_WAY),
}


@functools.cache
def loads(side: str, name: str, version: ssl.TLSVersion) -> ssl.SSLContext | None:
    """A context that shows an odd certificate; None if OpenSSL itself does not load it."""
    try:
        return foreign_context(side, ODD[name], [CA], version=version)
    except ssl.SSLError:
        return None


async def serve(comm: Any) -> None:
    try:
        await comm.write(await comm.read())
        await comm.read()
    except OSError:
        pass
    finally:
        with contextlib.suppress(OSError):
            await comm.close()


async def met(
    face: str, server: ssl.SSLContext, client: ssl.SSLContext, timeout: float
) -> tuple[str, Any]:
    """What a client of that context gets from such a server, and the listener's counters."""
    args: dict[str, Any] = {"ssl_context": server, "require_encryption": True}
    listening = listen if face == "standalone" else distributed.comm.listen
    dialling = connect if face == "standalone" else distributed.comm.connect
    listener = await listening("tls://127.0.0.1:0", serve, **args)
    try:
        try:
            comm: Any = await dialling(
                listener.contact_address,
                timeout=timeout,
                ssl_context=client,
                require_encryption=True,
            )
            await comm.write("served")
            said = await comm.read()
            await comm.close()
        except HandshakeError as error:
            said = f"HandshakeError: {error}"
        except (CommClosedError, OSError) as error:
            said = f"{type(error).__name__}: {error}"
        while listener.stats.pending:
            await asyncio.sleep(0)
        return said, listener.stats
    finally:
        listener.stop()


@pytest.fixture(params=["standalone", "dask"])
def face(request: pytest.FixtureRequest) -> Any:
    install()
    yield request.param
    uninstall()


@pytest.mark.parametrize(
    ("face", "allowed", "odd_side", "version"),
    [
        pytest.param(face, allowed, side, version, id=f"{name}-{side}-{version.name}")
        for name, (face, allowed, ways) in WAYS.items()
        for side, version in ways
    ],
    indirect=["face"],
)
def test_it_is_served_or_refused_in_words(
    face: str,
    odd_side: str,
    version: ssl.TLSVersion,
    allowed: list[str] | None,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Also where a warning would be an error."""
    caplog.set_level(logging.INFO, "sealwire")
    ours = security(GOOD, [CA], tls_allowed_peers=allowed, tls_max_version=version)
    good = server_context(ours) if odd_side == "client" else client_context(ours)
    _all_met(face, odd_side, version, good, caplog, allowed)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("face", "odd_side", "version"),
    [
        *(("standalone", *way) for way in ONE_WAY),
        *(("dask", *way) for way in OTHER_WAY),
    ],
    indirect=["face"],
)
def test_so_it_is_by_a_context_that_is_not_ours(
    face: str, odd_side: str, version: ssl.TLSVersion, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "sealwire")
    good = foreign_context("server" if odd_side == "client" else "client", GOOD, [CA])
    _all_met(face, odd_side, version, good, caplog, None)


@aio
async def _all_met(
    face: str,
    odd_side: str,
    version: ssl.TLSVersion,
    good: ssl.SSLContext,
    caplog: pytest.LogCaptureFixture,
    allowed: list[str] | None,
) -> None:
    unhandled: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, what: unhandled.append(what))
    served = refused = 0
    for name, node in ODD.items():
        odd = loads(odd_side, name, version)
        if odd is None:
            continue
        caplog.clear()
        server, client = (good, odd) if odd_side == "client" else (odd, good)
        again = "64 KB" in name  # to OpenSSL it is a failure of its own, and it is tried again
        said, stats = await met(face, server, client, 0.2 if again else HANG)
        lines = [record for record in caplog.records if record.name == "sealwire.comm"]
        assert not unhandled, (name, unhandled)
        assert all(record.exc_info is None for record in lines), (name, lines)
        assert all(record.getMessage().isprintable() for record in lines), name
        if said == "served":
            served += 1
            assert stats.refused == {}, name
            assert not lines, (name, lines)
            assert allowed != NOBODY, name
            if allowed == ODD_ONLY:
                assert _has_name(node), name
        else:
            refused += 1
            if again:
                continue
            assert "TLS handshake with tls://" in said, (name, said)
            assert said.isprintable(), (name, said)
            assert len(said) < 3000, name
            assert len(lines) == 1, (name, lines)
            assert sum(stats.refused.values()) == 1, (name, stats)
            unparsed = {"other-ca", "cipher", "tls"} if name in NOT_PARSED else set()
            assert set(stats.refused) <= KINDS | unparsed, (name, stats)
            assert said.startswith(("HandshakeError", "FatalCommClosedError")), (name, said)
    assert refused > 10
    assert served > 20 or allowed in (NOBODY, ODD_ONLY)


def _has_name(node: certs.Node) -> bool:
    """Whether "odd" or "a" is among the names that a person reads in it."""
    return any(text in node.der for text in (b"\x03odd", b"\x82\x01a"))


@pytest.mark.parametrize(
    "more", ["\0.evil", "\n.evil", "\x1b[2J", "\x7f", "\u202e", "\u200b", "\x85"]
)
def test_a_name_that_a_person_would_misread_matches_nothing(more: str) -> None:
    ours = security(GOOD, [CA], tls_allowed_peers=["good*"])
    text = f"good{more}".encode()
    subject = oddities.with_subject(CA, (oddities.CN, oddities.UTF8, text))
    address = oddities.with_names(CA, oddities.der(0x86, text))
    for node in (subject, address):
        outcome = shake(server_context(ours), foreign_context("client", node, [CA]))
        assert isinstance(outcome.server.error, PeerNotAllowed)
        assert outcome.server.received == outcome.client.received == b""
