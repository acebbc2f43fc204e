"""Folders and files that are not what a command needs: each is named, nothing hangs, none is hurt.

Also the umasks that take rights from the owner of a file.
"""

from __future__ import annotations

import errno
import os
import re
import socket
import stat
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from click.testing import Result
from cryptography.hazmat.primitives.serialization import Encoding

from sealwire.cli.certs import common
from sealwire.security import reading
from sealwire.security.ca import folder as folders
from support.certs_cli import good, request, run

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="modes, links and pipes of POSIX")


@pytest.fixture(autouse=True)
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(reading, "_PATIENCE", 0.2)
    return tmp_path


@pytest.fixture
def umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


def mode(path: Path | str) -> int:
    return stat.S_IMODE(os.lstat(path).st_mode)


MASKS = (0o777, 0o400, 0o277, 0)


def interrupt(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


FAILING: dict[str, list[str]] = {
    "a constraint": ["--name-constraint", "a b"],
    "a name": ["--name", ""],
    "an empty password": ["--password-file", "empty"],
    "Ctrl-C": [],
}


@pytest.mark.parametrize("kind", FAILING)
@pytest.mark.parametrize("place", ["new", "some/where/new", "here"])
def test_an_init_that_fails_leaves_no_folder(
    there: Path, kind: str, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scripts ask whether the folder is there, and would go on without certificates."""
    (there / "here").mkdir()
    (there / "empty").touch()
    if not FAILING[kind]:
        monkeypatch.setattr("sealwire.cli.certs.init.finish", interrupt)
    assert run("init", place, *FAILING[kind]).exit_code == 1
    found = {str(each.relative_to(there)) for each in there.rglob("*")}
    assert found - {"here/.lock"} == {"empty", "here"}
    monkeypatch.undo()
    monkeypatch.chdir(there)
    good("init", place)


def test_what_others_have_put_there_meanwhile_stays(
    there: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def put(*_: object, **__: object) -> None:
        (there / "new" / "notes").touch()
        raise OSError(errno.ENOSPC, "no space left on device")

    monkeypatch.setattr("sealwire.cli.certs.init.finish", put)
    assert run("init", "new").exit_code == 1
    assert (there / "new" / "notes").exists()


@pytest.mark.parametrize("mask", MASKS, ids="{:04o}".format)
def test_what_is_made_is_its_owners_whatever_the_umask(
    tmp_path: Path, mask: int, umask: None
) -> None:
    os.umask(mask)
    good("init", "above/certs")
    good("issue", "worker", "node7.lab", "--dir", "above/certs")
    good("renew", "worker", "--dir", "above/certs")
    good("pack", "--to", "deploy", "--dir", "above/certs")
    good("token", "--role", "worker", "--out", "token", "--dir", "above/certs")
    assert mode("above") == 0o755 & ~mask | 0o700
    made = [tmp_path / "token", *(tmp_path / "above").rglob("*"), *(tmp_path / "deploy").rglob("*")]
    assert len(made) > 20
    for path in made:
        if path.is_dir():
            assert mode(path) == 0o700, path
        else:
            public = path.name in ("ca.pem", "crl.pem", "dask.yaml", "journal.tsv")
            assert mode(path) == (0o644 & ~mask | 0o600 if public else 0o600), path


@pytest.mark.parametrize("command", ["init", "pack"])
def test_where_a_folder_cannot_be_given_back_the_umask_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, umask: None, command: str
) -> None:
    good("init")

    def refused(*_: object, **__: object) -> None:
        raise NotImplementedError

    os.umask(0o577)
    monkeypatch.setattr(os, "chmod", refused)
    done = run(*{"init": ["init", "new"], "pack": ["pack", "--to", "new"]}[command])
    assert done.exit_code == 1
    assert "cannot make new: the umask leaves its owner mode 0200" in done.output
    assert "umask 077" in done.output
    assert not os.path.lexists("new")


def _socket(path: Path) -> None:
    made = socket.socket(socket.AF_UNIX)
    made.bind(path.name)  # a short name: a path may be too long
    made.close()


PLACES: dict[str, tuple[Callable[[Path], object], str]] = {
    "FIFO": (os.mkfifo, "a FIFO"),
    "socket": (_socket, "a socket"),
    "device": (lambda path: path.symlink_to("/dev/zero"), "a character device"),
    "dangling": (lambda path: path.symlink_to("nowhere"), "a symbolic link that leads nowhere"),
    "loop": (lambda path: path.symlink_to(path), "a symbolic link that leads nowhere"),
}
ON_FOLDERS = {
    "init": ["init", "odd"],
    "issue": ["issue", "worker", "node7.lab", "--dir", "odd"],
    "renew": ["renew", "--dir", "odd"],
    "list": ["list", "--dir", "odd"],
    "pack": ["pack", "--to", "odd"],
    "issue to": ["issue", "worker", "--each", "node7.lab", "--to", "odd"],
    "join": ["join", "127.0.0.1:1", "--token", "x", "--dir", "odd"],
}


@pytest.mark.parametrize("place", PLACES)
def test_what_is_no_folder_is_named(tmp_path: Path, place: str) -> None:
    make, words = PLACES[place]
    good("init")
    make(tmp_path / "odd")
    before = os.lstat("odd")
    for name, command in ON_FOLDERS.items():
        done = run(*command)
        assert done.exit_code in (1, 2), (name, done.output)
        if name != "join":  # the token is judged first
            assert words in done.output, (name, done.output)
        assert "as the owner" not in done.output
        assert os.lstat("odd")[:7] == before[:7], "nothing has been put in its place"


ON_FILES = {
    "hosts": ["issue", "worker", "--hosts", "odd"],
    "password": ["issue", "worker", "node7.lab", "--password-file", "odd"],
    "csr": ["issue", "worker", "node8.lab", "--csr", "odd"],
    "sign": ["sign", "odd", "--role", "worker"],
    "check": ["check", "odd"],
    "show": ["show", "odd"],
    "renew": ["renew", "odd"],
    "out": ["issue", "worker", "node9.lab", "--out", "odd"],
    "token out": ["token", "--role", "worker", "--out", "odd"],
}


@pytest.mark.parametrize("place", PLACES)
def test_what_is_no_file_is_named_and_waited_for_in_vain_by_nobody(
    tmp_path: Path, place: str
) -> None:
    make, words = PLACES[place]
    good("init")
    make(tmp_path / "odd")
    before = os.lstat("odd")
    words = {"FIFO": "pipe", "dangling": "not exist", "loop": "not exist"}.get(place, words)
    for name, command in ON_FILES.items():
        done = run(*command)
        assert done.exit_code in (1, 2), (name, done.output)
        assert isinstance(done.exception, SystemExit), (name, done.exception)
        told = " ".join(done.output.split())
        assert "remove it" not in told, "a device is not to be removed"
        if name in ("hosts", "password", "csr", "sign"):
            assert words in told, (name, told)
        assert os.lstat("odd")[:7] == before[:7], "nothing has been put in its place"


def _through_a_pipe(path: Path, data: bytes, *command: str) -> Result:
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_bytes, args=(data,), daemon=True)
    writer.start()
    try:
        return run(*command)
    finally:
        writer.join(10)
        assert not writer.is_alive()


def test_another_program_may_give_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As `<(…)` of a shell."""
    monkeypatch.setattr(reading, "_PATIENCE", 10.0)
    good("init", SEALWIRE_CA_PASSWORD="secret")
    done = _through_a_pipe(
        tmp_path / "a", b"secret\n", "issue", "worker", "n1.lab", "--password-file", "a"
    )
    assert done.exit_code == 0, done.output
    (tmp_path / "secret").write_text("secret")
    hosts = "n2.lab\nn3.lab 10.0.0.3\n"
    for number, data in enumerate((hosts.encode(), hosts.encode("utf-16"))):
        path = tmp_path / f"hosts{number}"
        done = _through_a_pipe(
            path, data, "issue", "worker", "--hosts", path.name, "--password-file", "secret"
        )
        assert done.exit_code == 0, done.output
    assert (tmp_path / "certs/worker-n3.lab.pem").is_file()


CSRS: dict[str, tuple[Callable[[bytes, bytes], bytes], str]] = {
    "UTF-16": (lambda pem, _: pem.decode().encode("utf-16"), ""),
    "CR alone": (lambda pem, _: pem.replace(b"\n", b"\r"), ""),
    "indented": (lambda pem, _: pem.replace(b"\n", b"\n    "), ""),
    "text before": (lambda pem, _: b"Certificate Request:\n    Data:\n" + pem, ""),
    "DER": (lambda _, der: der, "a DER file of a certificate request"),
    "cut": (lambda pem, _: pem[:200], "has no END line"),
    "damaged": (lambda pem, _: pem.replace(b"M", b"-", 1), "the request in it is damaged"),
}


@pytest.mark.parametrize("form", CSRS)
def test_requests_as_people_have_them(tmp_path: Path, form: str) -> None:
    from cryptography import x509

    good("init")
    request(tmp_path / "node8.csr")
    pem = (tmp_path / "node8.csr").read_bytes()
    make, words = CSRS[form]
    der = x509.load_pem_x509_csr(pem).public_bytes(Encoding.DER)
    (tmp_path / "node8.csr").write_bytes(make(pem, der))
    done = run("sign", "node8.csr", "--role", "worker")
    assert (done.exit_code, words in done.output) == (1 if words else 0, True), done.output


@pytest.mark.parametrize("name", ["tab\t", "bell\a", "it's: {a}", "#", "ü", "\x1b[31m", "a b "])
def test_a_folder_of_any_name(tmp_path: Path, name: str) -> None:
    """What names it in dask.yaml is read as it was written."""
    good("init", name)
    found = yaml.safe_load((tmp_path / name / "dask.yaml").read_text())
    assert found["sealwire"]["tls"]["crl-file"] == str(tmp_path / name / "crl.pem")
    assert run("check", name).exit_code == 0


@pytest.mark.parametrize(
    "command",
    [
        ["init", "\udcff"],
        ["init", "new", "--seen-at", "/x\udcff"],
        ["config", "--seen-at", "/x\udcff"],
        ["issue", "worker", "node7.lab", "--out", "\udcff.pem"],
        ["init", "new\nline"],
        ["pack", "--to", "deploy", "--seen-at", "/x\rnew"],
    ],
    ids=["init", "seen at", "config", "out", "line end", "carriage return"],
)
def test_a_name_that_cannot_be_written_is_refused(tmp_path: Path, command: list[str]) -> None:
    good("init")
    before = {path.name for path in (tmp_path / "certs").iterdir()}
    done = run(*command)
    assert done.exit_code == 1
    words = r"bytes (that )?are no UTF-8|has a line end, so that it would be taken for PEM text"
    assert re.search(words, done.output), done.output
    assert {path.name for path in (tmp_path / "certs").iterdir()} == before


LOCKED = {
    errno.EROFS: "nothing in it can be changed",
    errno.ENOSPC: "make room",
    errno.EIO: "",
}


@pytest.mark.parametrize("number", LOCKED, ids=lambda number: errno.errorcode[number])
def test_a_folder_that_takes_nothing_is_not_blamed_on_its_owner(
    monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    good("init")
    os.unlink("certs/.lock")
    before = os.open

    def refusing(path: object, flags: int, *rest: object, **further: object) -> int:
        if flags & os.O_CREAT and path == ".lock":
            raise OSError(number, os.strerror(number), path)
        return before(path, flags, *rest, **further)  # type: ignore[arg-type]

    monkeypatch.setattr(folders.os, "open", refusing)
    done = run("renew")
    assert done.exit_code == 1
    assert os.strerror(number).lower() in done.output.lower()
    assert LOCKED[number] in done.output
    assert "owner" not in done.output
    assert common.PASSWORD not in done.output


def test_the_mode_of_our_own_folder_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of another user's, its owner is to run the command."""
    good("init")
    os.chmod("certs", 0o500)

    def refusing(*_: object, **__: object) -> int:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(folders.Folder, "open", refusing)
    assert "permission denied; run: chmod u+rwx certs" in run("renew").output
    os.chmod("certs", 0o700)
    assert "permission denied; run: rm -f certs/.lock" in run("renew").output
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    assert "run the command as the owner of that folder" in run("renew").output
