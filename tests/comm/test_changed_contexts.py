"""Contexts of others that change while they are in use: what was checked holds nevertheless."""

from __future__ import annotations

import asyncio
import ssl
import warnings
from collections.abc import Callable
from typing import Any

import pytest
from distributed.comm import connect as dask_connect

from sealwire.comm import CommClosedError, ConnectError, HandshakeError, connect, listen
from sealwire.comm.transport.race import Race
from sealwire.dask_backend import install, installed, uninstall
from support import certs
from support.aio import aio
from support.endings import error_of
from support.handshakes import foreign_context
from support.links import echo

IGNORE = getattr(ssl, "OP_IGNORE_UNEXPECTED_EOF", 0)
CA, ANOTHER = certs.root(), certs.root()

Change = Callable[[ssl.SSLContext], object]


def foreign(side: str, *, ignores: bool = False, node: Any = None) -> ssl.SSLContext:
    context = foreign_context(side, node or certs.leaf(CA), [CA])
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options = context.options & ~IGNORE | (IGNORE if ignores else 0)
    return context


def when_named(server: ssl.SSLContext, change: Callable[[ssl.SSLSocket], object]) -> None:
    """Have `change` called within each handshake, once the client has sent the server's name."""
    server.sni_callback = lambda sock, *_: change(sock)  # type: ignore[assignment]


def swapped(server: ssl.SSLContext, _: ssl.SSLContext) -> None:
    other = foreign("server")
    when_named(server, lambda sock: setattr(sock, "context", other))


def cleared(server: ssl.SSLContext, client: ssl.SSLContext) -> None:
    def clear(_: ssl.SSLSocket) -> None:
        for context in (server, client):
            context.options &= ~IGNORE

    when_named(server, clear)


@pytest.mark.skipif(not IGNORE, reason="OpenSSL before 3 has no such option")
@pytest.mark.parametrize("change", [swapped, cleared])
@aio
async def test_a_cut_is_no_end_although_the_option_is_gone(change: Callable[..., None]) -> None:
    """A connection goes by the options of its beginning."""
    server, client = foreign("server", ignores=True), foreign("client", ignores=True)
    change(server, client)
    accepted: asyncio.Queue[Any] = asyncio.Queue()
    over = asyncio.Event()

    async def hold(comm: Any) -> None:
        accepted.put_nowait(comm)
        await over.wait()

    async with listen("tls://127.0.0.1:0", hold, ssl_context=server) as listener:
        for near_is_cut in (True, False):
            comm = await connect(
                listener.contact_address, ssl_context=client, server_hostname="node"
            )
            other = await accepted.get()
            cut, by = (comm, other) if near_is_cut else (other, comm)
            by.abort()
            error = await error_of(cut.read())
            assert (error.kind, error.clean, error.closed_by) == ("lost", False, "lost")
        over.set()


def no_verification(context: ssl.SSLContext) -> None:
    context.verify_mode = ssl.CERT_NONE


def optional_verification(context: ssl.SSLContext) -> None:
    context.verify_mode = ssl.CERT_OPTIONAL


def old_version(context: ssl.SSLContext) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = ssl.TLSVersion.TLSv1_1


WEAKER: list[Change] = [no_verification, optional_verification, old_version]


@pytest.mark.parametrize("weaken", WEAKER)
@aio
async def test_a_listener_uses_no_context_that_has_become_weaker(weaken: Change) -> None:
    server = foreign("server")
    async with listen("tls://127.0.0.1:0", echo, ssl_context=server) as listener:
        weaken(server)
        with pytest.raises(ConnectError, match=r"closed by the peer|lost"):
            await connect(listener.contact_address, ssl_context=foreign("client"), max_attempts=1)
        assert listener.stats.refused == {"tls": 1}
        server.verify_mode = ssl.CERT_REQUIRED
        server.minimum_version = ssl.TLSVersion.TLSv1_2
        async with connect(listener.contact_address, ssl_context=foreign("client")) as comm:
            await comm.write("as strict as before")
            assert await comm.read() == "as strict as before"


@pytest.mark.parametrize("weaken", WEAKER)
@aio
async def test_a_dial_uses_no_context_that_has_become_weaker(
    weaken: Change, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even if it is strict again before the handshake is done."""
    client = foreign("client")
    server = foreign("server", node=certs.leaf(ANOTHER))

    def strict(_: ssl.SSLSocket) -> None:
        client.verify_mode = ssl.CERT_REQUIRED
        client.minimum_version = ssl.TLSVersion.TLSv1_2

    when_named(server, strict)
    winner = Race.winner

    async def connected(race: Race) -> Any:
        sock = await winner(race)
        weaken(client)
        return sock

    monkeypatch.setattr(Race, "winner", connected)
    async with listen("tls://127.0.0.1:0", echo, ssl_context=server) as listener:
        with pytest.raises(HandshakeError, match=r"our ssl_context (does not|speaks)") as caught:
            await connect(
                listener.contact_address, ssl_context=client, server_hostname="node", timeout=10
            )
        assert (caught.value.kind, caught.value.retryable) == ("tls", False)
        assert "; set context." in str(caught.value)


@pytest.mark.parametrize("name", [None, ""])
@aio
async def test_a_name_that_is_compared_must_be_given(name: str | None) -> None:
    """It is the default of `ssl.create_default_context`."""
    client = foreign("client", node=certs.leaf(CA))
    client.check_hostname = True
    before = installed()
    install()
    try:
        async with listen("tls://127.0.0.1:0", echo, ssl_context=foreign("server")) as listener:
            for dial in (connect, dask_connect):
                with pytest.raises(ValueError, match=r"pass server_hostname=…, or set context\."):
                    await dial(listener.contact_address, ssl_context=client, server_hostname=name)
            assert listener.stats.accepted == 0
            with pytest.raises(CommClosedError, match="Hostname mismatch"):
                await connect(
                    listener.contact_address, ssl_context=client, server_hostname="another"
                )
    finally:
        if not before:
            uninstall()
