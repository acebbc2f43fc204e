"""Atomic writes of certificate and key files.

A `Write` describes a file's new content; `apply` carries out a list of them, in order. Each file is
written to a temporary file beside it, synced, and put in place by one rename: a process that reads
it at any moment finds the old text or the new. A private file has mode 0600 from the start,
whatever the umask, and no file is ever writable by others. After a failure no temporary file is
left, and no file that did not exist before; a partly appended line is truncated again.

What root writes into another user's folder belongs to that user, as do the processes that read it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shlex
import stat
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import AuthorityError
from ..reading import kind
from .folder import Folder, no_folder, reason

__all__ = ["Write", "apply", "examine", "locked", "make_folder", "new_folder"]

_SUFFIX = ".sealwire-tmp"
_LOCK = ".lock"
_PATIENCE = 10.0  # seconds to wait for another command in the same folder
_TRIES = 5  # at a lock file that is replaced meanwhile


@dataclass(frozen=True)
class Write:
    """A file to be written: its path, its text, and how.

    `private`: readable by its owner only. `new`: it must not exist yet. `append`: the text is
    appended. `words` describe its content to a person. `folder` is the open folder that holds the
    path, in which links are not followed. Without it, the path was given by the user, and links
    are followed.
    """

    path: Path
    text: str = field(repr=False)
    words: str
    private: bool = False
    new: bool = False
    append: bool = False
    folder: Folder | None = field(default=None, repr=False, compare=False)

    def place(self) -> tuple[Folder, str]:
        """Return the folder, and the name in it, to write to."""
        if self.folder is not None:
            return self.folder, self.path.name
        path = self.path if self.new else Path(os.path.realpath(self.path))  # keep a link a link
        return Folder(path.parent), path.name


def examine(writes: Sequence[Write]) -> None:
    """Raise `AuthorityError` if a file exists that must be new, or is a device, a pipe or the like.

    A rename would put a file in its place: run by root, `--out /dev/null` would replace the device.
    Nor can a path be named in a file if its bytes are no UTF-8.
    """
    for write in writes:
        if not _is_utf8(write.text):
            raise AuthorityError(
                f"cannot write {write.path}: it would name a path whose bytes are no UTF-8; "
                "give files and folders other names; nothing was written"
            )
        folder, name = write.place()
        if write.new and folder.exists() and folder.has(name):
            raise AuthorityError(
                f"cannot write {write.path}: it exists already; name another file, or renew what "
                "is in this one; nothing was written"
            )
        there = folder.look(name) if write.folder is None and folder.exists() else None
        if there is not None and not stat.S_ISREG(there.st_mode):
            raise AuthorityError(
                f"cannot write {write.path}: it is {kind(there)}, not a regular file; name another "
                "one; nothing was written"
            )


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def apply(writes: Sequence[Write]) -> None:
    """Carry out the writes in order, so that a crash in between leaves a consistent folder.

    Raises `AuthorityError` before anything is written if a file exists that must be new, and later
    if a file cannot be written; files that did not exist before are then removed again.
    """
    examine(writes)
    made: list[tuple[Folder, str]] = []
    try:
        for write in writes:
            folder, name = write.place()
            try:
                fresh = not folder.has(name)
                if write.append:
                    _append(write, folder, name)
                else:
                    _put(write, folder, name)
            except OSError as error:
                why = reason(error)
                raise AuthorityError(
                    f"cannot write {write.path}: {why}; nothing after it was written, "
                    "so mend that and run the command again"
                ) from error
            if fresh:
                made.append((folder, name))
    except BaseException:
        for folder, name in made:
            with contextlib.suppress(OSError):
                folder.remove(name)
        raise


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Folder]:
    """Create a folder as `make_folder` and lock it; if the block fails, leave none that is new."""
    missing = make_folder(path)
    try:
        with locked(path) as folder:
            try:
                yield folder
            except BaseException:
                with contextlib.suppress(OSError):  # while nobody else can have begun in it
                    if path in missing and folder.names() == [_LOCK]:
                        folder.remove(_LOCK)
                raise
    except BaseException:
        for each in missing:
            with contextlib.suppress(OSError):  # something is in it
                os.rmdir(each)
        raise


def make_folder(path: Path) -> list[Path]:
    """Create a folder for its owner only, unless there is one already.

    Missing parents are created as well, readable but not writable by others. The owner can use all
    of them, whatever the umask. Returns what was missing, the innermost first. Raises
    `AuthorityError` if something else has that name.
    """
    missing = [each for each in (path, *path.parents) if not os.path.lexists(each)]
    for each in reversed(missing):
        with contextlib.suppress(FileExistsError):
            os.mkdir(each, 0o700 if each == path else 0o755)
            _grant_owner(each)
    why = no_folder(path)
    if why is not None:
        raise AuthorityError(f"cannot write in {path}: {why}; name another one")
    return missing


def _grant_owner(folder: Path) -> None:
    """Give the owner of a new folder the rights that the umask has taken."""
    mode = stat.S_IMODE(os.lstat(folder).st_mode)
    if os.name != "posix" or mode & 0o700 == 0o700:
        return
    try:
        os.chmod(folder, mode | 0o700, follow_symlinks=False)
    except (OSError, NotImplementedError):  # depends on the system's C library
        with contextlib.suppress(OSError):
            os.rmdir(folder)
        raise AuthorityError(
            f"cannot make {folder}: the umask leaves its owner mode {mode:04o}, which is no use; "
            "run the command again after: umask 077"
        ) from None


@contextlib.contextmanager
def locked(place: Path | Folder) -> Iterator[Folder]:
    """Lock a folder against other commands, and remove temporary files of a killed one.

    Yields the open folder. Raises `AuthorityError` if another command does not finish. Systems and
    file systems without locks get none: it prevents accidents, not attacks.
    """
    folder = place if isinstance(place, Folder) else Folder(place)
    try:
        descriptor = _lock_file(folder)
    except OSError as error:
        why = no_folder(folder.path)
        words = f"{_LOCK}: {reason(error)}{_remedy(error, folder)}" if why is None else why
        raise AuthorityError(f"cannot write in {folder.path}: {words}") from error
    try:
        _lock(descriptor, folder.path)
        for name in folder.names():
            if name.startswith(".") and name.endswith(_SUFFIX):
                with contextlib.suppress(OSError):  # removed meanwhile, or a folder: not ours
                    folder.remove(name)
        yield folder
    finally:
        os.close(descriptor)


def _remedy(error: OSError, folder: Folder) -> str:
    """Return what to do about a folder that cannot be locked; "" if the reason says it."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "; make room for a few small files, and run the command again"
    if error.errno == errno.EROFS:
        return "; nothing in it can be changed; work on the folder that it was made of"
    if error.errno not in (errno.EACCES, errno.EPERM) or ";" in reason(error):
        return ""
    path = shlex.quote(str(folder.path))
    status = os.stat(folder.path)
    if os.name != "posix" or status.st_uid != os.geteuid():
        return "; run the command as the owner of that folder"
    if status.st_mode & 0o700 != 0o700:
        return f"; run: chmod u+rwx {path}"
    return f"; run: rm -f {shlex.quote(str(folder.path / _LOCK))}"


