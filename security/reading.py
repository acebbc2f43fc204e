"""Reading files that decide whom we trust: regular files of bounded size, read once.

Opening a FIFO would block until somebody writes to it, a device is endless, and opening some
devices has side effects. So a path is checked before it is opened, the open file is checked again,
and no more is read than the limit. What a person gives to a command may be a pipe as well, since it
can come from another program (`<(pass show worker)`): nobody waits for it for ever.
"""

from __future__ import annotations

import os
import select
import stat
import time
from collections.abc import Iterable, Mapping
from typing import NamedTuple

__all__ = ["Stamp", "are_settled", "kind", "look_at", "read", "read_given"]

_FLAGS = (
    os.O_RDONLY
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_NONBLOCK", 0)  # a FIFO may have replaced the file after the check
    | getattr(os, "O_NOCTTY", 0)
    | getattr(os, "O_BINARY", 0)
)
_CHUNK = 2**20
_PATIENCE = 10.0  # seconds for the other end of a pipe
_KINDS = (
    (stat.S_ISREG, "a file"),
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISLNK, "a symbolic link"),
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a character device"),
    (stat.S_ISBLK, "a block device"),
)

#: Seconds. File systems keep times at resolutions of up to 2 s (FAT; 4 ms are usual): a file that
#: was written less than this before it was read may be written again without a new time.
SETTLING = 2.0


class Stamp(NamedTuple):
    """Identifies a state of a file without reading it."""

    device: int
    inode: int
    size: int
    modified: int  # nanoseconds since the epoch
    changed: int  # the same, of content or owner; on Windows, of creation

    @property
    def newest(self) -> float:
        """When it was last written, in seconds since the epoch, as far as the times tell."""
        return max(self.modified, self.changed) / 1e9


def look_at(paths: Iterable[str]) -> dict[str, Stamp | int | None]:
    """Return the stamp of each file, or the errno if it cannot be examined."""
    seen: dict[str, Stamp | int | None] = {}
    for path in paths:
        try:
            found = os.stat(path)
        except OSError as error:
            seen[path] = error.errno
        except ValueError:  # a null byte
            seen[path] = None
        else:
            seen[path] = Stamp(
                found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
            )
    return seen


def are_settled(seen: Mapping[str, Stamp | int | None]) -> bool:
    """Whether a later change of any of the files would show in its stamp."""
    now = time.time()
    return all(stamp.newest + SETTLING < now for stamp in seen.values() if isinstance(stamp, Stamp))


def kind(status: os.stat_result) -> str:
    """Return what something is, in words."""
    return next((words for test, words in _KINDS if test(status.st_mode)), "no file")


def read(path: str, limit: int) -> tuple[bytes, os.stat_result]:
    """Return the content of a regular file, and its status from before it was read.

    Raises `OSError`, with the reason in words in `strerror`, also for anything but a regular file
    of at most `limit` bytes, and `ValueError` for a null byte in the path.
    """
    _demand_regular(os.stat(path), limit)
    descriptor = os.open(path, _FLAGS)
    try:
        status = os.fstat(descriptor)
        _demand_regular(status, limit)
        parts: list[bytes] = []
        size = 0
        while size <= limit:  # not by its size: files under /proc claim to be empty
            part = os.read(descriptor, min(_CHUNK, limit + 1 - size))
            if not part:
                return b"".join(parts), status
            parts.append(part)
            size += len(part)
    finally:
        os.close(descriptor)
    raise OSError(None, f"it has more than {limit:,} bytes, which is the limit")


def read_given(path: str, limit: int) -> tuple[bytes, os.stat_result]:
    """Return what `read` does, also of a pipe, if it is written and closed within ten seconds."""
    status = os.stat(path)
    if os.name != "posix" or not stat.S_ISFIFO(status.st_mode):
        return read(path, limit)
    descriptor = os.open(path, _FLAGS)
    try:
        if not stat.S_ISFIFO(os.fstat(descriptor).st_mode):
            raise OSError(None, "another file has taken its place; try again")
        return _of_pipe(descriptor, limit), status
    finally:
        os.close(descriptor)


def _of_pipe(descriptor: int, limit: int) -> bytes:
    poller = select.poll()
    poller.register(descriptor, select.POLLIN)
    deadline, data = time.monotonic() + _PATIENCE, b""
    while len(data) <= limit:
        left = deadline - time.monotonic()
        if left <= 0 or not poller.poll(left * 1000):
            raise OSError(
                None,
                f"it is a pipe, and nobody has written to it and closed it within {_PATIENCE:g} s",
            )
        try:
            part = os.read(descriptor, limit + 1 - len(data))
        except BlockingIOError:
            continue
        if not part:
            return data
        data += part
    raise OSError(None, f"more than {limit:,} bytes come from the pipe, which is the limit")


def _demand_regular(status: os.stat_result, limit: int) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise OSError(None, f"it is {kind(status)}, not a regular file")
    if status.st_size > limit:
        raise OSError(None, f"it has {status.st_size:,} bytes, the limit is {limit:,}")
