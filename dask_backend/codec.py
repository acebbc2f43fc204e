"""Dask's messages to frames and back: distributed's own serialisation, plus where frames go.

What a message looks like, what is offloaded to a thread and what is compressed stays distributed's
business. Ours are the split into the first block and bare frames, which decides what the receiver
allocates together; the hello, which is never given to a deserialiser; and two shortcuts that end in
the same bytes and values:

- Before it serialises, distributed asks dask for the size of the whole message, to know whether it
  is worth a thread. For a batch of scheduler messages that costs ten times the serialisation. Here
  plain values are added up in one walk, and dask is asked only for what they wrap.
- A message of msgpack's own types is one frame, and one call of msgpack each way. distributed also
  looks at every map on arrival, for those that stand for something else; here they are looked for
  only if the bytes have the two underscores that begin all their names.
"""

from __future__ import annotations

import reprlib
import threading
from collections.abc import Collection, Sequence
from typing import Any

import msgpack
from distributed.comm.utils import OFFLOAD_THRESHOLD, from_frames, to_frames
from distributed.protocol.serialize import Serialized
from distributed.protocol.utils import msgpack_opts
from distributed.sizeof import safe_sizeof
from distributed.utils import ensure_memoryview, nbytes

from sealwire.comm import DecodeError, HelloError, hello
from sealwire.comm.framing import Buffer, Frame

__all__ = [
    "NOT_PLAIN",
    "decode",
    "decode_hello",
    "decode_plain",
    "encode",
    "encode_plain",
    "shared_frames",
]

_OFFLOADED = OFFLOAD_THRESHOLD or 1 << 62  # bytes; 0 in the configuration means never
_ITEM = 100  # what a value weighs at least, and a short text or key at most, about
_SHORT = 256
_SCALARS = frozenset({int, float, bool, type(None)})


def _room_after(values: Collection[Any], room: int) -> int:
    """What is left of `room` bytes after `values` and all that is in them; negative if not enough.

    A size that cannot be told uses all of it up. Raises `RecursionError` as dask does.
    """
    room -= _ITEM * len(values)
    for value in values:
        kind = type(value)
        if kind is str or kind is bytes:
            if len(value) > _SHORT:
                room -= len(value)
        elif kind in _SCALARS:
            continue
        elif kind is dict:
            room = _room_after(value.values(), room)
        elif kind is list or kind is tuple:
            room = _room_after(value, room)
        elif kind is Serialized:
            room -= sum(map(nbytes, value.frames))
        else:
            size = safe_sizeof(value, default_size=-1)
            room = room - size if size >= 0 else -1
        if room < 0:
            return room
    return room


class _NotPlain(Exception):
    """A value that msgpack does not pack by itself."""


def _refuse(value: Any) -> Any:
    raise _NotPlain


class _Packer(threading.local):
    """msgpack's packer, one a thread; making one costs as much as a small message."""

    def __init__(self) -> None:
        self.pack = msgpack.Packer(default=_refuse, use_bin_type=True, buf_size=4096).pack


_packer = _Packer()


def _inline(message: Any) -> bool:
    """Whether a message is too small to be worth a thread."""
    try:
        return _room_after((message,), _OFFLOADED) >= 0
    except RecursionError:
        return False


def encode_plain(message: Any) -> bytes | None:
    """The only frame of a message of plain values, None for one that needs `encode`."""
    if not _inline(message):
        return None
    try:
        return bytes(_packer.pack(message))
    except (_NotPlain, ValueError, TypeError, OverflowError, RecursionError):
        return None


async def encode(
    message: Any,
    *,
    serializers: Any,
    on_error: str,
    context: dict[str, Any],
    allow_offload: bool,
    shard_size: int,
) -> tuple[list[Buffer], int]:
    """The frames of a message, and how many of the first ones share the first block.

    Raises what the serialisers raise, with ``on_error="raise"`` for an object they cannot take.
    """
    frames = await to_frames(
        message,
        allow_offload=allow_offload and not _inline(message),
        serializers=serializers,
        on_error=on_error,
        context=context,
        frame_split_size=shard_size,
    )
    shared = shared_frames(frames)
    return [f if type(f) is bytes else ensure_memoryview(f) for f in frames], shared


NOT_PLAIN = object()


def decode_plain(frames: Sequence[Frame], peer: str = "") -> Any:
    """The message in its only frame, or `NOT_PLAIN` if it needs `decode`.

    Raises `DecodeError` for what is not msgpack.
    """
    frame: Buffer = frames[0]
    if len(frames) > 1 or len(frame) > _OFFLOADED:
        return NOT_PLAIN
    if type(frame) is memoryview:  # in which `in` finds no bytes
        frame = bytes(frame)
    if b"__" in frame:
        return NOT_PLAIN
    try:
        return msgpack.unpackb(frame, use_list=False, **msgpack_opts)
    except Exception as error:  # msgpack documents no base class for what bad bytes raise
        raise _bad(frames, peer, error) from error


def _bad(frames: Sequence[Frame], peer: str, why: object) -> DecodeError:
    return DecodeError(
        f"bad message from {peer}: a header of {len(frames[0])} bytes does not decode "
        f"({str(why) or type(why).__name__}); check that both sides run the same version of "
        f"distributed",
        peer=peer,
    )


async def decode(
    frames: list[Frame], *, deserialize: bool, deserializers: Any, allow_offload: bool, peer: str
) -> Any:
    """The message in `frames`.

    Raises `DecodeError` for a header that is not msgpack, and for the rest what the deserialisers
    raise.
    """
    header = msgpack.Unpacker(max_buffer_size=len(frames[0]) or 1)
    try:  # what is wrong is said here, in one line; distributed would log a traceback
        header.feed(frames[0])
        header.skip()
        if header.tell() != len(frames[0]):
            raise ValueError(f"it ends after {header.tell()} bytes")
    except Exception as error:  # msgpack documents no base class for what bad bytes raise
        raise _bad(frames, peer, error) from error
    return await from_frames(
        frames, deserialize=deserialize, deserializers=deserializers, allow_offload=allow_offload
    )


def decode_hello(frames: Sequence[Buffer], peer: str) -> dict[str, Any]:
    """The hello of `peer`. Raises `HelloError` also if it lacks what distributed's has."""
    offered = hello.decode(frames, peer)
    if not isinstance(offered.get("pickle-protocol"), int) or "compression" not in offered:
        raise HelloError(
            f"bad hello from {peer}: no pickle-protocol and compression among "
            f"{reprlib.repr(list(offered))}; install the same version of distributed on both sides"
        )
    return offered


def shared_frames(frames: Sequence[Any]) -> int:
    """How many of the first frames go into the first block, as a stock sender decides.

    All that is short-lived: header, pickled and compressed frames, which are bytes; and then the
    first buffer with all its shards, unless that would tie more than 5 % (and 2 KiB) of short-lived
    bytes to the lifetime of the buffer. From the second buffer on, each is received on its own.
    """
    first_buffer: Any = None
    size = 0
    for index, frame in enumerate(frames):
        length = frame.nbytes if isinstance(frame, memoryview) else len(frame)
        owner = frame.obj if isinstance(frame, memoryview) else frame
        if not isinstance(owner, bytes):
            if first_buffer is None:
                if size > max(2048, length * 0.05):
                    return index
                first_buffer = owner
            elif first_buffer is not owner:
                return index
        size += length
    return len(frames)