def _lock_file(folder: Folder) -> int:
    for _ in range(_TRIES):
        with contextlib.suppress(FileNotFoundError):
            return folder.open(_LOCK, os.O_RDWR)
        folder.status()  # raises if the folder itself is missing
        with contextlib.suppress(FileExistsError):
            descriptor = folder.open(_LOCK, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
            _set_owner(folder, None, descriptor, private=True)
            return descriptor
    raise OSError(errno.EAGAIN, "it comes and goes; another program makes and removes it")


def _lock(descriptor: int, folder: Path) -> None:
    try:
        import fcntl
    except ImportError:  # Windows
        return
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise AuthorityError(
                    f"cannot write in {folder}: another sealwire command has held its lock for "
                    f"{_PATIENCE:.0f} s; wait for it to end, or end it"
                ) from None
            time.sleep(0.05)
        except OSError:  # a file system without locks
            return


def _put(write: Write, folder: Folder, name: str) -> None:
    before = folder.look(name)
    if write.new and before is not None:
        raise FileExistsError(errno.EEXIST, "it exists already")
    temporary = f".{name}.{secrets.token_hex(6)}{_SUFFIX}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    descriptor = folder.open(temporary, flags, 0o600 if write.private else 0o644)
    try:
        try:
            _write(descriptor, write.text.encode())
            _set_owner(folder, before, descriptor, write.private)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)  # may fail too, where the file system defers writing
        folder.replace(temporary, name)
    except BaseException:
        with contextlib.suppress(OSError):
            folder.remove(temporary)
        raise
    folder.sync()


