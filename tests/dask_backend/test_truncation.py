"""A TLS connection that somebody on the path ends: ours notices, whoever is at the other end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from distributed.comm.core import CommClosedError
from distributed.protocol import to_serialize

from support.cutting import DIRECTIONS, TO_DIALLER, cutting
from support.endings import kind_of
from support.parties import Party, asynchronous

SIZES = [10, 40_000, 0, 16_384, 100]
WHOLE = 1000  # more records than there are


class End:
    """What one side has received, and its error."""

    def __init__(self) -> None:
        self.seen: list[int] = []
        self.error: CommClosedError | None = None

    async def talk(self, comm: Any, *, sends: bool) -> None:
        try:
            if sends:
                for number, size in enumerate(SIZES):
                    await comm.write({"number": number, "data": to_serialize(bytes(size))})
                    await comm.read()
            else:
                while True:
                    message = await comm.read()
                    self.seen.append(message["number"])
                    await comm.write("next")
        except CommClosedError as error:
            self.error = error
        await comm.close()


async def converse(
    dialler: Party, acceptor: Party, direction: str, records: int
) -> tuple[End, End, int]:
    """Who dialled, who listened, and the records that passed."""
    near, far = End(), End()
    accepted: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    async def handle(comm: Any) -> None:
        accepted.set_result(comm)

    async with (
        acceptor.listen(handle) as listener,
        cutting(listener.contact_address, direction, records) as proxy,
    ):
        comm = await dialler.connect(proxy.address)
        other = await accepted
        proxy.begin()
        await asyncio.gather(
            near.talk(comm, sends=direction != TO_DIALLER),
            far.talk(other, sends=direction == TO_DIALLER),
        )
    return near, far, proxy.passed


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("version", [1.2, 1.3])
@pytest.mark.parametrize(
    "kinds", [("ours", "ours"), ("ours", "stock"), ("stock", "ours")], ids="-".join
)
@asynchronous
async def test_a_truncation_at_every_record_is_noticed(
    kinds: tuple[str, str],
    version: float,
    direction: str,
    make_party: Callable[..., Party],
) -> None:
    """It is never taken for the end that a peer of ours announces by close_notify."""
    dialler, acceptor = (
        make_party(kind, "tls", **({"tls_max_version": version} if kind == "ours" else {}))
        for kind in kinds
    )
    receives = 0 if direction == TO_DIALLER else 1
    *whole, passed = await converse(dialler, acceptor, direction, WHOLE)
    assert whole[receives].seen == list(range(len(SIZES)))
    announced = kinds[1 - receives] == "ours"  # the last record is close_notify
    if kinds[receives] == "ours":
        end = whole[receives].error
        assert end is not None
        assert kind_of(end) == ("closed" if announced else "unannounced")
    counts = []
    for records in range(passed + 1 - announced):
        *ends, reached = await converse(dialler, acceptor, direction, records)
        assert reached == records
        counts.append(len(ends[receives].seen))
        assert ends[receives].error is not None
        for kind, end_of in zip(kinds, ends, strict=True):
            if kind == "ours" and end_of.error is not None:
                assert kind_of(end_of.error) in ("unannounced", "lost"), records
    assert sorted(set(counts)) == list(range(len(SIZES) + 1))
    assert len(counts) > len(SIZES) + 1, "some messages have several records"
