"""Encode Dask's messages as frames and decode them: distributed's serialisation, and a fast path.

The form of a message, what is offloaded to a thread and what is compressed is left to distributed.
Ours are the split into the first block and bare frames, which decides what the receiver allocates
together; the hello, which is never given to a deserialiser; and a fast path for the small messages
that scheduler and workers exchange all the time, with the same bytes and values.

Such a message has nothing that dask serialises: plain values, pickled tasks, and what the scheduler
forwards. distributed sends it through a dozen functions that find nothing to compress, split or
look up. Here it is one call of msgpack in each direction, with a hook for other values. If anything
fails, distributed takes over and reports the error in its own words.
"""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable, Sequence
from typing import Any

import cloudpickle
import msgpack
from distributed.comm import utils
from distributed.comm.utils import from_frames, to_frames
from distributed.protocol import core
from distributed.protocol import pickle as distributed_pickle
from distributed.protocol.compression import decompress
from distributed.protocol.pickle import HIGHEST_PROTOCOL
from distributed.protocol.serialize import (
    Pickled,
    Serialize,
    Serialized,
    ToPickle,
    merge_and_deserialize,
    msgpack_decode_default,
    msgpack_encode_default,
)
from distributed.protocol.utils import msgpack_opts
from distributed.utils import ensure_memoryview

from sealwire.comm import DecodeError
from sealwire.comm.wire.framing import Buffer, Frame

from .sizes import offloaded_from

__all__ = [
    "NOT_SHORT",
    "arranged",
    "decode",
    "decode_short",
    "encode",
    "encode_short",
]


class _NeedsGeneral(Exception):
    """A value that the fast path does not handle."""


def _refuse(value: Any) -> Any:
    raise _NeedsGeneral


class _Packers(threading.local):
    """msgpack's packers, one set per thread: creating one costs as much as a small message."""

    def __init__(self) -> None:
        self.pack_plain = msgpack.Packer(default=_refuse, buf_size=4096).pack
        self.pack_header = msgpack.Packer(default=msgpack_encode_default, buf_size=4096).pack


_packers = _Packers()


# The bytes before and after the pickle in a frame that holds a pickle without buffers.
_PREFIX = b"\x83" + msgpack.packb("pickled-obj")
_SUFFIX = b"".join(map(msgpack.packb, ("compression", (), "num-sub-frames", 0)))


def _pickle(value: Any) -> bytes:
    """Pickle a value without out-of-band buffers, as distributed does."""
    pickled = None
    try:
        pickled = pickle.dumps(value, protocol=HIGHEST_PROTOCOL, buffer_callback=_refuse)
    except _NeedsGeneral:
        raise
    except Exception:  # as in distributed, cloudpickle decides
        pass
    if pickled is None or b"__main__" in pickled or cloudpickle.list_registry_pickle_by_value():
        pickled = distributed_pickle.dumps(value, buffer_callback=_refuse)
    return pickled


def encode_short(message: Any) -> list[Buffer] | None:
    """Encode a small message; None for one that needs `encode`."""
    try:
        return [_packers.pack_plain(message)]
    except _NeedsGeneral:
        pass
    except (ValueError, TypeError, OverflowError, RecursionError):
        return None
    frames: list[Buffer] = [b""]

    def replacement(value: Any) -> Any:
        """Return the value that replaces `value` in the first frame; its frames are appended."""
        offset = len(frames)
        if isinstance(value, ToPickle):
            frames.append(_PREFIX + _packers.pack_plain(_pickle(value.data)) + _SUFFIX)
            return {"__Pickled__": offset}
        if isinstance(value, Serialized):
            header = {**value.header, "num-sub-frames": len(value.frames)}
            frames.append(_packers.pack_header(header))
            frames.extend(value.frames)
            return {"__Serialized__": offset}
        if isinstance(value, (Serialize, Pickled)):
            raise _NeedsGeneral
        return msgpack_encode_default(value)

    try:
        frames[0] = msgpack.packb(message, default=replacement, buf_size=16384)
    except Exception:
        return None
    return frames


async def encode(
    message: Any,
    *,
    serializers: Any,
    on_error: str,
    context: dict[str, Any],
    allow_offload: bool,
    shard_size: int,
) -> list[Buffer]:
    """Encode any message; `allow_offload` lets a thread do it if the message is large.

    Raises what the serialisers raise, with ``on_error="raise"`` for an unsupported object.
    """
    frames: list[Buffer] = await to_frames(
        message,
        allow_offload=allow_offload,
        serializers=serializers,
        on_error=on_error,
        context=context,
        frame_split_size=shard_size,
    )
    return frames


NOT_SHORT = object()


def decode_short(
    frames: Sequence[Frame], *, deserialize: bool = True, deserializers: Any = None, peer: str = ""
) -> Any:
    """Decode a message, or return `NOT_SHORT` for a large one, of which nothing was decoded.

    Raises as `decode` does.
    """
    first: Buffer = frames[0]
    most = offloaded_from()
    if len(first) > most:
        return NOT_SHORT
    if len(first) <= _SEARCHED and b"__" not in bytes(first):  # a memoryview cannot be searched
        try:
            return msgpack.unpackb(first, use_list=False, **msgpack_opts)
        except Exception as error:  # msgpack documents no base class of its exceptions
            raise _bad(frames, peer, error) from error
    if sum(map(len, frames)) > most:
        return NOT_SHORT

    restore = _restorer(frames, deserialize, deserializers)
    try:
        return msgpack.unpackb(first, object_hook=restore, use_list=False, **msgpack_opts)
    except Exception as error:
        _expect_msgpack(frames, peer)
        _log(error, frames)
        raise


