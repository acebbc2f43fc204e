"""How a comm ends, as both of its sides see it: by whom, with which code, and what is lost."""

from __future__ import annotations

import asyncio
import pickle
import random
import socket
import struct
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import uvloop

from sealwire.comm import (
    CloseCode,
    Comm,
    CommClosedError,
    ConnectError,
    Limits,
    connect,
    listen,
    register_type,
)
from support import programs
from support.aio import aio, until
from support.links import (
    SCHEMES,
    RawPeer,
    connect_args,
    echo,
    listen_args,
    message,
    pair,
    security,
)

LoopFactory = Callable[[], asyncio.AbstractEventLoop]

schemes = pytest.mark.parametrize("scheme", SCHEMES)
loops = pytest.mark.parametrize(
    "loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"]
)


class Unknown:
    """Of a type that one side forgets."""


async def error_of(awaitable: Awaitable[Any]) -> CommClosedError:
    with pytest.raises(CommClosedError) as caught:
        await awaitable
    return caught.value


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


DOCS = (Path(__file__).resolve().parents[2] / "docs" / "errors.md").read_text(encoding="utf-8")


def documented() -> list[tuple[str, int, str, str]]:
    """Kind, code, whether clean and whether another attempt may help, of each row."""
    table = DOCS.partition("<!-- endings -->")[2].partition("<!-- end -->")[0]
    rows = [line.strip("| ").split(" | ") for line in table.strip().splitlines()[2:]]
    return [(kind.strip("`"), int(code), clean, again) for _, kind, code, clean, again in rows]


def row(error: CommClosedError) -> tuple[str, int, str, str]:
    """The row of the documentation that an error belongs to."""
    clean = "yes" if error.clean else "no"
    return error.kind, error.code, clean, "may help" if error.retryable else "cannot help"


def test_the_documentation_has_a_row_for_each_code_and_kind() -> None:
    rows = documented()
    assert len(rows) == 12
    assert {code for _, code, _, _ in rows} == {*CloseCode, 4999} - {CloseCode.SLOW_CONSUMER}


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
    async with listen(f"{scheme}://127.0.0.1:0", handler, **listen_args(scheme)) as listener:
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


@schemes
@loops
@aio
async def test_the_last_message_arrives_though_the_peer_talks(
    scheme: str, loop_factory: LoopFactory
) -> None:
    """A kernel that gets bytes for a closed socket drops what it has yet to send."""

    async def say_and_close(comm: Comm) -> None:
        sock = comm._stream.socket  # type: ignore[attr-defined]
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        await comm.read()
        for number in range(12):
            await comm.write([number, bytes(100_000)])

    async with listen(f"{scheme}://127.0.0.1:0", say_and_close, **listen_args(scheme)) as listener:
        comm = await connect(
            listener.contact_address,
            limits=Limits(read_ahead=150_000),
            **connect_args(scheme),
        )

        async def talk() -> None:
            while True:
                await comm.write(bytes(1000))

        await comm.write("go")
        talking = asyncio.ensure_future(talk())
        numbers = []
        async for number, _ in comm:
            numbers.append(number)
            await asyncio.sleep(0.01)  # a slow reader: most of it is still on its way
        assert numbers == list(range(12))
        assert (await error_of(talking)).closed_by in ("peer", "lost")
        assert comm.closed_by == "peer"


@schemes
@aio
async def test_who_gives_up_resets(scheme: str) -> None:
    """A peer that took nothing for `close_timeout` does not see an orderly end."""
    async with pair(scheme, Limits(close_timeout=0.05, read_ahead=1000)) as (a, b):
        await a.write("first")
        assert await b.read() == "first"
        await a.write(bytes(2000))  # fills what is read ahead
        writing = asyncio.ensure_future(a.write(bytes(50_000_000)))
        await asyncio.sleep(0)
        await a.close()
        with pytest.raises(CommClosedError):
            await writing
        assert len(await b.read()) == 2000
        error = await error_of(b.read())
        assert (error.code, error.closed_by, error.clean) == (CloseCode.ABNORMAL, "lost", False)
        assert row(error) in documented()


