"""Dask's messages to frames and back: distributed's own serialisation, plus where frames go.

What a message looks like, what is offloaded to a thread and what is compressed stays distributed's
business. Ours are the split into the first block and bare frames, which decides what the receiver
allocates together, and the hello, which is never given to a deserialiser.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from distributed.comm.utils import from_frames, to_frames
from distributed.utils import ensure_memoryview

from sealwire.comm import HelloError, hello
from sealwire.comm.framing import Buffer, Frame

__all__ = ["decode", "decode_hello", "encode", "shared_frames"]


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
        allow_offload=allow_offload,
        serializers=serializers,
        on_error=on_error,
        context=context,
        frame_split_size=shard_size,
    )
    shared = shared_frames(frames)
    return [f if type(f) is bytes else ensure_memoryview(f) for f in frames], shared


async def decode(
    frames: list[Frame], *, deserialize: bool, deserializers: Any, allow_offload: bool
) -> Any:
    """The message in `frames`. Raises what the deserialisers raise."""
    return await from_frames(
        frames, deserialize=deserialize, deserializers=deserializers, allow_offload=allow_offload
    )


def decode_hello(frames: Sequence[Buffer], peer: str) -> dict[str, Any]:
    """The hello of `peer`. Raises `HelloError` also if it lacks what distributed's has."""
    offered = hello.decode(frames, peer)
    if not isinstance(offered.get("pickle-protocol"), int) or "compression" not in offered:
        raise HelloError(
            f"bad hello from {peer}: no pickle-protocol and compression among {list(offered)[:5]}; "
            f"install the same version of distributed on both sides"
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
