"""What the kernel knows of this process, or keeps for it."""

from __future__ import annotations

import os
import socket

_OPEN = "/proc/self/fd"


def descriptors() -> int:
    """How many are open; 0 where the system does not tell."""
    return len(os.listdir(_OPEN)) if os.path.exists(_OPEN) else 0


def free_port() -> int:
    """A port of loopback on which nobody listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])