BAD_CODES = [0, 999, 1004, 1005, 1006, 1015, 2999, 5000, -1, True, 1000.0, "1000", None]


@pytest.mark.parametrize("code", BAD_CODES, ids=repr)
@aio
async def test_a_code_that_cannot_be_sent_closes_nothing(code: Any) -> None:
    async with pair("tcp") as (a, b):
        with pytest.raises((ValueError, TypeError), match="cannot close with code"):
            await a.close(code)
        await a.write("still")
        assert await b.read() == "still"


REASONS = ["", "a" * 999, "b" * 5000, "\ud800 alone", "\x1b[31m", "❄" * 1000]


@pytest.mark.parametrize("reason", REASONS, ids=lambda reason: ascii(reason[:10]))
@aio
async def test_any_reason_arrives_as_visible_text(reason: str) -> None:
    async with pair("tcp") as (a, b):
        await a.close(3000, reason)
        error = await error_of(b.read())
        assert error.reason.isprintable()
        assert len(error.reason) == min(len(reason), 1000)


@schemes
@aio
async def test_a_stock_peer_is_told_nothing_and_its_end_says_nothing(scheme: str) -> None:
    """It gets no closing message, and its orderly end may as well be that of a killed process."""
    stock = message(b"\x83\xabcompression\xc0\xa6python\x93\x03\x0b\x00\xafpickle-protocol\x05")
    ends: list[CommClosedError] = []

    async def handler(comm: Comm) -> None:
        if await comm.read() == "close":
            await comm.close(3000, "unheard")
        else:
            ends.append(await error_of(comm.read()))

    args = connect_args(scheme).get("ssl_context")
    async with listen(f"{scheme}://127.0.0.1:0", handler, **listen_args(scheme)) as listener:
        peer = await RawPeer.dial(listener.contact_address, args)
        peer.writer.write(stock + message(b"\xa5close"))
        await peer.receive()
        assert await peer.ended() == b""
        peer.close()
        peer = await RawPeer.dial(listener.contact_address, args)
        peer.writer.write(stock + message(b"\xa2go"))
        await peer.receive()
        sock = peer.writer.get_extra_info("socket")
        sock.shutdown(socket.SHUT_WR)  # without close_notify
        await until(lambda: bool(ends))
        peer.close()
        assert listener.stats.broken == {}
    (error,) = ends
    assert (error.code, error.kind, error.clean) == (CloseCode.NO_STATUS, "unannounced", False)
    assert row(error) in documented()


@schemes
@loops
@aio
async def test_an_abort_is_no_orderly_end(scheme: str, loop_factory: LoopFactory) -> None:
    async def handler(comm: Comm) -> None:
        await comm.read()
        comm.abort()

    async with listen(f"{scheme}://127.0.0.1:0", handler, **listen_args(scheme)) as listener:
        comm = await connect(listener.contact_address, **connect_args(scheme))
        await comm.write("go")
        error = await error_of(comm.read())
        assert (error.code, error.closed_by) == (CloseCode.ABNORMAL, "lost")
        assert row(error) in documented()


