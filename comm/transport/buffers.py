"""Memory to receive into: for frames, writable, with undefined content; and a scratch buffer.

numpy's allocator is used where numpy is already loaded: it does not clear memory, requests huge
pages from 4 MiB up, and the C library reuses warm memory for blocks up to 32 MiB. Without numpy a
bytearray is used up to that size, and above it a private mapping with huge pages, none of which is
touched before the bytes arrive.

Blocks of medium size are used again once their last user has dropped them. The C library would
return much of the memory of several such blocks to the system, and page faults cost as much as
receiving. It does so with each block where its thresholds are low, as in the workers that Dask's
nanny starts. Whether a block has a user is told by its reference count: every view of it, of any
library, holds a reference.
"""

from __future__ import annotations

import mmap
import sys
import threading
from collections import deque
from typing import Any

__all__ = ["allocate", "scratch"]

MAPPED_FROM = 32 << 20
# Python maps shared memory by default, which gets no huge pages.
_PRIVATE: dict[str, int] = (
    {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_PRIVATE") else {}
)
_MADV_HUGEPAGE: int | None = getattr(mmap, "MADV_HUGEPAGE", None)

_REUSED_FROM, _REUSED_TO = 192 << 10, 4 << 20  # bytes of a block that may be used again
_KEPT = 8 << 20  # bytes of such blocks that a thread knows, used or not
_TRIED = 4  # blocks to look at, the oldest first; more cost more than they save


def allocate(size: int) -> memoryview:
    """Return a writable buffer of `size` bytes, which belongs to the caller.

    Raises `MemoryError` if the system refuses.
    """
    if _REUSED_FROM <= size <= _REUSED_TO:
        return _recycled.block(size)
    return memoryview(_new(size))


def _new(size: int) -> Any:
    empty = getattr(sys.modules.get("numpy"), "empty", None)  # None also during numpy's import
    if empty is not None:
        return empty(size, "u1")
    if size < MAPPED_FROM:
        return bytearray(size)
    try:
        block = mmap.mmap(-1, size, **_PRIVATE)
    except (OSError, OverflowError, ValueError) as error:
        raise MemoryError(f"cannot reserve {size} bytes for a frame: {error}") from error
    if _MADV_HUGEPAGE is not None:
        try:
            block.madvise(_MADV_HUGEPAGE)
        except OSError:  # a kernel built without huge pages
            pass
    return block


class _Recycled(threading.local):
    """The blocks of medium size that a thread allocated last, the oldest first."""

    def __init__(self) -> None:
        self._blocks: deque[Any] = deque()
        self._size = 0
        self._unused = 0  # the reference count of a block that only this object knows
        free_threaded = "t" in getattr(sys, "abiflags", "")  # whose counts say less
        if hasattr(sys, "getrefcount") and not free_threaded:
            self._blocks.append(bytearray(1))
            self._unused = self._references()
            self._blocks.clear()

    def _references(self) -> int:
        return sys.getrefcount(self._blocks[0])

    def block(self, size: int) -> memoryview:
        """Return a block that has no user, or a new one."""
        if not self._unused:
            return memoryview(_new(size))
        blocks = self._blocks
        for _ in range(min(_TRIED, len(blocks))):
            # The header before an array varies by a few bytes. Much more than needed would stay for
            # as long as the array does: distributed takes a twentieth for too much.
            if size <= len(blocks[0]) <= size + size // 64 and self._references() == self._unused:
                view = memoryview(blocks[0])[:size]
                blocks.rotate(-1)
                return view
            blocks.rotate(-1)
        made = _new(size)
        self._size += size
        while self._size > _KEPT:
            self._size -= len(blocks.popleft())
        blocks.append(made)
        return memoryview(made)


_recycled = _Recycled()
_local = threading.local()


def scratch(size: int) -> bytearray:
    """Return the thread's receive buffer; its content is parsed before anyone else can use it."""
    buffer: bytearray | None = getattr(_local, "scratch", None)
    if buffer is None:
        buffer = _local.scratch = bytearray(size)
    return buffer
