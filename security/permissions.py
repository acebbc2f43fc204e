"""Who else can change a file: by its mode and owner, and those of the folders on its path.

Whoever can write `ca.pem`, or replace it, decides who is trusted. So, as with sshd's StrictModes, a
file and its folder must belong to us or root and must not be writable by the group or others; of
the folders above, none may be writable by others. Each link on the way is checked as well. In two
ways this is milder than sshd: a folder with the sticky bit is no finding, since nobody may replace
other users' files in it (Kubernetes mounts have it), and a folder further up may be writable by its
group, which with the umask of many distributions is the user alone.
"""

from __future__ import annotations

import logging
import os
import shlex
import stat
from collections.abc import Callable, Iterator
from typing import NamedTuple

__all__ = ["Weakness", "is_granted", "warn", "weaknesses"]

logger = logging.getLogger("sealwire.security")

_warned: set[tuple[str, str]] = set()  # weaknesses already warned about

_LINKS = 40  # most links to follow, as in Linux

_Look = Callable[[str], os.stat_result]


class Weakness(NamedTuple):
    """One way for others to change what a file holds.

    `path` is the file, folder or link to fix. `kind` is "mode" or "owner", `detail` the octal mode
    or the owner's number. `everybody` distinguishes others from the group.
    """

    path: str
    kind: str
    detail: str
    is_folder: bool = False
    everybody: bool = False

    @property
    def is_of_group(self) -> bool:
        """Whether only the group can use it."""
        return self.kind == "mode" and not self.everybody

    @property
    def words(self) -> str:
        """What is wrong, without the path: `everybody may write it (mode 0666)`."""
        if self.kind == "owner":
            return f"it belongs to another user (number {self.detail})"
        who = "everybody" if self.everybody else "its group"
        what = "put other files there" if self.is_folder else "write it"
        return f"{who} may {what} (mode {self.detail})"

    @property
    def remedy(self) -> str:
        """What to do, if possible as a command."""
        if self.kind == "owner":
            return f"make {self.path} yours or root's"
        return f"chmod go-w {shlex.quote(self.path)}"


def is_granted(status: os.stat_result) -> bool:
    """Whether root has let a group read a file, and nobody else: so that we can, or so it seems.

    Kubernetes mounts a secret for a pod that way, with mode 0440 or 0640, and no other can be had.
    Where we are root ourselves, a file that its owner may write can as well be of our own making,
    if no group was chosen for it.
    """
    mode = stat.S_IMODE(status.st_mode)
    if status.st_uid != 0 or mode & 0o027:
        return False
    is_ours = status.st_gid in {os.getegid(), *os.getgroups()}
    if os.geteuid() != 0:
        return is_ours
    return not mode & stat.S_IWUSR or (is_ours and status.st_gid != 0)


def warn(what: str, path: str, *, of_groups: bool = True) -> None:
    """Log, once per file and folder, that others can change what is read from a path.

    `what` names the file in the line. Without `of_groups`, ways for the group are left out.
    """
    for weak in weaknesses(path):
        if (weak.path, weak.kind) in _warned or (weak.is_of_group and not of_groups):
            continue
        _warned.add((weak.path, weak.kind))
        where = f"of its folder {weak.path} " if weak.is_folder else ""
        run = "run: " if weak.kind == "mode" else ""
        logger.warning(
            "%s can be changed by others: %s%s; %s%s", what, where, weak.words, run, weak.remedy
        )


def weaknesses(path: str, *, owners: frozenset[int] = frozenset()) -> Iterator[Weakness]:
    """Every way for others to change what is read from a path; `owners` are trusted as well.

    Nothing on systems without such modes, and nothing of what cannot be examined.
    """
    if os.name != "posix":
        return
    trusted = owners | {0, os.geteuid()}
    *links, file = _links(path)
    near = {os.path.realpath(os.path.dirname(each)): None for each in (*links, file)}
    for link in links:
        yield from _of_owner(link, os.lstat, trusted)
    yield from _of_mode(path, 0o022)
    yield from _of_owner(path, os.stat, trusted)
    for folder in near:
        yield from _of_mode(folder, 0o022)
        yield from _of_owner(folder, os.stat, trusted)
    above = {parent: None for folder in near for parent in _parents(folder) if parent not in near}
    for folder in above:
        yield from _of_mode(folder, 0o002)


def _links(path: str) -> list[str]:
    """Return the path and the target of each link on the way; the file itself is last."""
    found = [path]
    for _ in range(_LINKS):
        try:
            target = os.readlink(found[-1])
        except (OSError, ValueError):
            break
        found.append(os.path.join(os.path.dirname(found[-1]), target))
    return found


def _parents(folder: str) -> Iterator[str]:
    while (parent := os.path.dirname(folder)) != folder:
        yield parent
        folder = parent


def _of_mode(path: str, bits: int) -> Iterator[Weakness]:
    status = _status(path, os.stat)
    if status is None or not status.st_mode & bits:
        return
    is_folder = stat.S_ISDIR(status.st_mode)
    if is_folder and status.st_mode & stat.S_ISVTX:
        return
    mode = f"{stat.S_IMODE(status.st_mode):04o}"
    yield Weakness(path, "mode", mode, is_folder, bool(status.st_mode & 0o002))


def _of_owner(path: str, look: _Look, trusted: frozenset[int]) -> Iterator[Weakness]:
    status = _status(path, look)
    if status is not None and status.st_uid not in trusted:
        is_folder = stat.S_ISDIR(status.st_mode)
        yield Weakness(path, "owner", str(status.st_uid), is_folder)


def _status(path: str, look: _Look) -> os.stat_result | None:
    try:
        return look(path)
    except (OSError, ValueError):
        return None  # reading it reports the error