@schemes
@loops
@pytest.mark.parametrize("state", ["idle", "sending", "receiving", "waiting"])
@aio
async def test_a_killed_peer_is_no_orderly_end(
    scheme: str, state: str, loop_factory: LoopFactory
) -> None:
    """``kill -9``, in whatever state it is; its kernel ends the connection as for a close."""
    ended: asyncio.Future[CommClosedError] = asyncio.get_running_loop().create_future()
    ready = asyncio.Event()

    async def handler(comm: Comm) -> None:
        state = await comm.read()
        await comm.write("go")
        await ready.wait()
        flood = None
        if state == "receiving":

            async def send() -> None:
                while True:
                    await comm.write(bytes(1_000_000))

            flood = asyncio.ensure_future(send())
        try:
            async for _ in comm:
                pass
            ended.set_exception(AssertionError("ended as if in order"))
        except CommClosedError as error:
            ended.set_result(error)
        if flood is not None:
            assert (await error_of(flood)).code == CloseCode.ABNORMAL

    async with listen(f"{scheme}://127.0.0.1:0", handler, **listen_args(scheme)) as listener:
        loop = asyncio.get_running_loop()
        name = "uvloop" if type(loop).__module__.startswith("uvloop") else "asyncio"
        command = programs.command("sitting_peer", listener.contact_address, state, name)
        process = await asyncio.to_thread(
            subprocess.Popen, command, env=programs.environment(), cwd=Path("/"),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        with process:
            try:
                assert process.stdin is not None
                assert process.stdout is not None
                process.stdin.write(pickle.dumps(security()))
                process.stdin.close()
                assert await asyncio.to_thread(process.stdout.readline) == b"ready\n"
                ready.set()
            finally:
                process.kill()
            error = await ended
    assert (error.code, error.closed_by, error.clean) == (CloseCode.ABNORMAL, "lost", False)
    assert row(error) in documented()


async def _cutting_proxy(target: str, records: int) -> tuple[asyncio.Server, str, list[int]]:
    """A proxy that ends both directions in order after so many TLS records to who dialled.

    Returns besides it its address, and a list that gets an entry for each record.
    """
    host, _, port = target.partition("://")[2].rpartition(":")
    passed: list[int] = []

    async def there(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while data := await source.read(65536):
            sink.write(data)

    async def back(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while len(passed) < records:
            head = await source.readexactly(5)
            sink.write(head + await source.readexactly(int.from_bytes(head[3:], "big")))
            passed.append(len(head))

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection(host, int(port))
        sending = asyncio.ensure_future(there(reader, far_writer))
        try:
            await back(far_reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        sending.cancel()
        writer.close()
        far_writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    return server, f"tls://127.0.0.1:{server.sockets[0].getsockname()[1]}", passed


@aio
async def test_a_truncation_at_every_boundary_is_noticed() -> None:
    """Whoever is on the way can end TCP in order, but cannot forge a close_notify."""
    count = 8

    async def send(comm: Comm) -> None:
        await comm.read()
        for number in range(count):
            await comm.write(number)
            await comm.read()

    async def converse(records: int) -> tuple[list[int], int, CommClosedError | None]:
        server, address, passed = await _cutting_proxy(listener.contact_address, records)
        seen: list[int] = []
        async with server:
            try:
                async with connect(address, timeout=20, **connect_args("tls")) as comm:
                    await comm.write("go")
                    async for number in comm:
                        seen.append(number)
                        await comm.write("next")
            except CommClosedError as error:
                return seen, len(passed), error
            except ConnectError as error:  # it was cut before the hello was there
                assert isinstance(error.__cause__, CommClosedError)
                return seen, len(passed), error.__cause__
        return seen, len(passed), None

    async with listen("tls://127.0.0.1:0", send, **listen_args("tls")) as listener:
        seen, whole, error = await converse(1000)
        assert (seen, error) == (list(range(count)), None)
        lengths = []
        # The last two are the closing message and close_notify, either of which says all.
        for records in range(whole - 2 - count, whole - 1):
            seen, _, error = await converse(records)
            lengths.append(len(seen))
            assert seen == list(range(len(seen)))
            assert error is not None, records
            assert (error.code, error.clean) == (CloseCode.ABNORMAL, False), records
        assert lengths == list(range(count + 1))


@aio
async def test_closing_messages_of_random_bytes_are_none() -> None:
    """They are messages, good or bad, or what `closing` says; nothing else comes of them."""
    from sealwire.comm.wire import closing

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
