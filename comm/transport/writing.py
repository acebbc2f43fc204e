"""A writer that waits for a bounded time."""

from __future__ import annotations

import asyncio

from ..errors import WriteTimeout
from .stream import FrameStream

__all__ = ["drain_within"]


async def drain_within(stream: FrameStream, leave: int, seconds: float) -> None:
    """`Sender.drain`, for at most `seconds`; raises `WriteTimeout` with nothing changed."""
    before = stream.bytes_out
    try:
        await asyncio.wait_for(stream.drain(leave), seconds)
    except asyncio.TimeoutError:
        unsent = stream.bytes_queued
        taken = stream.bytes_out - before
        error = WriteTimeout(
            f"write to {stream.peer} not done within {seconds:g} s: {unsent} bytes are queued, and "
            f"the peer took {taken} meanwhile; they will still be sent: wait with drain(), or "
            f"abort() the comm",
            peer=stream.peer,
        )
        error.unsent = unsent
        raise error from None
