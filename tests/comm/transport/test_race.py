"""`Race` over real sockets: addresses that answer, that refuse, and that are silent."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from sealwire.comm import Address, CommClosedError, ConnectTimeout, connect
from sealwire.comm.transport import race
from sealwire.comm.transport.client import FrameClient
from sealwire.comm.transport.race import Place, Race
from sealwire.comm.transport.sockets import reset
from support.aio import aio, until
from support.kernel import descriptors

Make = Callable[[], Place]


def silent(keeping: ExitStack) -> Place:
    """An address that answers no more: its queue is full, and the kernel drops what comes."""
    listening = keeping.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
    place = listening.getsockname()
    for _ in range(3):
        filler = keeping.enter_context(socket.socket())
        filler.setblocking(False)
        filler.connect_ex(place)
    return socket.AF_INET, place


def refusing(keeping: ExitStack) -> Place:
    bound = keeping.enter_context(socket.socket())
    bound.bind(("127.0.0.1", 0))
    return socket.AF_INET, bound.getsockname()


def refusing_for_now(keeping: ExitStack) -> Place:
    """Another socket may listen there."""
    bound = keeping.enter_context(socket.socket())
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    bound.bind(("127.0.0.1", 0))
    return socket.AF_INET, bound.getsockname()


def answering(keeping: ExitStack) -> Place:
    listening = keeping.enter_context(socket.create_server(("127.0.0.1", 0)))
    return socket.AF_INET, listening.getsockname()


def answering_6(keeping: ExitStack) -> Place:
    listening = keeping.enter_context(socket.create_server(("::1", 0), family=socket.AF_INET6))
    return socket.AF_INET6, listening.getsockname()


def unreachable(keeping: ExitStack) -> Place:
    """Fails at once, within `connect`: loopback has no link-local addresses."""
    return socket.AF_INET6, ("fe80::1", 9, 0, socket.if_nametoindex("lo"))


@pytest.fixture
def keeping() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def nothing(sock: socket.socket) -> None:
    pass


ROWS = {
    "alone": [answering],
    "after one that refuses": [refusing, answering],
    "after one that is silent": [silent, answering],
    "of the other family, after one that is silent": [silent, answering_6],
    "after all kinds": [unreachable, refusing, silent, silent, refusing, answering],
}


@pytest.mark.parametrize("name", ROWS)
@aio
async def test_who_answers_wins(name: str, keeping: ExitStack) -> None:
    """A silent one costs a quarter of a second, one that refuses nothing."""
    places = [make(keeping) for make in ROWS[name]]
    before = descriptors()
    prepared: list[socket.socket] = []
    running = Race(places, prepared.append)
    start = asyncio.get_running_loop().time()
    with await running.winner() as sock:
        seconds = asyncio.get_running_loop().time() - start
        assert sock.getpeername() == places[-1][1]
        assert sock.gettimeout() == 0
        assert prepared[-1] is sock
        assert [made.fileno() for made in prepared[:-1]] == [-1] * (len(prepared) - 1)
        silences = ROWS[name].count(silent)
        assert silences * race.STAGGER <= seconds + 0.01
        assert seconds < silences * race.STAGGER + 2
    assert descriptors() == before


@aio
async def test_what_is_silent_is_tried_anew(
    keeping: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside the older attempt; what refused is left alone."""
    monkeypatch.setattr(race, "AGAIN", 0.05)
    monkeypatch.setattr(race, "STAGGER", 0.05)
    places = [silent(keeping), refusing(keeping)]
    before = descriptors()
    prepared: list[socket.socket] = []
    running = Race(places, prepared.append)
    winning = asyncio.ensure_future(running.winner())
    await until(lambda: len(prepared) >= 4)
    open_ones = [sock for sock in prepared if sock.fileno() != -1]
    assert len(open_ones) == len(prepared) - 1  # but the one refused
    winning.cancel()
    with pytest.raises(asyncio.CancelledError):
        await winning
    assert descriptors() > before  # who cancels may come back
    running.close()
    assert descriptors() == before


