"""`sealwire bench` at a server that is none: each measurement has a limit, and an error."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from click.testing import CliRunner

from sealwire.cli.bench import command as bench_command
from sealwire.cli.main import main
from sealwire.comm import CommClosedError, listen


async def takes_and_says_nothing(comm: Any) -> None:
    async for _ in comm:
        pass


async def takes_nothing(comm: Any) -> None:
    await asyncio.sleep(10)


async def answers_slower_and_slower(comm: Any) -> None:
    pause = 0.01
    async for message in comm:
        await asyncio.sleep(pause)
        pause *= 2
        await comm.write(message)


async def answers_with_a_list(comm: Any) -> None:
    async for _ in comm:
        await comm.write(["\x1b[2J"])


async def answers_with_nothing(comm: Any) -> None:
    async for _ in comm:
        await comm.write(None)


async def closes(comm: Any) -> None:
    await comm.read()


SERVERS = {
    takes_and_says_nothing: "measurement 1 of 10 was not done within",
    takes_nothing: "measurement 1 of 10 was not done within",
    answers_slower_and_slower: "measurement 1 of 10 was not done within",
    answers_with_a_list: "it answers with a list: it is no sealwire bench --serve",
    answers_with_nothing: "it answers with a NoneType: it is no sealwire bench --serve",
    closes: "closed by the peer",
}


@pytest.mark.parametrize("server", SERVERS, ids=lambda server: server.__name__)
def test_it_ends_in_words(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    hangs = "within" in SERVERS[server]
    monkeypatch.setattr(bench_command, "STEP_TIMEOUT", 0.2 if hangs else 10.0)

    async def measured() -> Any:
        async def attend(comm: Any) -> None:
            try:
                await server(comm)
            except CommClosedError:
                pass

        async with listen("tcp://127.0.0.1:0", attend) as listener:
            command = ["bench", listener.contact_address, "--seconds", "0.01"]
            return await asyncio.to_thread(CliRunner().invoke, main, command)

    began = time.monotonic()
    done = asyncio.run(measured())
    assert time.monotonic() - began < 15
    assert done.exit_code == 1
    assert SERVERS[server] in " ".join(done.output.split())
    assert "\x1b" not in done.output
