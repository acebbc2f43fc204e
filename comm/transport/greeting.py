"""The hello of a stream that does without a comm's own: what each side says of itself, first."""

from __future__ import annotations

from ..errors import CommClosedError
from ..wire import hello
from .stream import FrameStream

__all__ = ["exchange_hellos"]


async def exchange_hellos(stream: FrameStream) -> None:
    """Say hello, and wait for the peer's; what both understand becomes the stream's `agreement`.

    Raises `HelloError` for a peer that says something else, other `CommClosedError`s for one that
    ends or refuses; the stream is closed then.
    """
    try:
        stream.write([hello.own()])
    except CommClosedError:
        if not stream.inbox:  # else it has said why it goes
            raise
    frames = await stream.read_frames()
    try:
        stream.agreement = hello.agree(hello.decode(frames, stream.peer), stream.peer)
    except CommClosedError as error:
        stream.fail(error, error.__cause__)
        raise  # the stream may have failed already, of what came after this
    stream.established()
