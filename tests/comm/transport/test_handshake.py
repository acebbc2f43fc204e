"""When a step of a handshake is done, and what follows from it. No TLS, and a loop in steps."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from sealwire.comm import CommClosedError, HandshakeError
from sealwire.comm.transport import handshake as handshake_module
from sealwire.comm.transport import handshake_throttle as throttle_module
from sealwire.comm.transport.handshake import Handshake
from sealwire.comm.transport.handshake_throttle import HandshakeThrottle
from support.aio import aio
from support.fakes import FakeLoop

PEER = "tls://peer:1"
SLICE = 4.0
WANT_READ = ssl.SSLWantReadError()
WANT_WRITE = ssl.SSLWantWriteError()


class Clock:
    now = 50.0

    def perf_counter(self) -> float:
        return self.now


# The slice of each iteration


class Steps:
    """Pieces of work that take as long as the test says; which of them are done."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.loop = FakeLoop()
        self.throttle = HandshakeThrottle(self.loop, SLICE)  # type: ignore[arg-type]
        self.done: list[str] = []

    def take(self, name: str, seconds: float, then: Callable[[], object] = lambda: None) -> bool:
        def work() -> None:
            self.clock.now += seconds
            self.done.append(name)
            then()

        return self.throttle.take(work)


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Steps:
    clock = Clock()
    monkeypatch.setattr(throttle_module, "time", clock)
    return Steps(clock)


@pytest.mark.parametrize(
    ("seconds", "iterations"),
    [
        ([1, 1, 1], ["abc"]),
        ([2, 2, 2], ["ab", "c"]),  # the slice is used up exactly
        ([3, 3, 3], ["ab", "c"]),  # a step that has begun is not interrupted
        ([9, 9, 9], ["a", "b", "c"]),  # one in each iteration, however long it takes
        ([9, 1, 1, 1, 1, 1], ["a", "bcde", "f"]),
        ([0, 0, 0, 9, 0], ["abcd", "e"]),
        ([4, 0, 4, 0], ["a", "bc", "d"]),
    ],
)
def test_each_iteration_has_its_slice(
    steps: Steps, seconds: list[float], iterations: list[str]
) -> None:
    took = [steps.take("abcdef"[number], each) for number, each in enumerate(seconds)]
    assert took == [number < len(iterations[0]) for number in range(len(seconds))]
    for number in range(len(iterations)):
        assert "".join(steps.done) == "".join(iterations[: number + 1])
        steps.loop.turn()
    while steps.loop.soon:  # the slice is renewed once more; then nothing costs anything
        steps.loop.turn()
    assert "".join(steps.done) == "".join(iterations)


def test_a_step_that_fails_keeps_no_other_waiting_and_none_overtakes(steps: Steps) -> None:
    def fails() -> None:
        raise LookupError

    assert steps.take("a", SLICE)
    assert not steps.take("b", 1, fails)
    assert not steps.take("c", 1)
    with pytest.raises(LookupError):
        steps.loop.turn()
    assert not steps.take("d", 1)  # there is time left, but c came first
    steps.loop.turn()
    assert steps.done == ["a", "b", "c", "d"]
    with pytest.raises(LookupError):
        steps.take("e", SLICE, fails)
    steps.loop.turn()
    assert steps.take("f", 1)


# What a step leads to


async def by_the_loop(callback: Callable[[], object]) -> None:
    """Call it while no task runs, as a task may be resumed within it."""
    asyncio.get_running_loop().call_soon(callback)
    await asyncio.sleep(0)


class Tls(socket.socket):
    """A socket whose handshake goes as the test says; each outcome is one step's."""

    server_side = True
    session_reused = False

    def __init__(self, outcomes: Sequence[BaseException | None]) -> None:
        ours, self.peer = socket.socketpair()
        super().__init__(fileno=ours.detach())
        self.setblocking(False)
        self.peer.setblocking(False)
        self.outcomes = list(outcomes)
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.steps = 0

    def do_handshake(self) -> None:
        self.steps += 1
        if (outcome := self.outcomes.pop(0)) is not None:
            raise outcome


