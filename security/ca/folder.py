"""One folder, opened once: every file in it is reached through what was opened.

A CA's folder may belong to another user than the one who works in it: root renews from cron for the
cluster's user. The folder's owner can put any entry in the place of any other, at any moment, and
could make root read, overwrite or create files anywhere by a link. So the folder is opened once,
and names are looked up in that (`openat` and its like); no link in it is followed; what is opened
is a regular file, looked at after it was opened; what is read is bounded. Where the system has no
such calls (Windows), names are joined to the path, and links are looked for before each use.

`links` lets links be followed after all, for who only reads and shows nothing but certificates: a
folder that Kubernetes mounts holds links. Special files and sizes are refused all the same.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from ..errors import PEMError, PEMNotFound
from ..pem_shapes import decoded, normalised

__all__ = ["Folder", "reason"]

#: bytes of a file that are read: a journal of 400,000 lines, a list of a million revoked
LARGEST = 64 * 2**20

_RELATIVE = {os.open, os.stat, os.unlink, os.rename} <= os.supports_dir_fd and (
    os.listdir in os.supports_fd
)
_NOFOLLOW = getattr(os, "O_NOFOLLOW", 0)
# A FIFO opened without O_NONBLOCK waits for its other end.
_CALM = (
    getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_NONBLOCK", 0)
    | getattr(os, "O_NOCTTY", 0)
    | getattr(os, "O_BINARY", 0)
)


def reason(error: OSError) -> str:
    """What the system says of an error, within a sentence."""
    words = error.strerror or str(error)
    return words[:1].lower() + words[1:]


class Folder:
    """A folder by its path, which is looked up once, when something in it is first asked for.

    Names are those of entries, never paths. Errors are `OSError`s of the system or in its form,
    unless said otherwise.
    """

    def __init__(self, path: Path, *, links: bool = False) -> None:
        self.path = path
        self.links = links
        self._descriptor: int | None = None

    def close(self) -> None:
        """Close it; once more does nothing."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    __del__ = close

    def exists(self) -> bool:
        """Whether there is such a folder."""
        try:
            self.status()
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True

    def status(self) -> os.stat_result:
        """The folder's own owner and mode."""
        return os.stat(self.path if not _RELATIVE else self._opened())

    def names(self) -> list[str]:
        """All names in it, in order."""
        return sorted(os.listdir(self._opened() if _RELATIVE else self.path))

    def look(self, name: str) -> os.stat_result | None:
        """What an entry is, itself and not what it may point to; None if there is none."""
        where, at = self._at(name)
        try:
            return os.stat(where, dir_fd=at, follow_symlinks=self.links)
        except FileNotFoundError:
            return None

    def unfit(self, name: str) -> str | None:
        """Why an entry is not read, if it is no regular file of its own; None if it is."""
        found = self.look(name)
        return None if found is None else self._unfit(found)

    def has(self, name: str) -> bool:
        """Whether there is an entry of that name, of whatever kind."""
        return self.look(name) is not None

    def open(self, name: str, flags: int, mode: int = 0o600) -> int:
        """A descriptor of a regular file, as `os.open` with these flags.

        Raises `OSError` for anything else that has the name, links among it.
        """
        where, at = self._at(name)
        found = self.look(name)
        if found is not None and not flags & os.O_EXCL:
            self._must_fit(found)
        flags |= _CALM | (0 if self.links else _NOFOLLOW)
        descriptor = os.open(where, flags, mode, dir_fd=at)
        try:
            self._must_fit(os.fstat(descriptor))  # it may be another one by now
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def read(self, name: str) -> bytes:
        """What a file holds.

        Raises `PEMError` if it cannot be read, `PEMNotFound` if there is none.
        """
        try:
            descriptor = self.open(name, os.O_RDONLY)
            with open(descriptor, "rb") as file:
                data = file.read(LARGEST + 1)
        except OSError as error:
            why = reason(error)
            kind = PEMNotFound if isinstance(error, FileNotFoundError) else PEMError
            raise kind(f"cannot read {self.path / name}: {why}") from error
        if len(data) > LARGEST:
            raise PEMError(
                f"cannot read {self.path / name}: it has more than {LARGEST >> 20} MiB; "
                "is it the file that is meant?"
            )
        return data

    def text(self, name: str) -> str:
        """A PEM file's text, as `Source.read` gives it."""
        return normalised(decoded(self.read(name)))

    def replace(self, temporary: str, name: str) -> None:
        """Rename an entry over another."""
        source, at = self._at(temporary)
        target, _ = self._at(name)
        os.replace(source, target, src_dir_fd=at, dst_dir_fd=at)

    def remove(self, name: str) -> None:
        """Remove an entry, never what it may point to."""
        where, at = self._at(name)
        os.unlink(where, dir_fd=at)

    def sync(self) -> None:
        """Bring its entries to the disk, where the file system can."""
        if _RELATIVE:
            try:
                os.fsync(self._opened())
            except OSError:  # some network file systems cannot
                pass

    def is_at(self, path: Path) -> bool:
        """Whether a path leads to this very folder."""
        try:
            return os.path.samestat(self.status(), os.stat(path))
        except OSError:
            return False

    def _opened(self) -> int:
        if self._descriptor is None:
            flags = os.O_RDONLY | os.O_DIRECTORY | getattr(os, "O_CLOEXEC", 0)
            self._descriptor = os.open(self.path, flags)
        return self._descriptor

    def _at(self, name: str) -> tuple[str, int | None]:
        """What `os` calls take for an entry: its name and the folder, or its path."""
        if os.path.basename(name) != name or name in ("", os.curdir, os.pardir) or "\0" in name:
            raise OSError(errno.EINVAL, "not the name of a file", name)
        return (name, self._opened()) if _RELATIVE else (str(self.path / name), None)

    def _must_fit(self, found: os.stat_result) -> None:
        why = self._unfit(found)
        if why is not None:
            raise OSError(errno.EPERM, why)

    def _unfit(self, found: os.stat_result) -> str | None:
        if stat.S_ISLNK(found.st_mode):
            return (
                "it is a symbolic link, and the folder of a CA holds its files themselves "
                "(one that Kubernetes mounts is none); put the file in the place of the link"
            )
        if not stat.S_ISREG(found.st_mode):
            return "it is not a regular file; remove it, or put the file in its place"
        if found.st_nlink > 1 and found.st_uid != self.status().st_uid and not self.links:
            return (
                f"it is another name (a hard link) of a file of user {found.st_uid}, whose folder "
                "this is not; put a copy in its place"
            )
        return None
