"""`register_backend` checks what it is given; a third party's comm ends as ours do."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from sealwire.comm import (
    Address,
    AddressError,
    Backend,
    CloseCode,
    Comm,
    CommClosedError,
    Limits,
    Listener,
    ServingListener,
    closed_error,
    connect,
    listen,
    parse_address,
    register_backend,
)
from sealwire.comm.addressing import declare_scheme
from sealwire.comm.interfaces import Connector
from sealwire.comm.registry import _backends, get_backend
from support.aio import aio, until
from support.endings import error_of
from support.links import echo


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    before = dict(_backends)
    yield
    for scheme in set(_backends) - set(before):
        declare_scheme(scheme, host_port=True)
    _backends.clear()
    _backends.update(before)


class Queued(Comm):
    """A third party's comm: objects in two queues, nothing encoded."""

    def __init__(self, inbox: Any, outbox: Any, address: str) -> None:
        self.inbox, self.outbox, self.address = inbox, outbox, address
        self.end: CommClosedError | None = None
        self.ended = asyncio.Event()

    async def read(self) -> Any:
        if self.end is not None:
            raise self.end.again()
        kind, *content = await self.inbox.get()
        if kind == "close":
            self._end(closed_error(self.peer_address, *content))
            raise self.end.again()  # type: ignore[union-attr]
        return content[0]

    def _end(self, error: CommClosedError) -> None:
        self.end = error
        self.ended.set()

    async def write(self, message: Any, *, timeout: float | None = None) -> int:
        if self.end is not None:
            raise self.end.again()
        await self.outbox.put(("message", message))
        return 0

    async def wait_closed(self) -> CommClosedError:
        await self.ended.wait()
        assert self.end is not None
        return self.end.again()

    async def close(self, code: int = CloseCode.NORMAL, reason: str = "") -> None:
        if self.end is None:
            await self.outbox.put(("close", code, reason))
            self._end(closed_error(self.peer_address, code, reason, closed_by="us"))

    def abort(self) -> None:
        self._end(closed_error(self.peer_address, closed_by="us"))

    def closed(self) -> bool:
        return self.end is not None

    @property
    def local_address(self) -> str:
        return self.address

    peer_address = local_address


class QueueListener(ServingListener):
    """Its listener; `close`, `comms` and the rest are inherited."""

    known: dict[str, Any] = {}  # noqa: RUF012

    def __init__(self, address: Address, handler: Any, limits: Limits) -> None:
        super().__init__(handler, limits)
        self.address = address

    async def start(self) -> None:
        self.serving_begun()
        self.known[self.address.host] = self

    def stop(self) -> asyncio.Future[None]:
        self.serving_over()
        self.known.pop(self.address.host, None)
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done

    @property
    def listen_address(self) -> str:
        return str(self.address)

    contact_address = listen_address


class QueueConnector(Connector):
    async def connect(self, address: Address, limits: Limits, **_: Any) -> Comm:
        listener = QueueListener.known[address.host]
        one: Any = asyncio.Queue()
        other: Any = asyncio.Queue()
        task = asyncio.ensure_future(listener.attend(Queued(one, other, str(address))))
        listener.kept = task
        return Queued(other, one, str(address))


class Queues(Backend):
    host_port = False

    def connector(self) -> Connector:
        return QueueConnector()

    def listener(self, address: Address, handler: Any, limits: Limits, **_: Any) -> Listener:
        return QueueListener(address, handler, limits)


@pytest.mark.parametrize("rest", ["/run/x.sock", "name", "a/b:c?d#e", "http://x", "[", "a b", ""])
@aio
async def test_addresses_of_a_scheme_without_hosts_and_ports(rest: str) -> None:
    register_backend("queue", Queues())
    address = f"queue://{rest}"
    assert parse_address(address) == Address("queue", rest, 0)
    assert str(parse_address(address)) == address
    async with listen(address, echo), connect(address) as comm:
        await comm.write({"any": object})
        assert await comm.read() == {"any": object}
    with pytest.raises(AddressError, match="control characters"):
        connect("queue://a\0b")
    with pytest.raises(AddressError, match="no port"):
        connect("tcp://name")


@aio
async def test_its_clean_end() -> None:
    register_backend("queue", Queues())
    seen = []

    async def take(comm: Comm) -> None:
        seen.extend([message async for message in comm])
        await comm.close()

    async with listen("queue://x", take) as listener:
        async with connect("queue://x") as comm:
            await comm.write(1)
        await until(lambda: bool(seen))
        await listener.close(grace=30)
    assert seen == [1]

    async with listen("queue://x", echo) as listener:
        comm = await connect("queue://x")
        await comm.write(1)
        assert await comm.read() == 1
        await listener.close()  # which cancels the handler: its reads cannot be ended
        error = await error_of(comm.read())
        assert (error.code, error.clean, error.closed_by) == (CloseCode.GOING_AWAY, True, "peer")
        assert [message async for message in comm] == []


