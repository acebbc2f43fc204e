"""PEM values: what is taken, what is refused and in which words, and where keys do not go."""

from __future__ import annotations

import os
import ssl
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from sealwire.security import KeyMismatch, PEMError, Security
from sealwire.security.pem import Source, blocks, load_identity, source
from support import certs
from support.handshakes import client_context, security, server_context, shake

CA = certs.root()
NODE = certs.leaf(CA)
OTHER = certs.leaf(CA, "other")
RSA = certs.leaf(CA, "rsa", key=certs.rsa_key(2048))
PASSWORD = b"correct horse"


def fresh() -> ssl.SSLContext:
    return ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)


def load(certificate: str, key: str | None = None, password: bytes | None = None) -> None:
    key_source = source("tls_worker_key", key)
    certificate_source = source("tls_worker_cert", certificate)
    assert certificate_source is not None
    load_identity(fresh(), certificate_source, key_source, password=password)


@pytest.fixture
def files(tmp_path: Path) -> Callable[[str, str], str]:
    """Write a file of mode 0600 and give its path."""

    def write(name: str, text: str) -> str:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        path.chmod(0o600)
        return str(path)

    return write


@pytest.mark.parametrize("as_file", [True, False], ids=["file", "text"])
@pytest.mark.parametrize("together", [True, False], ids=["key in certificate", "key apart"])
@pytest.mark.parametrize("comment", ["", "Subject: Zoë, née Müller\n"], ids=["bare", "comment"])
def test_what_is_taken(
    files: Callable[[str, str], str], as_file: bool, together: bool, comment: str
) -> None:
    def value(name: str, text: str) -> str:
        return files(name, comment + text) if as_file else comment + text

    peer = security(OTHER, [CA])
    key = None if together else value("key.pem", NODE.key_pem)
    one = Security(
        tls_ca_file=value("ca.pem", CA.pem),
        tls_worker_cert=value("cert.pem", NODE.pem + (NODE.key_pem if together else "")),
        tls_worker_key=key,
    )
    assert shake(server_context(one, "worker"), client_context(peer)).accepted
    assert shake(server_context(peer), client_context(one, "worker")).accepted


def test_a_path_may_be_a_path_object(tmp_path: Path) -> None:
    path = tmp_path / "all.pem"
    path.write_text(NODE.pem + NODE.key_pem)
    path.chmod(0o600)
    one = Security(tls_ca_file=CA.pem, tls_scheduler_cert=path)
    assert one.tls_scheduler_cert == str(path)
    server_context(one)


def test_a_chain_is_sent() -> None:
    between = certs.intermediate(CA)
    node = certs.leaf(between, via=[between])
    peer = security(NODE, [CA])
    assert shake(server_context(security(node, [CA])), client_context(peer)).accepted
    assert shake(server_context(peer), client_context(security(node, [CA]))).accepted


def test_blocks_are_found_among_other_text() -> None:
    found = blocks(f"é\n{NODE.pem}\r\n-----BEGIN half\n{NODE.key_pem}")
    assert [block.label for block in found] == ["CERTIFICATE", "PRIVATE KEY"]
    assert repr(found[1]) == "Block('PRIVATE KEY')"


MISMATCH = "the private key does not belong to the first certificate"
IN_MEMORY = r"\(PEM text in memory\)"
BROKEN = NODE.pem.replace("MII", "AII", 1)

REFUSED: dict[str, tuple[str, str | None, type[PEMError], str]] = {
    "another key": (NODE.pem, OTHER.key_pem, KeyMismatch, MISMATCH),
    "key of another kind": (NODE.pem, RSA.key_pem, KeyMismatch, MISMATCH),
    "CA before leaf": (CA.pem + NODE.pem, NODE.key_pem, KeyMismatch, MISMATCH),
    "no certificate": (
        NODE.key_pem,
        None,
        PEMError,
        f"tls_worker_cert {IN_MEMORY}: no certificate in it, only PRIVATE KEY$",
    ),
    "no key": (
        NODE.pem,
        None,
        PEMError,
        "no private key in it, only CERTIFICATE; append it or give tls_worker_key$",
    ),
    "certificate as key": (
        NODE.pem,
        NODE.pem,
        PEMError,
        f"tls_worker_key {IN_MEMORY}: no private key in it, only CERTIFICATE$",
    ),
    "no PEM": ("neither\nthis\nnor that", None, PEMError, "nor any other complete PEM block"),
    "cut short": (NODE.pem[:200], NODE.key_pem, PEMError, "nor any other complete PEM block"),
    "damaged certificate": (BROKEN, NODE.key_pem, PEMError, "not valid PEM data"),
    "damaged key": (
        NODE.pem,
        NODE.key_pem.replace("M", "A"),
        PEMError,
        f"tls_worker_cert {IN_MEMORY} with tls_worker_key {IN_MEMORY}: not valid PEM data",
    ),
    "encrypted key": (
        NODE.pem,
        NODE.encrypted_key_pem(PASSWORD),
        PEMError,
        "no password was given",
    ),
}


