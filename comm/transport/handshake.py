"""A TLS handshake on a connected socket, driven by the event loop.

Separate from the stream, since none of its state is needed once the handshake is done.
"""

from __future__ import annotations

import asyncio
import ssl
from socket import SHUT_WR, socket
from typing import Any

from ..errors import CommClosedError, HandshakeError
from ..tls_errors import explain, facts
from .handshake_throttle import HandshakeThrottle
from .openssl import bound, forgetter
from .readiness import Readiness
from .sockets import bytes_received, is_dead
from .switch_interval import Guard
from .wakeup import resume

__all__ = ["Handshake"]

_UNREAD = 64  # most receives to drain what a refused peer has sent
_CHUNK = 64 * 1024


class Handshake:
    """One handshake.

    Parameters
    ----------
    tls
        Wrapped with ``do_handshake_on_connect=False``; the caller closes it.
    readiness
        Of the socket. Its callbacks remain those of the handshake until they are replaced.
    guard
        Of the running loop.
    peer
        The peer's address, for errors.
    most
        Most bytes that the peer may send before the handshake is done. OpenSSL enforces it for
        certificates and sends an alert, so that the peer learns the reason; it skips a few empty
        records by itself. After each step the kernel is asked how many bytes have arrived, so that
        no more are accepted, and where OpenSSL cannot be configured, before each step as well.
    throttle
        Schedules the steps if the peer is an incoming connection.

    Attributes
    ----------
    facts : dict
        What the handshake established, once it is done; see `Comm.extra_info`.
    pointer : int or None
        The connection's `openssl.pointer`.
    options : int
        The context's, which the connection goes by.
    """

    def __init__(
        self,
        tls: ssl.SSLSocket,
        readiness: Readiness,
        guard: Guard,
        peer: str,
        most: int,
        throttle: HandshakeThrottle | None = None,
    ) -> None:
        self._tls = tls
        self._readiness = readiness
        self._guard = guard
        self._peer = peer
        self._most = most
        self.pointer = bound(getattr(tls, "_sslobj", None), certificates=most)
        self.options: int = tls.context.options  # it may change before the handshake is done
        self._throttle = throttle
        self._forget_errors = forgetter()
        self.facts: dict[str, Any] = {}
        self._reads = False  # whether the loop watches the socket for us
        self._loop = asyncio.get_running_loop()
        self._over = False
        self._error: Exception | None = None
        self._waiting: asyncio.Future[None] | None = None

    async def finish(self) -> None:
        """Do the handshake. Raises `CommClosedError`s, and what else the socket's class raises.

        A cancelled call leaves the handshake going on: repeat it, or `stop`.
        """
        if self._waiting is None:
            self._proceed()
        if not self._over:
            self._waiting = self._loop.create_future()
            await self._waiting
        error, self._error = self._error, None
        if error is not None:
            try:
                raise error
            finally:
                del error  # its traceback refers to this frame

    def stop(self, error: CommClosedError) -> None:
        """Make a waiting `finish` raise `error`: the socket was closed."""
        self._end(error)

    def _end(self, error: Exception | None = None) -> None:
        if self._over:
            return
        self._over = True
        self._error = error
        if self._waiting is None:
            return
        if error is None:
            resume(self._waiting)  # called by the loop
        elif not self._waiting.done():
            self._waiting.set_result(None)

    def _watch(self, *, reads: bool, writes: bool) -> None:
        if reads and not self._reads:
            self._readiness.on_readable(self._proceed)
        elif not reads:  # remove the callback of the previous owner
            self._readiness.on_readable(None)
        self._reads = reads
        if writes != self._readiness.writes:
            self._readiness.on_writable(self._proceed if writes else None)

    def _proceed(self) -> None:
        self._guard.touch()
        if self._throttle is None:
            self._step()
        elif not self._throttle.take(self._step):
            self._watch(reads=False, writes=False)  # it is queued; more events are of no use

    def _step(self) -> None:
        if self._over:  # it was stopped while queued, or nobody has asked for the outcome yet
            self._watch(reads=False, writes=False)
            return
        tls = self._tls
        if self.pointer is None and self._has_sent_too_much():
            return
        self._forget_errors()
        try:
            tls.do_handshake()
            self.facts = facts(tls, self._peer)
        except ssl.SSLWantReadError:
            if self._has_sent_too_much():  # refused even if the handshake succeeded
                return
            self._watch(reads=True, writes=False)
            if self._readiness.errors_once and is_dead(tls):  # no event will follow
                self._loop.call_soon(self._proceed)
        except ssl.SSLWantWriteError:
            self._watch(reads=False, writes=True)
        except CommClosedError as error:
            self._let_alert_arrive()
            self._end(error)
        except (OSError, ValueError, AttributeError) as error:  # disconnected: no ssl object
            explained = self._explained(error)
            self._let_alert_arrive()
            self._end(explained)
        except Exception as error:  # a fault in a socket class of the user's own
            self._end(error)
        else:
            if tls.server_side and tls.session_reused:
                # Resuming a session skips the verification of the certificate.
                self._end(
                    CommClosedError(
                        f"connection with {self._peer} dropped: it resumed a TLS session, which "
                        f"skips the check of its certificate; connect without resumption"
                    )
                )
            self._end()

    def _explained(self, error: Exception) -> CommClosedError:
        if getattr(error, "reason", None) == "EXCESSIVE_MESSAGE_SIZE":
            explained: CommClosedError = self._too_much("more certificates")
        else:
            explained = explain(error, self._peer, handshaking=True, tls=self._tls)
        explained.__cause__ = error
        return explained

    def _has_sent_too_much(self) -> bool:
        sent = bytes_received(self._tls)
        if sent is None or sent <= self._most:
            return False
        self._let_alert_arrive()
        self._end(self._too_much(f"{sent} bytes"))
        return True

    def _too_much(self, what: str) -> HandshakeError:
        error = HandshakeError(
            f"TLS handshake with {self._peer} failed: it sent {what} before it was done, the limit "
            f"is {self._most}; shorten its chain of certificates, or raise "
            f"Limits.max_handshake_size on our side",
            peer=self._peer,
        )
        error.kind = "too-large"
        return error

    def _let_alert_arrive(self) -> None:
        """Drain the receive buffer after OpenSSL has sent an alert.

        Closing with unread bytes makes the kernel reset the connection, and the peer might lose the
        alert that tells it why.
        """
        self._forget_errors()
        try:
            socket.shutdown(self._tls, SHUT_WR)
            for _ in range(_UNREAD):
                if not socket.recv(self._tls, _CHUNK):
                    break
        except (OSError, ValueError):
            pass