@aio
async def test_its_handlers_are_cancelled_if_asked_for() -> None:
    register_backend("queue", Queues())
    cancelled = asyncio.Event()

    async def work(comm: Comm) -> None:
        reading = asyncio.ensure_future(comm.read())
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await error_of(reading)
            cancelled.set()
            raise

    async with listen("queue://x", work, cancel_on_disconnect=True):
        async with connect("queue://x"):
            await asyncio.sleep(0)
        await cancelled.wait()


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        ((), (1000, "", "peer", True, "closed")),
        ((1001,), (1001, "", "peer", True, "going-away")),
        ((CloseCode.HANDLER_FAILED, "x"), (1011, "x", "peer", False, "handler-failed")),
        ((4999, "ours"), (4999, "ours", "peer", False, "closed")),
        ((1000, "", "us"), (1000, "", "us", True, "closed")),
        ((1006, "", "lost"), (1006, "", "lost", False, "lost")),
    ],
)
def test_ends(args: Any, expected: Any) -> None:
    *said, who = args if len(args) == 3 else (*args, "peer")
    error = closed_error("x://y", *said, closed_by=who)
    assert (error.code, error.reason, error.closed_by, error.clean, error.kind) == expected
    assert error.peer == "x://y"
    assert "x://y" in str(error)


@pytest.mark.parametrize("code", [1005, 1006, 0, 5000, -1, "1000", None, True, 1000.0])
def test_codes_that_cannot_be_sent(code: Any) -> None:
    for who in ("us", "peer"):
        with pytest.raises((TypeError, ValueError), match="cannot close with code"):
            closed_error("x://y", code, closed_by=who)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="need 'peer', 'us' or 'lost'"):
        closed_error("x://y", closed_by="them")  # type: ignore[arg-type]


@pytest.mark.parametrize("reason", [None, 5, b"bye", ["bye"]])
def test_reasons_that_are_no_text(reason: Any) -> None:
    for who in ("us", "peer"):
        with pytest.raises(TypeError, match="cannot close with a reason"):
            closed_error("x://y", 4000, reason, closed_by=who)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "scheme", ["", "X", "Tcp", "a://", "a:", "1a", "a b", "ü", "a_b", "-a", "a\n"]
)
def test_schemes_of_another_form(scheme: str) -> None:
    with pytest.raises(ValueError, match="need a lower-case letter, then"):
        register_backend(scheme, Queues())


@pytest.mark.parametrize("scheme", [None, 5, b"queue", ["queue"], Queues()])
def test_schemes_that_are_no_text(scheme: Any) -> None:
    with pytest.raises(TypeError, match="need a str"):
        register_backend(scheme, Queues())


def made(**members: Any) -> Any:
    return type("Made", (Queues,), members)()


async def late(*_: Any) -> Any: ...


@pytest.mark.parametrize(
    ("backend", "why"),
    [
        (None, "need an instance of a class derived from Backend"),
        (object(), "need an instance of a class derived from Backend"),
        (Queues, r"got the class Queues, need an instance; write Queues\(\)"),
        (lambda: Queues(), "need an instance"),
        (made(connector=late), r"Made.connector\(\) is a coroutine function"),
        (made(listener=late), r"Made.listener\(.*\) is a coroutine function"),
        (made(connector=lambda self, more: None), r"cannot be called as Made.connector\(\)"),
        (made(listener=lambda self, address: None), "called as Made.listener"),
        (made(listener=lambda self, a, b, c: None), "called as Made.listener"),
        (made(listener=lambda self, a, b, c, d, **e: None), "called as Made.listener"),
        (made(connector=None), "Made.connector"),
        (made(connect_arguments="mode"), "connect_arguments is 'mode', need a collection"),
        (made(listen_arguments=[1]), "listen_arguments is"),
        (made(listen_arguments=None), "listen_arguments is None"),
        (made(host_port="no"), "host_port is 'no', need a bool"),
    ],
)
def test_backends_that_are_none(backend: Any, why: str) -> None:
    with pytest.raises(TypeError, match=f"cannot register a backend for queue://: .*{why}"):
        register_backend("queue", backend)
    with pytest.raises(AddressError, match="no backend for scheme 'queue'"):
        get_backend("queue")


def test_a_scheme_taken_twice() -> None:
    first, second = Queues(), Queues()
    register_backend("queue", first)
    register_backend("queue", first)  # the same
    with pytest.raises(ValueError, match="it has a Queues; take another scheme, or pass replace"):
        register_backend("queue", second)
    assert get_backend("queue") is first
    register_backend("queue", second, replace=True)
    assert get_backend("queue") is second
    for scheme in ("tcp", "tls", "unix", "mem"):
        with pytest.raises(ValueError, match="cannot register a Queues"):
            register_backend(scheme, Queues())
