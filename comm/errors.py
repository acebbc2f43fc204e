"""Every error a caller of this package can catch.

    CommError(OSError)               .peer .retryable
    ├─ CommClosedError               the comm is closed, by either side; .clean
    │  ├─ FramingError               the peer's bytes are not this wire
    │  │  └─ MessageTooLarge         .size .limit
    │  ├─ DecodeError                well framed, but not a message
    │  ├─ HandshakeError             TLS was refused, by either side; .reason
    │  └─ HelloError                 the first message is missing or incompatible
    ├─ ConnectError                  no attempt to connect succeeded; .attempts .elapsed
    │  └─ ConnectTimeout(TimeoutError)
    └─ EncryptionRequired            refused before any I/O
    EncodeError(TypeError)           a value that cannot be sent; nothing was sent
    AddressError(ValueError)         not an address
    CommBusy(RuntimeError)           a second reader on one comm

Whatever a peer does, sends or fails to send surfaces as a `CommClosedError`; only mistakes of
the caller raise outside `CommError`. Messages read
``<what failed> <subject>: <why, with numbers>; <what to do>``.
"""

from __future__ import annotations

from typing import Literal, TypeVar

from .close_codes import CloseCode

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
]

_Error = TypeVar("_Error", bound="CommError")


class CommError(OSError):
    """Base of everything that can go wrong on a comm.

    Attributes
    ----------
    peer : str or None
        Address of the other side, with its scheme, where it is known.
    retryable : bool
        Whether the same attempt may succeed later without a change of configuration. `connect`
        tries again only after errors that say so.
    kind : str
        One word for the cause, from a short fixed list: by it a listener's `stats` count, and
        docs/errors.md is sorted.
    """

    retryable = True
    kind = "lost"

    def __init__(self, message: str, *, peer: str | None = None) -> None:
        super().__init__(message)
        self.peer = peer

    def again(self: _Error) -> _Error:
        """The same error for another reader: an exception that is raised twice mixes tracebacks."""
        other = type(self).__new__(type(self))
        other.args = self.args
        other.__dict__.update(self.__dict__)
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
    """The peer's bytes are not this wire; the comm was closed and nothing was delivered."""

    retryable = False
    kind = "framing"
    code = CloseCode.PROTOCOL_ERROR
    closed_by = "us"


class MessageTooLarge(FramingError):
    """A message is over a limit; on the sending side nothing was sent and the comm is usable.

    Attributes
    ----------
    size, limit : int
        In bytes, or in frames where the message says so.
    """

    kind = "too-large"
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
    """Frames arrived whole but are not a message; the comm was closed."""

    retryable = False
    kind = "message"
    code = CloseCode.BAD_MESSAGE
    closed_by = "us"


class HandshakeError(CommClosedError):
    """TLS was refused by us or by the peer. Another attempt would end the same way.

    Attributes
    ----------
    reason : str
        OpenSSL's short name for the cause, such as ``CERTIFICATE_VERIFY_FAILED`` or
        ``TLSV1_ALERT_UNKNOWN_CA``; empty if there is none.
    file : str
        Which file of ours is concerned, if its name is not in the message yet: ``certificate``,
        ``ca`` or ``crl``.
    """

    retryable = False
    kind = "tls"
    reason = ""
    file = ""


class HelloError(CommClosedError):
    """The peer's hello is missing, malformed or asks for what this side does not have."""

    retryable = False
    kind = "hello"


class ConnectError(CommError):
    """No attempt to connect succeeded.

    Attributes
    ----------
    attempts : int
        How many were made.
    elapsed : float
        Seconds from the first attempt to the last failure.
    """

    attempts = 0
    elapsed = 0.0


class ConnectTimeout(ConnectError, TimeoutError):
    """The deadline of `connect` passed before an attempt succeeded."""


class EncryptionRequired(CommError):
    """A plain address was given although encryption is required; no socket was opened."""

    retryable = False
    kind = "plain"


class EncodeError(TypeError):
    """A value has no form on the wire. Nothing was sent; the comm is usable."""


class AddressError(ValueError):
    """A string is not an address of the form ``scheme://host:port``."""


class CommBusy(RuntimeError):
    """A second task reads from a comm that already has a reader; the first goes on."""


def quoted(text: str, longest: int) -> str:
    """Somebody else's words, fit for an error and the log: no control characters, no "; "."""
    return "".join(c if c.isprintable() else "?" for c in text[:longest]).replace(";", ",")
