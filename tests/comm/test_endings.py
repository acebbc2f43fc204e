"""How a comm ends, as both of its sides see it: by whom, with which code, and what is lost."""

from __future__ import annotations

import asyncio
import pickle
import random
import struct
from collections.abc import Callable
from typing import Any

import pytest
import uvloop

from sealwire.comm import (
    CloseCode,
    Comm,
    CommClosedError,
    Limits,
    connect,
    listen,
    register_type,
)
from sealwire.comm.wire import closing
from support.aio import aio, until
from support.endings import documented, error_of, row
from support.links import (
    SCHEMES,
    connect_args,
    echo,
    listen_args,
    message,
    pair,
)

LoopFactory = Callable[[], asyncio.AbstractEventLoop]

schemes = pytest.mark.parametrize("scheme", SCHEMES)
loops = pytest.mark.parametrize(
    "loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"]
)


class Unknown:
    """Of a type that one side forgets."""


async def fails(comm: Comm) -> None:
    await comm.read()
    raise LookupError("a secret of the handler's")


async def returns(comm: Comm) -> None:
    await comm.read()


async def goes_away(comm: Comm) -> None:
    await comm.read()
    await comm.close(CloseCode.GOING_AWAY, "until tomorrow")


async def has_its_own(comm: Comm) -> None:
    await comm.read()
    await comm.close(4999, "an end of ours; and more\nof it")


async def cannot(comm: Comm) -> None:
    await comm.read()
    await comm.write(object())


def test_the_documentation_has_a_row_for_each_code_and_kind() -> None:
    rows = documented()
    assert len(rows) == 14
    assert {code for _, code, _, _ in rows} == {*CloseCode, 4999}


ENDS = {
    # handler: what the other side gets
    fails: (1011, "its handler raised LookupError", "handler-failed", False),
    cannot: (1011, "its handler raised EncodeError", "handler-failed", False),
    returns: (1000, "", "closed", True),
    goes_away: (1001, "until tomorrow", "going-away", True),
    has_its_own: (4999, "an end of ours, and more?of it", "closed", False),
}


@schemes
@loops
@pytest.mark.parametrize("handler", ENDS, ids=lambda handler: handler.__name__)
@aio
async def test_the_other_side_is_told_why(
    scheme: str, handler: Any, loop_factory: LoopFactory
) -> None:
    """Whether it reads, writes, iterates, or asks only afterwards; and nothing internal is told."""
    code, reason, kind, clean = ENDS[handler]
    served: list[Comm] = []

    async def serve(comm: Comm) -> None:
        served.append(comm)
        await handler(comm)

    async with listen(f"{scheme}://127.0.0.1:0", serve, **listen_args(scheme)) as listener:
        for way in ("read", "iterate", "write", "later"):
            comm = await connect(listener.contact_address, **connect_args(scheme))
            assert comm.closed_by is None
            await comm.write("go")
            if way == "iterate":

                async def consume(comm: Comm = comm) -> None:
                    async for _ in comm:
                        raise AssertionError("nothing was sent")

                if clean:
                    await consume()
                    error = await error_of(comm.read())
                else:
                    error = await error_of(consume())
            elif way == "write":

                async def keep_writing(comm: Comm = comm) -> None:
                    while True:
                        await comm.write(bytes(1000))
                        await asyncio.sleep(0)

                error = await error_of(keep_writing())
            else:
                if way == "later":
                    await until(comm.closed)
                error = await error_of(comm.read())
            assert (error.code, error.reason, error.kind, error.clean) == (
                code, reason, kind, clean
            ), way  # fmt: skip
            assert error.closed_by == comm.closed_by == "peer"
            assert row(error) in documented()
            assert "secret" not in str(error)
            assert isinstance(error, ConnectionError)
            assert pickle.loads(pickle.dumps(error)).code == code
            again = await error_of(comm.write(1))
            assert (again.code, again.closed_by) == (code, "peer")
            await comm.close()
            theirs = await error_of(served[-1].write(1))
            assert (theirs.code, theirs.reason, theirs.closed_by) == (code, reason, "us")
            assert served[-1].closed_by == "us"


