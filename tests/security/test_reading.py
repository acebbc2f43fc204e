"""Only regular files of a bounded size are read, and what is none is refused without waiting."""

from __future__ import annotations

import os
import resource
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sealwire.security import PEMError, Security, pem, reading
from sealwire.security.ca.store import load
from support import certs
from support.following import CA, NEW, OLD, Folder
from support.handshakes import security, server_context

NODE = certs.leaf(CA)
FIELDS = ("tls_ca_file", "tls_worker_cert", "tls_worker_key", "tls_crl_file")


def fifo(path: Path) -> None:
    os.mkfifo(path)


def unix_socket(path: Path) -> None:
    here = os.getcwd()
    os.chdir(path.parent)  # the address of a socket is short
    try:
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(path.name)
    finally:
        os.chdir(here)


def link_to(target: str) -> Callable[[Path], None]:
    return lambda path: path.symlink_to(target)


def link_to_fifo(path: Path) -> None:
    os.mkfifo(path.with_name("pipe"))
    path.symlink_to("pipe")


def sparse(path: Path) -> None:
    with open(path, "wb") as file:
        file.truncate(2**40)


def too_large(path: Path) -> None:
    path.write_bytes(b"#" * (pem.CRL_LIMIT + 1))


SPECIAL: dict[str, tuple[Callable[[Path], None], str]] = {
    "FIFO": (fifo, "it is a FIFO, not a regular file"),
    "link to a FIFO": (link_to_fifo, "it is a FIFO, not a regular file"),
    "socket": (unix_socket, "it is a socket, not a regular file"),
    "folder": (Path.mkdir, "it is a directory, not a regular file"),
    "/dev/zero": (link_to("/dev/zero"), "it is a character device, not a regular file"),
    "/dev/null": (link_to("/dev/null"), "it is a character device, not a regular file"),
    "terminal": (link_to("/dev/tty"), "not a regular file|no such"),
    "itself": (link_to("file.pem"), "too many levels of symbolic links"),
    "nowhere": (link_to("nowhere"), "no such file or directory"),
    "an endless pipe of this process": (link_to("/proc/self/fd/0"), "not a regular file|no such"),
    "memory": (link_to("/proc/self/mem"), "."),
    "sparse": (sparse, r"it has 1,099,511,627,776 bytes, the limit is [0-9,]+"),
    "large": (too_large, r"it has [0-9,]+ bytes, the limit is [0-9,]+"),
    "a file that says it is empty": (link_to("/proc/self/environ"), "no |nor |empty"),
}

GOOD = {"tls_ca_file": CA.pem, "tls_worker_cert": NODE.pem, "tls_worker_key": NODE.key_pem}


@pytest.fixture
def little_memory() -> Iterator[None]:
    """1 GiB more than there is now: who reads without end does not take the machine with it."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 2**30, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.mark.parametrize("kind", SPECIAL)
@pytest.mark.parametrize("field", FIELDS)
def test_what_is_no_file_of_ours_is_refused_at_once(
    kind: str, field: str, tmp_path: Path, little_memory: None
) -> None:
    make, words = SPECIAL[kind]
    path = tmp_path / "file.pem"
    make(path)
    one = Security(**{**GOOD, field: path})
    done = threading.Event()
    errors: list[BaseException] = []

    def use() -> None:
        for get in (one.get_listen_args, one.get_connection_args):
            try:
                get("worker")
            except BaseException as error:
                errors.append(error)
        done.set()

    threading.Thread(target=use, daemon=True).start()
    assert done.wait(30), "it waits"
    assert [type(error).__mro__[-4:] for error in errors] == [type(errors[0]).__mro__[-4:]] * 2
    for error in errors:
        assert isinstance(error, PEMError)
        assert field in str(error)
        assert str(path) in str(error)
        with pytest.raises(PEMError, match=words):
            raise error


def test_a_file_that_is_swapped_after_the_look_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look at the path and its opening: what was opened is looked at again."""
    path = tmp_path / "file.pem"
    path.write_text(CA.pem)
    as_it_was = os.stat(path)
    path.unlink()
    os.mkfifo(path)
    monkeypatch.setattr(reading.os, "stat", lambda _: as_it_was)
    with pytest.raises(OSError, match="it is a FIFO"):
        reading.read(str(path), 2**20)


@pytest.mark.parametrize(("size", "fits"), [(0, True), (9, True), (10, True), (11, False)])
def test_the_limit_holds_whatever_a_file_says_of_itself(
    size: int, fits: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * size)
    monkeypatch.setattr(reading, "_CHUNK", 3)
    if fits:
        assert reading.read(str(path), 10)[0] == b"x" * size
    else:
        with pytest.raises(OSError, match="it has 11 bytes, the limit is 10"):
            reading.read(str(path), 10)
    environ = Path("/proc/self/environ")  # of size 0, as it says
    if environ.exists() and os.environ:
        assert environ.stat().st_size == 0
        with pytest.raises(OSError, match="it has more than 10 bytes, which is the limit"):
            reading.read(str(environ), 10)


