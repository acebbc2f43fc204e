"""Files that exist in memory only, as long as the process that made them.

On Linux they are anonymous files (memfd), reached by ``/proc/PID/fd/N``: by this process and the
others of its user on the machine, such as the workers of a nanny. Another text replaces the file as
a whole, by one system call (`dup2`), so that a reader finds the old text or the new; its contexts
follow it like any file. When the process ends, however it ends, nothing is left.

Elsewhere they are files of mode 0600 in a temporary folder of mode 0700, removed at the end.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
import threading

__all__ = ["Memory"]


class Memory:
    """Named texts with paths. Thread-safe.

    Attributes
    ----------
    on_disk : bool
        Whether the system has no files in memory, so that these are in a temporary folder.
    """

    def __init__(self, *, on_disk: bool | None = None) -> None:
        self.on_disk = not _has_memory() if on_disk is None else on_disk
        self._lock = threading.Lock()
        self._descriptors: dict[str, tuple[int, tuple[int, int]]] = {}  # and what it was, as `_of`
        self._folder = tempfile.mkdtemp(prefix="sealwire-") if self.on_disk else ""
        self._owner = os.getpid()

    def put(self, name: str, text: str) -> str:
        """Give the file of that name a new text; return its path, which stays the same."""
        with self._lock:
            return (self._put_file if self.on_disk else self._put_memory)(name, text.encode())

    def _put_memory(self, name: str, data: bytes) -> str:
        made = os.memfd_create(f"sealwire {name}", os.MFD_CLOEXEC)
        try:
            os.fchmod(made, 0o600)
            with open(made, "wb", closefd=False) as file:
                file.write(data)
            there, was = self._descriptors.get(name, (-1, (0, 0)))
            if there < 0:
                there = os.dup(made)  # not inherited by programs
            elif _of(there) not in (was, None):
                raise OSError(
                    errno.EBADF,
                    "this program has closed the files in memory of its identity, and others have "
                    "their numbers; start it again, and close only what it has opened",
                )
            else:
                os.dup2(made, there, inheritable=False)
            self._descriptors[name] = there, (_of(made) or was)
        finally:
            os.close(made)
        return f"/proc/{self._owner}/fd/{there}"

    def _put_file(self, name: str, data: bytes) -> str:
        path = os.path.join(self._folder, name)
        temporary = f"{path}.new"
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        with open(os.open(temporary, flags, 0o600), "wb") as file:
            file.write(data)
        os.replace(temporary, path)
        return path

    def close(self) -> None:
        """Remove them; in the process that made them."""
        with self._lock:
            descriptors, self._descriptors = self._descriptors, {}
            for each, was in descriptors.values():
                if _of(each) == was:
                    os.close(each)
            if self._folder and os.getpid() == self._owner:
                shutil.rmtree(self._folder, ignore_errors=True)


def _of(descriptor: int) -> tuple[int, int] | None:
    """Which file it is; None if it is closed."""
    try:
        status = os.fstat(descriptor)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _has_memory() -> bool:
    """Whether there are files in memory that have paths."""
    try:
        descriptor = os.memfd_create("sealwire", os.MFD_CLOEXEC)
    except (AttributeError, OSError):
        return False
    try:
        return os.path.exists(f"/proc/{os.getpid()}/fd/{descriptor}")
    finally:
        os.close(descriptor)
