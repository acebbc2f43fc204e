"""Contexts that take a cut connection for a closed one, as those of older CPythons do.

CPython 3.11.2 among others sets ``OP_IGNORE_UNEXPECTED_EOF`` for every context with OpenSSL 3: then
the end of a killed process, or one that somebody on the path has made, reads like close_notify.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable

import pytest
import uvloop

from sealwire.comm import CloseCode, Comm, connect, listen
from sealwire.comm.tls_details import is_eof
from sealwire.security.contexts.policy import Policy, empty_context
from sealwire.security.contexts.sealed import SealedContext
from support import certs
from support.aio import aio
from support.endings import documented, error_of, row
from support.handshakes import foreign_context

IGNORE = ssl.OP_IGNORE_UNEXPECTED_EOF
CA = certs.root()

loops = pytest.mark.parametrize(
    "loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"]
)


def careless(side: str) -> ssl.SSLContext:
    context = foreign_context(side, certs.leaf(CA), [CA])
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= IGNORE
    return context


class OldContext(SealedContext):
    """One that is made as an older CPython makes it."""

    def __new__(cls, protocol: int) -> OldContext:
        context = super().__new__(cls, protocol)
        context.options |= IGNORE
        return context


@pytest.mark.parametrize("ending", ["abort", "close"])
@loops
@aio
async def test_a_cut_connection_was_closed_by_nobody(
    ending: str, loop_factory: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    """On both sides; a closing message counts nevertheless."""
    accepted: asyncio.Queue[Comm] = asyncio.Queue()
    over = asyncio.Event()

    async def handler(comm: Comm) -> None:
        accepted.put_nowait(comm)
        await over.wait()

    async def opened() -> tuple[Comm, Comm]:
        near = await connect(listener.contact_address, ssl_context=careless("client"))
        return near, await accepted.get()

    server = careless("server")
    async with listen("tls://127.0.0.1:0", handler, ssl_context=server) as listener:
        for swapped in (False, True):
            dialled, answered = await opened()
            ours, theirs = (answered, dialled) if swapped else (dialled, answered)
            if ending == "abort":
                theirs.abort()
            else:
                await theirs.close()
            error = await error_of(ours.read())
            expected = (CloseCode.NORMAL, "peer") if ending == "close" else (1006, "lost")
            assert (error.code, error.closed_by) == expected
            assert error.clean == (ending == "close")
            assert row(error) in documented()
        over.set()


@pytest.mark.parametrize("side", ["server", "client"])
def test_our_contexts_never_ignore_it(side: str) -> None:
    context = empty_context(OldContext, side, Policy())  # type: ignore[arg-type]
    assert not context.options & IGNORE


def test_the_error_that_older_pythons_have_no_class_for() -> None:
    error = ssl.SSLError(1, "[SSL: UNEXPECTED_EOF_WHILE_READING] unexpected eof while reading")
    error.reason = "UNEXPECTED_EOF_WHILE_READING"
    assert is_eof(error)
    error.reason = "WRONG_VERSION_NUMBER"
    assert not is_eof(error)
    assert is_eof(ssl.SSLEOFError(8, "EOF occurred in violation of protocol"))
    assert not is_eof(ConnectionResetError())
