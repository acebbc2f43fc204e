"""Messages of strange values, decoded and judged by what comes out; a program of its own, so that a
crash is seen.

    python -m support.programs.value_fuzz SECONDS SEED

ends with 0 and one line of JSON, or says on stderr which message broke which promise.
"""

from __future__ import annotations

import datetime
import json
import math
import os
import random
import sys
import time
import warnings
from typing import Any

import msgpack
import numpy
from msgpack import ExtType

from sealwire.comm import DecodeError, EncodeError, codec, register_type

SLOW = 20e-6  # seconds a byte; what is linear takes a tenth of it at most, on a slow machine too
SPARE = 0.05  # seconds that any message may take

EDGES = [0, 1, 2, 3, 7, 8, 31, 32, 127, 128, 255, 256, 65535, 1 << 31, (1 << 32) - 1, 1 << 32]
EDGES += [(1 << 61) - 1, 1 << 61, (1 << 63) - 1, 1 << 63, (1 << 64) - 1]
KINDS = "biufcSUVmMOaxtT?p"
UNITS = ["", "[s]", "[ns]", "[25s]", "[0s]", "[D]", "[Y]", "[generic]", "[as]", "[99999s]", "[s/7]"]
MOMENTS = [b"2026-01-01T00:00:00", b"2026-W01-1", b"0001-01-01T00:00:00", b"\xff", b"", b"9" * 9000]
MOMENTS += [b"2026-01-01T00:00:00+05:00", b"9999-12-31T23:59:59.999999"]
NAMES = ["a", "b", "", "f0", "title", "é", "\0", "x" * 300, "__class__", "\u202e"]


