"""What stands for the kernel, the loop and the stream in tests of a stream's parts."""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from sealwire.comm import CommClosedError
from sealwire.comm.transport.channel import Channel
from sealwire.comm.wire.hello import Agreement


class FakeLoop:
    """A loop that turns when it is told to."""

    def __init__(self) -> None:
        self.soon: deque[tuple[Callable[..., Any], tuple[Any, ...]]] = deque()

    def call_soon(self, callback: Callable[..., Any], *args: Any, context: Any = None) -> None:
        self.soon.append((callback, args))

    def create_future(self) -> asyncio.Future[None]:
        return asyncio.Future(loop=self)  # type: ignore[arg-type]

    def get_debug(self) -> bool:
        return False

    def turn(self) -> None:
        for _ in range(len(self.soon)):
            callback, args = self.soon.popleft()
            callback(*args)


class FakeGuard:
    """Of a loop whose switch interval is nobody's business."""

    active = True
    recent = False


class FakeConnection:
    """The stream, of which a part is tested; writes down what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.agreement = Agreement()
        self.error: CommClosedError | None = None
        self.parts: list[Any] = []

    def watch(self) -> None:
        self.told.append("watch")

    def resume_sending(self) -> None:
        self.told.append("resume_sending")

    def ended(self, error: CommClosedError) -> None:
        self.told.append("ended")
        self.close(error)

    def fail(self, error: CommClosedError, cause: BaseException | None = None) -> None:
        self.told.append("fail")
        self.close(error)

    def lost(self, error: OSError) -> None:
        self.told.append("lost")
        self.close(CommClosedError(str(error)))

    def broken(self, error: OSError) -> None:
        self.told.append("broken")
        self.close(CommClosedError(str(error)))

    def cut_off(self, error: CommClosedError) -> None:
        self.told.append("slow_consumer")
        self.close(error)

    def close(self, error: CommClosedError) -> None:
        if self.error is None:
            self.error = error
            for part in self.parts:
                part(error.again)


class Wire:
    """What a fake channel sends to and receives from.

    Parameters
    ----------
    takes
        Bytes that each send takes; an exception is raised. Once they are used up, all of them.
    gives
        What each receive gives, at most as much as it has room for; an exception is raised. Once
        they are used up it would block.
    """

    def __init__(
        self,
        takes: Sequence[int | BaseException] = (),
        gives: Sequence[bytes | BaseException] = (),
    ) -> None:
        self.takes = deque(takes)
        self.gives = deque(gives)
        self.sends: list[bytes] = []
        self.receives = 0
        self.pending = 0

    def send(self, data: Any) -> int:
        takes = self.takes.popleft() if self.takes else sys.maxsize
        if isinstance(takes, BaseException):
            raise takes
        if takes == 0:
            raise BlockingIOError
        taken = bytes(data[:takes])
        self.sends.append(taken)
        return len(taken)

    def send_several(self, data: Sequence[Any]) -> int:
        return self.send(b"".join(data))

    def receive(self, buffer: Any) -> int:
        self.receives += 1
        if not self.gives:
            raise BlockingIOError
        given = self.gives.popleft()
        if isinstance(given, BaseException):
            raise given
        room = len(buffer)
        if len(given) > room:
            self.gives.appendleft(given[room:])
        given = given[:room]
        buffer[: len(given)] = given
        return len(given)

    def fill(self, target: memoryview, note: Callable[[int], object]) -> tuple[int, int]:
        size = self.receive(target)
        note(size)
        return size, size

    def channel(self, *, several: bool = True, full: int = sys.maxsize) -> Channel:
        channel = Channel()
        channel.receive = self.receive
        channel.fill = self.fill
        channel.full = full
        channel.send = self.send
        channel.send_several = self.send_several if several else None
        channel.budget = 1 << 20
        channel.whole_records = not several
        channel.authentic_end = not several
        channel.pending = lambda: self.pending
        channel.send_eof = channel.answer_eof = lambda: self.sends.append(b"eof")
        return channel