@pytest.mark.parametrize("row", REFUSED)
def test_what_is_refused(row: str) -> None:
    certificate, key, kind, words = REFUSED[row]
    with pytest.raises(PEMError, match=words) as caught:
        load(certificate, key)
    assert caught.type is kind
    assert_no_key_in(str(caught.value))
    one = Security(tls_ca_file=CA.pem, tls_worker_cert=certificate, tls_worker_key=key)
    with pytest.raises(kind, match=words):
        one.get_listen_args("worker")


def assert_no_key_in(text: str) -> None:
    assert not any(line in text for line in NODE.key_pem.splitlines()[1:-1])


def test_a_weak_identity_of_our_own_is_named() -> None:
    node = certs.leaf(CA, key=certs.rsa_key(1024))
    with pytest.raises(PEMError, match=r"tls_scheduler_cert .* too weak .*2048"):
        server_context(security(node, [CA]))


@pytest.mark.parametrize(
    ("prepare", "words"),
    [
        (lambda path: None, "no such file or directory"),
        (lambda path: path.mkdir(), "is a directory"),
        (lambda path: path.write_text(" \n"), "the file is empty"),
        (lambda path: path.write_bytes(CA.der), "a DER file must be converted"),
    ],
    ids=["missing", "directory", "empty", "DER"],
)
@pytest.mark.parametrize("field", ["tls_ca_file", "tls_client_cert", "tls_client_key"])
def test_a_file_that_cannot_be_used(
    tmp_path: Path, prepare: Callable[[Path], None], words: str, field: str
) -> None:
    path = tmp_path / "file.pem"
    prepare(path)
    good = {
        "tls_ca_file": CA.pem,
        "tls_client_cert": NODE.pem,
        "tls_client_key": NODE.key_pem,
    }
    one = Security(**{**good, field: str(path)})
    for get in (one.get_connection_args, one.get_listen_args):
        with pytest.raises(PEMError, match=words) as caught:
            get("client")
        assert field in str(caught.value)
        assert str(path) in str(caught.value)
        assert isinstance(caught.value, FileNotFoundError) is (not path.exists())


@pytest.mark.parametrize(
    "text",
    [NODE.key_pem, BROKEN, CA.pem + BROKEN],
    ids=["a key", "damaged", "the second damaged"],
)
def test_a_ca_file_that_cannot_be_used(text: str) -> None:
    with pytest.raises(PEMError, match=f"tls_ca_file {IN_MEMORY}: "):
        Security(tls_ca_file=text, tls_client_cert=NODE.pem + NODE.key_pem).get_listen_args(
            "client"
        )


def test_a_password_opens_an_encrypted_key() -> None:
    encrypted = NODE.encrypted_key_pem(PASSWORD)
    load(NODE.pem, encrypted, PASSWORD)
    load(NODE.pem + encrypted, None, PASSWORD)
    with pytest.raises(PEMError, match="the password does not open the private key") as caught:
        load(NODE.pem, encrypted, b"battery staple")
    assert "battery" not in str(caught.value)


def test_a_key_others_can_read_is_warned_of_once(
    files: Callable[[str, str], str], caplog: pytest.LogCaptureFixture
) -> None:
    path = files("the key.pem", NODE.key_pem)
    load(NODE.pem, path)
    assert not caplog.records
    os.chmod(path, 0o640)
    load(NODE.pem, path)
    load(NODE.pem, path)
    messages = [record.getMessage() for record in caplog.records]
    if os.name == "posix":  # elsewhere files have no such modes
        assert len(messages) == 1
        assert f"tls_worker_key ({path}) can be read" in messages[0]
        assert "0640" in messages[0]
        assert messages[0].endswith(f"; run: chmod 600 '{path}'")
    else:
        assert not messages