class Node:
    """A registered type; holds whatever a message may hold."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __repr__(self) -> str:
        return f"Node({self.value!r})"


register_type(Node, lambda node: node.value, Node, name="node")


def raising(value: Any) -> Any:
    raise ValueError("why " * 5000)


register_type(type("Raising", (), {}), lambda _: None, raising, name="raising")


def extension(code: int, data: bytes) -> ExtType:
    return tuple.__new__(ExtType, (code, data))


class Maker:
    """Messages, at random: most are well formed, and strange in one place or another."""

    def __init__(self, source: random.Random) -> None:
        self.source = source
        self.frames: list[bytes] = []

    def message(self) -> list[bytes]:
        self.frames = [b""]
        for _ in range(self.source.choice([0, 0, 0, 1, 2, 5])):
            self.frames.append(self.source.randbytes(self.source.choice([0, 1, 8, 24, 64, 5000])))
        header = msgpack.packb(self.value(self.source.choice([1, 2, 3, 4])))
        if self.source.random() < 0.05:
            header = self.deep(header)
        if self.source.random() < 0.3:
            header = self.damaged(header)
        return [header, *self.frames[1:]]

    def deep(self, inner: bytes) -> bytes:
        """`inner` within as many others as may be too many."""
        for _ in range(self.source.choice([1, 5, 31, 32, 33, 100, 400, 501, 1100])):
            way = self.source.randrange(4)
            if way == 0:
                inner = b"\x91" + inner
            elif way == 1:
                inner = b"\x81\xa1k" + inner
            else:
                inner = msgpack.packb(
                    extension(3, msgpack.packb(["node"])[:0] + b"\x92\xa4node" + inner)
                )
        return inner

    def damaged(self, header: bytes) -> bytes:
        work = bytearray(header)
        for _ in range(self.source.randint(1, 3)):
            place = self.source.randrange(len(work) + 1)
            way = self.source.randrange(4)
            if way == 0 and place < len(work):
                work[place] = self.source.randrange(256)
            elif way == 1:
                work[place:place] = self.source.randbytes(self.source.randrange(1, 9))
            elif way == 2:
                del work[place : place + self.source.randrange(1, 9)]
            else:  # a list that claims much
                work[place:place] = b"\xdd" + self.source.choice([99, 1 << 16, 1 << 31]).to_bytes(
                    4, "big"
                )
        return bytes(work)

    def number(self) -> int:
        source = self.source
        return source.choice(
            [source.choice(EDGES), source.randint(0, 40), -source.choice(EDGES[:-3])]
        )

    def value(self, depth: int) -> Any:
        source = self.source
        make = source.choice(
            [self.scalar] * 3 + [self.array, self.array, self.strange]
            + ([self.several, self.mapping, self.node] if depth else [])
        )  # fmt: skip
        return make(depth)

    def scalar(self, depth: int) -> Any:
        source = self.source
        return source.choice(
            [None, True, self.number(), source.random(), math.inf, math.nan, "text", "é" * 9,
             "x" * source.choice([0, 300, 70_000]), source.randbytes(source.choice([0, 30, 5000]))]
        )  # fmt: skip

    def several(self, depth: int) -> list[Any]:
        return [self.value(depth - 1) for _ in range(self.source.choice([0, 1, 3, 20]))]

    def mapping(self, depth: int) -> dict[Any, Any]:
        return {self.key(): self.value(depth - 1) for _ in range(self.source.choice([0, 1, 3, 20]))}

    def key(self) -> Any:
        source = self.source
        return source.choice(
            ["k", source.randbytes(3), self.number(), source.random(), None, True, (1, 2),
             str(source.random()), extension(4, source.randbytes(9)), extension(1, b"\x91\x01"),
             extension(5, b"2026-01-01T00:00:00"), extension(-1, source.randbytes(4))]
        )  # fmt: skip

    def node(self, depth: int) -> ExtType:
        name = self.source.choice(["node"] * 8 + ["raising", "nobody", "n" * 5000, 5, None])
        content: Any = [name, self.value(depth - 1)]
        if self.source.random() < 0.1:
            content = self.value(depth - 1)
        return extension(3, msgpack.packb(content))

    def array(self, depth: int) -> ExtType:
        source = self.source
        dtype = self.dtype(source.choice([0, 0, 0, 1, 2]))
        shape: Any = [abs(self.number()) if source.random() < 0.2 else source.randint(0, 4)
                      for _ in range(source.choice([0, 1, 1, 2, 3, 33]))]  # fmt: skip
        content: Any = source.randint(-1, 3)
        if source.random() < 0.7:  # most fit, so that what comes out can be looked at
            content = source.randbytes(self.size(dtype, shape))
        if source.random() < 0.05:
            shape = self.scalar(0)
        order = source.choice(["C", "C", "C", "F", "A", None, "CC"])
        return extension(2, msgpack.packb([dtype, shape, order, content]))

    def size(self, dtype: Any, shape: list[int]) -> int:
        try:
            made = numpy.dtype(dtype if isinstance(dtype, str) else [tuple(f) for f in dtype])
            size = math.prod(shape) * made.itemsize
        except Exception:
            return self.source.randint(0, 64)
        return size if 0 <= size < 4096 else 0

    def dtype(self, depth: int) -> Any:
        source = self.source
        if not depth:
            number = source.choice(
                ["", "0", "1", "2", "4", "8", "8", "8", "16", "3", "64", "999999999"]
            )
            return (
                source.choice("<><|=")
                + source.choice(KINDS)
                + number
                + source.choice(UNITS[:1] * 9 + UNITS)
            )
        fields = []
        for _ in range(source.choice([0, 1, 2, 3])):
            name: Any = source.choice(NAMES)
            if source.random() < 0.1:
                name = [source.choice(NAMES), name]
            field = [name, self.dtype(depth - 1)]
            if source.random() < 0.2:
                field.append([source.randint(0, 3) for _ in range(source.randint(0, 3))])
            fields.append(field)
        return fields

    def strange(self, depth: int) -> ExtType:
        source = self.source
        moment = source.choice(MOMENTS)
        return source.choice(
            [extension(1, msgpack.packb([source.randint(0, 5)])), extension(1, b"\x91\xc0"),
             extension(4, source.randbytes(source.choice([0, 1, 9, 1784, 1785, 9000]))),
             extension(5, moment), extension(-1, source.randbytes(source.choice([4, 8, 12, 5]))),
             extension(source.randint(-128, 127), source.randbytes(5))]
        )  # fmt: skip


def shown(value: Any, sent: list[int]) -> Any:
    """`value` as plain data that can be compared; adds its buffers' bytes to `sent`."""
    if isinstance(value, numpy.ndarray):
        sent.append(value.nbytes)
        return ["array", repr(value.dtype), value.shape, value.tobytes()]
    if isinstance(value, (bytes, bytearray, memoryview)):
        sent.append(len(value))
        return ["bytes", bytes(value)]
    if isinstance(value, dict):
        return ["dict", [[shown(k, sent), shown(v, sent)] for k, v in value.items()]]
    if isinstance(value, list):
        return ["list", [shown(item, sent) for item in value]]
    if isinstance(value, Node):
        return ["node", shown(value.value, sent)]
    if isinstance(value, datetime.datetime):
        return ["time", value.isoformat()]
    return [type(value).__name__, repr(value)]