def _set_owner(
    folder: Folder, before: os.stat_result | None, descriptor: int, private: bool
) -> None:
    """Give a file the owner and mode of the one it replaces, so that its reader can read it.

    A new file belongs to the folder's owner. No other user ever gets a file: in another user's
    folder, that user controls which file is replaced. Raises `OSError` if the reader of the
    replaced file could not read the new one.
    """
    if os.name != "posix":
        return
    us, home = os.geteuid(), folder.status()
    if before is None:
        if us == 0 and home.st_uid != us:
            os.fchown(descriptor, home.st_uid, home.st_gid)
        return
    ours_alone = home.st_uid == us and not home.st_mode & 0o022
    if before.st_uid not in (us, 0):  # root's file may be given to the folder's owner
        if us != 0 or not (before.st_uid == home.st_uid or ours_alone):
            raise PermissionError(
                errno.EPERM,
                f"it belongs to user {before.st_uid}, and the folder to user {home.st_uid}; "
                "give both to one user, or run the command as root in a folder of root's",
            )
        os.fchown(descriptor, before.st_uid, before.st_gid)
    if stat.S_ISREG(before.st_mode):
        os.fchmod(descriptor, before.st_mode & (0o600 if private else 0o644))


def _append(write: Write, folder: Folder, name: str) -> None:
    mode = 0o600 if write.private else 0o644
    flags = os.O_RDWR | os.O_APPEND
    fresh = not folder.has(name)
    if fresh:
        descriptor = folder.open(name, flags | os.O_CREAT | os.O_EXCL, mode)
    else:
        descriptor = folder.open(name, flags)
    try:
        try:
            if fresh:
                _set_owner(folder, None, descriptor, write.private)
            _append_to(descriptor, folder, write.text.encode())
        finally:
            os.close(descriptor)
    except BaseException:
        if fresh:
            with contextlib.suppress(OSError):
                folder.remove(name)
        raise
    if fresh:
        folder.sync()


def _append_to(descriptor: int, folder: Folder, data: bytes) -> None:
    """Append all of `data` to an open file, or nothing."""
    found = os.fstat(descriptor)
    if found.st_nlink > 1:
        raise OSError(
            errno.EMLINK,
            f"it has {found.st_nlink} names (hard links), so that what is appended to it would "
            "stand in another file too; put a copy in its place",
        )
    if os.name == "posix" and found.st_uid not in (os.geteuid(), folder.status().st_uid, 0):
        raise PermissionError(errno.EPERM, f"it belongs to user {found.st_uid}")
    size = os.lseek(descriptor, 0, os.SEEK_END)
    if size:
        os.lseek(descriptor, size - 1, os.SEEK_SET)
        # After a line cut off by a crash, start a new one.
        data = b"\n" * (os.read(descriptor, 1) != b"\n") + data
    try:
        _write(descriptor, data)
        os.fsync(descriptor)
    except OSError as error:
        _undo_append(descriptor, size, len(data), error)
        raise


def _undo_append(descriptor: int, size: int, length: int, error: OSError) -> None:
    """Truncate a partial append, unless another process has appended since."""
    left = os.fstat(descriptor).st_size - size
    try:
        if 0 < left <= length:
            os.ftruncate(descriptor, size)
            os.fsync(descriptor)
    except OSError as again:
        why = reason(again)
        raise OSError(
            error.errno,
            f"{error.strerror or error}, and the last {left} bytes of it, which are no whole line, "
            f"could not be taken back ({why})",
        ) from error


def _write(descriptor: int, data: bytes) -> None:
    """Write all of `data`: a single write may be partial, for example on a full disk."""
    rest = memoryview(data)
    while rest:
        taken = os.write(descriptor, rest)
        if taken <= 0:
            raise OSError(errno.EIO, "the system takes no more of it")
        rest = rest[taken:]