class Ready:
    """The registrations of one socket, as `Readiness` has them."""

    def __init__(self, errors_once: bool) -> None:
        self.errors_once = errors_once
        self.readable: Callable[[], object] | None = lambda: None  # the previous owner's
        self.writable: Callable[[], object] | None = None

    @property
    def writes(self) -> bool:
        return self.writable is not None

    def on_readable(self, callback: Callable[[], object] | None) -> None:
        self.readable = callback

    def on_writable(self, callback: Callable[[], object] | None) -> None:
        self.writable = callback

    @property
    def waits_for(self) -> str:
        return "r" * (self.readable is not None) + "w" * (self.writable is not None)

    async def event(self) -> None:
        callback = self.readable or self.writable
        assert callback is not None
        await by_the_loop(callback)


class Guard:
    def touch(self) -> None:
        pass


class Shaking:
    """A handshake and what is around it, in a task that waits for its end."""

    def __init__(
        self, *outcomes: BaseException | None, throttle: Any = None, errors_once: bool = False
    ) -> None:
        self.tls = Tls(outcomes)
        self.ready = Ready(errors_once)
        around: Any = (self.tls, self.ready, Guard())
        self.handshake = Handshake(*around, PEER, most=1000, throttle=throttle)
        self.task = asyncio.ensure_future(self.handshake.finish())

    async def error(self) -> CommClosedError | None:
        try:
            await self.task
        except CommClosedError as error:
            return error
        return None

    async def end(self) -> None:
        self.handshake.stop(CommClosedError("closed by us"))
        await asyncio.wait([self.task])
        self.task.exception()
        self.tls.close()
        self.tls.peer.close()


@asynccontextmanager
async def shaking(*outcomes: BaseException | None, **more: Any) -> AsyncIterator[Shaking]:
    made = Shaking(*outcomes, **more)
    await asyncio.sleep(0)  # its first step
    try:
        yield made
    finally:
        await made.end()


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handshake_module, "facts", lambda tls, peer: {"peer": peer})


@pytest.mark.parametrize(
    ("outcomes", "waited_for"),
    [
        ([None], []),
        ([WANT_READ, None], ["r"]),
        ([WANT_WRITE, None], ["w"]),
        ([WANT_READ, WANT_READ, WANT_WRITE, WANT_READ, None], ["r", "r", "w", "r"]),
        ([WANT_WRITE, WANT_WRITE, WANT_READ, None], ["w", "w", "r"]),
    ],
)
@aio
async def test_it_waits_for_what_openssl_wants(
    outcomes: list[BaseException | None], waited_for: list[str]
) -> None:
    async with shaking(*outcomes) as made:
        for each in waited_for:
            assert (made.ready.waits_for, made.task.done()) == (each, False)
            await made.ready.event()
        assert await made.error() is None
        assert made.handshake.facts == {"peer": PEER}
        assert made.tls.steps == len(outcomes)


@pytest.mark.parametrize(
    ("outcome", "kind", "text"),
    [
        (ConnectionResetError(104, "reset"), CommClosedError, "reset"),
        (ssl.SSLEOFError(8, "EOF occurred"), CommClosedError, "closed by the peer"),
        (AttributeError("no ssl object"), CommClosedError, "no ssl object"),
        (ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER] wrong"), HandshakeError, "failed"),
        (CommClosedError("refused by an allow-list"), CommClosedError, "allow-list"),
    ],
)
@pytest.mark.parametrize("before", [[], [WANT_READ]])
@aio
async def test_what_fails_is_the_callers_and_the_peer_is_told_first(
    outcome: BaseException, kind: type[CommClosedError], text: str, before: list[BaseException]
) -> None:
    async with shaking(*before, outcome) as made:
        made.tls.peer.send(b"unread")
        for _ in before:
            await made.ready.event()
        error = await made.error()
        assert type(error) is kind
        assert text in str(error)
        assert made.tls.peer.recv(1) == b""  # an end, and no reset for what was unread
        assert made.handshake.facts == {}


