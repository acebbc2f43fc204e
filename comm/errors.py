"""Every error that a caller of this package can catch.

    CommError(OSError)               .peer .retryable
    ├─ CommClosedError               the comm is closed, by either side; .clean
    │  ├─ FramingError               the peer's bytes do not follow the wire protocol
    │  │  └─ MessageTooLarge         .size .limit
    │  ├─ DecodeError                valid frames that are not a message
    │  ├─ HandshakeError             either side refused TLS; .reason
    │  └─ HelloError                 the first message is missing or incompatible
    ├─ WriteTimeout(TimeoutError)    a write was not done in time; the comm stays usable
    ├─ ConnectError                  no attempt to connect succeeded; .attempts .elapsed
    │  └─ ConnectTimeout(TimeoutError)
    └─ EncryptionRequired            refused before any I/O
    EncodeError(TypeError)           a value that cannot be sent; nothing was sent
    AddressError(ValueError)         not an address
    CommBusy(RuntimeError)           a second reader on one comm

The errors of calls are in `calls.errors`. Whatever else a peer does, sends or fails to send
surfaces as a `CommClosedError`; only mistakes of the caller raise outside `CommError`. Messages
have the form ``<what failed> <subject>: <why, with numbers>; <what to do>``.
"""

from __future__ import annotations

from typing import Literal, TypeVar

from .close_codes import CloseCode
from .kinds import ErrorKind

__all__ = [
    "AddressError",
    "CommBusy",
    "CommClosedError",
    "CommError",
    "ConnectError",
    "ConnectTimeout",
    "DecodeError",
    "EncodeError",
    "EncryptionRequired",
    "FramingError",
    "HandshakeError",
    "HelloError",
    "MessageTooLarge",
    "WriteTimeout",
]

_Error = TypeVar("_Error", bound="CommError")


class CommError(OSError):
    """Base class of all errors of a comm or a connection attempt.

    Attributes
    ----------
    peer : str or None
        Address of the other side, with its scheme, if known.
    retryable : bool
        Whether the same attempt may succeed later without a change of configuration. `connect`
        repeats an attempt only after a retryable error.
    kind : ErrorKind
        One word for the cause, from a fixed list: the key of a listener's `stats`, and of
        docs/errors.md.
    """

    retryable = True
    kind: ErrorKind = "lost"

    def __init__(self, message: str, *, peer: str | None = None) -> None:
        super().__init__(message)
        self.peer = peer

    def again(self: _Error) -> _Error:
        """Return a copy for another reader: raising the same exception twice mixes tracebacks."""
        other = type(self).__new__(type(self))
        other.args = self.args
        other.__dict__.update(self.__dict__)
        other.errno = self.errno  # an OSError keeps it elsewhere
        other.__cause__ = self.__cause__
        return other


class CommClosedError(CommError, ConnectionError):
    """The comm is closed: nothing more can be read or written.

    Attributes
    ----------
    code : int
        Why, as a number: the `CloseCode` that either side closed with, or ``ABNORMAL``.
    reason : str
        The words that came with the code; empty if there were none.
    closed_by : {"us", "peer", "lost"}
        Who closed, as far as it is known; ``"lost"`` if the connection ended without either.
    clean : bool
        Whether that side meant to and nothing was wrong: it said so, by a closing message or TLS's
        close_notify, with the code ``NORMAL`` or ``GOING_AWAY`` or none.
    """

    code: int = CloseCode.ABNORMAL
    reason = ""
    closed_by: Literal["us", "peer", "lost"] = "lost"
    clean = False


class FramingError(CommClosedError):
    """The peer's bytes violate the wire protocol; the comm was closed, nothing was delivered."""

    retryable = False
    kind: ErrorKind = "framing"
    code = CloseCode.PROTOCOL_ERROR
    closed_by = "us"


class MessageTooLarge(FramingError):
    """A message exceeds a limit; on the sending side nothing was sent and the comm stays usable.

    Attributes
    ----------
    size, limit : int
        In bytes, or in frames where the message says so.
    """

    kind: ErrorKind = "too-large"
    code = CloseCode.TOO_LARGE

    def __init__(self, message: str, *, size: int, limit: int, peer: str | None = None) -> None:
        super().__init__(message, peer=peer)
        self.size = size
        self.limit = limit

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild_too_large, (self.args[0], self.size, self.limit, self.peer)


def _rebuild_too_large(
    message: str, size: int, limit: int, peer: str | None
) -> MessageTooLarge:  # pickle and copy cannot pass keyword-only arguments
    return MessageTooLarge(message, size=size, limit=limit, peer=peer)


class DecodeError(CommClosedError):
    """The frames arrived complete but are not a message; the comm was closed."""

    retryable = False
    kind: ErrorKind = "message"
    code = CloseCode.BAD_MESSAGE
    closed_by = "us"


class HandshakeError(CommClosedError):
    """TLS was refused, by us or by the peer; another attempt would end the same way.

    Attributes
    ----------
    reason : str
        OpenSSL's short name for the cause, such as ``CERTIFICATE_VERIFY_FAILED`` or
        ``TLSV1_ALERT_UNKNOWN_CA``; empty if there is none.
    file : str
        Which of our files is concerned, if the message does not name it yet: ``certificate``,
        ``ca`` or ``crl``.

    Notes
    -----
    The alerts are those of RFC 5246 (TLS 1.2) and RFC 8446 (TLS 1.3).
    """

    retryable = False
    kind: ErrorKind = "tls"
    reason = ""
    file = ""


class HelloError(CommClosedError):
    """The peer's hello is missing, malformed, or requires what this side does not support."""

    retryable = False
    kind: ErrorKind = "hello"


class ConnectError(CommError):
    """No attempt to connect succeeded.

    Attributes
    ----------
    attempts : int
        Number of attempts made.
    elapsed : float
        Seconds from the start of the first attempt to the end of the last.
    """

    attempts = 0
    elapsed = 0.0


class ConnectTimeout(ConnectError, TimeoutError):
    """The timeout of `connect` expired before an attempt succeeded."""


class WriteTimeout(CommError, TimeoutError):
    """The timeout of a write or drain expired; what is queued stays queued, and the comm open.

    The message will still be sent, whole and in its place. `Comm.drain` waits for it; closing the
    comm gives it `Limits.close_timeout`, aborting drops it.

    Attributes
    ----------
    unsent : int
        Bytes of the comm that the kernel had not taken.
    """

    kind = "timeout"
    unsent = 0


class EncryptionRequired(CommError):
    """A plain address was given although encryption is required; no socket was opened."""

    retryable = False
    kind: ErrorKind = "plain"


class EncodeError(TypeError):
    """A value has no wire form. Nothing was sent; the comm stays usable."""


class AddressError(ValueError):
    """A string is not an address of the form ``scheme://host:port``."""


class CommBusy(RuntimeError):
    """A second task tried to read from a comm; the first reader is not affected."""


def quoted(text: str, longest: int) -> str:
    """Return a peer's text, safe within an error message: no control characters, no ``"; "``.

    The parts of our messages are separated by semicolons (see above), so those are replaced too.
    """
    return "".join(c if c.isprintable() else "?" for c in text[:longest]).replace(";", ",")
