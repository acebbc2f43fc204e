"""Memory for received frames: fresh, writable, uninitialised.

numpy's allocator is used where numpy is already loaded: it does not clear memory, requests huge
pages from 4 MiB up, and the C library reuses warm memory for blocks up to 32 MiB. Without numpy a
bytearray is used up to that size, and above it a private mapping with huge pages, none of which is
touched before the bytes arrive.
"""

from __future__ import annotations

import mmap
import sys

__all__ = ["allocate"]

MAPPED_FROM = 32 << 20
# Python maps shared memory by default, which gets no huge pages.
_PRIVATE: dict[str, int] = (
    {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_PRIVATE") else {}
)
_MADV_HUGEPAGE: int | None = getattr(mmap, "MADV_HUGEPAGE", None)


def allocate(size: int) -> memoryview:
    """Allocate a writable buffer of `size` bytes with undefined content.

    Raises `MemoryError` if the system refuses.
    """
    empty = getattr(sys.modules.get("numpy"), "empty", None)  # None also during numpy's import
    if empty is not None:
        return memoryview(empty(size, "u1"))
    if size < MAPPED_FROM:
        return memoryview(bytearray(size))
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
