"""The folder of a CA whose owner is an enemy of who runs `sealwire certs` in it, as root from cron.

Whatever stands in the place of a file: nothing outside the folder is read out, written, created or
given away. Where the tests run as root, the folder belongs to another user, else to the same.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from support import folders
from support.certs_cli import run

pytestmark = pytest.mark.skipif(os.name != "posix", reason="links and modes as POSIX has them")

NOBODY = 65534
ROOT = hasattr(os, "geteuid") and os.geteuid() == 0
ROUNDS = 30 if os.environ.get("SEALWIRE_HOSTILE") == "full" else 10
SECRET = "root:$6$topsecret:19000:0:99999:7:::"
NAMES = ("ca.pem", "ca-key.pem", "crl.pem", "journal.tsv", "worker.pem", ".lock")
COMMANDS = (
    ("renew", "--if-expires-within", "30d"),
    ("renew",),
    ("renew", "worker"),
    ("issue", "worker", "n1.lab"),
    ("revoke", "worker"),
    ("rotate-ca",),
    ("rotate-ca", "--complete"),
)

#: what a command may do without
UNREAD_BY = {
    ("issue", "worker", "n1.lab"): ("worker.pem",),
    ("rotate-ca",): ("worker.pem",),
    ("rotate-ca", "--complete"): ("worker.pem", "crl.pem"),
}


def outside(tmp_path: Path, text: str = SECRET) -> Path:
    """A file of ours that the folder's owner may not touch."""
    (tmp_path / "outside").mkdir(mode=0o700)
    path = tmp_path / "outside" / "ours"
    path.touch(mode=0o600)
    path.write_text(text)
    return path


def _fifo(path: Path, target: Path) -> None:
    os.mkfifo(path)


def _socket(path: Path, target: Path) -> None:
    here = os.getcwd()
    os.chdir(path.parent)  # the name of a socket is short
    try:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(path.name)
    finally:
        os.chdir(here)


KINDS: dict[str, Callable[[Path, Path], Any]] = {
    "link": lambda path, target: path.symlink_to(target),
    "relative link": lambda path, target: path.symlink_to(f"../outside/{target.name}"),
    "link to nothing": lambda path, target: path.symlink_to(target.parent / "made"),
    "link to a folder": lambda path, target: path.symlink_to(target.parent),
    "link to a device": lambda path, target: path.symlink_to("/dev/zero"),
    "link to a link": lambda path, target: _chain(path, target),
    "link to itself": lambda path, target: path.symlink_to(path.name),
    "hard link": lambda path, target: os.link(target, path),
    "fifo": _fifo,
    "socket": _socket,
    "folder": lambda path, target: path.mkdir(),
}


def _chain(path: Path, target: Path) -> None:
    (path.parent / "between").symlink_to(target)
    path.symlink_to("between")


def given_away(folder: Path) -> None:
    """Make the folder and all in it another user's, if we may."""
    if ROOT:
        for path in (folder, *folder.rglob("*")):
            os.lchown(path, NOBODY, NOBODY)


def state(path: Path) -> tuple[Any, ...]:
    found = path.stat()
    kept = (found.st_ino, found.st_uid, found.st_gid, found.st_mode, found.st_mtime_ns)
    return (*kept, path.read_text(), sorted(os.listdir(path.parent)))


@contextlib.contextmanager
def promptly(seconds: float = 20) -> Iterator[None]:
    """A FIFO that is opened, or a device that is read, for ever."""

    def over(*_: object) -> None:
        raise TimeoutError(f"not done after {seconds} s")

    before = signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def attempt(*arguments: str) -> Result:
    with promptly():
        done = run(*arguments)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    assert "topsecret" not in done.output
    return done


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", KINDS)
def test_nothing_outside_is_touched(tmp_path: Path, kind: str, name: str) -> None:
    target = outside(tmp_path)
    original = folders.found(tmp_path / "original")
    for number, command in enumerate(COMMANDS):
        folder = tmp_path / str(number)
        shutil.copytree(original, folder)
        (folder / ".lock").touch(mode=0o600)
        (folder / name).unlink()
        KINDS[kind](folder / name, target)
        if kind != "hard link":
            given_away(folder)
        elif ROOT:
            os.chown(folder, NOBODY, NOBODY)
        before = state(target)
        done = attempt(*command, "--dir", str(folder))
        assert state(target) == before, command
        own = kind == "hard link" and not ROOT  # another name of a file of the same user
        if name not in UNREAD_BY.get(command, ()) and not own:
            assert done.exit_code == 1, (command, done.output)
            assert str(folder / name) in done.output or name in done.output
        (folder / name).rmdir() if kind == "folder" else (folder / name).unlink()