@pytest.mark.parametrize("outcome", [LookupError("a fault"), RuntimeError(), StopIteration()])
@pytest.mark.parametrize("before", [[], [WANT_READ], [WANT_READ, WANT_WRITE]])
@aio
async def test_what_else_a_socket_class_raises_is_the_callers_at_once(
    outcome: Exception, before: list[BaseException]
) -> None:
    """A fault of the program's: otherwise it would wait for the deadline."""
    async with shaking(*before, outcome) as made:
        for _ in before:
            await made.ready.event()
        (done,), _ = await asyncio.wait([made.task], timeout=5)
        kind = RuntimeError if isinstance(outcome, StopIteration) else type(outcome)
        assert type(done.exception()) is kind
        if before:  # an event that comes before the socket is closed
            await made.ready.event()
            assert made.ready.waits_for == ""
        assert made.tls.steps == len(before) + 1


@aio
async def test_a_resumed_session_is_dropped() -> None:
    async with shaking(WANT_READ, None) as made:
        made.tls.session_reused = True
        await made.ready.event()
        assert "resumed a TLS session" in str(await made.error())


@pytest.mark.parametrize("outcome", [WANT_READ, None])
@pytest.mark.parametrize(("sent", "refused"), [(1000, False), (1001, True)])
@aio
async def test_where_openssl_is_not_bounded_the_kernel_is_asked_before_each_step(
    monkeypatch: pytest.MonkeyPatch, outcome: BaseException | None, sent: int, refused: bool
) -> None:
    async with shaking(WANT_READ, outcome) as made:
        assert made.handshake.pointer is None
        monkeypatch.setattr(handshake_module, "bytes_received", lambda tls: sent)
        await made.ready.event()
        assert made.tls.steps == 2 - refused
        if refused:
            assert f"it sent {sent} bytes before it was done" in str(await made.error())
        else:
            assert made.task.done() is False or await made.error() is None


@aio
async def test_a_step_beyond_the_slice_waits_unregistered(steps: Steps) -> None:
    steps.take("another", SLICE)
    async with shaking(WANT_READ, None, throttle=steps.throttle) as made:
        assert (made.tls.steps, made.ready.waits_for) == (0, "")
        await by_the_loop(steps.loop.turn)
        assert (made.tls.steps, made.ready.waits_for) == (1, "r")
        steps.take("another", SLICE)
        await made.ready.event()
        assert (made.tls.steps, made.ready.waits_for) == (1, "")
        await by_the_loop(steps.loop.turn)
        assert await made.error() is None
        assert made.tls.steps == 2


@aio
async def test_what_is_stopped_while_queued_takes_no_step(steps: Steps) -> None:
    steps.take("another", SLICE)
    async with shaking(None, throttle=steps.throttle) as made:
        made.handshake.stop(CommClosedError("dropped for a newer one"))
        made.handshake.stop(CommClosedError("closed later"))
        await by_the_loop(steps.loop.turn)
        assert "dropped for a newer one" in str(await made.error())
        assert (made.tls.steps, made.ready.waits_for) == (0, "")


@aio
async def test_a_cancelled_wait_leaves_it_going_on() -> None:
    async with shaking(WANT_READ, None) as made:
        made.task.cancel()
        await asyncio.wait([made.task])
        assert made.ready.waits_for == "r"
        await made.ready.event()
        made.task = asyncio.ensure_future(made.handshake.finish())
        assert await made.error() is None
        assert made.tls.steps == 2


@pytest.mark.parametrize("errors_once", [True, False])
@aio
async def test_a_dead_socket_is_asked_again_where_no_event_follows(
    monkeypatch: pytest.MonkeyPatch, errors_once: bool
) -> None:
    monkeypatch.setattr(handshake_module, "is_dead", lambda tls: True)
    async with shaking(WANT_READ, ConnectionResetError(), errors_once=errors_once) as made:
        await asyncio.sleep(0)
        assert made.tls.steps == 1 + errors_once
