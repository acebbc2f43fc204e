"""When a stream sends, receives and resumes its reader, seen from the other end of the socket."""

from __future__ import annotations

import asyncio
import asyncio.futures
import gc
import itertools
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import psutil
import pytest
import uvloop

from sealwire.comm import Comm, CommClosedError, Limits, connect, listen
from sealwire.comm.transport.stream import FrameStream
from sealwire.comm.transport.wakeup import resume
from sealwire.comm.wire import closing as closing_message
from sealwire.comm.wire import hello
from sealwire.comm.wire.framing import ONE_FRAME, pack
from support.aio import aio
from support.links import SCHEMES, connect_args, echo, listen_args, pair

LoopFactory = Callable[[], asyncio.AbstractEventLoop]
loops = pytest.mark.parametrize(
    "loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"]
)


@asynccontextmanager
async def raw_peer(limits: Limits | None = None) -> AsyncIterator[tuple[Comm, socket.socket]]:
    """A comm over plain TCP, and a non-blocking socket at its other end, the hellos done."""
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        connecting = asyncio.ensure_future(_connect(address, limits))
        server.setblocking(False)
        peer, _ = await loop.sock_accept(server)
    with peer:
        peer.setblocking(False)
        await loop.sock_recv(peer, 65536)
        frame = hello.encode(hello.offer())
        await loop.sock_sendall(peer, pack([len(frame)], 1) + frame)
        comm = await connecting
        yield comm, peer
        comm.abort()


async def _connect(address: str, limits: Limits | None) -> Comm:
    return await connect(address, limits=limits)


def available(peer: socket.socket) -> int:
    """Bytes that have arrived at a socket; loopback delivers within the send."""
    try:
        return len(peer.recv(1 << 20, socket.MSG_PEEK))
    except BlockingIOError:
        return 0


@aio
async def test_a_message_is_sent_before_write_returns() -> None:
    async with raw_peer() as (comm, peer):
        size = await comm.write("alone")
        assert available(peer) == size


@aio
async def test_messages_that_follow_closely_share_a_send() -> None:
    async with raw_peer() as (comm, peer):
        sizes = [await comm.write(number) for number in range(1000)]
        held = sum(sizes) - available(peer)
        assert held > sum(sizes) / 2  # the first went alone; where the machine paused, others did
        await asyncio.sleep(0)
        assert available(peer) == sum(sizes)


@aio
async def test_only_so_much_waits_for_company() -> None:
    async with raw_peer() as (comm, peer):
        waiting = 0
        for _ in range(100):
            waiting += await comm.write("x" * 4000)
            if available(peer):
                waiting -= len(peer.recv(1 << 20))
            assert waiting <= 64 * 1024 + 4100


@aio
async def test_a_large_message_takes_the_small_ones_before_it_along() -> None:
    async with raw_peer() as (comm, peer):
        total = 0
        for number in range(10):
            total += await comm.write(number)
        total += await comm.write(b"x" * 30_000)
        assert available(peer) == total


@aio
async def test_abort_sends_what_only_waited_for_company() -> None:
    async with raw_peer() as (comm, peer):
        total = sum([await comm.write(number) for number in range(100)])
        comm.abort()
        peer.settimeout(30)
        got = b""
        while data := peer.recv(65536):
            got += data
        assert len(got) == total


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("size", [16 * 1024, 64 * 1024, 1 << 20])
@aio
async def test_the_last_message_is_read_though_the_end_came_with_it(scheme: str, size: int) -> None:
    """Whole TLS records make the stream ask for more, and it meets the end in the same event."""

    async def say_and_go(comm: Comm) -> None:
        await comm.read()
        await comm.write(bytes(size))

    async with listen(f"{scheme}://127.0.0.1:0", say_and_go, **listen_args(scheme)) as listener:
        comm = await connect(listener.contact_address, **connect_args(scheme))
        reading = asyncio.ensure_future(comm.read())
        await comm.write("go")
        assert len(await reading) == size
        with pytest.raises(CommClosedError) as caught:
            await comm.read()
        assert caught.value.clean


@pytest.mark.parametrize("scheme", SCHEMES)
@loops
@aio
async def test_a_reader_keeps_its_task_and_context(scheme: str, loop_factory: LoopFactory) -> None:
    """A task that is resumed within an event is as any other."""
    async with (
        listen(f"{scheme}://127.0.0.1:0", echo, **listen_args(scheme)) as listener,
        connect(listener.contact_address, **connect_args(scheme)) as comm,
    ):
        task = asyncio.current_task()
        for number in range(100):
            await comm.write(number)
            assert await comm.read() == number
            assert asyncio.current_task() is task
            await asyncio.wait_for(asyncio.sleep(0), 30)


@pytest.mark.parametrize("scheme", SCHEMES)
@loops
@aio
async def test_a_reader_may_close_within_its_event(scheme: str, loop_factory: LoopFactory) -> None:
    async with pair(scheme) as (near, far):

        async def read_one() -> object:
            message = await far.read()
            far.abort()
            return message

        reading = asyncio.ensure_future(read_one())
        await asyncio.sleep(0)
        for number in range(3):
            await near.write(number)
        assert await reading == 0
        with pytest.raises(CommClosedError):
            await far.read()


