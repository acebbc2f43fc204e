"""Dask's messages to frames and back: distributed's own serialisation, plus where frames go.

What a message looks like, what is offloaded to a thread and what is compressed stays distributed's
business. Ours are the split into the first block and bare frames, which decides what the receiver
allocates together; the hello, which is never given to a deserialiser; and a shorter way for what
scheduler and workers tell each other all the time, which ends in the same bytes and values.

That is small, and has nothing in it that dask serialises: plain values, pickled tasks, and what the
scheduler passes on. distributed sends it through a dozen functions that find nothing to compress,
to split or to look up. Here it is one call of msgpack each way, with a function for what is not
plain. Where anything fails distributed is asked, which says what is wrong in its own words.
"""

from __future__ import annotations

import pickle
import threading
from collections.abc import Sequence
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


class _Another(Exception):
    """A value for which this way is too short."""


def _refuse(value: Any) -> Any:
    raise _Another


class _Packers(threading.local):
    """msgpack's packers, one of each a thread; making one costs as much as a small message."""

    def __init__(self) -> None:
        self.pack_plain = msgpack.Packer(default=_refuse, buf_size=4096).pack
        self.pack_header = msgpack.Packer(default=msgpack_encode_default, buf_size=4096).pack


_packers = _Packers()


# A frame that holds a pickle without buffers, around the pickle.
_BEFORE = b"\x83" + msgpack.packb("pickled-obj")
_AFTER = b"".join(map(msgpack.packb, ("compression", (), "num-sub-frames", 0)))


def _pickle(value: Any) -> bytes:
    """As distributed pickles what has no buffers."""
    pickled = None
    try:
        pickled = pickle.dumps(value, protocol=HIGHEST_PROTOCOL, buffer_callback=_refuse)
    except _Another:
        raise
    except Exception:  # as pickles everything, cloudpickle decides
        pass
    if pickled is None or b"__main__" in pickled or cloudpickle.list_registry_pickle_by_value():
        pickled = distributed_pickle.dumps(value, buffer_callback=_refuse)
    return pickled


def encode_short(message: Any) -> list[Buffer] | None:
    """The frames of a small message, None for one that needs `encode`."""
    try:
        return [_packers.pack_plain(message)]
    except _Another:
        pass
    except (ValueError, TypeError, OverflowError, RecursionError):
        return None
    frames: list[Buffer] = [b""]

    def stand_in(value: Any) -> Any:
        """What stands in the first frame for `value`, whose own frames follow."""
        offset = len(frames)
        if isinstance(value, ToPickle):
            frames.append(_BEFORE + _packers.pack_plain(_pickle(value.data)) + _AFTER)
            return {"__Pickled__": offset}
        if isinstance(value, Serialized):
            header = {**value.header, "num-sub-frames": len(value.frames)}
            frames.append(_packers.pack_header(header))
            frames.extend(value.frames)
            return {"__Serialized__": offset}
        if isinstance(value, (Serialize, Pickled)):
            raise _Another
        return msgpack_encode_default(value)

    try:
        frames[0] = msgpack.packb(message, default=stand_in, buf_size=16384)
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
    """The frames of any message; `allow_offload` lets a thread make them if it is large.

    Raises what the serialisers raise, with ``on_error="raise"`` for an object they cannot take.
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
    """The message in `frames`, or `NOT_SHORT` for a large one, nothing of which has run.

    Raises as `decode` does.
    """
    first: Buffer = frames[0]
    most = offloaded_from()
    if len(first) > most:
        return NOT_SHORT
    if type(first) is memoryview:  # in which `in` finds no bytes
        first = bytes(first)
    if b"__" not in first:
        try:
            return msgpack.unpackb(first, use_list=False, **msgpack_opts)
        except Exception as error:  # msgpack documents no base class for what bad bytes raise
            raise _bad(frames, peer, error) from error
    if sum(map(len, frames)) > most:
        return NOT_SHORT

    def stood_for(value: dict[Any, Any]) -> Any:
        """What a map in the first frame stands for, or the map: distributed's `loads`.

        Its steps in its order, whatever the peer has put in the place of an offset. No byte of the
        frame tells that a map has no marker: a pickle can make one where it stands for a key.
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
                    try:  # as `_pickled` without buffers, and without its calls
                        return pickle.loads(pickled)
                    except Exception:
                        words = "Failed to deserialize %s"
                        distributed_pickle.logger.info(words, pickled[:10000], exc_info=True)
                        raise
                return _pickled(frames, offset, header)
        return msgpack_decode_default(value)

    try:
        return msgpack.unpackb(first, object_hook=stood_for, use_list=False, **msgpack_opts)
    except Exception as error:
        _expect_msgpack(frames, peer)
        _log(error, frames)
        raise


def _serialized(frames: Any, offset: Any, deserialize: bool, deserializers: Any) -> Any:
    header = msgpack.unpackb(
        frames[offset], object_hook=msgpack_decode_default, use_list=False, **msgpack_opts
    )
    offset += 1
    buffers = frames[offset : offset + header["num-sub-frames"]]
    if not deserialize:
        return Serialized(header, buffers)
    if "compression" in header:
        buffers = decompress(header, buffers)
    return merge_and_deserialize(header, buffers, deserializers=deserializers)


def _pickled(frames: Any, offset: Any, header: dict[str, Any]) -> Any:
    offset += 1
    buffers = frames[offset : offset + header["num-sub-frames"]]
    if "compression" in header:
        buffers = decompress(header, buffers)
    return distributed_pickle.loads(header["pickled-obj"], buffers=buffers)


def _log(error: Exception, frames: Sequence[Frame]) -> None:
    """What distributed logs of a message that it cannot decode, in its own words and loggers."""
    core.logger.critical("Failed to deserialize", exc_info=True)
    if isinstance(error, EOFError):
        size = sum(map(len, frames))
        shown = frames if size <= _SHOWN else "[too large to display]"
        utils.logger.error("truncated data stream (%d bytes): %s", size, shown)


_SHOWN = 1000  # bytes of a message
_NONE = 0  # of which there is one; another one would go the longer way


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
    _expect_msgpack(frames, peer)
    return await from_frames(
        frames, deserialize=deserialize, deserializers=deserializers, allow_offload=allow_offload
    )


def _expect_msgpack(frames: Sequence[Frame], peer: str) -> None:
    """Say in one line what is wrong with the header, if that is it.

    distributed would log a traceback.
    """
    header = msgpack.Unpacker(max_buffer_size=len(frames[0]) or 1)
    try:
        header.feed(frames[0])
        header.skip()
        if header.tell() != len(frames[0]):
            raise ValueError(f"it ends after {header.tell()} bytes")
    except Exception as error:  # msgpack documents no base class for what bad bytes raise
        raise _bad(frames, peer, error) from error


def arranged(frames: list[Any]) -> tuple[list[Buffer], int]:
    """The frames as a stream takes them, and how many of the first ones share the first block."""
    if set(map(type, frames)) == {bytes}:
        return frames, len(frames)
    return [f if type(f) is bytes else ensure_memoryview(f) for f in frames], shared_frames(frames)


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