def _restorer(
    frames: Sequence[Frame], deserialize: bool, deserializers: Any
) -> Callable[[dict[Any, Any]], Any]:
    """Return msgpack's hook for the maps in the first of `frames`."""

    def restore(value: dict[Any, Any]) -> Any:
        """Return the value of a map in the first frame, as distributed's `loads` decodes it.

        Same steps in the same order, whatever the peer sends as an offset. A map without markers
        cannot be told from the bytes: a pickle used as a key can create one.
        """
        if "__Serialized__" in value:
            offset = value["__Serialized__"]
            if offset > 0:
                return _serialized(frames, offset, deserialize, deserializers)
        elif "__Pickled__" not in value:
            if "__Enum__" in value or "__Set__" in value:
                return msgpack_decode_default(value)
            return value
        if "__Pickled__" in value:
            offset = value["__Pickled__"]
            if offset > 0:
                header = msgpack.unpackb(frames[offset])
                more = header["num-sub-frames"]
                if more is _NONE and type(offset) is int and header.get("compression") == []:
                    pickled = header["pickled-obj"]
                    try:  # `_pickled` without buffers, inlined
                        return pickle.loads(pickled)
                    except Exception:
                        words = "Failed to deserialize %s"
                        distributed_pickle.logger.info(words, pickled[:10000], exc_info=True)
                        raise
                return _pickled(frames, offset, header)
        return msgpack_decode_default(value)

    return restore


def _serialized(frames: Any, offset: Any, deserialize: bool, deserializers: Any) -> Any:
    header = msgpack.unpackb(
        frames[offset], object_hook=msgpack_decode_default, use_list=False, **msgpack_opts
    )
    offset += 1
    buffers: Any = _views(frames[offset : offset + header["num-sub-frames"]])
    if not deserialize:
        return Serialized(header, buffers)
    if "compression" in header:
        buffers = decompress(header, buffers)
    return merge_and_deserialize(header, buffers, deserializers=deserializers)


def _pickled(frames: Any, offset: Any, header: dict[str, Any]) -> Any:
    offset += 1
    buffers: Any = _views(frames[offset : offset + header["num-sub-frames"]])
    if "compression" in header:
        buffers = decompress(header, buffers)
    return distributed_pickle.loads(header["pickled-obj"], buffers=buffers)


def _views(frames: Sequence[Frame]) -> list[memoryview]:
    """Return the frames as distributed's comms give them to users' serialisers."""
    return [frame if type(frame) is memoryview else memoryview(frame) for frame in frames]


def _log(error: Exception, frames: Sequence[Frame]) -> None:
    """Log what distributed logs of a message that it cannot decode, with its own loggers."""
    core.logger.critical("Failed to deserialize", exc_info=True)
    if isinstance(error, EOFError):
        size = sum(map(len, frames))
        shown = frames if size <= _SHOWN else "[too large to display]"
        utils.logger.error("truncated data stream (%d bytes): %s", size, shown)


# Bytes of a first frame. Without markers in it no hook is called for its maps; but to search a
# megabyte takes a millisecond, and a large message may be one text.
_SEARCHED = 16 * 1024

_SHOWN = 1000  # bytes of a message
_NONE = 0  # compared by identity: a cached int; any other zero takes the general way


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
    """Decode any message.

    Raises `DecodeError` for a header that is not msgpack, and whatever the deserialisers raise.
    """
    _expect_msgpack(frames, peer)
    return await from_frames(
        [frames[0], *_views(frames[1:])],
        deserialize=deserialize,
        deserializers=deserializers,
        allow_offload=allow_offload,
    )


def _expect_msgpack(frames: Sequence[Frame], peer: str) -> None:
    """Raise `DecodeError` if the header is not msgpack; distributed would log a traceback."""
    header = msgpack.Unpacker(max_buffer_size=len(frames[0]) or 1)
    try:
        header.feed(frames[0])
        header.skip()
        if header.tell() != len(frames[0]):
            raise ValueError(f"it ends after {header.tell()} bytes")
    except Exception as error:  # msgpack documents no base class of its exceptions
        raise _bad(frames, peer, error) from error


def arranged(frames: list[Any]) -> tuple[list[Buffer], int]:
    """Return the frames as a stream takes them, and how many of them share the first block."""
    if set(map(type, frames)) == {bytes}:
        return frames, len(frames)
    return [f if type(f) is bytes else ensure_memoryview(f) for f in frames], shared_frames(frames)


def shared_frames(frames: Sequence[Any]) -> int:
    """How many of the first frames go into the first block, decided as by a stock sender.

    These are the short-lived ones: header, pickled and compressed frames, which are bytes; then the
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
