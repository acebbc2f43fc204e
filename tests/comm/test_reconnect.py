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
    AddressError,
    CallLost,
    CallRefused,
    Calls,
    CallTimeout,
    CloseCode,
    Comm,
    CommClosedError,
    EncryptionRequired,
    HandshakeError,
    Listener,
    ReconnectingClient,
    listen,
    register_type,
)
from sealwire.security import Security
from support.aio import aio, until
from support.calling import Sleeper
from support.links import listen_args
from support.restarting import Server, free_port, killed_again_and_again

loops = pytest.mark.parametrize(
    "loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"]
)


class House:
    """A listener whose comms can be ended, and which counts them."""

    def __init__(self, **handlers: Callable[..., Any]) -> None:
        self.handlers = handlers
        self.guests: list[Calls] = []
        self.arrived = 0

    async def receive(self, comm: Comm) -> None:
        async with Calls(comm, self.handlers) as calls:
            self.arrived += 1
            self.guests.append(calls)
            try:
                await calls.serve()
            finally:
                self.guests.remove(calls)

    def listen(self, scheme: str = "tcp", port: int = 0) -> Listener:
        return listen(f"{scheme}://127.0.0.1:{port}", self.receive, **listen_args(scheme))


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
    await hammer(server, 4, 0.3, args)


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


@pytest.mark.parametrize("kind", ["lost", "timeout", "overloaded"])
@aio
async def test_a_greeting_that_fails_for_now_is_made_again(kind: str) -> None:
    attempts = 0

    async def greet(calls: Calls) -> None:
        nonlocal attempts
        attempts += 1
        if attempts < 3:
            if kind == "lost":
                calls.comm.abort()
                await calls.ping()
            if kind == "timeout":
                raise CallTimeout("call timed out")
            error = CallRefused("call refused")
            error.kind = "overloaded"
            raise error

    async with House(now=lambda: 1).listen() as listener:
        address = listener.contact_address
        async with ReconnectingClient(address, on_connect=greet, backoff=0.001) as client:
            assert await client.call("now") == 1
    assert attempts == 3


# What is final


@aio
async def test_a_refused_certificate_is_final() -> None:
    house = House(now=lambda: 1)
    other = Security.temporary().get_connection_args("worker")
    async with (
        house.listen("tls") as listener,
        ReconnectingClient(listener.contact_address, **other) as client,
    ):
        for _ in range(3):
            with pytest.raises(HandshakeError):
                await client.call("now", idempotent=True)
        assert client.closed()


@aio
async def test_the_authors_own_close_codes_are_final() -> None:
    house = House(now=lambda: 1)
    async with house.listen() as listener:
        address = listener.contact_address
        async with ReconnectingClient(address, final_codes=[4001], backoff=0.001) as client:
            for code in (CloseCode.NORMAL, CloseCode.GOING_AWAY, 4000):
                assert await client.call("now") == 1
                await house.guests[0].close(code)
            assert await client.call("now") == 1
            await house.guests[0].close(4001, "your licence has expired")
            await until(client.closed)
            with pytest.raises(CommClosedError, match="your licence has expired"):
                await client.call("now")
            assert client.closed()
            assert house.arrived == 4


@aio
async def test_a_peer_that_speaks_no_calls_is_final() -> None:
    async def talk(comm: Comm) -> None:
        await comm.write({"op": "welcome"})
        async for _ in comm:
            pass

    async with (
        listen("tcp://127.0.0.1:0", talk) as listener,
        ReconnectingClient(listener.contact_address) as client,
    ):
        with pytest.raises(CommClosedError, match="which is no call"):
            await client.call("now", idempotent=True)
        await until(client.closed)


@aio
async def test_an_error_of_the_greeting_is_final() -> None:
    def greet(calls: Calls) -> None:
        raise KeyError("name")

    async with (
        House(now=lambda: 1).listen() as listener,
        ReconnectingClient(listener.contact_address, on_connect=greet) as client,
    ):
        with pytest.raises(KeyError, match="name"):
            await client.call("now")


@pytest.mark.parametrize(
    ("address", "args", "error"),
    [
        ("tcp://", {}, AddressError),
        ("nothing://127.0.0.1:1", {}, Exception),
        ("tcp://127.0.0.1:1", {"wrong": 1}, TypeError),
        ("tcp://127.0.0.1:1", {"backoff": 0}, ValueError),
        ("tcp://127.0.0.1:1", {"connect_timeout": "1"}, ValueError),
        ("tcp://127.0.0.1:1", {"final_codes": 1}, TypeError),
    ],
)
@aio
async def test_misuse_is_told_at_once(address: str, args: dict[str, Any], error: Any) -> None:
    with pytest.raises(error):
        ReconnectingClient(address, **args)


@aio
async def test_encryption_that_is_required_is_final() -> None:
    async with ReconnectingClient("tcp://127.0.0.1:1", require_encryption=True) as client:
        with pytest.raises(EncryptionRequired):
            await client.call("now")


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
