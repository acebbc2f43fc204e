"""Errors for how connections end, raised to their readers and writers.

An end is *announced* if the peer has sent a closing message, or close_notify over TLS. A peer of
another implementation sends neither, and its kernel ends the connection in the same way when its
process is killed; so an end that was not announced is never clean. If the peer sends closing
messages (`Agreement.closing`), an end without one is a loss.
"""

from __future__ import annotations

import errno
import os
import ssl

from ..close_codes import CLEAN, REASON_LENGTH, CloseCode
from ..errors import CommClosedError, quoted
from ..kinds import ErrorKind
from ..wire.closing import Closing

__all__ = [
    "closed_by_peer",
    "closed_by_us",
    "ended_by_peer",
    "hides_loss",
    "inherited",
    "is_broken",
    "names",
    "peer_revoked",
    "reset_or_timed_out",
    "slow_consumer",
]

_REFUSED: dict[int, ErrorKind] = {
    CloseCode.PROTOCOL_ERROR: "framing",
    CloseCode.UNKNOWN_TYPE: "message",
    CloseCode.BAD_MESSAGE: "message",
    CloseCode.TOO_LARGE: "too-large",
}
_KINDS: dict[int, ErrorKind] = {
    CloseCode.GOING_AWAY: "going-away",
    CloseCode.SLOW_CONSUMER: "slow-consumer",
    CloseCode.HANDLER_FAILED: "handler-failed",
    CloseCode.REVOKED: "revoked",
}
_REMEDIES: dict[ErrorKind, str] = {
    "framing": "do not send it again; check that both sides run the same version",
    "message": "do not send it again; register its types on both sides, or mend it",
    "too-large": "send less at once, or raise the limit on the other side",
    "handler-failed": "see the peer's log",
    "revoked": "issue a new certificate for this side",
    "slow-consumer": "read faster, or raise Limits.max_queued on the other side",
}


def names(code: int) -> str:
    """Return the code with its name."""
    try:
        return f"{int(code)} {CloseCode(code).name.lower().replace('_', ' ')}"
    except ValueError:
        return str(int(code))


def closed_by_peer(peer: str, said: Closing) -> CommClosedError:
    """Return the error for a peer that has sent a closing message."""
    code, reason = said
    if code == 1000 and not reason:  # the usual end
        error = CommClosedError(f"connection with {peer} closed by the peer", peer=peer)
        error.kind = "closed"
        error.code = CloseCode.NORMAL
        error.closed_by = "peer"
        error.clean = True
        return error
    code = _CODES.get(code, code)
    refused = _REFUSED.get(code)
    kind = refused or _KINDS.get(code, "closed")
    words = quoted(reason, len(reason))
    told = f" ({names(code)}{': ' if words else ''}{words})"
    doing = ", which refused a message" if refused else ""
    remedy = _REMEDIES.get(kind)
    error = CommClosedError(
        f"connection with {peer} closed by the peer{doing}{told}"
        + (f"; {remedy}" if remedy else ""),
        peer=peer,
    )
    error.kind = kind
    error.code = code
    error.reason = reason
    error.closed_by = "peer"
    error.clean = code in CLEAN
    error.retryable = refused is None and kind != "revoked"
    return error


_CODES = {int(code): code for code in CloseCode}


def ended_by_peer(peer: str, where: str, *, notified: bool, announces: bool) -> CommClosedError:
    """Return the error for a connection that the other side ended without a closing message.

    Parameters
    ----------
    where
        How far it had come, if not between two messages.
    notified
        Whether TLS's close_notify was there.
    announces
        Whether this peer sends closing messages.
    """
    error = CommClosedError("", peer=peer)
    if where:
        why, remedy = f"closed by the peer{where}", "see the peer's log"
    elif notified:
        why, remedy = "closed by the peer", ""
        error.code, error.clean, error.closed_by = CloseCode.NO_STATUS, True, "peer"
        error.kind = "closed"
    elif announces:
        why = "lost: it ended without a closing message, which a killed process does not send"
        remedy = "see whether the peer still runs, and its log"
        error.kind = "lost"
    else:
        why = "closed by the peer, or its process has ended: it did not say which"
        remedy = "see the peer's log if it should go on"
        error.kind = "unannounced"
        error.code = CloseCode.NO_STATUS
    error.args = (f"connection with {peer} {why}" + (f"; {remedy}" if remedy else ""),)
    return error


def closed_by_us(peer: str, code: int, reason: str) -> CommClosedError:
    """Return the error for what comes after our own close."""
    if reason:
        reason = quoted(reason, REASON_LENGTH)  # as the peer is told
    told = f" ({names(code)}{': ' if reason else ''}{reason})" if code != 1000 or reason else ""
    error = CommClosedError(f"comm with {peer} is closed: we closed it{told}", peer=peer)
    error.kind = "closed"
    error.code = code
    error.reason = reason
    error.closed_by = "us"
    error.clean = True
    return error


def inherited(peer: str) -> CommClosedError:
    """Return the error for a comm in a child of the process that it belongs to."""
    error = CommClosedError(
        f"comm with {peer} is closed here: it belongs to the process that has forked this one; "
        "connect again in this one",
        peer=peer,
    )
    error.kind = "closed"
    error.closed_by = "us"
    return error


def peer_revoked(peer: str, why: str) -> CommClosedError:
    """Return the error for a comm that we end since its peer is nobody any more."""
    error = CommClosedError(
        f"comm with {peer} closed: {why}; issue a new certificate for the other side, if it is to "
        "come back",
        peer=peer,
    )
    error.kind = "revoked"
    error.code = CloseCode.REVOKED
    error.reason = why
    error.closed_by = "us"
    error.retryable = False
    return error


def hides_loss(end: CommClosedError, before: OSError) -> bool:
    """Whether an end of stream is none: a send has failed `before` with the error of the loss.

    The system reports such an error once, and then an end of stream. ``EPIPE`` comes of a real one.
    """
    lost = type(end) is CommClosedError and end.kind in ("lost", "unannounced")
    return lost and not isinstance(before, ssl.SSLError) and before.errno != errno.EPIPE


def is_broken(end: CommClosedError) -> bool:
    """Whether an end is worth a log line: peers of other implementations never announce theirs."""
    return not end.clean and end.kind != "unannounced"


def reset_or_timed_out(
    peer: str, where: str, reported: BaseException, silent: bool
) -> tuple[CommClosedError, BaseException]:
    """Return error and cause for a loss that OpenSSL has `reported` as end of file.

    It does before Python 3.12. `silent` is whether the peer had not been heard for long.
    """
    cause = reported
    if silent:
        cause = OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
        why, remedy = "connection timed out", "check the network between"
    else:
        why = "connection reset by peer, or connection timed out (through TLS it cannot be told)"
        remedy = "see the peer's log"
    return CommClosedError(f"connection with {peer} lost{where}: {why}; {remedy}"), cause


def slow_consumer(peer: str, unsent: int, limit: int, behind: float) -> CommClosedError:
    """For a peer that has taken too little; `behind` is for how many seconds it took nothing."""
    error = CommClosedError(
        f"comm with {peer} closed: {unsent} bytes are queued unsent, the limit is {limit}, and it "
        f"last took some {behind:.1f} s ago; see whether that process is stopped or overloaded, or "
        f"raise Limits.max_queued"
    )
    error.kind = "slow-consumer"
    error.code = CloseCode.SLOW_CONSUMER
    error.reason = f"{unsent} bytes were queued for it, the limit is {limit}"
    error.closed_by = "us"
    return error
