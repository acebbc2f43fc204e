"""Files that exist in memory only, as long as the process that made them.

On Linux they are anonymous files (memfd), reached by ``/proc/PID/fd/N``: by this process and the
others of its user on the machine, such as the workers of a nanny. Another text replaces the file as
a whole, by one system call (`dup2`), so that a reader finds the old text or the new; its contexts
follow it like any file. When the process ends, however it ends, nothing is left.

Elsewhere they are files of mode 0600 in a temporary folder of mode 0700, removed at the end.
"""

from __future__ import annotations

import contextlib
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
        self._descriptors: dict[str, int] = {}
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
            there = self._descriptors.get(name)
            if there is None:
                self._descriptors[name] = there = os.dup(made)  # not inherited by programs
            else:
                os.dup2(made, there, inheritable=False)
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
            for each in descriptors.values():
                with contextlib.suppress(OSError):
                    os.close(each)
            if self._folder and os.getpid() == self._owner:
                shutil.rmtree(self._folder, ignore_errors=True)


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
