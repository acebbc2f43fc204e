"""Writing files: what the disk refuses is said and undone, and who owns what comes of it."""

from __future__ import annotations

import errno
import gc
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sealwire.security import AuthorityError
from sealwire.security.ca import atomic_files, folder
from sealwire.security.ca.atomic_files import Write, apply, locked, make_folder
from sealwire.security.ca.folder import Folder
from sealwire.security.ca.renewal import revoke
from sealwire.security.ca.store import Store
from support import folders
from support.certs_cli import run, texts
from support.forking import sealwire
from support.kernel import descriptors

REVOKE = ("revoke", "worker")


def failing(
    monkeypatch: pytest.MonkeyPatch, call: str, number: int, after: int, name: str = "journal.tsv"
) -> None:
    """Let a call on the file of this name fail with `number`; a write first takes `after` bytes."""
    real: dict[str, Callable[..., Any]] = {"write": os.write, "close": os.close}
    real |= {"fsync": os.fsync, "ftruncate": os.ftruncate}
    taken = 0

    def fails(descriptor: int, *rest: Any) -> Any:
        nonlocal taken
        if name not in os.readlink(f"/proc/self/fd/{descriptor}"):
            return real[call](descriptor, *rest)
        if call == "write" and taken < after:
            data = bytes(rest[0])[: after - taken]
            taken += real[call](descriptor, data)
            return len(data)
        if call == "close":
            real[call](descriptor)
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, call, fails)


def lost_and_made_again(folder: Path) -> set[int]:
    (folder / "crl.pem").unlink()
    assert run("renew", "--if-expires-within", "30d", "--dir", str(folder)).exit_code == 0
    return folders.revoked(folder)


@pytest.mark.parametrize("after", [0, 1, 40, 100])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO])
def test_an_append_that_is_cut_short_is_an_error_and_undone(
    tmp_path: Path, number: int, after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = folders.found(tmp_path / "certs")
    before = texts(home)
    with monkeypatch.context() as patch:
        failing(patch, "write", number, after)
        done = run(*REVOKE, "--dir", str(home))
    assert done.exit_code == 1
    assert os.strerror(number)[1:] in done.output
    assert "journal.tsv" in done.output
    assert texts(home) == before
    assert run(*REVOKE, "--dir", str(home)).exit_code == 0
    serial = folders.certificate(home / "worker.pem").serial_number
    assert folders.revoked(home) == {serial}
    assert lost_and_made_again(home) == {serial}


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
@pytest.mark.parametrize("call", ["fsync", "close"])
@pytest.mark.parametrize("name", ["journal.tsv", "crl.pem", "worker.pem"])
def test_what_fails_when_it_is_brought_to_the_disk_is_an_error(
    tmp_path: Path, name: str, call: str, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network file system says only then that the disk is full."""
    home = folders.found(tmp_path / "certs")
    before = texts(home)
    command = ("renew", "worker") if name == "worker.pem" else REVOKE
    with monkeypatch.context() as patch:
        failing(patch, call, number, 0, name)
        done = run(*command, "--dir", str(home))
    assert done.exit_code == 1, done.output
    assert os.strerror(number)[1:] in done.output
    after = texts(home)
    assert {each for each in after if each.startswith(".")} == set()
    assert after.get(name) == before[name] or (name, call) == ("journal.tsv", "close")
    assert run(*command, "--dir", str(home)).exit_code == 0
    if command == REVOKE:
        serial = folders.certificate(home / "worker.pem").serial_number
        assert folders.revoked(home) == lost_and_made_again(home) == {serial}


def test_writes_that_take_a_byte_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, bytes(data)[:1]))
    home = folders.found(tmp_path / "certs")
    records, writes = revoke(Store(home), "worker", "unspecified")
    apply(writes)
    assert folders.revoked(home) == {record.serial for record in records}
    assert run("check", str(home)).exit_code == 2, "revoked, and nothing else"
    assert lost_and_made_again(home) == {record.serial for record in records}


def test_a_write_that_takes_nothing_does_not_go_on_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = folders.found(tmp_path / "certs")
    monkeypatch.setattr(os, "write", lambda descriptor, data: 0)
    done = run(*REVOKE, "--dir", str(home))
    assert done.exit_code == 1
    assert "the system takes no more of it" in done.output


def test_what_cannot_be_taken_back_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = folders.found(tmp_path / "certs")
    with monkeypatch.context() as patch:
        failing(patch, "write", errno.ENOSPC, 30)
        failing(patch, "ftruncate", errno.EIO, 0)
        done = run(*REVOKE, "--dir", str(home))
    assert done.exit_code == 1
    assert "o space left on device, and the last 30 bytes of it, which are no whole" in done.output
    assert run(*REVOKE, "--dir", str(home)).exit_code == 0, "half a line swallows no other"
    assert len(lost_and_made_again(home)) == 1


def test_what_another_has_appended_is_not_taken_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the file system knows no locks."""
    path = tmp_path / "journal.tsv"
    path.write_text("one\n")

    def fsync(descriptor: int) -> None:
        with path.open("a") as other:
            other.write("another's\n")
        raise OSError(errno.EIO, "I/O error")

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(AuthorityError):
        apply([Write(path, "ours\n", "lines", append=True)])
    assert path.read_text() == "one\nours\nanother's\n"


@pytest.mark.parametrize("left", [1, 40, 90])
def test_a_limit_of_the_file_size(tmp_path: Path, left: int) -> None:
    """The real thing, in a process of its own."""
    home = folders.found(tmp_path / "certs")
    journal = home / "journal.tsv"
    with journal.open("a") as file:
        file.writelines(f"# filler {number:05}\n" for number in range(500))
    size = journal.stat().st_size
    before = texts(home)

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + left, size + left))

    command = [sys.executable, "-m", "sealwire.cli", "certs", *REVOKE, "--dir", str(home)]
    done = subprocess.run(
        command, capture_output=True, text=True, preexec_fn=limit, timeout=60, check=False
    )
    assert done.returncode == 1, done.stdout
    assert "file too large; nothing after it was written" in done.stderr
    assert texts(home) == before
    assert run(*REVOKE, "--dir", str(home)).exit_code == 0
    assert len(lost_and_made_again(home)) == 1


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("x\trevoked\t3f\ti\tunspecified\ts\tf", "line 5 is a revocation, and its time or serial"),
        ("2026-01-01T00:00:00Z\trevoked\tzz\ti\tr\ts\tf", "is damaged; correct it, or take"),
        ("2026-01-01T00:00:00Z\trevoked\t-3f\ti\tr\ts\tf", "is damaged"),
        ("2026-01-01T00:00:00Z\trevoked\t0\ti\tr\ts\tf", "is damaged"),
        (f"2026-01-01T00:00:00Z\trevoked\t{'f' * 40}\ti\tr\ts\tf", "is damaged"),
        (f"2026-01-01T00:00:00Z\trevoked\t{'f' * 99999}\ti\tr\ts\tf", "is damaged"),
        ("1949-01-01T00:00:00Z\trevoked\t3f\ti\tr\ts\tf", "is damaged"),
    ],
    ids=range(7),
)
def test_a_revocation_that_cannot_be_read_is_not_passed_over(
    tmp_path: Path, line: str, words: str
) -> None:
    home = folders.found(tmp_path / "certs")
    with (home / "journal.tsv").open("a") as journal:
        journal.write(line + "\n")
    done = run("renew", "--dir", str(home))
    assert done.exit_code == 1
    assert words in done.output


