"""Forks wait while contexts are being built.

OpenSSL has locks of its own, which a child would find held for ever.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator

__all__ = ["building"]

_PATIENCE = 10.0  # seconds; building takes milliseconds, as the files have been read by then
_lock = threading.Lock()
_held_for_fork: list[bool] = []


@contextlib.contextmanager
def building() -> Iterator[None]:
    """Build contexts in the ``with`` block, one thread at a time."""
    with _lock:
        yield


def _before_fork() -> None:
    _held_for_fork.append(_lock.acquire(timeout=_PATIENCE))


def _after_fork() -> None:
    if _held_for_fork.pop():
        _lock.release()


def _in_child() -> None:
    global _lock
    _held_for_fork.clear()
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_in_child)
