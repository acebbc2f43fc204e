"""Stock and ours at the two ends of one connection, in both directions, over tcp and tls."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest
from distributed.comm.core import CommClosedError, FatalCommClosedError
from distributed.protocol import to_serialize

import sealwire.comm
from sealwire.security import Security
from support.parties import CLASSES, Party, assert_same, asynchronous, echo, pair

MakeParty = Callable[..., Party]
MiB = 1 << 20

#: dialler, acceptor
MIXED = pytest.mark.parametrize(("near", "far"), [("ours", "stock"), ("stock", "ours")])


@pytest.fixture
def parties(near: str, far: str, scheme: str, make_party: MakeParty) -> tuple[Party, Party]:
    return make_party(near, scheme), make_party(far, scheme)


@MIXED
@asynchronous
async def test_they_understand_each_other(parties: tuple[Party, Party]) -> None:
    one, other = parties
    async with pair(one, other) as (near, far):
        assert type(near) is CLASSES[one.kind, one.scheme]
        assert type(far) is CLASSES[other.kind, other.scheme]
        assert near.handshake_options == far.handshake_options
        assert near.handshake_options["compression"] is None
        array = np.arange(100_000.0)
        for writer, reader in ((near, far), (far, near)):
            await writer.write({"op": "x", "data": [to_serialize(array), {1, 2}]})
            assert_same(await reader.read(), {"op": "x", "data": (array, {1, 2})})


@MIXED
@asynchronous
async def test_large_arrays_pass(parties: tuple[Party, Party]) -> None:
    array = np.random.default_rng(2).integers(0, 255, 32 * MiB, dtype="u1")
    async with pair(*parties) as (near, far):
        for writer, reader in ((near, far), (far, near)):
            await writer.write({"x": to_serialize(array), "y": [to_serialize(array[: 5 * MiB])]})
            message = await reader.read()
            assert_same(message["x"], array)
            assert_same(message["y"], (array[: 5 * MiB],))


@MIXED
@asynchronous
async def test_large_arrays_cross(parties: tuple[Party, Party]) -> None:
    """Both directions at once: neither side may wait for the other to read first."""
    array = np.arange(2 * MiB)
    async with pair(*parties) as (near, far):
        for writer in (near, far):
            await writer.write({"x": to_serialize(array)})
        for message in await asyncio.gather(near.read(), far.read()):
            assert_same(message["x"], array)


@MIXED
@asynchronous
async def test_many_small_messages_keep_their_order(parties: tuple[Party, Party]) -> None:
    async def send(comm: Any) -> None:
        for number in range(2_000):
            await comm.write({"n": number, "x": b"x" * (number % 100)})

    async def receive(comm: Any) -> list[int]:
        return [(await comm.read())["n"] for _ in range(2_000)]

    async with pair(*parties) as (near, far):
        _, got, _, got_back = await asyncio.gather(
            send(near), receive(far), send(far), receive(near)
        )
        assert got == got_back == list(range(2_000))


@MIXED
@asynchronous
async def test_many_comms_at_once(parties: tuple[Party, Party]) -> None:
    near, far = parties

    async def talk(number: int) -> None:
        comm = await near.connect(listener.contact_address)
        array = np.full(number * 1_000, number)
        for _ in range(5):
            await comm.write({"n": number, "x": to_serialize(array)})
            assert_same(await comm.read(), {"n": number, "x": array})
        await comm.close()

    async with far.listen(echo) as listener:
        await asyncio.gather(*(talk(number) for number in range(24)))


@MIXED
@pytest.mark.parametrize("ending", ["close", "abort"])
@asynchronous
async def test_the_end_is_understood(parties: tuple[Party, Party], ending: str) -> None:
    for leaver in (0, 1):
        async with pair(*parties) as comms:
            await comms[leaver].write({"last": "words"})
            assert await comms[1 - leaver].read() == {"last": "words"}
            if ending == "close":
                await comms[leaver].close()
            else:
                comms[leaver].abort()
            with pytest.raises(CommClosedError):
                await comms[1 - leaver].read()
            assert comms[1 - leaver].closed()


@MIXED
@asynchronous
async def test_peers_of_another_ca_are_refused(
    near: str, far: str, make_party: MakeParty, foreign_material: dict[str, str]
) -> None:
    """In TLS 1.2, where also a stock client learns of it in the handshake."""
    old = {"tls_max_version": ssl.TLSVersion.TLSv1_2}
    client, server = make_party(near, "tls", **foreign_material, **old), make_party(far, "tls")
    async with server.listen(echo) as listener:
        with pytest.raises(FatalCommClosedError):
            await client.connect(listener.contact_address)


# The standalone comm: plain messages, with bytes inside

PLAIN = {
    "op": "put",
    "n": [1, -2, 2.5, None, True],
    "data": {"bytes": b"\0\1" * 50_000, "text": "ü"},
    "large": bytes(3 * MiB),
}
AS_STOCK_READS = {**PLAIN, "n": (1, -2, 2.5, None, True)}


@pytest.fixture
def standalone(scheme: str, material: dict[str, str]) -> Security:
    return Security(**material) if scheme == "tls" else Security()


@pytest.fixture(params=["ours", "stock"])
def dask_party(request: pytest.FixtureRequest, scheme: str, make_party: MakeParty) -> Party:
    return make_party(request.param, scheme)


async def _exchange(standalone: Any, dask_comm: Any) -> None:
    for _ in range(3):
        # At once: a standalone write waits until the kernel has its buffers.
        _, received = await asyncio.gather(standalone.write(PLAIN), dask_comm.read())
        assert received == AS_STOCK_READS
        _, received = await asyncio.gather(dask_comm.write(received), standalone.read())
        assert received == PLAIN
    await standalone.close()
    with pytest.raises(CommClosedError):
        await dask_comm.read()
    await dask_comm.close()


@asynccontextmanager
async def _kept(listening: Callable[..., Any]) -> AsyncIterator[tuple[Any, asyncio.Future[Any]]]:
    """A listener, and the first comm that it accepts; its handler lasts as long as the listener."""
    accepted: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    over = asyncio.Event()

    async def keep(comm: Any) -> None:
        accepted.set_result(comm)
        await over.wait()

    async with listening(keep) as listener:
        try:
            yield listener, accepted
        finally:
            over.set()


@asynchronous
async def test_a_standalone_client_talks_to_dask(dask_party: Party, standalone: Security) -> None:
    async with _kept(dask_party.listen) as (listener, accepted):
        args = standalone.get_connection_args("client")
        comm = await sealwire.comm.connect(listener.contact_address, **args)
        await _exchange(comm, await accepted)


@asynchronous
async def test_dask_talks_to_a_standalone_server(dask_party: Party, standalone: Security) -> None:
    def listening(handler: Callable[..., Any]) -> Any:
        args = standalone.get_listen_args("scheduler")
        return sealwire.comm.listen(f"{dask_party.scheme}://127.0.0.1:0", handler, **args)

    async with _kept(listening) as (listener, accepted):
        comm = await dask_party.connect(listener.contact_address)
        await _exchange(await accepted, comm)