@pytest.mark.parametrize("name", ["crl.pem", "worker.pem", "ca.pem", "ca-key.pem"])
@pytest.mark.parametrize("way", ["link", "hard link"])
def test_a_good_file_of_ours_is_not_taken_over(tmp_path: Path, name: str, way: str) -> None:
    """What is linked to would do very well."""
    folder = folders.found(tmp_path / "certs")
    target = outside(tmp_path, (folder / name).read_text())
    (folder / name).unlink()
    KINDS[way](folder / name, target)
    if ROOT:
        os.chown(folder, NOBODY, NOBODY)
    before = state(target)
    for command in COMMANDS:
        attempt(*command, "--dir", str(folder))
        kept = state(target)
        assert kept == before, command


def test_renew_says_which_identity_it_passes_over(tmp_path: Path) -> None:
    folder = folders.found(tmp_path / "certs")
    (folder / "current.pem").symlink_to("worker.pem")
    os.mkfifo(folder / "pipe.pem")
    done = attempt("renew", "--dir", str(folder), "--json")
    assert done.exit_code == 1, "cron shall tell of it"
    told = {Path(each["path"]).stem: each for each in json.loads(done.output)["identities"]}
    assert [told[name]["status"] for name in ("worker", "current", "pipe")] == [
        "renewed",
        "stuck",
        "stuck",
    ]
    words = "it is a symbolic link, and the folder of a CA holds its files themselves"
    assert told["current"]["why"].startswith(words)
    assert told["pipe"]["why"].startswith("it is a FIFO, not a regular file; put")
    assert attempt("renew", "--dir", str(folder)).exit_code == 1


def test_a_folder_that_is_a_link_is_followed_once(tmp_path: Path) -> None:
    """Who runs the command has named it."""
    folders.found(tmp_path / "real")
    (tmp_path / "certs").symlink_to("real")
    assert attempt("renew", "--dir", str(tmp_path / "certs")).exit_code == 0
    assert attempt("revoke", "worker", "--dir", str(tmp_path / "certs")).exit_code == 0
    assert len(folders.revoked(tmp_path / "real")) == 2, "of before and after the renewal"


def test_what_is_mounted_by_kubernetes_can_be_looked_at(tmp_path: Path) -> None:
    """All names there are links through `..data`; nothing is to be written there."""
    real = folders.found(tmp_path / "certs", seen_at=str(tmp_path / "mounted"))
    mounted = tmp_path / "mounted"
    (mounted / "..2026_11_28").mkdir(parents=True)
    for name in ("ca.pem", "crl.pem", "worker.pem", "dask.yaml"):
        (mounted / "..2026_11_28" / name).write_text((real / name).read_text())
        (mounted / "..2026_11_28" / name).chmod(0o600)
        (mounted / name).symlink_to(f"..data/{name}")
    (mounted / "..data").symlink_to("..2026_11_28")
    shown = attempt("show", str(mounted))
    assert shown.exit_code == 0
    assert "CN=worker" in shown.output
    said = attempt("check", str(mounted)).output
    assert "symbolic link" not in said
    done = attempt("renew", "--dir", str(mounted))
    assert done.exit_code == 1
    assert "(one that Kubernetes mounts is none)" in done.output


SWAP = """
import os, sys
folder, name, target = os.open(sys.argv[1], os.O_RDONLY), sys.argv[2], sys.argv[3]
if os.geteuid() == 0:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
os.fchdir(folder)
good = os.open(name, os.O_RDONLY)
text = os.read(good, 1 << 20)
print("ready", flush=True)
while os.getppid() == int(sys.argv[4]):
    for entry in sorted(os.listdir(folder)):
        if entry.startswith(f".{name}.") and entry.endswith("tmp"):
            try:  # what is being written, too
                os.unlink(entry); os.symlink(target, entry)
            except OSError:
                pass
    try:
        os.symlink(target, "evil"); os.rename("evil", name)
        fd = os.open("good", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.write(fd, text); os.close(fd); os.rename("good", name)
    except OSError:
        pass
"""


