"""A server process that is killed and started again at the same address, under load."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import json
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from support import forking, programs


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


class Server:
    """``calls_server`` as a process; `kept` is what it was told and has kept."""

    def __init__(
        self, address: str, folder: Path, credentials: dict[str, str], *flags: str
    ) -> None:
        self.address = address
        self.file = folder / "kept"
        self.file.touch()
        self._folder = folder
        self._credentials = credentials
        self._flags = flags
        self.process: forking.Popen | None = None
        self.starts = 0

    def start(self) -> None:
        self.process = forking.Popen(
            "program",
            programs.command("calls_server", self.address, str(self.file), *self._flags),
            cwd=self._folder,
            env=programs.environment(),
            stdin=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(self._credentials))
        self.process.stdin.close()
        assert self.process.stdout.readline() == "ready\n"
        self.starts += 1

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            assert self.process.stdout is not None
            self.process.stdout.close()

    @property
    def kept(self) -> collections.Counter[str]:
        return collections.Counter(self.file.read_text().split())


@contextlib.asynccontextmanager
async def killed_again_and_again(
    server: Server, times: int, seconds: float, progress: Callable[[], int]
) -> AsyncIterator[asyncio.Task[None]]:
    """Kill the server `times` times, each time when `seconds` have passed and work was done."""

    async def kill() -> None:
        run = asyncio.get_running_loop().run_in_executor
        for _ in range(times):
            began, before = time.monotonic(), progress()
            while time.monotonic() - began < seconds or progress() == before:
                await asyncio.sleep(0.01)
            await run(None, server.kill)
            await run(None, server.start)

    await asyncio.get_running_loop().run_in_executor(None, server.start)
    killing = asyncio.ensure_future(kill())
    try:
        yield killing
    finally:
        killing.cancel()
        await asyncio.wait([killing])
        await asyncio.get_running_loop().run_in_executor(None, server.kill)
