"""What distributed, its tests and its plugins reach for inside connectors, listeners and comms."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import numpy as np
import pytest
from distributed import protocol
from distributed.comm import connect, utils
from distributed.comm.core import CommClosedError
from distributed.protocol import to_serialize

from sealwire.dask_backend import codec
from sealwire.dask_backend.sizes import is_small
from support.parties import Party, asynchronous, echo, pair


class Severe(BaseException):
    """Nothing that `except Exception` catches."""


@pytest.mark.parametrize("error", [BufferError, OSError, Severe])
@asynchronous
async def test_a_write_that_fails_closes_the_comm(ours: Party, error: type[BaseException]) -> None:
    def fail(*frames: Any) -> None:
        raise error

    async with pair(ours) as (near, _):
        near.stream.write = fail
        with pytest.raises(error):
            await near.write("x")
        assert near.closed()


@asynchronous
async def test_a_listener_that_stops_while_it_accepts_is_not_tried_again(ours: Party) -> None:
    """Its port is closed by the second attempt, and `connect` has a minute left.

    Older releases of distributed fail to accept in their own listener then.
    """
    listener = ours.listen(echo)
    await listener.start()
    address, original = listener.contact_address, listener._handle_stream

    async def stop_first(stream: Any, peer: Any) -> None:
        listener.stop()
        await original(stream, peer)

    listener.tcp_server.handle_stream = stop_first
    args = ours.security.get_connection_args("client")
    with pytest.raises(CommClosedError):
        await asyncio.wait_for(connect(address, timeout=60, **args), 10)


def memory_of(array: Any) -> Any:
    """What an array's bytes belong to at last."""
    owner = array
    while (below := owner.obj if isinstance(owner, memoryview) else owner.base) is not None:
        owner = below
    return owner


@asynchronous
async def test_an_array_lies_in_memory_of_numpys(party: Party) -> None:
    """However small it is: what the memory weighs can be asked.

    Beside 2 KiB of something else, a small array is no part of the first block.
    """
    async with pair(party) as (near, far):
        for size, beside in itertools.product((1, 1000, 100_000), (b"", bytes(3000))):
            await near.write({"x": to_serialize(np.ones(size, "u1")), "beside": beside})
            owner = memory_of((await far.read())["x"])
            assert type(owner) is np.ndarray
            assert owner.nbytes >= size


# The size from which on a thread serialises


def test_the_threshold_is_asked_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where distributed asks, which its configuration sets at the start and its tests later."""
    message = {"x": "y" * 1000}
    frames = [memoryview(bytearray(frame)) for frame in protocol.dumps(message)]
    assert is_small(message)
    assert codec.decode_short(frames) == message
    monkeypatch.setattr(utils, "OFFLOAD_THRESHOLD", 100)
    assert not is_small(message)
    assert codec.decode_short(frames) is codec.NOT_SHORT
    monkeypatch.setattr(utils, "OFFLOAD_THRESHOLD", 0)  # never
    assert is_small({"x": "y" * 20_000_000})
    assert codec.decode_short(frames) == message
