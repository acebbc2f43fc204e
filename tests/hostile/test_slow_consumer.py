"""A peer that takes less than it is sent: past `Limits.max_queued` its comm is closed."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import distributed.comm
import numpy as np
import pytest
from distributed.protocol import to_serialize

from sealwire.comm import CommClosedError, Limits, connect, listen
from sealwire.comm.transport.stream import FrameStream
from sealwire.dask_backend import Security, install, uninstall
from support import attacker
from support.aio import aio, until
from support.attacker import packed
from support.target import MODES, SLOW_CONSUMER, MiB, Target, check, figure, identities

each_kind = pytest.mark.parametrize("kind", ["standalone", "dask"])
each_scheme = pytest.mark.parametrize("scheme", ["tcp", "tls"])
LIMIT = 2 * MiB
KERNELS = 12 * MiB  # what the kernels at both ends may take from a sender, and room
MESSAGE = 64 << 10  # of the target's sources


# From outside


@pytest.mark.parametrize("mode", MODES)
@each_scheme
def test_a_peer_that_takes_nothing_is_closed_and_no_other(scheme: str, mode: str) -> None:
    """A Dask comm's writes never wait."""
    with Target("dask", scheme, max_queued=LIMIT, **MODES[mode]) as target:
        tls = attacker.context() if scheme == "tls" else None
        other = attacker.enter(target.address, tls=tls)
        slow = attacker.enter(target.address, tls=tls)
        attacker.ping(other)

        def flood() -> None:
            slow.sendall(packed({"op": "source", "count": 400 * MiB // MESSAGE}))
            target.until_stats(broken={"slow-consumer": 1})

        grown = target.peak_since(flood)
        sent = target.ask("sent")
        attacker.ping(other)
        check(LIMIT < sent < LIMIT + KERNELS, sent)
        check(grown < LIMIT + 10 * MiB, grown)
        lines = SLOW_CONSUMER.findall(target.log())
        check(len(lines) == 1, target.log())
        (_, queued, limit, _) = lines[0]
        check(int(limit) == LIMIT < int(queued) <= LIMIT + 3 * MESSAGE, lines)
        check("Traceback" not in target.log(), target.log())
        whole = 0
        try:  # what it takes at last are whole messages, and then the end
            while True:
                attacker.receive(slow)
                whole += 1
        except (OSError, EOFError, AssertionError):
            pass
        check(whole * MESSAGE <= sent, "more than was sent")
        figure(f"{scheme}: {grown / MiB:.1f} MiB for {sent / MiB:.1f} MiB sent, {whole} arrived")
        for sock in (slow, other):
            sock.close()


@each_scheme
def test_a_writer_that_waits_is_held_back_instead(scheme: str) -> None:
    """Standalone writers wait, also where the limit is below `write_ahead`."""
    with Target("standalone", scheme, max_queued=100_000) as target:
        tls = attacker.context() if scheme == "tls" else None
        slow = attacker.enter(target.address, tls=tls)
        slow.sendall(packed({"op": "source", "count": 500}))
        seen = -1
        while seen != (seen := target.ask("sent")) or not seen:
            time.sleep(0.2)
        check(seen < 500 * MESSAGE, "it has taken all of it")
        for _ in range(500):
            attacker.receive(slow)
        attacker.ping(slow)
        check(target.ask("stats")["broken"] == {}, target.log())
        slow.close()


# From inside


@asynccontextmanager
async def pair(kind: str, scheme: str, limits: dict[str, Any]) -> AsyncIterator[tuple[Any, Any]]:
    """Both ends of a comm; `limits` are those of the first, which has dialled."""
    files = identities()
    security = Security(
        tls_ca_file=files["ca"],
        tls_scheduler_cert=files["server"],
        tls_client_cert=files["client"],
        require_encryption=scheme == "tls",
    )
    listen_args = security.get_listen_args("scheduler") if scheme == "tls" else {}
    connect_args = security.get_connection_args("client") if scheme == "tls" else {}
    arrived: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    done = asyncio.Event()

    async def keep(comm: Any) -> None:
        arrived.set_result(comm)
        await done.wait()

    address = f"{scheme}://127.0.0.1:0"
    try:
        if kind == "dask":
            import dask

            install()
            plain = {"require_encryption": False, "encryption_decided": True}
            listener = await distributed.comm.listen(address, keep, **(listen_args or plain))
            keys = {f"sealwire.limits.{k.replace('_', '-')}": v for k, v in limits.items()}
            with dask.config.set(keys):
                near = await distributed.comm.connect(
                    listener.contact_address, **(connect_args or plain)
                )
        else:
            for args in (listen_args, connect_args):
                args.pop("encryption_decided", None)
            listener = await listen(address, keep, **listen_args)
            near = await connect(listener.contact_address, limits=Limits(**limits), **connect_args)
        try:
            yield near, await arrived
        finally:
            done.set()
            near.abort()
            if arrived.done():
                arrived.result().abort()  # Dask's servers leave that to the handler
            listener.stop()
    finally:
        if kind == "dask":
            uninstall()


def stream_of(comm: Any) -> Any:
    return comm.stream if hasattr(comm, "stream") else comm._stream


@each_scheme
@each_kind
@aio
async def test_writer_and_reader_get_the_error(
    kind: str, scheme: str, caplog: pytest.LogCaptureFixture
) -> None:
    """All writers of a comm, and its reader; one line of log; nothing that was queued is kept."""
    caplog.set_level(logging.INFO, "sealwire")
    closed = CommClosedError if kind == "standalone" else distributed.comm.CommClosedError
    limits = {"max_queued": LIMIT, "write_ahead": MESSAGE, "close_timeout": 0.3}
    async with pair(kind, scheme, limits) as (near, _):
        reading = asyncio.ensure_future(near.read())
        payload = np.ones(MESSAGE, "u1")
        message = payload if kind == "standalone" else to_serialize(payload)
        writing = [asyncio.ensure_future(near.write({"x": message})) for _ in range(500)]
        outcomes = await asyncio.gather(*writing, reading, return_exceptions=True)
        failed = [each for each in outcomes if isinstance(each, BaseException)]
        assert 100 < len(failed) < 500
        for error in failed:
            assert isinstance(error, closed)
        late = "closed" if kind == "dask" else ""  # a Dask comm says no more than that, after
        words = [str(error) for error in failed]
        assert all(SLOW_CONSUMER.search(w) or (late and late in w) for w in words), words[:3]
        assert SLOW_CONSUMER.search(str(outcomes[-1])), "the reader is told too"
        causes = [error.__cause__ if kind == "dask" else error for error in failed]
        assert {each.kind for each in causes if each is not None} == {"slow-consumer"}
        found = SLOW_CONSUMER.search(words[0])
        assert found is not None
        assert int(found[3]) == LIMIT < int(found[2]) <= LIMIT + 3 * MESSAGE
        assert near.closed()
        lines = [
            line.getMessage() for line in caplog.records if "queued unsent" in line.msg % line.args
        ]
        assert len(lines) == 1, lines
        outbox = stream_of(near)._sender.outbox
        assert outbox.queued == outbox.sent
        assert not outbox._chunks
        assert not outbox._small


@each_scheme
@aio
async def test_a_cancelled_write_counts(scheme: str) -> None:
    """It is sent all the same, so that a writer that gives up again and again is one that does not
    wait."""
    async with pair("standalone", scheme, {"max_queued": LIMIT}) as (near, _):
        outcomes: list[BaseException] = []
        while not near.closed() and len(outcomes) < 1000:
            writing = asyncio.ensure_future(near.write(bytes(MESSAGE)))
            await asyncio.sleep(0)
            writing.cancel()
            outcomes += await asyncio.gather(writing, return_exceptions=True)
        assert near.closed()
        assert SLOW_CONSUMER.search(str(outcomes[-1]))
        assert any(isinstance(each, asyncio.CancelledError) for each in outcomes)


@each_scheme
@each_kind
@aio
async def test_one_message_may_be_larger_than_the_limit(kind: str, scheme: str) -> None:
    """And what follows it does not end the comm of a peer that is still busy taking it."""
    large = np.ones(32 * MiB, "u1")
    async with pair(kind, scheme, {"max_queued": 1 * MiB}) as (near, far):
        for _ in range(3):
            first = asyncio.ensure_future(
                near.write({"x": large if kind == "standalone" else to_serialize(large)})
            )
            await (first if kind == "dask" else asyncio.sleep(0))  # a thread encodes it
            behind = [asyncio.ensure_future(near.write({"n": n})) for n in range(1000)]
            assert len((await far.read())["x"]) == 32 * MiB
            for n in range(1000):
                assert await far.read() == {"n": n}
            await asyncio.gather(first, *behind)


@aio
async def test_a_burst_to_a_peer_that_takes_it_is_allowed() -> None:
    """Though the loop has had no turn in which to send more of it."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        far = socket.create_connection(listening.getsockname())
        sock, _ = listening.accept()
    sock.setblocking(False)
    far.setblocking(False)
    asyncio.current_task().add_done_callback(lambda _: far.close())  # type: ignore[union-attr]
    stream = FrameStream(sock, Limits(max_queued=256 << 10), "tcp://a:1")
    stream.open()
    outbox = stream._sender.outbox
    taken = again = 0
    for _ in range(100):
        while outbox.queued - outbox.sent <= (256 << 10) + 10_024:  # to be found by the next
            stream.write([bytes(10_000)])
        while True:
            try:
                taken += len(far.recv(1 << 20))
            except BlockingIOError:
                break
        if taken == stream.bytes_out:
            stream.write([bytes(10_000)])
            again += 1
    assert again, "it was never found over the limit"
    for _ in range(10_000):
        try:
            stream.write([bytes(10_000)])
        except CommClosedError as error:
            assert SLOW_CONSUMER.search(str(error))
            break
    assert stream.closed(), "it takes nothing any more"


@aio
async def test_there_is_no_limit_by_default() -> None:
    assert Limits().max_queued is None
    async with pair("dask", "tcp", {}) as (near, far):
        for _ in range(1000):
            await near.write({"x": b"x" * MESSAGE})
        assert stream_of(near)._sender.outbox.queued > 60 * MiB
        for _ in range(1000):
            assert len((await far.read())["x"]) == MESSAGE


@aio
async def test_what_is_closed_for_it_lets_go_of_its_waiters() -> None:
    """`close` and `drain` too."""
    async with pair("standalone", "tcp", {"max_queued": 1 * MiB}) as (near, _):
        writing = [asyncio.ensure_future(near.write(bytes(MESSAGE))) for _ in range(20)]
        await until(
            lambda: bool(stream_of(near)._sender._waiters) or all(w.done() for w in writing)
        )
        closing = asyncio.ensure_future(near.close())
        writing += [asyncio.ensure_future(near.write(bytes(MESSAGE))) for _ in range(500)]
        outcomes = await asyncio.gather(*writing, closing, return_exceptions=True)
        assert outcomes[-1] is None
        assert any(isinstance(each, CommClosedError) for each in outcomes)