REFUSED = {
    # what a peer of ours sends, with a hello before it: code, kind, words
    "not msgpack": (message(b"\xc1"), 1007, "message", "message 1:"),
    "an unknown type": (
        message(b"\xc7\x09\x03\x92\xa6nobody\x01"), 1003, "message", "'nobody' is not registered",
    ),
    "too large": (
        struct.pack("<QQQQ", 24 + (1 << 40), 2, 0, 1 << 40), 1009, "too-large", "the limit is",
    ),
    "not this wire": (b"GET / HTTP/1.1\r\n\r\n", 1002, "framing", "HTTP"),
    "lengths that lie": (struct.pack("<QQQ", 1 << 20, 1, 5), 1002, "framing", "message 1:"),
}  # fmt: skip


@schemes
@pytest.mark.parametrize("name", REFUSED)
@aio
async def test_who_sent_a_refused_message_is_told_which_and_why(scheme: str, name: str) -> None:
    """Also while it goes on talking, which would reset a connection that is merely closed."""
    data, code, kind, words = REFUSED[name]
    seen: asyncio.Future[CommClosedError] = asyncio.get_running_loop().create_future()

    async def read_all(comm: Comm) -> None:
        try:
            while True:
                await comm.read()
        except CommClosedError as error:
            seen.set_result(error)
            raise

    async with listen(f"{scheme}://127.0.0.1:0", read_all, **listen_args(scheme)) as listener:
        comm: Any = await connect(listener.contact_address, **connect_args(scheme))
        stream = comm._stream
        stream.socket.setblocking(True)
        stream._sender._channel.send(data)
        stream.socket.setblocking(False)

        async def talk() -> None:
            while True:
                await comm.write(bytes(100_000))

        talking = asyncio.ensure_future(talk())
        error = await error_of(comm.read())
        with pytest.raises(CommClosedError):
            await talking
        theirs = await seen
    assert (error.code, error.kind, error.closed_by) == (code, kind, "peer")
    assert words in error.reason
    assert row(error) in documented()
    assert not error.retryable
    assert "do not send it again" in str(error) or "send less" in str(error)
    assert (theirs.code, theirs.closed_by) == (code, "us")
    assert theirs.retryable is False


@schemes
@aio
async def test_an_object_of_a_type_that_the_peer_does_not_know(scheme: str) -> None:
    register_type(Unknown, lambda value: 1, lambda value: Unknown(), name="test.Unknown")
    from sealwire.comm import extensions

    async with (
        listen(f"{scheme}://127.0.0.1:0", echo, **listen_args(scheme)) as listener,
        connect(listener.contact_address, **connect_args(scheme)) as comm,
    ):
        await comm.write("first")
        await comm.read()
        decode = extensions.by_name.pop("test.Unknown")
        try:
            await comm.write({"a": [Unknown()]})
            error = await error_of(comm.read())
        finally:
            extensions.by_name["test.Unknown"] = decode
    assert error.code == CloseCode.UNKNOWN_TYPE
    assert row(error) in documented()
    assert error.reason.startswith("message 2:")


@schemes
@loops
@aio
async def test_from_close_on_nothing_more_is_taken(scheme: str, loop_factory: LoopFactory) -> None:
    """Six writers that never stop do not keep it from ending; what they wrote before arrives."""
    async with pair(scheme, Limits(write_ahead=1 << 16)) as (a, b):
        written = [0] * 6

        async def write(writer: int) -> None:
            while True:
                await a.write([writer, bytes(10_000)])
                written[writer] += 1

        writing = [asyncio.ensure_future(write(writer)) for writer in range(6)]
        for _ in range(50):
            await b.read()
        read = [50]

        async def read_rest() -> None:
            async for _ in b:
                read[0] += 1

        reading = asyncio.ensure_future(read_rest())
        closing = asyncio.ensure_future(a.close(3000, "enough"))
        await asyncio.sleep(0)
        assert a.closed()
        error = await error_of(a.write("late"))
        assert (error.code, error.reason, error.closed_by) == (3000, "enough", "us")
        await closing
        for task in writing:
            assert (await error_of(task)).closed_by == "us"
        ended = await error_of(reading)
        assert (ended.code, ended.reason) == (3000, "enough")
        # A writer may have been waiting in a call whose message was accepted.
        assert sum(written) <= read[0] <= sum(written) + 6