def test_a_journal_may_hold_anything_else(tmp_path: Path) -> None:
    home = folders.found(tmp_path / "certs")
    (ours,) = {record.issuer for record in Store(home).journal.records}
    with (home / "journal.tsv").open("ab") as journal:
        journal.write(f"2026-01-01T00:00:00Z\trevoked\t3F\t{ours}\tboredom\ts\tf\n".encode())
        journal.write(b"2026-01-01T00:00:00Z\tissued\tzz\ti\tnever\ts\tf\n\xff\xfe\x00\n\t\t\t\n")
        until = "9999-12-31T23:59:59Z"
        journal.write(f"2026-01-01T00:00:00Z\tissued\t4e\t{ours}\t{until}\ts\t../f\n".encode())
    for _ in range(2):
        assert run("renew", "--if-expires-within", "30d", "--dir", str(home)).exit_code == 0
    assert folders.revoked(home) == {0x3F}
    (crl,) = folders.lists(home)
    assert crl.next_update_utc is not None
    assert crl.next_update_utc.year == 9999
    before = (home / "crl.pem").read_text()
    assert run("renew", "--if-expires-within", "30d", "--dir", str(home)).exit_code == 0
    assert (home / "crl.pem").read_text() == before, "a list without end is not made again each day"


# Owners

US, OWNER, OTHER = 0, 1000, 1001


