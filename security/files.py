"""Files of certificates and keys, written so that nobody ever meets half of one.

A `Write` says what a file is to hold; `apply` carries a list of them out, in order. Each file is
written to a temporary beside it, brought to the disk, and put in place by one rename: a process
that reads it at any moment finds the old text or the new. A private file has mode 0600 from its
first instant, whatever the umask. After a failure no temporary is left, and no file that was not
there before.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .errors import AuthorityError

__all__ = ["Write", "apply", "examine", "locked", "names_in"]

_SUFFIX = ".sealwire-tmp"
_PATIENCE = 10.0  # seconds to wait for another command in the same folder
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)


@dataclass(frozen=True)
class Write:
    """One file to be: its path, its text, and how it may be written.

    `private`: for the owner's eyes only. `new`: it must not exist yet. `append`: the text goes to
    the end of what is there. `words` say to a person what is in it.
    """

    path: Path
    text: str = field(repr=False)
    words: str
    private: bool = False
    new: bool = False
    append: bool = False


def examine(writes: Sequence[Write]) -> None:
    """Raise `AuthorityError` if a file is in the way of one that must be new."""
    for write in writes:
        if write.new and os.path.lexists(write.path):
            raise AuthorityError(
                f"cannot write {write.path}: it exists already; name another file, or renew what "
                "is in this one; nothing was written"
            )


def apply(writes: Sequence[Write]) -> None:
    """Carry the writes out, in order, so that any beginning of them is a sound state.

    Raises `AuthorityError`: before anything is written if a file is in the way, else where a file
    cannot be written; files that were not there before are then gone again.
    """
    examine(writes)
    made: list[Path] = []
    try:
        for write in writes:
            fresh = not os.path.lexists(write.path)
            try:
                if write.append:
                    _append(write)
                else:
                    _put(write)
            except OSError as error:
                why = (error.strerror or str(error)).lower()
                raise AuthorityError(
                    f"cannot write {write.path}: {why}; nothing after it was written, "
                    "so mend that and run the command again"
                ) from error
            if fresh:
                made.append(write.path)
    except BaseException:
        for path in made:
            path.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other commands out of a folder, and sweep what a killed one has left.

    Raises `AuthorityError` if another one stays in it. Where the system or the file system knows
    no locks, there is none: it guards against haste, not against enemies.
    """
    try:
        descriptor = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise AuthorityError(
            f"cannot write in {folder}: {(error.strerror or str(error)).lower()}; "
            "run the command as the owner of that folder"
        ) from error
    try:
        _lock(descriptor, folder)
        for left in folder.glob(f".*{_SUFFIX}"):
            left.unlink(missing_ok=True)
        yield
    finally:
        os.close(descriptor)


def names_in(folder: Path) -> list[Path]:
    """The PEM files of a folder by name, without hidden ones."""
    found = folder.glob("*.pem")
    return sorted(path for path in found if not path.name.startswith(".") and path.is_file())


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


def _put(write: Write) -> None:
    path = Path(os.path.realpath(write.path))  # a link stays a link
    if write.new and os.path.lexists(write.path):
        raise FileExistsError(0, "it exists already")
    temporary = path.parent / f".{path.name}.{secrets.token_hex(6)}{_SUFFIX}"
    try:
        before = os.stat(path)
    except FileNotFoundError:
        before = None
    descriptor = os.open(temporary, _NEW, 0o600 if write.private else 0o644)
    try:
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(write.text)
            file.flush()
            if before is not None:
                _take_after(before, descriptor, write.private)
            os.fsync(descriptor)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    _sync_folder(path.parent)


def _take_after(before: os.stat_result, descriptor: int, private: bool) -> None:
    """Owner and mode of the file that is replaced: its reader must be able to read the new one."""
    if os.name != "posix":
        return
    if os.fstat(descriptor).st_uid != before.st_uid:  # root renews for the cluster's user
        os.fchown(descriptor, before.st_uid, before.st_gid)
    mode = stat.S_IMODE(before.st_mode)
    os.fchmod(descriptor, mode & 0o600 if private else mode)


def _append(write: Write) -> None:
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0)
    descriptor = os.open(write.path, flags, 0o600 if write.private else 0o644)
    with open(descriptor, "r+b", buffering=0) as file:
        size = file.seek(0, os.SEEK_END)
        torn = False
        if size:
            file.seek(size - 1)
            torn = file.read(1) != b"\n"  # a line that a crash cut off must not swallow this one
        file.write(b"\n" * torn + write.text.encode())
        os.fsync(descriptor)


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":
        return
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:  # it may be written in, not read
        return
    try:
        os.fsync(descriptor)
    except OSError:  # some network file systems cannot
        pass
    finally:
        os.close(descriptor)
