"""The exchange of hellos on a stream that is used without a comm, and those that exchange none."""

from __future__ import annotations

from ..errors import CommClosedError
from ..wire import hello
from .stream import FrameStream

__all__ = ["exchange_hellos", "is_probe"]

_ENDED = ("lost", "unannounced")  # kinds of a connection whose peer has gone


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


def is_probe(stream: FrameStream, error: CommClosedError) -> bool:
    """Whether the peer has connected and gone without a byte, as liveness probes do."""
    spoke = stream.bytes_in or hasattr(stream.socket, "getpeercert")
    return error.kind == "probe" or (error.kind in _ENDED and not spoke)
