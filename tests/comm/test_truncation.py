"""Whoever is on the path can end TCP in order, but not TLS: each such end is noticed."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from sealwire.comm import CloseCode, Comm, CommClosedError, connect, listen
from support import certs
from support.aio import aio
from support.cutting import DIRECTIONS, TO_DIALLER, cutting
from support.handshakes import security

CA = certs.root()
SIZES = [10, 40_000, 0, 16_384, 100]  # one record for each of most; 40 KB take three
WHOLE = 1000  # more records than there are


class Party:
    """What one side has received, and how that ended; None for an end without an error."""

    def __init__(self) -> None:
        self.seen: list[int] = []
        self.end: CommClosedError | None = None

    async def talk(self, comm: Comm, *, sends: bool) -> None:
        try:
            if sends:
                for number, size in enumerate(SIZES):
                    await comm.write([number, bytes(size)])
                    await comm.read()
                await comm.close(3000, "all is said")
            else:
                while True:
                    number, content = await comm.read()
                    assert len(content) == SIZES[number]
                    self.seen.append(number)
                    await comm.write("next")
        except CommClosedError as error:
            self.end = error


async def converse(
    args: tuple[dict[str, Any], dict[str, Any]], direction: str, records: int
) -> tuple[Party, Party, int]:
    """Who sends, who receives, and the records that passed."""
    near, far = Party(), Party()
    accepted: asyncio.Future[Comm] = asyncio.get_running_loop().create_future()
    done = asyncio.Event()

    async def handle(comm: Comm) -> None:
        accepted.set_result(comm)
        await begun.wait()
        await far.talk(comm, sends=direction == TO_DIALLER)
        await comm.close()
        done.set()

    begun = asyncio.Event()
    async with (
        listen("tls://127.0.0.1:0", handle, **args[0]) as listener,
        cutting(listener.contact_address, direction, records) as proxy,
    ):
        comm = await connect(proxy.address, **args[1])
        await accepted
        proxy.begin()
        begun.set()
        await near.talk(comm, sends=direction != TO_DIALLER)
        await comm.close()
        await done.wait()
    return *((far, near) if direction == TO_DIALLER else (near, far)), proxy.passed


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("version", ["1.2", "1.3"])
@aio
async def test_a_truncation_at_every_record_is_noticed(version: str, direction: str) -> None:
    """By both sides, and by who receives, after as many messages as have come."""
    one = security(certs.leaf(CA, "node"), [CA], tls_max_version=version)
    args = one.get_listen_args("scheduler"), one.get_connection_args("worker")
    sender, receiver, passed = await converse(args, direction, WHOLE)
    assert sender.end is None
    assert receiver.seen == list(range(len(SIZES)))
    assert receiver.end is not None
    assert (receiver.end.code, receiver.end.reason) == (3000, "all is said")
    counts = []
    for records in range(passed - 1):  # the last two are the closing message and close_notify
        sender, receiver, reached = await converse(args, direction, records)
        assert reached == records
        assert receiver.seen == list(range(len(receiver.seen)))
        counts.append(len(receiver.seen))
        assert receiver.end is not None
        assert sender.end is not None or records >= passed - 2
        for end in (receiver.end, sender.end):
            if end is not None:
                assert (end.code, end.clean, end.kind) == (CloseCode.ABNORMAL, False, "lost")
                assert end.closed_by == "lost"
    assert sorted(set(counts)) == list(range(len(SIZES) + 1))
    assert len(counts) > len(SIZES) + 2, "some messages have several records"
    _, receiver, _ = await converse(args, direction, passed - 1)
    assert receiver.end is not None
    assert receiver.end.code == 3000, "without close_notify it is as clear"
