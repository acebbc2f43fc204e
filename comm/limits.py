"""What one comm may cost: sizes in bytes, times in seconds, each default with its reason."""

from __future__ import annotations

import dataclasses
import math
import os

__all__ = ["DEFAULT_LIMITS", "Limits"]

KiB = 1 << 10
MiB = 1 << 20
GiB = 1 << 30


def _memory_size() -> int:
    """Physical memory in bytes, or 64 GiB where the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):  # Windows has no sysconf
        return 64 * GiB


@dataclasses.dataclass(frozen=True)
class Limits:
    """Bounds on what a peer can make this process hold, and on how long it can take.

    Pass one to `connect` or `listen`; `dataclasses.replace` derives another. Raises `ValueError`
    for a value that is not positive.
    """

    handshake_timeout: float = 30.0
    """TLS handshake and hello together, on either side. Progress does not extend it. Long enough
    for an event loop that a task has blocked for several seconds at each end."""

    close_timeout: float = 30.0
    """How long `close` waits while the peer takes nothing of what is still queued. A slow link is
    waited for: what is sent before the close is to arrive. As long as for a handshake, since a
    task may hold the peer's event loop as well now as then."""

    keepalive_timeout: float = 30.0
    """After this long without an acknowledgement that is due the peer is dead. One that
    acknowledges and merely takes nothing is waited for. Dask's default for the same purpose."""

    max_message_size: int = dataclasses.field(default_factory=_memory_size)
    """All frames of one message. The machine's memory: more could not be received anyway."""

    max_handshake_size: int = 16 * KiB
    """What a peer may send before its TLS handshake is done: nearly all of it certificates, which
    anybody may send and which cost 0.3 ms each to look at. A chain of four with RSA-4096 keys and
    all that goes with it is 9 KiB. Where OpenSSL cannot be told (outside CPython), its own limit
    of 100 KiB may hold for certificates that arrive at once."""

    max_hello_size: int = 64 * KiB
    """The first message, which a stranger may send. A hello is about 100 bytes."""

    max_frames: int = 1 << 20
    """Frames of one message. A gather of 300,000 small results has about a million."""

    read_ahead: int = 4 * MiB
    """Whole messages held unread before the socket is left alone, so that a slow reader holds
    back its sender. One message beyond it may be in the making."""

    write_ahead: int = 1 * MiB
    """Bytes queued for sending beyond which `write` waits."""

    max_queued: int | None = None
    """Bytes of one comm that may be queued unsent, besides the largest message among them; at a
    write that finds more the comm is closed, and what was queued is freed. For writers that do not
    wait, as Dask's: without it a peer that takes nothing makes this process grow for ever. None is
    no limit, the default: how much a good peer may be behind depends on what is sent to it, and
    how long its event loop may be held, and closing a comm loses work. Who does wait is held back
    before, never closed for it."""

    backlog: int = 2048
    """Connections the kernel holds for a listener. A shuffle dials one listener from every
    worker at once."""

    max_pending: int = 4096
    """Connections of one listener whose TLS handshake or hello is not done; for one more, the
    oldest is dropped. A handshake takes milliseconds, so that thousands of workers that dial at
    once are never this many at a time. Half of the descriptors that the process may open is the
    limit if that is less."""

    max_accepts: int = 32
    """Connections taken from the kernel before the event loop gets a turn: some milliseconds."""

    handshake_slice: float = 0.002
    """How much of each turn of the event loop TLS handshakes of a listener may use; one step, about
    a millisecond, is always made. Open comms wait no longer than this for any number of strangers,
    and a turn costs so little that workers that dial all at once are let in as fast."""

    stop_timeout: float = 0.5
    """How long a stopped listener lets handshakes and hellos under way finish. The other side's
    `connect` may have returned already."""

    max_log_lines: int = 60
    """Lines a minute that one listener logs about peers it refused; more are counted, and summed
    up in one."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value is None and field.default is None:
                continue
            if not isinstance(value, (int, float)) or not 0 < value < math.inf:
                raise ValueError(
                    f"bad limit {field.name}: got {value!r}, need a positive finite number; "
                    f"leave it out for the default"
                )


DEFAULT_LIMITS = Limits()
"""What a comm gets that is given none; to look at every field costs a tenth of a connection."""