@aio
async def test_a_wakeup_resumes_its_waiter_at_once() -> None:
    log: list[str] = []
    wakeup: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def wait() -> None:
        await wakeup
        log.append("resumed")

    task = asyncio.ensure_future(wait())
    await asyncio.sleep(0)

    def event() -> None:
        resume(wakeup)
        log.append("after")

    asyncio.get_running_loop().call_soon(event)
    await task
    assert log == ["resumed", "after"]


@pytest.mark.parametrize("end", ["result", "exception", "cancel"])
@aio
async def test_a_wakeup_is_a_future(end: str) -> None:
    wakeup: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def wait() -> str:
        try:
            await wakeup
        except LookupError:
            return "exception"
        return "result"

    task = asyncio.ensure_future(wait())
    await asyncio.sleep(0)
    if end == "cancel":
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert wakeup.cancelled()
    else:
        if end == "result":
            wakeup.set_result(None)
        else:
            wakeup.set_exception(LookupError())
        assert not task.done()
        resume(wakeup)  # too late, and harmless
        assert await task == end


@aio
async def test_a_future_of_another_loop_s_kind_is_resumed_by_the_loop() -> None:
    """One that does not tell its callbacks: slower, and otherwise the same."""
    inner = asyncio.get_running_loop().create_future()

    class Other:
        done, set_result = inner.done, inner.set_result

        def __await__(self) -> Any:
            return inner.__await__()

    async def wait() -> str:
        await other
        return "resumed"

    other: Any = Other()
    task = asyncio.ensure_future(wait())
    await asyncio.sleep(0)
    resume(other)
    resume(other)
    assert await task == "resumed"


@pytest.mark.parametrize("waiters", [0, 1, 2, 5])
@pytest.mark.parametrize("kind", [asyncio.Future, asyncio.futures._PyFuture])  # type: ignore[attr-defined]
@aio
async def test_each_waiter_of_a_future_is_resumed_once(kind: Any, waiters: int) -> None:
    """Of both of asyncio's own; what is private of them is used here alone."""
    future = kind(loop=asyncio.get_running_loop())
    log: list[int] = []

    async def wait(number: int) -> None:
        await future
        log.append(number)

    tasks = [asyncio.ensure_future(wait(number)) for number in range(waiters)]
    await asyncio.sleep(0)

    def event() -> None:
        resume(future)
        resume(future)
        assert log == [0][:waiters]

    asyncio.get_running_loop().call_soon(event)
    await future
    await asyncio.gather(*tasks)
    assert log == list(range(waiters))


@pytest.mark.parametrize("scheme", SCHEMES)
@aio
async def test_a_large_message_leaves_the_loop_its_turns(scheme: str) -> None:
    """As many turns at the end of a message as at its beginning: nothing piles up in the loop."""
    size = 128 << 20
    async with pair(scheme) as (near, far):
        turns: list[int] = []

        async def count() -> None:
            while True:
                turns.append(far._stream.bytes_in)  # type: ignore[attr-defined]
                await asyncio.sleep(0)

        counting = asyncio.ensure_future(count())
        writing = asyncio.ensure_future(near.write(bytearray(size)))
        assert len(await far.read()) == size
        counting.cancel()
        await writing
        steps = [after - before for before, after in itertools.pairwise(turns)]
        assert max(steps) <= 16 << 20


@aio
async def test_close_waits_for_a_peer_that_takes_a_little_at_a_time() -> None:
    """Ten times as long as `close_timeout` in all, and nothing is cut off."""
    loop = asyncio.get_running_loop()
    async with raw_peer(Limits(close_timeout=0.3)) as (comm, peer):
        content = bytes(48 << 20)
        writing = asyncio.ensure_future(comm.write(content))
        await asyncio.sleep(0)
        closing = asyncio.ensure_future(comm.close())
        taken = 0
        while part := await loop.sock_recv(peer, 1 << 20):
            taken += len(part)
            await asyncio.sleep(0.04)  # the slow link
        size = await writing
        assert taken == size + ONE_FRAME + len(closing_message.encode(1000, ""))
        await closing
        with pytest.raises(CommClosedError, match="we closed it"):
            await comm.write(1)


@pytest.mark.parametrize("said", [b"", b"\x16"], ids=["silent", "one byte"])
@aio
async def test_a_peer_that_resets_before_the_handshake_is_a_lost_connection(said: bytes) -> None:
    """And leaves no descriptor, though nothing collects garbage."""
    context = listen_args("tls")["ssl_context"]
    gc.disable()
    try:
        with socket.create_server(("127.0.0.1", 0)) as server:
            peer = socket.create_connection(server.getsockname())
            accepted, _ = server.accept()
            accepted.setblocking(False)
            before = psutil.Process().num_fds()
            peer.send(said)
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            peer.close()
            stream = FrameStream(accepted, Limits(), "tls://peer:1")
            with pytest.raises(CommClosedError, match="before the TLS handshake") as caught:
                await stream.secure(context, server_side=True)
            assert caught.value.retryable
            after = psutil.Process().num_fds()
            assert after == before - 2
    finally:
        gc.enable()
