"""The limits of comms and listeners: sizes in bytes, times in seconds, each default explained."""

from __future__ import annotations

import dataclasses
import os
import sys

from .words import repr_of

__all__ = ["DEFAULT_LIMITS", "Limits"]

KiB = 1 << 10
MiB = 1 << 20
GiB = 1 << 30


def _memory_size() -> int:
    """Physical memory in bytes, or 64 GiB where it is unknown."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):  # Windows has no sysconf
        return 64 * GiB


@dataclasses.dataclass(frozen=True)
class Limits:
    """Bounds on what a peer can make this process store, and on how long it can take.

    Pass an instance to `connect` or `listen`; `dataclasses.replace` derives another. Sizes are in
    bytes, times in seconds.

    Parameters
    ----------
    handshake_timeout : float, default 30 s
        For TLS handshake and hello together, on either side. Progress does not extend it. Long
        enough for an event loop that a task blocks for several seconds at each end.
    close_timeout : float, default 30 s
        How long `close` waits while the peer takes nothing of what is still queued. Progress on a
        slow link extends it: what was sent before the close should arrive. As long as for a
        handshake, since a task may block the peer's event loop at either time.
    keepalive_timeout : float, default 30 s
        How long an acknowledgement may be overdue before the peer counts as dead. A peer that
        acknowledges but reads nothing is alive. Dask's default for the same purpose.
    max_message_size : int, default the machine's memory
        Total size of the frames of one message. The machine's memory: more could not be received
        anyway.
    max_handshake_size : int, default 16 KiB
        Bytes a peer may send before its TLS handshake is done: mostly certificates, which any
        unauthenticated peer may send and which cost 0.3 ms each to verify. With a chain of four
        RSA-4096 certificates a handshake takes 9 KiB. Where OpenSSL cannot be configured (outside
        CPython), its own limit of 100 KiB may apply to certificates that arrive at once.
    max_hello_size : int, default 64 KiB
        Size of the first message, which an unauthenticated peer may send. A hello has about 100
        bytes.
    max_frames : int, default 1,048,576
        Number of frames of one message. A gather of 300,000 small results has about a million.
    read_ahead : int, default 4 MiB
        Memory of complete unread messages from which on receiving pauses, so that a slow reader
        slows down its sender (back-pressure). One more message may be partly received.
    write_ahead : int, default 1 MiB
        Bytes queued for sending beyond which `write` waits. In Dask it never does.
    max_queued : int, default no limit
        Bytes of one comm that may be queued unsent, besides the largest message among them; a write
        that finds more closes the comm and frees the queue, but for a message that is partly sent.
        For writers that do not wait, as Dask's: without a limit, the queue for a peer that reads
        nothing grows without bound. None, the default, means no limit: how far a good peer may fall
        behind depends on what is sent to it and on how long its event loop may be blocked, and
        closing a comm loses work. Writers that wait are held back by `write_ahead` before, and are
        never closed for this.
    backlog : int, default 2048
        Connections that the kernel queues for a listener. In a shuffle every worker dials the same
        listener at once.
    max_pending : int, default 4096
        Pending connections of one listener, whose TLS handshake or hello is not done; for one more,
        the oldest is dropped. A handshake takes milliseconds, so thousands of workers that dial at
        once are never this many at a time. Half of the process's file descriptors is the limit if
        that is less.
    max_accepts : int, default 32
        Connections accepted in one iteration of the event loop: some milliseconds.
    handshake_slice : float, default 0.002 s
        How long a listener's TLS handshakes may take in each event-loop iteration; one step, about
        a millisecond, is always made. Open comms wait no longer than this for any number of pending
        connections, and iterations are cheap enough that workers that all dial at once connect as
        fast.
    stop_timeout : float, default 0.5 s
        How long a stopped listener waits for pending connections. The other side's `connect` may
        have returned already.
    max_log_lines : int, default 60
        Lines per minute that a listener logs about peers; more are counted and summed up in one
        line.

    Raises
    ------
    ValueError
        For a time that is not a positive number of seconds up to 10 ** 9, and for anything else
        that is not a positive whole number, counts up to 2 ** 31 - 1; 1e6 is 1000000.
    """

    handshake_timeout: float = 30.0
    close_timeout: float = 30.0
    keepalive_timeout: float = 30.0
    max_message_size: int = dataclasses.field(default_factory=_memory_size)
    max_handshake_size: int = 16 * KiB
    max_hello_size: int = 64 * KiB
    max_frames: int = 1 << 20
    read_ahead: int = 4 * MiB
    write_ahead: int = 1 * MiB
    max_queued: int | None = None
    backlog: int = 2048
    max_pending: int = 4096
    max_accepts: int = 32
    handshake_slice: float = 0.002
    stop_timeout: float = 0.5
    max_log_lines: int = 60

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value is None and field.default is None:
                continue
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            whole = field.type != "float"
            most = (_MOST if field.name in _COUNTS else sys.maxsize) if whole else _MOST_SECONDS
            if not number or not 0 < value <= most or (whole and value != int(value)):
                kind = "whole number" if whole else "number of seconds"
                raise ValueError(
                    f"bad limit {field.name}: got {repr_of(value):.80}, need a positive {kind} up "
                    f"to {most}; leave it out for the default"
                )
            if whole and not isinstance(value, int):
                object.__setattr__(self, field.name, int(value))


_COUNTS = ("max_frames", "backlog", "max_pending", "max_accepts", "max_log_lines")
_MOST = 2**31 - 1  # what the kernel takes as a backlog; more is no limit anyway
_MOST_SECONDS = 10**9  # beyond it, timers and socket options overflow

DEFAULT_LIMITS = Limits()
"""The defaults, shared by all comms: validating every field costs a tenth of a connection."""