@pytest.mark.parametrize("first", [[], [refusing], [silent], [unreachable, refusing]], ids=len)
@aio
async def test_a_race_that_is_over_dials_no_more(
    first: list[Any], keeping: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether it is over by success or by a refusal, which is known at once or later."""
    monkeypatch.setattr(race, "STAGGER", 0.02)
    monkeypatch.setattr(race, "AGAIN", 0.02)
    places = [make(keeping) for make in first]
    refused = refusing_for_now(keeping)
    with pytest.raises(OSError, match="refused"):
        await Race([refused], lambda sock: None).winner()
    with socket.create_server(refused[1], reuse_port=True) as listening:
        (await Race([*places, refused], lambda sock: None).winner()).close()
        listening.accept()[0].close()
        listening.settimeout(0)
        for _ in range(4):
            await asyncio.sleep(0.03)
            with pytest.raises(BlockingIOError):
                listening.accept()


@aio
async def test_a_cancelled_wait_goes_on_where_it_was(keeping: ExitStack) -> None:
    places = [silent(keeping), answering(keeping)]
    made: list[socket.socket] = []
    running = Race(places, made.append)
    for _ in range(3):
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(running.winner(), 0.01)
    assert len(made) == 1
    with await running.winner() as sock:
        assert sock.getpeername() == places[1][1]
    assert len(made) == 2


@pytest.mark.parametrize(
    ("makes", "code"),
    [
        ([refusing], errno.ECONNREFUSED),
        ([refusing, refusing], errno.ECONNREFUSED),
        ([unreachable, refusing], errno.ECONNREFUSED),
        ([refusing, unreachable], errno.ECONNREFUSED),
        ([], errno.EADDRNOTAVAIL),
    ],
)
@aio
async def test_nobody_answers(makes: list[Any], code: int, keeping: ExitStack) -> None:
    """What one says tells more than that this machine has no way to another."""
    before = descriptors()
    running = Race([make(keeping) for make in makes], nothing)
    with pytest.raises(OSError, match=r".") as caught:
        await running.winner()
    assert caught.value.errno == code
    assert descriptors() == before + len(makes) - makes.count(unreachable)


@aio
async def test_silence_ends_an_attempt_and_connect_dials_afresh(
    keeping: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(race, "PATIENCE", 0.1)
    _, (host, port) = silent(keeping)
    before = descriptors()
    with pytest.raises(CommClosedError, match=r"no answer within 0\.1 s; check the") as caught:
        await FrameClient().dial(Address("tcp", host, port))
    assert isinstance(caught.value.__cause__, TimeoutError)
    assert caught.value.retryable
    with pytest.raises(ConnectTimeout, match=r"no answer within 0\.1 s \(\d+ att") as ended:
        await connect(f"tcp://{host}:{port}", timeout=1.5)
    assert ended.value.attempts > 1
    assert "check the address and the network between" in str(ended.value)
    assert descriptors() == before


@aio
async def test_an_end_of_ours_may_be_chosen(keeping: ExitStack) -> None:
    place = answering(keeping)
    with await Race([place], nothing, "127.0.0.1").winner() as sock:
        _, port = sock.getsockname()
        with pytest.raises(OSError, match=r".") as caught:
            await Race([place], nothing, "127.0.0.1", port).winner()
        assert caught.value.errno in (errno.EADDRINUSE, errno.EADDRNOTAVAIL)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        _, port = free.getsockname()
    with await Race([refusing(keeping), place], nothing, None, port).winner() as sock:
        assert sock.getsockname() == ("127.0.0.1", port)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "0.0.0.0", "::1"])
@pytest.mark.parametrize("blocked", [False, True], ids=["at once", "later"])
@aio
async def test_nobody_is_connected_to_itself(
    host: str, blocked: bool, keeping: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel may choose the port that is dialled for our end, where nobody listens.

    TCP then connects the socket to itself, and whoever is to listen there finds the port taken.
    """
    if blocked:  # as a kernel that answers only later
        monkeypatch.setattr(race, "_is_connected_to", lambda *place: connect_later(*place))
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as free:
        free.bind((host, 0))
        port = free.getsockname()[1]
    with socket.socket(family) as one:  # it can be done here
        one.bind(("" if host == "0.0.0.0" else host, port))
        one.connect((host, port))
        assert one.getsockname() == one.getpeername()
        reset(one)
    before = descriptors()
    ours = "127.0.0.1" if host == "0.0.0.0" else host
    with pytest.raises(ConnectionRefusedError, match="refused"):
        await Race([(family, (host, port))], nothing, ours, port).winner()
    assert descriptors() == before
    listening = keeping.enter_context(socket.socket(family))
    listening.bind((host, port))  # without SO_REUSEADDR: nothing waits there for its end
    listening.listen()


def connect_later(sock: socket.socket, address: Any) -> bool:
    sock.connect_ex(address)
    return False


A, B, C = ((socket.AF_INET, (f"192.0.2.{n}", 1)) for n in range(3))
D, E = ((socket.AF_INET6, (f"2001:db8::{n}", 1, 0, 0)) for n in range(2))


@pytest.mark.parametrize(
    ("resolved", "tried"),
    [
        ([A, B, C], [A, B, C]),
        ([A, B, D, E], [A, D, B, E]),
        ([D, A, B, C], [D, A, B, C]),
        ([A, A, B], [A, B]),
        ([D, E, A], [D, A, E]),
        ([], []),
    ],
)
def test_families_take_turns(resolved: list[Place], tried: list[Place]) -> None:
    assert race._alternating(resolved) == tried
