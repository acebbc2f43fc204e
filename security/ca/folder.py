"""A folder that is opened once: all files in it are reached through its descriptor.

A CA's folder may belong to another user than the one who works in it: root renews from cron for the
cluster's user. The folder's owner can replace any entry by a link at any moment, and could make
root read, overwrite or create files anywhere. So the folder is opened once, and names are looked up
relative to it (`openat` and the like); links in it are not followed; only regular files are opened,
and checked after opening; reads are bounded. On systems without such calls (Windows), names are
joined to the path, and links are checked for before each use.

With `links`, links are followed, for read-only callers that show nothing but certificates: a folder
that Kubernetes mounts consists of links. Special files and large ones are rejected all the same.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from ..errors import PEMError, PEMNotFound
from ..pem_shapes import decoded, normalised
from ..reading import kind

__all__ = ["Folder", "no_folder", "reason"]

#: most bytes to read of a file: a journal of 400,000 lines, a CRL of a million entries
LARGEST = 64 * 2**20

_RELATIVE = {os.open, os.stat, os.unlink, os.rename} <= os.supports_dir_fd and (
    os.listdir in os.supports_fd
)
_NOFOLLOW = getattr(os, "O_NOFOLLOW", 0)
# Opening a FIFO without O_NONBLOCK waits for its other end.
_CALM = (
    getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_NONBLOCK", 0)
    | getattr(os, "O_NOCTTY", 0)
    | getattr(os, "O_BINARY", 0)
)


def reason(error: OSError) -> str:
    """Return the system's error message, for use within a sentence."""
    words = error.strerror or str(error)
    return words[:1].lower() + words[1:]


def no_folder(path: Path) -> str | None:
    """Why a path cannot be that of a folder; None if it is one, or nothing is there yet."""
    try:
        found = os.stat(path)
    except OSError:
        return "it is a symbolic link that leads nowhere" if os.path.islink(path) else None
    return None if stat.S_ISDIR(found.st_mode) else f"it is {kind(found)}, not a folder"


class Folder:
    """A folder given by its path, which is resolved once, when something in it is first needed.

    Names are those of entries, never paths. Errors are `OSError`s, unless stated otherwise.
    """

    _descriptor: int | None = None

    def __init__(self, path: Path, *, links: bool = False) -> None:
        self.path = path
        self.links = links

    def close(self) -> None:
        """Close it; may be called again."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    __del__ = close

    def exists(self) -> bool:
        """Whether the folder exists."""
        try:
            self.status()
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                return False
            raise
        return True

    def status(self) -> os.stat_result:
        """Owner and mode of the folder itself."""
        return os.stat(self.path if not _RELATIVE else self._opened())

    def names(self) -> list[str]:
        """All names in it, sorted."""
        return sorted(os.listdir(self._opened() if _RELATIVE else self.path))

    def look(self, name: str) -> os.stat_result | None:
        """Return the status of an entry, without following links; None if there is none."""
        where, at = self._at(name)
        try:
            return os.stat(where, dir_fd=at, follow_symlinks=self.links)
        except FileNotFoundError:
            return None

    def unfit(self, name: str) -> str | None:
        """Why an entry cannot be read: it is not a regular file; None if it can."""
        found = self.look(name)
        return None if found is None else self._unfit(found)

    def has(self, name: str) -> bool:
        """Whether there is an entry of that name, of any kind."""
        return self.look(name) is not None

    def open(self, name: str, flags: int, mode: int = 0o600) -> int:
        """Open a regular file with `os.open`'s flags and return its descriptor.

        One that is created is its owner's, whatever the umask. Raises `OSError` for anything else
        of that name, including links.
        """
        where, at = self._at(name)
        found = self.look(name)
        if found is not None and not flags & os.O_EXCL:
            self._must_fit(found)
        flags |= _CALM | (0 if self.links else _NOFOLLOW)
        descriptor = os.open(where, flags, mode, dir_fd=at)
        try:
            status = os.fstat(descriptor)
            self._must_fit(status)  # it may have been replaced before opening
            if flags & os.O_EXCL and os.name == "posix" and mode & 0o600 & ~status.st_mode:
                os.fchmod(descriptor, stat.S_IMODE(status.st_mode) | mode & 0o600)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def read(self, name: str) -> bytes:
        """Return the content of a file.

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
        """Return the text of a PEM file, as `Source.read` does."""
        return normalised(decoded(self.read(name)))

    def replace(self, temporary: str, name: str) -> None:
        """Rename an entry over another."""
        source, at = self._at(temporary)
        target, _ = self._at(name)
        os.replace(source, target, src_dir_fd=at, dst_dir_fd=at)

    def remove(self, name: str) -> None:
        """Remove an entry; a link itself, not its target."""
        where, at = self._at(name)
        os.unlink(where, dir_fd=at)

    def sync(self) -> None:
        """Sync its entries to disk, where the file system supports it."""
        if _RELATIVE:
            try:
                os.fsync(self._opened())
            except OSError:  # not supported by some network file systems
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
        """Arguments of `os` functions for an entry: its name and the descriptor, or its path."""
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
            return f"it is {kind(found)}, not a regular file; put a file in its place, or name one"
        if found.st_nlink > 1 and found.st_uid != self.status().st_uid and not self.links:
            return (
                f"it is another name (a hard link) of a file of user {found.st_uid}, whose folder "
                "this is not; put a copy in its place"
            )
        return None