def test_a_large_list_is_no_large_certificate(tmp_path: Path) -> None:
    path = tmp_path / "file.pem"
    path.write_text(certs.crl(CA) + "#" * pem.PEM_LIMIT)
    server_context(Security(**GOOD, tls_crl_file=path), "worker")
    path.write_text(CA.pem + "#" * pem.PEM_LIMIT)
    with pytest.raises(PEMError, match=r"tls_ca_file .* bytes, the limit is 4,194,304"):
        server_context(Security(**{**GOOD, "tls_ca_file": path}), "worker")


def test_a_store_reads_regular_files_only(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "worker.pem")
    with pytest.raises(PEMError, match="it is a FIFO, not a regular file"):
        load(tmp_path / "worker.pem")


COUNTING = """
import collections, os, sys, time
opened = collections.Counter()
folder = sys.argv[1]
def watch(event, arguments):
    if event == "open" and str(arguments[0]).startswith(folder):
        opened[os.path.basename(arguments[0])] += 1
sys.addaudithook(watch)
import ssl
from sealwire.security import Security, reading
class Clock:
    ahead = 60.0                   # seconds: what was written just now is old enough
    def time(self):
        return time.time() + self.ahead
    def __getattr__(self, name):
        return getattr(time, name)
reading.time = clock = Clock()
one = Security(
    tls_ca_file=folder + "/ca.pem", tls_worker_cert=folder + "/worker.pem",
    tls_worker_key=folder + "/worker.key", tls_reload_interval=0,
)
contexts = [one.get_listen_args("worker")["ssl_context"],
            one.get_connection_args("worker")["ssl_context"]]
def shake(contexts=contexts):
    for context in contexts:
        context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_side=context is contexts[0])
        context.describe()
names = ("ca.pem", "worker.pem", "worker.key")
def expect(count):
    if opened != dict.fromkeys(names, count):
        raise SystemExit(f"{opened}, expected {count} each")
expect(1)                          # both sides are made of one reading
for _ in range(50):
    shake()
expect(1)                          # and nothing that looks the same is read again
clock.ahead = 0.0
os.utime(folder + "/ca.pem", (1, 1))
shake(contexts[:1])
expect(2)                          # a touch is looked into
clock.ahead = 60.0
shake(contexts[:1])
expect(3)                          # once more when the times of the file can be relied on
for _ in range(50):
    shake()
expect(3)
"""


@pytest.mark.parametrize("optimised", [[], ["-O"]], ids=["", "-O"])
def test_a_file_is_read_once_and_again_only_when_it_changes(
    optimised: list[str], tmp_path: Path
) -> None:
    Folder(tmp_path)
    done = subprocess.run(
        [sys.executable, *optimised, "-c", COUNTING, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_was_written_just_now_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two writes within one step of the file system's clock look the same."""
    folder = Folder(tmp_path)
    assert folder.shows() == OLD.der
    frozen = reading.look_at(str(path) for path in tmp_path.iterdir())
    monkeypatch.setattr("sealwire.security.contexts.reloading.look_at", lambda paths: frozen)
    folder.install(NEW)
    assert folder.shows() == NEW.der


def test_openssl_opens_no_path_of_a_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import ssl

    seen: list[str] = []

    def note(name: str) -> None:
        original = getattr(ssl.SSLContext, name)

        def noting(self: ssl.SSLContext, *args: object, **kwargs: object) -> object:
            seen.extend(str(each) for each in (*args, kwargs.get("cafile")) if each)
            return original(self, *args, **kwargs)

        monkeypatch.setattr(ssl.SSLContext, name, noting)

    for name in ("load_cert_chain", "load_verify_locations"):
        note(name)
    crl = tmp_path / "crl.pem"
    crl.write_text(certs.crl(CA))
    folder = Folder(tmp_path, tls_crl_file=crl)
    folder.shows()
    assert seen
    if hasattr(os, "memfd_create"):
        assert not [each for each in seen if str(tmp_path) in each]


def test_without_files_in_memory_a_files_key_is_copied_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tempfile

    (tmp_path / "tmp").mkdir()
    (tmp_path / "pki").mkdir()
    monkeypatch.delattr(os, "memfd_create", raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    made: list[str] = []
    original = tempfile.mkdtemp
    monkeypatch.setattr(
        tempfile, "mkdtemp", lambda *args, **kwargs: made.append("x") or original(*args, **kwargs)
    )
    assert Folder(tmp_path / "pki").shows() == OLD.der
    assert not made
    server_context(security(OLD, [CA]))
    assert made