@pytest.mark.parametrize(
    ("us", "home", "before", "given"),
    [
        (US, US, US, None),
        (US, OWNER, OWNER, OWNER),  # root renews for the cluster's user
        (US, OWNER, None, OWNER),  # and makes what was lost
        (US, OWNER, US, None),
        (US, OWNER, OTHER, "refused"),  # a file of a third, in the place of one of the owner's
        (US, US, OTHER, OTHER),  # in root's own folder only root has put it there
        (OWNER, OWNER, US, None),
        (OWNER, OWNER, OWNER, None),
        (OWNER, OWNER, OTHER, "refused"),
        (OWNER, OTHER, OTHER, "refused"),
        (OWNER, OTHER, None, None),
    ],
)
def test_which_user_is_given_a_file(
    tmp_path: Path, us: int, home: int, before: int | None, given: object,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    owners: list[int] = []
    monkeypatch.setattr(os, "geteuid", lambda: us)
    monkeypatch.setattr(os, "fchown", lambda descriptor, user, group: owners.append(user))
    monkeypatch.setattr(os, "fchmod", lambda descriptor, mode: None)
    place = Folder(tmp_path)
    monkeypatch.setattr(place, "status", lambda: SimpleNamespace(
        st_uid=home, st_gid=home, st_mode=0o40700))  # fmt: skip
    old = before if before is None else SimpleNamespace(
        st_uid=before, st_gid=before, st_mode=0o100600)  # fmt: skip
    if given == "refused":
        with pytest.raises(PermissionError, match=f"it belongs to user {before}"):
            atomic_files._set_owner(place, old, 0, private=True)  # type: ignore[arg-type]
    else:
        atomic_files._set_owner(place, old, 0, private=True)  # type: ignore[arg-type]
    assert owners == ([given] if isinstance(given, int) else [])


def test_a_file_of_a_third_in_a_folder_that_others_may_write_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: US)
    place = Folder(tmp_path)
    monkeypatch.setattr(place, "status", lambda: SimpleNamespace(
        st_uid=US, st_gid=US, st_mode=0o40770))  # fmt: skip
    old = SimpleNamespace(st_uid=OTHER, st_gid=OTHER, st_mode=0o100600)
    with pytest.raises(PermissionError):
        atomic_files._set_owner(place, old, 0, private=True)  # type: ignore[arg-type]


# Where the system cannot look names up in an open folder


def _joined(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder, "_RELATIVE", False)
    monkeypatch.setattr(folder, "_NOFOLLOW", 0)


def test_without_open_folders_everything_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _joined(monkeypatch)
    home = tmp_path / "new" / "certs"
    commands = (
        ("init", str(home)), ("issue", "worker", "n.lab"), ("renew",), ("revoke", "worker-n.lab"),
        ("rotate-ca",), ("renew",), ("rotate-ca", "--complete"), ("show", str(home)),
    )  # fmt: skip
    for command in commands:
        where = () if str(home) in command else ("--dir", str(home))
        assert run(*command, *where).exit_code == 0, command


@pytest.mark.parametrize("name", ["crl.pem", "ca.pem", "ca-key.pem", "journal.tsv", ".lock"])
def test_without_open_folders_links_are_refused_as_well(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = folders.found(tmp_path / "certs")
    (home / ".lock").touch()
    (tmp_path / "outside").write_text((home / name).read_text())
    (home / name).unlink()
    (home / name).symlink_to(tmp_path / "outside")
    _joined(monkeypatch)
    before = (tmp_path / "outside").read_text()
    done = run("renew", "--dir", str(home))
    assert done.exit_code == 1
    assert "it is a symbolic link, and the folder of a CA holds its files" in done.output
    assert (tmp_path / "outside").read_text() == before


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "/etc/passwd", "a\0b"])
@pytest.mark.parametrize("relative", [True, False])
def test_a_name_is_no_path(
    tmp_path: Path, name: str, relative: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not relative:
        _joined(monkeypatch)
    for use in (Folder.look, Folder.remove, Folder.has, Folder.unfit):
        with pytest.raises(OSError, match="not the name of a file"):
            use(Folder(tmp_path), name)  # type: ignore[operator]


def test_a_file_that_is_too_large_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = folders.found(tmp_path / "certs")
    monkeypatch.setattr(folder, "LARGEST", 10_000)
    os.truncate(home / "crl.pem", 1 << 40)  # a hole takes no room
    done = run("renew", "--dir", str(home))
    assert done.exit_code == 1
    assert "crl.pem: it has more than" in done.output


def test_a_folder_is_closed_with_its_last_user(tmp_path: Path) -> None:
    home = folders.found(tmp_path / "certs")
    gc.collect()
    before = descriptors()
    for _ in range(20):
        with locked(home):
            apply(revoke(Store(home), "worker", "unspecified")[1])
    gc.collect()
    assert descriptors() == before


def test_folders_that_two_make_at_once(tmp_path: Path) -> None:
    make_folder(tmp_path / "a" / "b")
    make_folder(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").stat().st_mode & 0o7777 == 0o700


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a device of Linux")
@pytest.mark.parametrize("command", [["show"], ["check", "certs"], ["issue", "worker", "n.lab"]])
@pytest.mark.parametrize("form", [[], ["--json"]], ids=str)
def test_an_output_that_is_full_is_an_error(
    tmp_path: Path, command: list[str], form: list[str]
) -> None:
    """In interpreters that start for it, and in ones that were forked."""
    folders.found(tmp_path / "certs")
    words = ("certs", *command, *form)
    with open("/dev/full", "w") as full:
        if form:
            code, _, errors = sealwire(*words, folder=tmp_path, out=full.fileno())
            said = errors.decode()
        else:
            done = subprocess.run(
                [sys.executable, "-m", "sealwire.cli", *words],
                cwd=tmp_path,
                stdout=full,
                stderr=subprocess.PIPE,
                text=True,
                timeout=60,
                check=False,
            )
            code, said = done.returncode, done.stderr
    assert code == 1
    assert "no space left on device" in said
    assert "Traceback" not in said
