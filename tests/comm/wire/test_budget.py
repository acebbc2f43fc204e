"""What values may make the decoder do, kind by kind; and whatever is encoded can be decoded.

Where a mistake would end the process or hold it for long, a process of its own does it.
"""

from __future__ import annotations

import datetime
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealwire.comm import DecodeError, EncodeError, register_type
from sealwire.comm.codec import decode, encode
from sealwire.comm.wire.budget import DEPTH, INT_SIZE, MULTIPLE, NESTED_OBJECTS, SPARE
from support import programs
from support.headers import UTC, Box, ext, refusal, travel, within, within_lists

# Depth


DEEP = """
import sys, threading
from support.headers import decode, nested, DecodeError
headers = [nested(depth, layers) for layers in {layers!r} for depth in (33, 150, 250, 600, 3000)]
def go():
    for header in headers:
        for frames in ([bytearray(header)], [bytearray(header), bytearray(9)]):
            try:
                decode(frames)
            except DecodeError:
                continue
            if len(header) > 500:
                sys.exit(f"{{header[:40]!r}} was decoded")
go()
threading.stack_size(256 * 1024)
thread = threading.Thread(target=go)
thread.start()
thread.join()
print("alive")
"""


@pytest.mark.parametrize("flags", [[], ["-O"]], ids=["", "-O"])
def test_no_depth_of_anything_ends_the_process(flags: list[str]) -> None:
    """Also not in a thread with a small stack."""
    layers = ["(", "?", "!", "2", "1", "([", "({", "[(", "(?", "(2", "[{(", "!2", "12"]
    run = subprocess.run(
        [sys.executable, *flags, "-c", DEEP.format(layers=layers)],
        cwd=__file__.rpartition("/")[0],
        env={"PYTHONPATH": f".:{programs.HOME}"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (run.returncode, run.stdout, run.stderr) == (0, "alive\n", "")


WRAPS: dict[str, tuple[Callable[[Any], Any], int]] = {
    "lists": (lambda value: [value], DEPTH),
    "dicts": (lambda value: {"k": value}, DEPTH),
    "lists of bytes": (lambda value: [b"x", value], DEPTH),
    "lists of large bytes": (lambda value: [bytes(5000), value], DEPTH),
    "objects": (Box, NESTED_OBJECTS),
    "objects in lists": (lambda value: [Box(value)], NESTED_OBJECTS),
    "objects of deep lists": (
        lambda value: Box(within_lists(value, 30)),
        DEPTH // 31,
    ),
}


@pytest.mark.parametrize("name", WRAPS)
def test_what_is_as_deep_as_may_be_travels_and_deeper_is_not_sent(name: str) -> None:
    wrap, most = WRAPS[name]
    received = travel(within(most, wrap))
    assert encode(received)[0] == encode(within(most, wrap))[0]
    with pytest.raises(EncodeError, match="deep"):
        encode(within(most + 1, wrap))


def test_too_deep_is_refused_whatever_stands_beside() -> None:
    for before in ([], [b"x"], ["x" * 10_000], [1] * 5000):
        level = msgpack.Packer().pack_array_header(len(before) + 1)
        level += b"".join(map(msgpack.packb, before))
        assert "deep" in refusal(level * (DEPTH + 1) + b"\xc0")
        decode([bytearray(level * DEPTH + b"\xc0")])


# Claims


@pytest.mark.parametrize("claim", [b"\xdc\x7f\xff", b"\xdd\x00\x00\x7f\xff"], ids=["16", "32"])
def test_lists_that_claim_more_than_comes_make_nothing(claim: bytes) -> None:
    """msgpack makes the places of each list as it opens; 400 within one another are 100 MiB."""
    import tracemalloc

    header = (claim * 400).ljust(40_000, b"\0")
    tracemalloc.start()
    try:
        assert "claims more" in refusal(header)
        assert tracemalloc.get_traced_memory()[1] < MULTIPLE * len(header)
        tracemalloc.reset_peak()
        refusal((claim * 400)[:DEPTH])  # which is not run over first
        assert tracemalloc.get_traced_memory()[1] < SPARE
    finally:
        tracemalloc.stop()


# Frames


def test_a_frame_is_referred_to_once() -> None:
    """Sent back it would be many times what came."""
    one = ext(1, b"\x91\x01")
    box = ext(3, msgpack.packb(["tests.Box", one]))
    for header in ([one, one], {"a": one, "b": [one]}, [one, box], [box, box]):
        assert "twice" in refusal(msgpack.packb(header), bytes(100))
    both = [one, ext(2, msgpack.packb(["|u1", [9], "C", 1]))]
    assert "twice" in refusal(msgpack.packb(both), bytes(9))
    assert decode([bytearray(msgpack.packb([one])), bytearray(b"x")]) == [b"x"]


# Ints and times


def test_ints_up_to_what_python_prints() -> None:
    for value in (1 << 64, -(1 << 63) - 1, 10**4290, -(10**4290), (1 << (8 * INT_SIZE - 1)) - 1):
        assert travel([value]) == [value]
        assert travel(value) == value
        assert str(value)
    assert "an int of 1785 bytes" in refusal(msgpack.packb(ext(4, b"\x7f" * (INT_SIZE + 1))))


@given(
    st.datetimes(timezones=st.none() | st.timezones())
    | st.datetimes(timezones=st.just(UTC))
    | st.builds(
        lambda moment, hours: moment.replace(
            tzinfo=datetime.timezone(datetime.timedelta(hours=hours))
        ),
        st.datetimes() | st.sampled_from([datetime.datetime.min, datetime.datetime.max]),
        st.floats(-23.9, 23.9),
    )
)
def test_a_time_arrives_or_is_not_sent(moment: datetime.datetime) -> None:
    try:
        frames = encode([moment, {"k": moment}])
    except EncodeError as error:
        assert "outside the years" in str(error)
        with pytest.raises(OverflowError):
            moment.astimezone(UTC)
        return
    received = decode([bytearray(frame) for frame in frames])
    # In UTC here too: Python finds times that a zone skips or repeats unequal to any other's.
    expected = moment if moment.tzinfo is None else moment.astimezone(UTC)
    assert received == [expected, {"k": expected}]
    assert received[0].tzinfo == expected.tzinfo


@pytest.mark.parametrize(
    "text",
    ["", "2026-01-01", "2026-01-01T00:00:00Z", "2026-01-01T00:00:00+05:00", "2026-W01-1",
     "20260101T000000", "2026-01-01 00:00:00", "2026-01-01T00:00:00.5", "2026-01-01T00:00",
     "2026-01-01T00:00:00" + " " * 100_000, "２026-01-01T00:00:00"],
)  # fmt: skip
def test_a_time_is_taken_as_isoformat_writes_it_only(text: str) -> None:
    refusal(msgpack.packb(ext(5, text.encode())))


# Words


BIG = "x\x1b[31m" * 400_000


def quoting(value: Any) -> Any:
    raise ValueError(f"bad: {value}")


def unspeakable(value: Any) -> Any:
    class Error(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    raise Error


register_type(type("Quoting", (), {}), lambda _: None, quoting, name="tests.Quoting")
register_type(type("Unspeakable", (), {}), lambda _: None, unspeakable, name="tests.Unspeakable")

LONG = {
    "the name of a type": ext(3, msgpack.packb([BIG, 1])),
    "bytes as the name of a type": ext(3, msgpack.packb([BIG.encode(), 1])),
    "the number of a frame": ext(1, msgpack.packb([BIG])),
    "a list as the number of a frame": ext(1, msgpack.packb([[BIG]])),
    "a dtype": ext(2, msgpack.packb([BIG, [1], "C", b""])),
    "a dtype's field": ext(2, msgpack.packb([[[BIG, "x"]], [1], "C", b""])),
    "a dtype of many": ext(2, msgpack.packb([["x"] * 400_000, [1], "C", b""])),
    "a shape": ext(2, msgpack.packb(["<i8", BIG, "C", b""])),
    "a long shape": ext(2, msgpack.packb(["<i8", [1 << 60] * 400_000, "C", b""])),
    "an order": ext(2, msgpack.packb(["<i8", [1], BIG, b""])),
    "what an array's bytes are": ext(2, msgpack.packb(["<i8", [1], "C", BIG])),
    "a time": ext(5, BIG.encode()),
    "an int": ext(4, bytes(400_000)),
    "what a type's decode quotes": ext(3, msgpack.packb(["tests.Quoting", BIG])),
    "what a type's decode cannot say": ext(3, msgpack.packb(["tests.Unspeakable", BIG])),
}


@pytest.mark.parametrize("name", LONG)
def test_no_error_repeats_much_of_a_peer(name: str) -> None:
    with pytest.raises(DecodeError) as caught:
        decode([bytearray(msgpack.packb(LONG[name])), bytearray(9)], "tcp://x:1")
    assert len(str(caught.value)) < 500
    assert str(caught.value).isprintable()
    logged = "".join(traceback.format_exception(caught.value))  # as a handler's error is
    assert len(logged) < 20_000


# Size and time


def test_the_bounds_are_no_assertions() -> None:
    """One of each kind, under -O."""
    script = (
        "import msgpack\n"
        "from support.headers import array, decode, DecodeError\n"
        "from test_array_bounds import NO_BYTES, NOT_DESCRIPTIONS\n"
        "from test_budget import LONG\n"
        "from test_keys import KEYS\n"
        "headers = [array(dtype, [5]) for dtype in NO_BYTES]\n"
        "headers += [array(dtype, [1], bytes(8)) for dtype in NOT_DESCRIPTIONS.values()]\n"
        "headers += [msgpack.packb(value) for value in LONG.values()]\n"
        "headers += [b'\\x81' + msgpack.packb(key) + b'\\xc0' for key in KEYS.values()]\n"
        "refused = 0\n"
        "for header in headers:\n"
        "    try: decode([bytearray(header), bytearray(9)])\n"
        "    except DecodeError: refused += 1\n"
        "print(refused == len(headers) > 50)\n"
    )
    run = subprocess.run(
        [sys.executable, "-O", "-c", script],
        cwd=__file__.rpartition("/")[0],
        env={"PYTHONPATH": f".:{programs.HOME}"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (run.stdout, run.stderr) == ("True\n", "")


def test_decoders_of_several_threads_do_not_meet() -> None:
    message = {"box": Box([b"x", {"y": 1 << 70}]), "array": np.arange(3), "more": [b"z" * 9000]}
    frames = [bytes(frame) for frame in encode(message)]
    wrong: list[Any] = []

    def go() -> None:
        for _ in range(300):
            received = decode([bytearray(frame) for frame in frames])
            if received["box"] != message["box"] or received["more"] != message["more"]:
                wrong.append(received)

    threads = [threading.Thread(target=go) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