def fill(byte: int) -> None:
    """Leave blocks of every small size in the heap that hold `byte`."""
    blocks = [bytes([byte]) * size for size in (*range(16, 512, 16), 1000, 4000, 9000, 70_000)] * 2
    arrays = [numpy.full(size, byte, "u1") for size in (1, 8, 64, 500, 1000, 5000, 100_000)]
    del blocks, arrays


def decoded(frames: list[bytes]) -> Any:
    return codec.decode([bytearray(frame) for frame in frames], "tcp://fuzz:1")


def promise(holds: object, what: str, frames: list[bytes]) -> None:
    if not holds:
        sys.exit(f"{what}: {[frame[:3000] for frame in frames]!r}")


def judge(frames: list[bytes]) -> bool:
    """Whether the message is one; ends the program if a promise is broken."""
    size = sum(map(len, frames))
    outcomes = []
    for byte in (0xA5, 0x5A):
        fill(byte)
        start = time.thread_time()  # decoding waits for nothing, unless the machine is busy
        try:
            value = decoded(frames)
        except DecodeError as error:
            outcomes.append(str(error))
            promise(len(str(error)) < 600 and str(error).isprintable(), "a long error", frames)
        else:
            taken = time.thread_time() - start
            promise(taken < SPARE + SLOW * size, f"{taken:.3f} s", frames)
            held: list[int] = []
            outcomes.append(shown(value, held))
            promise(sum(held) <= size, f"{sum(held)} bytes of {size}", frames)
    promise(str(outcomes[0]) == str(outcomes[1]), "other bytes the second time", frames)
    if isinstance(outcomes[0], str):
        return False
    repr(value)
    try:
        again = decoded([bytes(frame) for frame in codec.encode(value)])
    except (EncodeError, DecodeError) as error:
        promise(False, f"cannot be sent back ({error})", frames)
    promise(str(shown(again, [])) == str(outcomes[1]), "sent back it is another", frames)
    return True


def main(seconds: float, seed: str) -> None:
    warnings.simplefilter("ignore")  # numpy's, of names that it will not take for long
    maker = Maker(random.Random(seed))
    last = os.environ.get("VALUE_FUZZ_LAST")  # where a message is kept in case it is the last
    end = time.monotonic() + seconds
    number = good = 0
    with open(last or os.devnull, "wb", buffering=0) as file:
        while time.monotonic() < end:
            frames = maker.message()
            file.seek(0)
            file.write(msgpack.packb(frames))
            try:
                good += judge(frames)
            except Exception as error:
                sys.exit(f"{type(error).__name__} ({error}) of {frames!r}")
            number += 1
    print(json.dumps({"messages": number, "good": good}))


if __name__ == "__main__":
    main(float(sys.argv[1]), sys.argv[2])
