"""Exceptions of a send or a receive, also those that come from outside.

The handler of a signal may raise, such as Ctrl-C's, between the system call and our note of how
many bytes it took. If the event loop is run again, a connection that went on would send these bytes
once more, or write over those received, and the peer or our reader get a message that nobody sent.
"""

from __future__ import annotations

from typing import Any

from ..errors import CommClosedError

__all__ = ["receive_failed", "send_failed"]


def send_failed(connection: Any, error: BaseException) -> None:
    """Act on an exception of a send; `connection` is None once it is closed.

    Raises it again if it is not of the system's.
    """
    if not isinstance(error, OSError):
        _interrupted(connection, error)
        raise error
    if connection is not None:
        connection.broken(error)


def receive_failed(connection: Any, error: BaseException) -> None:
    """As `send_failed`, of a receive."""
    if not isinstance(error, OSError):
        _interrupted(connection, error)
        raise error
    connection.lost(error)


def _interrupted(connection: Any, error: BaseException) -> None:
    if connection is not None:
        kind = type(error).__name__
        failure = CommClosedError(
            f"connection with {connection.peer} lost: {kind} was raised while it was sending or "
            "receiving, by the handler of a signal perhaps, and how far it had come is not known; "
            "connect again",
            peer=connection.peer,
        )
        failure.kind = "lost"
        connection.fail(failure, error)
