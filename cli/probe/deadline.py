"""One deadline for all uses of a socket, whatever its peer does meanwhile.

A socket's timeout starts anew with each call: a peer that sends one byte in time for each keeps a
loop of calls busy for ever, and one that floods OpenSSL with empty records a single call. So each
call gets the remaining time as its timeout, and when that is over a timer shuts the connection
down, which ends a call in progress.
"""

from __future__ import annotations

import socket
import threading
import time
from types import TracebackType

__all__ = ["Deadline"]

_GRACE = 0.05  # seconds for a call to end by its own timeout, with a clearer error


class Deadline:
    """A context in which a connected socket is used, for `seconds`.

    When they are over, every use of the connection ends, and the block with it: errors of the
    socket become a `TimeoutError`. `over` tells, also after the block, whether that has happened: a
    connection that was shut down reads like one that was closed.
    """

    def __init__(self, sock: socket.socket, seconds: float) -> None:
        self._until = time.monotonic() + seconds
        # Another descriptor of the connection, which survives wrapping the socket in TLS.
        kind = (sock.family, sock.type, sock.proto)
        self._mine = socket.socket(*kind, fileno=socket.dup(sock.fileno()))
        self._timer = threading.Timer(seconds + _GRACE, self._shut)
        self._timer.daemon = True

    def left(self) -> float:
        """Seconds left for the next call. Raises `TimeoutError` if there are none."""
        left = self._until - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        return left

    @property
    def over(self) -> bool:
        """Whether the deadline has passed."""
        return time.monotonic() >= self._until

    def __enter__(self) -> Deadline:
        self._timer.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._timer.cancel()
        self._timer.join()
        self._mine.close()
        if isinstance(error, OSError) and self.over and not isinstance(error, TimeoutError):
            raise TimeoutError("timed out") from error

    def _shut(self) -> None:
        try:
            self._mine.shutdown(socket.SHUT_RDWR)
        except OSError:  # it is disconnected
            pass
