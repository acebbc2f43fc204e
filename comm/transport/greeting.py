"""The exchange of hellos on a stream that is used without a comm."""

from __future__ import annotations

from ..errors import CommClosedError
from ..wire import hello
from .stream import FrameStream

__all__ = ["exchange_hellos"]


async def exchange_hellos(stream: FrameStream) -> None:
    """Send our hello and read the peer's; the outcome is stored as the stream's `agreement`.

    Raises `HelloError` for any other message, and other `CommClosedError`s if the peer closes or
    refuses; the stream is closed then.
    """
    try:
        stream.write([hello.own()])
    except CommClosedError:
        if not stream.inbox:  # else it has said why it goes
            raise
    frames = await stream.read_frames()
    try:
        stream.agreement = hello.agreed(frames, stream.peer)
    except CommClosedError as error:
        stream.fail(error, error.__cause__)
        raise  # after the hello the stream may have failed already
    stream.established()
