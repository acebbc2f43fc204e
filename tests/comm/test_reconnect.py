"""A client that connects again: what is final, what is sent again, and what is told."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import uvloop

from sealwire.comm import (
    CallLost,
    Calls,
    CallTimeout,
    CloseCode,
    Comm,
    ReconnectingClient,
    listen,
    register_type,
)
from sealwire.security import Security
from support.aio import aio, until
from support.calling import House, Sleeper
from support.restarting import Server, free_port, killed_again_and_again

loops = pytest.mark.parametrize(
    "loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"]
)


# Each scheme and each loop once: calls are sent again above both.
@pytest.mark.parametrize(
    ("scheme", "loop_factory"),
    [("tcp", asyncio.new_event_loop), ("tls", uvloop.new_event_loop)],
    ids=["tcp-asyncio", "tls-uvloop"],
)
@aio
async def test_no_acknowledged_call_is_lost_by_a_server_that_is_killed(
    scheme: str, loop_factory: Callable[[], asyncio.AbstractEventLoop], tmp_path: Path
) -> None:
    credentials: dict[str, str] = {}
    args: dict[str, Any] = {}
    if scheme == "tls":
        security = Security.temporary()
        credentials = {
            name: getattr(security, name)
            for name in ("tls_ca_file", "tls_scheduler_cert", "tls_scheduler_key")
        }
        args = security.get_connection_args("worker")
    address = f"{scheme}://127.0.0.1:{free_port()}"
    flags = ["--uvloop"] if loop_factory is uvloop.new_event_loop else []
    server = Server(address, tmp_path, credentials, *flags)
    await hammer(server, 4, 0.15, args)


async def hammer(server: Server, times: int, seconds: float, args: dict[str, Any]) -> int:
    """Call while the server is killed; return how many calls were acknowledged."""
    done: set[str] = set()
    unsure: set[str] = set()
    async with (
        killed_again_and_again(server, times, seconds, lambda: len(done)) as killing,
        ReconnectingClient(server.address, backoff_cap=1.0, **args) as client,
    ):

        async def use(name: str, method: str, idempotent: bool) -> None:
            number = 0
            while not killing.done():
                number += 1
                token = f"{name}-{number}"
                try:
                    assert token == await client.call(
                        method, token, timeout=50, idempotent=idempotent
                    )
                    done.add(token)
                except CallLost as error:
                    assert not idempotent
                    assert error.may_have_run
                    unsure.add(token)

        await asyncio.gather(
            *(use(f"{method}-{again}-{n}", method, again)
              for method in ("keep", "keep_later") for again in (True, False) for n in range(4))
        )  # fmt: skip
        await killing
    kept = server.kept
    assert server.starts == times + 1
    assert not done - kept.keys(), "acknowledged and lost"
    assert not kept.keys() - done - unsure, "kept, and nobody was told"
    twice = {token for token, count in kept.items() if count > 1}
    assert all("-True-" in token for token in twice), "sent twice though it must not be"
    return len(done)


@aio
async def test_a_lost_call_is_sent_again_only_if_that_was_chosen() -> None:
    sleeper = Sleeper()
    house = House(sleep=sleeper)
    async with (
        house.listen() as listener,
        ReconnectingClient(listener.contact_address, backoff=0.001) as client,
    ):
        again = asyncio.ensure_future(client.call("sleep", "a", idempotent=True))
        once = asyncio.ensure_future(client.call("sleep", "b"))
        await sleeper.until(lambda s: s.started == 2)
        house.guests[0].comm.abort()
        with pytest.raises(CallLost, match=r"call of 'sleep' .* it may have run") as caught:
            await once
        assert caught.value.may_have_run
        await sleeper.until(lambda s: s.started == 3)
        sleeper.go.set()
        assert await again == "a"
        assert house.arrived == 2


@aio
async def test_a_call_waits_for_a_server_that_is_not_there_yet() -> None:
    port = free_port()
    async with ReconnectingClient(f"tcp://127.0.0.1:{port}", backoff_cap=0.1) as client:
        with pytest.raises(CallTimeout, match=r"no session within 0\.05\d* s") as caught:
            await client.call("now", timeout=0.05)
        assert not caught.value.may_have_run
        waiting = asyncio.ensure_future(client.call("now", timeout=60))
        await asyncio.sleep(0)
        async with House(now=lambda: 1).listen(port=port):
            assert await waiting == 1


@aio
async def test_a_server_that_stops_is_waited_out() -> None:
    """A call that it refuses for that reason is sent to the next one."""
    sleeper = Sleeper()
    house = House(sleep=sleeper, now=lambda: 1)
    async with (
        house.listen() as listener,
        ReconnectingClient(listener.contact_address, backoff=0.001) as client,
    ):
        running = asyncio.ensure_future(client.call("sleep", "done"))
        await sleeper.until(lambda s: s.started == 1)
        guest = house.guests[0]
        stopping = asyncio.ensure_future(guest.close(CloseCode.GOING_AWAY, grace=60))
        await asyncio.sleep(0)
        refused = asyncio.ensure_future(client.call("now"))
        await asyncio.wait([refused], timeout=0.1)
        assert not refused.done()
        sleeper.go.set()
        assert await running == "done"
        await stopping
        assert await refused == 1
        assert house.arrived == 2


class Poison:
    """A type whose objects the other side cannot decode."""


def cannot(_: Any) -> Any:
    raise ValueError("not edible")


register_type(Poison, lambda _: None, cannot, name="tests.reconnect.Poison")


@aio
async def test_a_call_that_ends_the_comm_is_not_sent_again() -> None:
    house = House(echo=lambda value: value)
    async with (
        house.listen() as listener,
        ReconnectingClient(listener.contact_address, backoff=0.001) as client,
    ):
        with pytest.raises(CallLost, match="not edible") as caught:
            await client.call("echo", Poison(), idempotent=True)
        assert caught.value.code == CloseCode.BAD_MESSAGE
        assert await client.call("echo", 1) == 1
        assert house.arrived == 2


@pytest.mark.parametrize("how", ["function", "coroutine function"])
@aio
async def test_every_session_is_greeted_before_it_is_used(how: str) -> None:
    order: list[str] = []
    house = House(note=order.append)

    async def later(calls: Calls) -> None:
        await calls.call("note", "greeting")

    def now(calls: Calls) -> None:
        order.append("greeting")

    on_connect = now if how == "function" else later
    async with house.listen() as listener:
        address = listener.contact_address
        async with ReconnectingClient(address, on_connect=on_connect, backoff=0.001) as client:
            seen = []
            async for calls in client.sessions():
                seen.append(calls)
                await client.call("note", f"call {len(seen)}")
                if len(seen) == 3:
                    break
                house.guests[0].comm.abort()
                await calls.wait_closed()
            assert len(set(seen)) == 3
    assert order == ["greeting", "call 1", "greeting", "call 2", "greeting", "call 3"]


# Closing, silence


@aio
async def test_closing_ends_what_waits() -> None:
    async with ReconnectingClient(f"tcp://127.0.0.1:{free_port()}") as client:
        waiting = asyncio.ensure_future(client.call("now", idempotent=True))
        cancelled = asyncio.ensure_future(client.call("now"))
        await asyncio.sleep(0)
        cancelled.cancel()
        await client.close()
        await client.close()
        with pytest.raises(CallLost, match=r"client of .* closed"):
            await waiting
        with pytest.raises(CallLost):
            await client.session()
        assert [calls async for calls in client.sessions()] == []


@aio
async def test_closing_ends_what_runs() -> None:
    sleeper = Sleeper()
    async with House(sleep=sleeper).listen() as listener:
        async with ReconnectingClient(listener.contact_address) as client:
            running = asyncio.ensure_future(client.call("sleep", idempotent=True))
            await sleeper.until(lambda s: s.started == 1)
        with pytest.raises(CallLost):
            await running
        await sleeper.until(lambda s: s.cancelled == 1)


@aio
async def test_a_peer_that_does_not_answer_pings_is_given_up(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING)
    comms: list[Comm] = []

    async def silent(comm: Comm) -> None:
        comms.append(comm)
        if len(comms) > 1:
            async with Calls(comm, {"now": lambda: 1}) as calls:
                await calls.serve()
        else:
            await forever.wait()

    forever = asyncio.Event()
    async with listen("tcp://127.0.0.1:0", silent) as listener:
        address = listener.contact_address
        async with ReconnectingClient(address, ping_interval=0.1, backoff=0.001) as client:
            assert await client.call("now", idempotent=True) == 1
        forever.set()
    assert "no answer to a ping for 0.1 s" in caplog.text


@aio
async def test_who_serves_until_it_is_closed_lets_what_runs_finish() -> None:
    """As a worker does; a wait that is cancelled changes nothing, nor does a lost session."""
    house, sleeper = House(now=lambda: 1), Sleeper()
    async with house.listen() as listener:
        client = ReconnectingClient(listener.contact_address, {"sleep": sleeper}, backoff=0.001)
        async with client:
            serving = [asyncio.ensure_future(client.serve()) for _ in range(2)]
            assert await client.call("now") == 1
            serving.pop().cancel()
            house.guests[0].comm.abort()
            await until(lambda: house.arrived == 2)
            assert await client.call("now") == 1
            running = asyncio.ensure_future(house.guests[0].call("sleep", "done"))
            await sleeper.until(lambda s: s.started == 1)
            closing = asyncio.ensure_future(client.close(grace=60))
            await asyncio.sleep(0.01)
            assert not serving[0].done()
            sleeper.go.set()
            assert await running == "done"
            await closing
            await asyncio.gather(*serving)
            await client.serve()
