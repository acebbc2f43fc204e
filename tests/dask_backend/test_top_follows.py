"""`sealwire top` stays while its scheduler goes, and shows the one that comes in its place."""

from __future__ import annotations

import asyncio
import io
from typing import Any

import pytest
from distributed import Scheduler
from rich.console import Console

from sealwire.cli.certs.common import Failed
from sealwire.cli.top.asking import Asker
from sealwire.cli.top.command import follow
from sealwire.dask_backend import Security
from support.aio import until
from support.parties import asynchronous

ASK: dict[str, Any] = {"find": "", "rows": 10}
HERE = {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0", "dashboard": False}


class Screen:
    """A terminal that keeps what it was shown last."""

    def __init__(self) -> None:
        self._file = io.StringIO()
        self.console = Console(file=self._file, force_terminal=True, width=200, height=30)

    def shown(self) -> str:
        """What came since this was asked before."""
        text = self._file.getvalue()
        self._file.seek(0)
        self._file.truncate()
        return text

    async def wait_for(self, words: str, without: str = "\0") -> None:
        def there() -> bool:
            text = self.shown()
            return words in text and without not in text

        await until(there)


@asynchronous
async def test_it_outlives_its_scheduler() -> None:
    """The scheduler ends; another program has its port; another scheduler is there."""
    security, screen = Security.temporary(), Screen()
    async with Scheduler(security=security, port=0, **HERE) as first:
        port = first.port
        args = security.get_connection_args("client")
        asker = Asker(f"tls://127.0.0.1:{port}", args, timeout=30)
        following = asyncio.ensure_future(follow(asker, ASK, screen.console, 0.01))
        await screen.wait_for("first to expire: own CN=scheduler", without="is old")
    await screen.wait_for("what is shown is old: cannot connect to tls://127.0.0.1")

    async def answer(_: Any, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-x\r\n")
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", port):
        await screen.wait_for("failed: it does not speak TLS")
    async with Scheduler(security=security, port=port, **HERE):
        await screen.wait_for("first to expire: own CN=scheduler", without="is old")
        assert not following.done()
        following.cancel()
        with pytest.raises(asyncio.CancelledError):
            await following
        assert asker._comm is None


@asynchronous
async def test_it_ends_where_nothing_answers_at_first() -> None:
    security = Security.temporary()
    asker = Asker("tls://127.0.0.1:9", security.get_connection_args("client"), timeout=30)
    with pytest.raises(Failed, match=r"cannot connect to tls://127\.0\.0\.1:9: "):
        await follow(asker, ASK, Screen().console, 0.01)
