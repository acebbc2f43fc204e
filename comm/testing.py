"""For tests of what uses comms: a connected pair whose link can be made to fail.

::

    async with pair() as (a, b, link):
        link.delay = 0.1
        link.cut(after=100, sender=a)
        await a.write(bytes(1000))
        with pytest.raises(CommClosedError):
            await b.read()

The comms are those of ``mem://``: real bytes with real limits and back-pressure. A peer that closes
with a code is ``await b.close(code, reason)``; one that is killed, ``b.abort()``. With `listen` and
`connect`, ``mem://name`` needs no port.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import socket
from collections.abc import AsyncIterator

from .arguments import expect_count, expect_limits, expect_seconds
from .interfaces import Comm
from .limits import Limits
from .memory import Memory
from .transport.local import LocalStream
from .transport.stream import FrameStream
from .unix import opened
from .words import repr_of

__all__ = ["Link", "pair"]

_CHUNK = 64 * 1024


class Link:
    """What carries the bytes between the comms of a `pair`.

    Attributes
    ----------
    delay : float
        Seconds by which bytes are delayed, in both directions; 0 at first. What a comm writes
        meanwhile waits in the kernel, and then in its queue.
    """

    def __init__(self, ends: tuple[socket.socket, socket.socket]) -> None:
        self._delay = 0.0
        self._ends = ends
        self._comms: tuple[Comm, ...] = ()
        self._left = [math.inf, math.inf]  # bytes to pass on before the cut, from either end
        self._passes = asyncio.Event()
        self._passes.set()

    @property
    def delay(self) -> float:
        """Seconds by which bytes are delayed."""
        return self._delay

    @delay.setter
    def delay(self, seconds: float) -> None:
        self._delay = expect_seconds("Link", "delay", seconds, "write 0 for none", zero=True)

    def cut(self, *, after: int = 0, sender: Comm | None = None) -> None:
        """End the connection without a word, as the kernel of a killed process does.

        Parameters
        ----------
        after : int, default 0
            How many bytes of `sender` are still passed on, from now on; 0 cuts at once.
        sender : sealwire.comm.Comm, optional
            One of the two comms; needed with `after`.
        """
        if after == 0:
            for end in self._ends:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
            return
        expect_count("cut()", "after", after, "leave it out to cut at once")
        if sender not in self._comms:
            raise ValueError(
                f"cannot cut after {after} bytes of {repr_of(sender)}: need one of the comms"
            )
        self._left[self._comms.index(sender)] = after

    def hold(self) -> None:
        """Pass nothing on until `release`: the peers do not notice, as in an outage."""
        self._passes.clear()

    def release(self) -> None:
        """Pass on what was held, and what follows."""
        self._passes.set()

    async def _carry(self, side: int) -> None:
        loop = asyncio.get_running_loop()
        source, target = self._ends[side], self._ends[1 - side]
        with contextlib.suppress(OSError):
            while data := await loop.sock_recv(source, _CHUNK):
                if self._delay:
                    await asyncio.sleep(self._delay)
                await self._passes.wait()
                if len(data) >= self._left[side]:
                    await loop.sock_sendall(target, data[: int(self._left[side])])
                    self.cut()
                    return
                self._left[side] -= len(data)
                await loop.sock_sendall(target, data)
            target.shutdown(socket.SHUT_WR)


@contextlib.asynccontextmanager
async def pair(limits: Limits | None = None) -> AsyncIterator[tuple[Comm, Comm, Link]]:
    """Two connected comms and the link between them; the comms are aborted at the end.

    Parameters
    ----------
    limits : Limits, optional
        Bounds for both; the defaults of `Limits` if omitted.
    """
    limits = expect_limits("pair()", limits)
    with contextlib.ExitStack() as sockets:
        ours = [sockets.enter_context(end) for _ in range(2) for end in socket.socketpair()]
        for end in ours:
            end.setblocking(False)
        link = Link((ours[1], ours[3]))
        carrying = [asyncio.ensure_future(link._carry(side)) for side in range(2)]
        streams = [
            LocalStream(end, limits, f"mem://{theirs}", (mine, 0))
            for end, mine, theirs in ((ours[0], "a", "b"), (ours[2], "b", "a"))
        ]
        try:
            a, b = await asyncio.gather(
                *(opened(stream, limits, Memory, _anybody) for stream in streams)
            )
            link._comms = (a, b)
            yield a, b, link
        finally:
            for stream in streams:
                stream.close()
            for task in carrying:
                task.cancel()
            await asyncio.gather(*carrying, return_exceptions=True)


def _anybody(_: FrameStream) -> None:
    """Let anybody be the peer."""
