"""Pickles that note when they run, and what decoding a message with them comes to."""

from __future__ import annotations

import logging
import pickle
from typing import Any

import msgpack
from distributed.comm.utils import from_frames
from distributed.protocol import Serialized

from sealwire.comm import DecodeError
from sealwire.dask_backend import codec

ran: list[str] = []


def record(tag: str, value: Any = None) -> Any:
    """What a recording pickle calls when it runs."""
    ran.append(tag)
    if isinstance(value, Exception):
        raise value
    return value


class Recording:
    """Pickled, it runs `record`."""

    def __init__(self, tag: str, value: Any = None) -> None:
        self.arguments = tag, value

    def __reduce__(self) -> Any:
        return record, self.arguments


class Odd:
    """An offset that only a pickle can make: it is larger than 0 and an index."""

    def __gt__(self, other: Any) -> bool:
        return bool(record("compared", True))

    def __index__(self) -> int:
        return int(record("index", 1))

    def __iadd__(self, other: Any) -> int:
        return int(record("added", 2))


class Map:
    """A msgpack map whose keys may be anything, also twice the same."""

    def __init__(self, *pairs: tuple[Any, Any]) -> None:
        self.pairs = pairs

    def __repr__(self) -> str:
        return f"Map{self.pairs!r}"


class Raw(bytes):
    """Bytes that stand in msgpack as they are."""


def packed(value: Any) -> bytes:
    if isinstance(value, Raw):
        return bytes(value)
    packer = msgpack.Packer()
    if isinstance(value, Map):
        head = packer.pack_map_header(len(value.pairs))
        return head + b"".join(packed(key) + packed(item) for key, item in value.pairs)
    if isinstance(value, dict):
        return packed(Map(*value.items()))
    if isinstance(value, (list, tuple)):
        return packer.pack_array_header(len(value)) + b"".join(map(packed, value))
    return packer.pack(value)


def pickled(tag: str, value: Any = None, **more: Any) -> bytes:
    """A frame with a recording pickle."""
    data = pickle.dumps(Recording(tag, value))
    return packed({"pickled-obj": data, "compression": (), "num-sub-frames": 0, **more})


def shown(value: Any) -> Any:
    """`value` as something that is equal to its like."""
    if isinstance(value, Serialized):
        return "Serialized", shown(value.header), shown(value.frames)
    if isinstance(value, (bytearray, memoryview)):
        return "memory", bytes(value)
    if isinstance(value, dict):
        return {"dict": [(shown(key), shown(item)) for key, item in value.items()]}
    if isinstance(value, (list, tuple)):
        return type(value).__name__, [shown(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return type(value).__name__, sorted(repr(shown(item)) for item in value)
    if isinstance(value, Exception):
        return type(value).__name__, str(value)
    return type(value).__name__, repr(value).partition(" object at ")[0]


class Lines(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, str, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.seen.append((record.name, record.levelname, str(record.msg)))


class Outcome:
    """What came of decoding `frames`."""

    def __init__(self, decoding: Any, frames: list[Any], deserialize: bool) -> None:
        ran.clear()
        lines = Lines()
        logger = logging.getLogger("distributed")
        propagate, logger.propagate = logger.propagate, False
        logger.addHandler(lines)
        self.error: Exception | None = None
        try:
            decoding(frames, deserialize).send(None)
        except StopIteration as end:  # nothing of it waits
            try:
                result = shown(end.value)
            except RecursionError:
                result = "deep"
        except Exception as error:
            self.error = error
            result = "raised", shown(error)
        finally:
            logger.removeHandler(lines)
            logger.propagate = propagate
        self.ran = list(ran)
        self.seen = self.ran, result, lines.seen


async def by_distributed(frames: list[Any], deserialize: bool) -> Any:
    return await from_frames(frames, deserialize=deserialize, allow_offload=False)


async def by_us(frames: list[Any], deserialize: bool) -> Any:
    value = codec.decode_short(frames, deserialize=deserialize, peer="tcp://a:1")
    if value is not codec.NOT_SHORT:
        return value
    return await codec.decode(
        frames, deserialize=deserialize, deserializers=None, allow_offload=False, peer="tcp://a:1"
    )


def compare(frames: list[bytes], memory: Any = bytearray) -> None:
    for deserialize in (True, False):
        theirs = Outcome(by_distributed, [memory(bytearray(f)) for f in frames], deserialize)
        ours = Outcome(by_us, [memory(bytearray(f)) for f in frames], deserialize)
        if isinstance(ours.error, DecodeError):  # the header is at fault: a line of ours
            assert theirs.error is not None
            assert str(ours.error).startswith(
                f"bad message from tcp://a:1: a header of {len(frames[0])} bytes"
            )
            assert ours.ran == theirs.ran[: len(ours.ran)], "and no more is run"
            assert not [line for line in ours.seen[2] if line[1] == "CRITICAL"]
        else:
            assert ours.seen == theirs.seen, f"deserialize={deserialize}"
