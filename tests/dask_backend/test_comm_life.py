"""A Dask comm's attributes and its end: stock's and ours, over tcp and tls, do the same."""

from __future__ import annotations

import asyncio
import errno
import gc
import socket
import weakref
from collections.abc import Callable

import dask
import numpy as np
import pytest
from distributed.comm.core import Comm, CommClosedError
from distributed.protocol import to_serialize

from support.parties import Party, assert_same, asynchronous, echo, pair, turns

LARGE = {"x": to_serialize(np.arange(3_000_000))}


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
@pytest.mark.parametrize("scheme", ["tcp", "tls"])
@asynchronous
async def test_an_address_that_is_taken_is_named(
    scheme: str, make_party: Callable[..., Party]
) -> None:
    """With the number at which distributed goes on with the next of several ports."""
    ours = make_party("ours", scheme)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        where = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(OSError, match="in use") as caught:
            await ours.listen(echo, where)
    number, words = caught.value.errno, caught.value.strerror
    del caught
    gc.collect()  # the socket, which Tornado leaves open
    assert number == errno.EADDRINUSE
    why = "address already in use; choose another host or port"
    assert words == f"cannot listen on {scheme}://{where}: {why}"


# Attributes


@asynchronous
async def test_comms_carry_what_dask_hangs_on_them(party: Party) -> None:
    async with pair(party, listen_args={"allow_offload": False}) as (near, far):
        assert (near.allow_offload, far.allow_offload) == (True, False)
        assert near.name is None
        near.name = "pool"
        assert " pool " in repr(near)
        near._pool = near._server = weakref.ref(near)
        for comm, other in ((near, far), (far, near)):
            assert comm.local_info == {**other.remote_info, "address": comm.local_address}
            assert comm.remote_info["address"] == comm.peer_address
            assert comm.handshake_options == {"compression": None, "pickle-protocol": 5}
            assert comm in {comm}
            assert weakref.ref(comm)() is comm
            assert comm != other


@pytest.mark.parametrize(("client", "agreed"), [("zlib", "zlib"), (None, None)])
@asynchronous
async def test_compression_is_negotiated(party: Party, client: str | None, agreed: str) -> None:
    # Between different addresses: on one host nothing is compressed.
    listen_args = {"where": "127.0.0.2:0"}
    overrides = {"handshake_overrides": {"compression": client}}
    with dask.config.set({"distributed.comm.compression": "zlib"}):
        async with pair(party, listen_args=listen_args, connect_args=overrides) as (near, far):
            for writer, reader in ((near, far), (far, near)):
                assert writer.handshake_options["compression"] == agreed
                zeros = np.zeros(1_000_000, "u1")
                size = await writer.write({"x": to_serialize(zeros)})
                assert (size < 100_000) == (agreed == "zlib")
                assert_same(await reader.read(), {"x": zeros})


@asynchronous
async def test_extra_info_tells_of_tls(party: Party) -> None:
    async with pair(party) as (near, far):
        if party.scheme == "tcp":
            assert near.extra_info == far.extra_info == {}
            return
        for comm, role in ((near, "scheduler"), (far, "client")):
            assert comm.extra_info["peercert"]["subject"] == ((("commonName", role),),)
            name, protocol_, bits = comm.extra_info["cipher"]
            assert protocol_ == "TLSv1.3"
            assert bits >= 128
            assert name.startswith("TLS_")


# Endings


@asynchronous
async def test_close_sends_close_notify(party: Party) -> None:
    async with pair(party) as (near, far):
        assert "closed" not in repr(near)
        await near.write({"last": "words"})
        await near.close()
        assert near.closed()
        assert "(closed)" in repr(near)
        assert await far.read() == {"last": "words"}
        with pytest.raises(CommClosedError, match=r"\w"):
            await far.read()
        assert far.closed()
        assert "(closed)" in repr(far)
        for comm in (near, far):
            with pytest.raises(CommClosedError):
                await comm.write({"too": "late"})
            with pytest.raises(CommClosedError):
                await comm.read()
            await comm.close()
            comm.abort()


@asynchronous
async def test_close_sends_what_is_queued(party: Party) -> None:
    async with pair(party) as (near, far):
        await near.write(LARGE)
        closing = asyncio.ensure_future(near.close())
        assert_same((await far.read())["x"], LARGE["x"].data)
        await closing
        with pytest.raises(CommClosedError):
            await far.read()


@asynchronous
async def test_abort_drops_at_once(party: Party) -> None:
    async with pair(party) as (near, far):
        await far.write(LARGE)
        near.abort()
        assert near.closed()
        for comm in (near, far):
            with pytest.raises(CommClosedError):
                await comm.read()
            assert comm.closed()


@asynchronous
async def test_a_comm_that_is_forgotten_closes(party: Party) -> None:
    arrived: asyncio.Future[Comm] = asyncio.get_running_loop().create_future()

    async def keep(comm: Comm) -> None:
        arrived.set_result(comm)

    async with party.listen(keep) as listener:
        near = await party.connect(listener.contact_address)
        far = await arrived
        gone = weakref.ref(near)
        del near
        gc.collect()
        assert gone() is None
        with pytest.raises(CommClosedError):
            await far.read()
        await far.close()


@pytest.mark.parametrize("offers", ["all", "nothing"])
@asynchronous
async def test_a_forgotten_wrapper_leaves_its_comm_open(party: Party, offers: str) -> None:
    """As tools wrap comms to hold back what is sent: a subclass, never initialised."""
    async with pair(party) as (near, far):

        class Wrapper(type(near)):  # type: ignore[misc]
            def __init__(self, comm: Comm) -> None:
                self.comm = comm

            def __getattr__(self, name: str) -> object:
                if offers == "nothing" or name == "comm":
                    raise AttributeError(name)
                return getattr(self.comm, name)

        wrapper = Wrapper(near)
        gone = weakref.ref(wrapper)
        del wrapper
        gc.collect()
        assert gone() is None
        await turns()
        assert not near.closed()
        for writer, reader in ((near, far), (far, near)):
            await writer.write({"still": "open"})
            assert await reader.read() == {"still": "open"}


@asynchronous
async def test_a_cancelled_read_closes_the_comm(party: Party) -> None:
    """Else the reply would go to whom the pool gives the comm next."""
    async with pair(party) as (near, far):
        reading = asyncio.ensure_future(near.read())
        await turns()
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        assert near.closed()
        with pytest.raises(CommClosedError):
            await far.read()


@asynchronous
async def test_a_read_that_waits_ends_with_the_comm(party: Party) -> None:
    async with pair(party) as (near, _):
        reading = asyncio.ensure_future(near.read())
        await turns()
        near.abort()
        with pytest.raises(CommClosedError):
            await reading


@asynchronous
async def test_stop_leaves_open_comms_alone(party: Party) -> None:
    listener = party.listen(echo)
    await listener.start()
    comm = await party.connect(listener.contact_address)
    address = listener.contact_address
    listener.stop()
    await comm.write({"still": "open"})
    assert await comm.read() == {"still": "open"}
    with pytest.raises(OSError, match="connect"):
        await party.connect(address, timeout=0.2)
    await comm.close()