WATCHED = """
import os, sys
written = []
def watch(event, arguments):
    if event == "open":
        path, mode, flags = arguments
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) and not isinstance(path, int):
            written.append(path)
    elif event in ("os.mkdir", "tempfile.mkstemp", "tempfile.mkdtemp"):
        written.append(event)
from sealwire.security import Security
security = Security.temporary()
sys.addaudithook(watch)
for role in ("client", "scheduler", "worker"):
    assert security.get_listen_args(role)["ssl_context"]
    assert security.get_connection_args(role)["ssl_context"]
open(os.environ["CONTROL"], "w").close()
if hasattr(os, "memfd_create"):
    assert written == [os.environ["CONTROL"]], written
assert os.environ["CONTROL"] in written
assert os.listdir(os.environ["TMPDIR"]) == []
"""


def test_no_file_is_written_for_keys_in_memory(tmp_path: Path) -> None:
    folder = tmp_path / "tmp"
    folder.mkdir()
    subprocess.run(
        [sys.executable, "-c", WATCHED],
        check=True,
        timeout=60,
        env={**os.environ, "TMPDIR": str(folder), "CONTROL": str(tmp_path / "control")},
    )
    assert (tmp_path / "control").exists()


class Watching(ssl.SSLContext):
    """Notes how the files it is shown look while it loads them."""

    seen: list[tuple[Path, int, int]]

    def load_cert_chain(self, certfile, keyfile=None, password=None):  # type: ignore[no-untyped-def]
        self.seen = [
            (path, stat.S_IMODE(path.stat().st_mode), stat.S_IMODE(path.parent.stat().st_mode))
            for path in map(Path, (certfile, keyfile))
        ]
        super().load_cert_chain(certfile, keyfile, password)


@pytest.mark.parametrize("works", [True, False], ids=["good key", "wrong key"])
def test_without_files_in_memory_they_are_private_and_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, works: bool
) -> None:
    monkeypatch.delattr(os, "memfd_create", raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    context = Watching(ssl.PROTOCOL_TLS_SERVER)
    key = Source("key", NODE.key_pem if works else OTHER.key_pem, in_memory=True)
    if works:
        load_identity(context, Source("certificate", NODE.pem, in_memory=True), key)
    else:
        with pytest.raises(KeyMismatch):
            load_identity(context, Source("certificate", NODE.pem, in_memory=True), key)
    assert len(context.seen) == 2
    for path, mode, folder_mode in context.seen:
        assert path.is_relative_to(tmp_path)
        if os.name == "posix":
            assert (mode, folder_mode) == (0o600, 0o700)
    assert not list(tmp_path.iterdir())


LIMITED = """
import resource, signal, sys
from sealwire.security import PEMError, Security
given = dict(zip(("tls_ca_file", "tls_scheduler_cert", "tls_scheduler_key"), sys.argv[1:]))
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
assert Security(**given).get_listen_args("scheduler")["ssl_context"]
texts = {name: open(path).read() for name, path in given.items()}
try:
    Security(**texts).get_listen_args("scheduler")
except PEMError as error:
    print(error)
"""


def test_where_no_file_can_be_written(tmp_path: Path) -> None:
    """Files in memory have a limit of size as well (`ulimit -f`)."""
    paths = [tmp_path / name for name in ("ca.pem", "leaf.pem", "key.pem")]
    for path, text in zip(paths, (CA.pem, NODE.pem, NODE.key_pem), strict=True):
        path.write_text(text)
        path.chmod(0o600)
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, *paths],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=tmp_path,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    assert "cannot use tls_scheduler_cert (PEM text in memory): OpenSSL reads" in done.stdout, done
    assert "temporary folder (File too large)" in done.stdout or "No usable" in done.stdout
    assert "do not limit the size of files (ulimit -f)" in done.stdout
    assert sorted(tmp_path.iterdir()) == sorted(paths)