BAD_CODES = [
    10**5000,
    -(10**5000),
    65536,
    0,
    999,
    1004,
    1005,
    1006,
    1015,
    2999,
    5000,
    -1,
    True,
    1000.0,
    "1000",
    None,
]


@pytest.mark.parametrize("code", BAD_CODES, ids=lambda code: f"{type(code).__name__}")
@aio
async def test_a_code_that_cannot_be_sent_closes_nothing(code: Any) -> None:
    async with pair("tcp") as (a, b):
        with pytest.raises((ValueError, TypeError), match="cannot close with code"):
            await a.close(code)
        await a.write("still")
        assert await b.read() == "still"


BAD_REASONS = [None, b"bytes", bytearray(b""), 0, 3.5, ["a list"], ("a", "tuple"), CloseCode.NORMAL]


@pytest.mark.parametrize("reason", BAD_REASONS, ids=repr)
@pytest.mark.parametrize("code", [1000, 1001, 3000])
@aio
async def test_a_reason_that_is_no_text_closes_nothing(reason: Any, code: int) -> None:
    async with pair("tcp") as (a, b):
        with pytest.raises(TypeError, match="cannot close with a reason of type"):
            await a.close(code, reason)
        await a.write("still")
        assert await b.read() == "still"


class Obstinate(str):
    """One whose methods are of no use."""

    def refuse(self, *_: object, **__: object) -> Any:
        raise LookupError("of the test")

    __getitem__ = __len__ = __iter__ = __str__ = encode = refuse


REASONS = [
    "",
    Obstinate("a subclass"),
    "x" * 1_000_000,
    "one\ntwo; three\x00",
    "a" * 999,
    "b" * 5000,
    "\ud800 alone",
    "\x1b[31m",
    "❄" * 1000,
]


@pytest.mark.parametrize("reason", REASONS, ids=range(9))
@aio
async def test_any_reason_arrives_as_visible_text(reason: str) -> None:
    async with pair("tcp") as (a, b):
        await a.close(3000, reason)
        error = await error_of(b.read())
        assert error.reason.isprintable()
        assert len(error.reason) == min(str.__len__(reason), 1000)
        ours = await error_of(a.write(1))
        assert ours.reason == error.reason
        for text in (str(ours), str(error)):
            assert text.isprintable()
            assert len(text) < 1200


@aio
async def test_closing_messages_of_random_bytes_are_none() -> None:
    """They are messages, good or bad, or what `closing` says; nothing else comes of them."""
    source = random.Random(0)
    good = bytearray(closing.encode(3000, "why"))
    assert closing.decode([good]) == (3000, "why")
    for _ in range(20_000):
        frame = bytearray(good)
        for _ in range(source.choice((1, 1, 2, 5))):
            frame[source.randrange(len(frame))] = source.randrange(256)
        said = closing.decode([frame[: source.randrange(1, len(frame) + 1)]])
        assert said is None or (1000 <= said.code <= 4999 and said.reason.isprintable())
    for frames in ([], [b""], [good, b""], [good + b"\x00"], [memoryview(good)[:-1]]):
        assert closing.decode(frames) is None


@schemes
@aio
async def test_nothing_follows_a_closing_message(scheme: str) -> None:
    """Whatever a peer sends after it."""
    async with pair(scheme) as (a, b):
        stream: Any = a._stream  # type: ignore[attr-defined]
        for frame in (closing.encode(1000, ""), b"\x01", closing.encode(3000, "again"), b"\x02"):
            stream.write([frame])
        assert [message async for message in b] == []
        for _ in range(3):
            error = await error_of(b.read())
            assert (error.code, error.reason, error.closed_by) == (1000, "", "peer")
