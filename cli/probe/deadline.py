"""One deadline for all that is done with a socket, whatever its other side does meanwhile.

The timeout of a socket begins anew with each call: a peer that drips a byte in time for each holds
a loop of calls for ever, and one that floods OpenSSL with records that bring nothing holds a single
call. So each call gets what is left of the time, and when it is over a timer shuts the connection
down, which ends a call under way.
"""

from __future__ import annotations

import socket
import threading
import time
from types import TracebackType

__all__ = ["Deadline"]

_GRACE = 0.05  # seconds for a call to end by its own timeout, in clearer words


class Deadline:
    """A context in which a connected socket is used, `seconds` long.

    When they are over, every use of the connection ends, and the block with it: errors of the
    socket become a `TimeoutError`. `over` tells, also after the block, whether that has happened:
    a connection shut down reads like one that was closed.
    """

    def __init__(self, sock: socket.socket, seconds: float) -> None:
        self._until = time.monotonic() + seconds
        # Another descriptor survives the wrapping of the socket in TLS.
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
        except OSError:  # it is gone
            pass