@pytest.mark.parametrize("name", ["crl.pem", "journal.tsv", "worker.pem", ".lock"])
def test_an_entry_that_changes_all_the_time(tmp_path: Path, name: str) -> None:
    """Between a look and a use: every use is of what was opened."""
    folder = folders.found(tmp_path / "certs")
    (folder / ".lock").touch(mode=0o600)
    target = outside(tmp_path)
    given_away(folder)
    before = state(target)
    arguments = [folder, name, target, str(os.getpid())]
    swapper = subprocess.Popen(
        [sys.executable, "-c", SWAP, *map(str, arguments)], stdout=subprocess.PIPE
    )
    assert swapper.stdout is not None
    with swapper:
        assert swapper.stdout.readline() == b"ready\n"
        try:
            codes = set()
            for number in range(ROUNDS):
                codes.add(attempt("renew", "worker", "--dir", str(folder)).exit_code)
                host = f"n{number}.lab"
                codes.add(attempt("issue", "worker", host, "--dir", str(folder)).exit_code)
                assert state(target) == before
        finally:
            swapper.kill()
    assert codes <= {0, 1}


def _device(path: Path, target: Path) -> None:
    os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 3))


@pytest.mark.parametrize("through", ["itself", "link"])
@pytest.mark.parametrize("make", [_fifo, _socket, *([_device] if ROOT else [])])
def test_an_output_that_is_no_file_stays_what_it_is(
    make: Callable[[Path, Path], Any], through: str, tmp_path: Path
) -> None:
    """What root names after `--out` may be a device of the whole machine."""
    folder = folders.found(tmp_path / "certs")
    special = tmp_path / "special"
    make(special, folder)
    before = os.lstat(special)
    (tmp_path / "link").symlink_to(special)
    out = str(special if through == "itself" else tmp_path / "link")
    for dry in ([], ["--dry-run"]):
        result = attempt("config", "--dir", str(folder), "--out", out, *dry)
        assert result.exit_code == 1
        assert "not a regular file; name another one; nothing was written" in result.stderr
        assert os.lstat(special) == before
    assert os.path.islink(tmp_path / "link")


def test_a_password_file_without_an_end(tmp_path: Path) -> None:
    folder = folders.found(tmp_path / "certs")
    endless = tmp_path / "password"
    endless.touch()
    os.truncate(endless, 1 << 40)  # as a device: there is more of it than memory
    result = attempt("rotate-ca", "--dir", str(folder), "--password-file", str(endless))
    assert result.exit_code == 1
    assert "the limit is 65,536; name a file with the password alone" in result.stderr


@pytest.mark.skipif(not ROOT, reason="only root can make files of another user")
def test_what_root_makes_is_the_folders_owners(tmp_path: Path) -> None:
    folder = folders.found(tmp_path / "certs")
    given_away(folder)
    (folder / "crl.pem").unlink()
    for command in (*COMMANDS[:5], ("rotate-ca",), ("renew",), ("rotate-ca", "--complete")):
        assert attempt(*command, "--dir", str(folder)).exit_code == 0, command
    owners = {path.name: path.lstat().st_uid for path in folder.iterdir()}
    assert set(owners.values()) == {NOBODY}, owners


def test_no_file_is_open_for_others_to_write(tmp_path: Path) -> None:
    """Whatever the umask, and whatever the mode of the file that is replaced."""
    before = os.umask(0)
    try:
        folder = tmp_path / "above" / "and above" / "certs"
        assert attempt("init", str(folder)).exit_code == 0
        for path in folder.iterdir():
            if path.name != ".lock":
                path.chmod(0o7777)
        for command in (*COMMANDS[:5], ("rotate-ca",), ("renew",), ("rotate-ca", "--complete")):
            assert attempt(*command, "--dir", str(folder)).exit_code == 0, command
        for name in ("ca.pem", "ca-key.pem", "crl.pem", "worker-n1.lab.pem", "client.pem"):
            mode = stat.S_IMODE((folder / name).stat().st_mode)
            assert not mode & 0o7133, (name, oct(mode))
        fresh = tmp_path / "fresh"
        assert attempt("init", str(fresh)).exit_code == 0
        for path in (fresh, *fresh.iterdir(), folder.parent, folder.parent.parent):
            assert not path.stat().st_mode & 0o022, path
    finally:
        os.umask(before)
