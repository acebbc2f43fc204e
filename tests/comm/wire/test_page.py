"""docs/wire.md: its dumps are what comms send, and decode to what the page says."""

from __future__ import annotations

import asyncio
import datetime
import re
import struct
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import distributed.comm
import msgpack
import numpy as np
import pytest
from distributed.protocol import to_serialize

from sealwire.comm import (
    CallLost,
    Calls,
    CloseCode,
    EncodeError,
    HandshakeError,
    connect,
    listen,
)
from sealwire.comm.codec import decode
from sealwire.comm.extensions import ARRAY, DATETIME, INT, OBJECT, REFERENCE
from sealwire.comm.wire import closing, hello
from sealwire.comm.wire.framing import Splitter, pack
from sealwire.security import PeerNotAllowed
from sealwire.security.contexts.allowlist import AllowedPeers

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "wire.md").read_text(encoding="utf-8")
PATIENCE = 30  # seconds


def undumped(text: str) -> bytes:
    """The bytes of a dump: rows of an offset and up to 16 bytes, `*` for rows like the last."""
    found = bytearray()
    again = False
    for line in text.splitlines():
        if line == "*":
            again = True
            continue
        start, _, rest = line.partition("  ")
        while again and len(found) < int(start, 16):
            found += found[-16:]
        again = False
        assert len(found) == int(start, 16), line
        row = bytes.fromhex(rest.partition("|")[0])
        if row:
            shown = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in row)
            assert rest.endswith(f"|{shown}|"), line
        found += row
    return bytes(found)


DUMPS = [undumped(text) for text in re.findall(r"^```hexdump\n(.*?)^```", PAGE, re.M | re.S)]
STOCK_HELLO, HELLO, REFUSAL, SMALL, LARGE, ARRAY_OF_3, CLOSING, CALL, PING, PUT = DUMPS


def frames_of(data: bytes) -> list[Any]:
    """The frames of a message, by the parser of every comm, fed a byte at a time."""
    inbox: deque[tuple[list[Any], int]] = deque()
    splitter = Splitter(
        inbox, lambda size: memoryview(bytearray(size)), max_size=1 << 20, max_frames=9
    )
    for byte in data:
        splitter.feed(bytearray([byte]), 1)
    ((frames, _),) = inbox
    assert splitter.progress() == ""
    return frames


def messages_of(data: bytes) -> Iterator[bytes]:
    """Each whole message of a recorded stream, by the layout that the page describes."""
    while data:
        (count,) = struct.unpack_from("<Q", data, 8)
        size = 16 + 8 * count + sum(struct.unpack_from(f"<{count}Q", data, 16))
        yield data[:size]
        data = data[size:]


