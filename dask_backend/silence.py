"""Why a place that we have dialled says nothing: it may speak another scheme than ours.

A TLS listener waits for a plain dialler, who waits for it, and a web server waits for the end of a
ClientHello. Dask would time out, and with it the cause. So after a moment another connection asks,
and the attempt ends with what that has found: trying again does not help.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from sealwire.comm.addressing import Address
from sealwire.comm.errors import CommClosedError, HandshakeError, HelloError
from sealwire.comm.transport.client import FrameClient
from sealwire.comm.transport.connection import State
from sealwire.comm.transport.inquiry import HTTP_REQUEST, LINE, Language, client_hello
from sealwire.comm.transport.stream import FrameStream

__all__ = ["Silence", "forget"]

_MOMENT = 4.0  # seconds of silence; a listener of Dask's speaks unasked, unless its loop is blocked
_SHARE = 2.5  # of the first attempt's time, which is a fifth of all: ask at half time at the latest
_ANSWER = 1.0  # seconds for an answer
_AGAIN = 10.0  # seconds until a place that gave none is asked again: it may be overloaded
_SOON = 0.5  # seconds, if there was no time for an answer
_MOST = 1000  # places that are kept

_asked: dict[str, float] = {}  # address -> when it was asked and gave no answer, the oldest first


def forget() -> None:
    """Let go of the places that gave no answer."""
    _asked.clear()


class Silence:
    """Of one attempt to connect to an address; `ends` must be called."""

    def __init__(self, client: FrameClient, target: Address, first: float | None = None) -> None:
        """`first` is what the first attempt lasted until distributed's `connect` ended it."""
        self._client = client
        self._target = target
        self._moment = _MOMENT if first is None else min(_MOMENT, _SHARE * first)
        self._timer: asyncio.TimerHandle | None = None
        self._asking: asyncio.Task[None] | None = None

    def begins(self, stream: FrameStream) -> None:
        """Expect the peer of a connected stream to speak."""
        loop = asyncio.get_running_loop()
        self._timer = loop.call_at(stream.began + self._moment, self._lasts, stream)

    def ends(self) -> asyncio.Task[None] | None:
        """End the attempt. Returns a task to wait for, so that no socket stays open."""
        if self._timer is not None:
            self._timer.cancel()
        if self._asking is not None:
            self._asking.cancel()
        return self._asking

    def _lasts(self, stream: FrameStream) -> None:
        if stream.closed() or stream.bytes_in or self._speaks_tls(stream):
            return
        if time.monotonic() - _asked.get(str(self._target), -_AGAIN) >= _AGAIN:
            self._asking = asyncio.get_running_loop().create_task(self._ask(stream))

    def _speaks_tls(self, stream: FrameStream) -> bool:
        """Whether what is missing is a hello through TLS, of which no stranger can ask."""
        return self._target.scheme == "tls" and stream.state is not State.HANDSHAKE

    async def _ask(self, stream: FrameStream) -> None:
        openings: Sequence[bytes] = (HTTP_REQUEST,)
        if self._target.scheme == "tcp":
            openings = client_hello(), LINE
        place = str(self._target)
        _asked.pop(place, None)
        _asked[place] = time.monotonic()
        while len(_asked) > _MOST:
            del _asked[next(iter(_asked))]
        try:
            found = await self._client.inquire(self._target, openings, _ANSWER)
        except (OSError, CommClosedError):
            return
        except asyncio.CancelledError:  # the attempt is over, and perhaps the next has more time
            if place in _asked:
                _asked[place] += _SOON - _AGAIN
            raise
        cause = _cause(self._target, found)
        if cause is not None:
            _asked.pop(place, None)
            stream.fail(cause)


def _cause(target: Address, found: Language) -> CommClosedError | None:
    """Return why the attempt fails, if that is known now; another would end the same way."""
    error: CommClosedError
    if found == "http":
        error = HelloError(
            f"no hello from {target}: a web server (HTTP) listens there, perhaps a dashboard; use "
            f"the port of the scheduler or worker itself"
        )
        error.kind = "not-ours"
    elif found == "tls" and target.scheme == "tcp":
        error = HandshakeError(
            f"no hello from {target}: it speaks TLS; use {target._replace(scheme='tls')}, with a "
            f"certificate of its CA"
        )
        error.kind = "not-plain"
    else:
        return None
    return error