async def recorded(greeting: bytes, talk: Callable[[str], Awaitable[None]]) -> list[bytes]:
    """The messages of a real peer that is sent `greeting` and then talks; its hello is first."""
    received = bytearray()
    over = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(greeting)
        while data := await reader.read(65536):
            received.extend(data)
        writer.close()
        over.set()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        await talk(f"tcp://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        await asyncio.wait_for(over.wait(), PATIENCE)
    return list(messages_of(bytes(received)))


def test_ours_are_what_a_comm_sends() -> None:
    async def talk(address: str) -> None:
        comm = await connect(address)
        await comm.write({"op": "put", "n": 21})
        await comm.write({"data": bytes(5000)})
        await comm.write({"x": np.arange(3, dtype="i4")})
        calls = Calls(comm)
        with pytest.raises(CallLost):
            await asyncio.gather(
                calls.call("add", 1, 2, timeout=5),
                calls.close(CloseCode.GOING_AWAY, "until tomorrow"),
            )

    first, *rest = asyncio.run(recorded(HELLO, talk))
    assert rest == [SMALL, LARGE, ARRAY_OF_3, CALL, CLOSING]
    told, shown = (msgpack.unpackb(frames_of(data)[0]) for data in (first, HELLO))
    del told["python"], shown["python"]
    assert told == shown


def without(*keys: str) -> bytes:
    """The hello of a peer that lacks these keys of the map `sealwire`, or, without any, the map."""
    (frame,) = frames_of(HELLO)
    offered = msgpack.unpackb(frame)
    if keys:
        offered["sealwire"] = {
            key: value for key, value in offered["sealwire"].items() if key not in keys
        }
    else:
        del offered["sealwire"]
    frame = msgpack.packb(offered)
    return pack([len(frame)], shared=1) + frame


@pytest.mark.parametrize(
    ("greeting", "array", "last"),
    [
        (without("closing"), [ARRAY_OF_3], []),
        (without("arrays"), [], [CLOSING]),
        (without("arrays", "closing"), [], []),
    ],
)
def test_what_a_peer_lacks_it_is_not_sent(
    greeting: bytes, array: list[bytes], last: list[bytes]
) -> None:
    async def talk(address: str) -> None:
        comm = await connect(address)
        await comm.write({"data": bytes(5000)})
        with nullcontext() if array else pytest.raises(EncodeError, match="no numpy"):
            await comm.write({"x": np.arange(3, dtype="i4")})
        await comm.close(CloseCode.GOING_AWAY, "until tomorrow")

    _, *rest = asyncio.run(recorded(greeting, talk))
    assert rest == [LARGE, *array, *last]


def test_a_peer_without_our_key_is_sent_plain_msgpack_only() -> None:
    async def talk(address: str) -> None:
        comm = await connect(address)
        await comm.write({"data": bytes(5000)})
        for value in (np.arange(3), datetime.datetime(2026, 1, 1), 1 << 64):
            with pytest.raises(EncodeError, match="plain msgpack"):
                await comm.write({"x": value})
        await comm.close(CloseCode.GOING_AWAY, "until tomorrow")

    _, *rest = asyncio.run(recorded(without(), talk))
    assert [frames_of(each) for each in rest] == [[msgpack.packb({"data": bytes(5000)})]]


def test_those_of_distributed_are_what_its_own_backend_sends() -> None:
    async def talk(address: str) -> None:
        comm = await distributed.comm.connect(address)
        await comm.write({"op": "ping"})
        await comm.write({"op": "put", "data": to_serialize(b"0123456789")})
        await comm.close()

    first, ping, put = asyncio.run(recorded(STOCK_HELLO, talk))
    told, shown = (msgpack.unpackb(frames_of(data)[0]) for data in (first, STOCK_HELLO))
    assert told.keys() == shown.keys() == {"compression", "python", "pickle-protocol"}
    assert ping == PING
    assert [len(frame) for frame in frames_of(put)] == [len(frame) for frame in frames_of(PUT)]
    assert frames_of(put)[0] == frames_of(PUT)[0]


@pytest.mark.parametrize(
    ("data", "message"),
    [(SMALL, {"op": "put", "n": 21}), (LARGE, {"data": bytes(5000)}),
     (CALL, [0, 1, "add", 5.0, None, 1, 2])],
)  # fmt: skip
def test_they_decode_to_what_the_page_says(data: bytes, message: Any) -> None:
    assert decode(frames_of(data)) == message


def test_the_array_decodes() -> None:
    array = decode(frames_of(ARRAY_OF_3))["x"]
    assert array.dtype == "i4"
    assert array.tolist() == [0, 1, 2]


def test_the_layout_in_numbers() -> None:
    lead, count, first, second = struct.unpack_from("<4Q", LARGE)
    assert (count, second, lead) == (2, 5000, 8 + 16 + first)  # the second frame is bare
    lead, count, *lengths = struct.unpack_from("<5Q", PUT)
    assert (count, lead) == (3, 8 + 24 + sum(lengths))  # none is
    assert (len(STOCK_HELLO), STOCK_HELLO[0], STOCK_HELLO[16]) == (66, 58, 42)
    assert "lead 0x3a = 58, one frame, of 0x2a = 42 bytes" in " ".join(PAGE.split())


def test_the_closing_message() -> None:
    assert closing.decode(frames_of(CLOSING)) == (1001, "until tomorrow")


def test_the_refusal_is_one() -> None:
    with pytest.raises(
        HandshakeError, match=r"it refused our certificate: its names \(CN=worker\)"
    ):
        hello.decode(frames_of(REFUSAL))
    why = msgpack.unpackb(frames_of(REFUSAL)[0])["refused"]
    with pytest.raises(PeerNotAllowed) as refused:
        AllowedPeers(["scheduler"]).check({"subject": ((("commonName", "worker"),),)}, b"")
    assert why == refused.value.told
    (made,) = frames_of(hello.refusal(why))
    told, shown = msgpack.unpackb(made), msgpack.unpackb(frames_of(REFUSAL)[0])
    del told["python"], shown["python"]
    assert told == shown


def test_a_comm_takes_what_the_page_shows() -> None:
    """As bytes from a foreign program, in pieces."""
    got: list[Any] = []

    async def main() -> None:
        async def collect(comm: Any) -> None:
            got.extend([message async for message in comm])
            got.append(await comm.wait_closed())

        async with listen("tcp://127.0.0.1:0", collect) as listener:
            host, _, port = listener.contact_address.removeprefix("tcp://").partition(":")
            reader, writer = await asyncio.open_connection(host, int(port))
            data = HELLO + SMALL + LARGE + CLOSING
            for start in range(0, len(data), 777):
                writer.write(data[start : start + 777])
                await writer.drain()
            await asyncio.wait_for(reader.read(), PATIENCE)
            writer.close()
            await listener.close(grace=PATIENCE)

    asyncio.run(main())
    small, large, end = got
    assert small == {"op": "put", "n": 21}
    assert large == {"data": bytes(5000)}
    assert (end.code, end.reason) == (1001, "until tomorrow")


def test_the_types_of_extensions() -> None:
    part = PAGE[PAGE.index("The msgpack extension types") :]
    rows = re.findall(r"^\| (-?\d+) \| (.*?) \|", part, re.MULTILINE)
    assert [(int(number), what.split()[0]) for number, what in rows] == [
        (REFERENCE, "reference"), (ARRAY, "array"), (OBJECT, "object"), (INT, "int"),
        (DATETIME, "datetime"), (closing.CLOSING, "closing"), (-1, "datetime"),
    ]  # fmt: skip


def test_packing_gives_the_same_bytes() -> None:
    for data, shared in ((SMALL, 1), (LARGE, 1), (PUT, 3)):
        frames = frames_of(data)
        assert pack([len(frame) for frame in frames], shared) + b"".join(frames) == data
