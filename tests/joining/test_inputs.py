"""What people give to those who join: files with tokens, names, addresses; odd ones as well."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import dask
import pytest
from click.testing import CliRunner

from sealwire.cli.config.judge import judged
from sealwire.cli.main import main
from sealwire.dask_backend import membership
from sealwire.joining import JoinError, Token, address_of, inputs
from sealwire.joining.client import signing_request
from sealwire.joining.inputs import must_be_name, token_in
from sealwire.security import reading
from sealwire.security.x509 import keys
from support.certs_cli import run

TOKEN = Token((bytes(32),), bytes(range(32)))
TEXT = TOKEN.text()
OTHER = Token((bytes(32),), bytes(32)).text()


def write(path: Path, data: bytes, mode: int = 0o600) -> str:
    path.write_bytes(data)
    path.chmod(mode)
    return str(path)


def no_secret(text: str) -> None:
    assert TEXT[-60:] not in text
    assert OTHER[-60:] not in text
    assert "Traceback" not in text


@pytest.mark.parametrize(
    "data",
    [
        TEXT.encode(),
        f"{TEXT}\n".encode(),
        f"\r\n  {TEXT} \r\n\r\n".encode(),
        f"\ufeff{TEXT}\r\n".encode(),
        f"\ufeff{TEXT}\r\n".encode("utf-16-le"),
        f"\ufeff{TEXT}\n".encode("utf-16-be"),
    ],
)
def test_files_with_a_token(tmp_path: Path, data: bytes) -> None:
    assert token_in(write(tmp_path / "a token", data), "--token-file") == TOKEN
    assert token_in(tmp_path / "a token", "--token-file") == TOKEN


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "it is empty"),
        (b" \r\n\t", "it is empty"),
        (b"\0" * 100, "does not begin"),
        (f"{TEXT}\n{OTHER}\n".encode(), "there are 2 tokens"),
        (f"{TEXT}{TEXT}".encode(), "there are 2 tokens"),
        (f"{TEXT}\n" .encode() * 3, "there are 3 tokens"),
        (f"{TEXT} # worker".encode(), "are not small letters"),
        (f'"{TEXT}"'.encode(), "does not begin"),
        (f"{TEXT}\0".encode(), "are not small letters"),
        (TEXT.upper().encode(), "does not begin"),
        (TEXT[:-1].encode(), "wrong or missing"),
        (b"\xff\xfe\xff", "does not begin"),
        (b"x" * 5000, "the limit is 4,096"),
    ],
)  # fmt: skip
def test_files_without_one(tmp_path: Path, data: bytes, why: str) -> None:
    path = write(tmp_path / "worker.token", data)
    with pytest.raises(JoinError, match=why) as caught:
        token_in(path, "--token-file")
    assert path in str(caught.value)
    no_secret(str(caught.value))


def folder(path: Path) -> str:
    path.mkdir()
    return str(path)


def listening(path: Path) -> str:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
    return str(path)


PATHS: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda path: str(path), "no such file"),
    "within a file": (lambda path: write(path, b"x") + "/token", "not a directory"),
    "a folder": (folder, "it is a directory"),
    "a socket": (listening, "it is a socket"),
    "a device": (lambda _: "/dev/zero", "it is a character device"),
    "a loop": (lambda path: path.symlink_to(path) or str(path), "symbolic links"),
    "a null byte": (lambda path: f"{path}\0", "no path has such characters"),
    "surrogates": (lambda path: f"{path}\ud800", "no path has such characters"),
    "too long": (lambda path: f"{path}{'x-' * 150}", "name too long"),
    "much too long": (lambda _: "/x" * 5000, "name too long"),
    "a token": (lambda _: TEXT, "it is a token"),
    "a token in a path": (lambda path: f"{path}/{TEXT}\n", "it is a token"),
    "no home": (lambda _: "~nobody-of-this-name/token", "that ~ stands for"),
    "no variable": (lambda _: "$NO_SUCH_VARIABLE/token", "NO_SUCH_VARIABLE in it is not set"),
    "nothing": (lambda _: "", "expected the path of a file"),
    "None": (lambda _: None, "expected the path of a file"),
    "a number": (lambda _: 7, "expected the path of a file, got 7"),
    "a bool": (lambda _: True, "expected the path of a file"),
    "a list": (lambda _: ["a"], "expected the path of a file"),
    "a mapping": (lambda _: {"a": TEXT}, "expected the path of a file"),
    "bytes": (lambda _: b"/etc/x", "expected the path of a file"),
}


@pytest.mark.parametrize("what", PATHS)
def test_paths_of_no_token(tmp_path: Path, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    make, why = PATHS[what]
    path = make(tmp_path / "x")
    with pytest.raises(JoinError, match=why) as caught:
        token_in(path, "sealwire.join.token-file")
    assert "sealwire.join.token-file" in str(caught.value)
    assert str(caught.value).isprintable()
    no_secret(str(caught.value))
    monkeypatch.delenv(membership.TOKEN_FILE, raising=False)
    monkeypatch.delenv(membership.TOKEN, raising=False)
    if path not in (None, ""):
        with (
            dask.config.set({"sealwire.join.token-file": path}),
            pytest.raises(JoinError, match=why),
        ):
            membership._token()
    if isinstance(path, str):
        done = run("join", "127.0.0.1:1", "--token-file", path, "--dir", str(tmp_path / "node"))
        assert done.exit_code == 1, done.output
        assert "Error: " in done.output
        no_secret(done.output)
        assert not (tmp_path / "node").exists()


def test_without_a_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container whose user has no entry in the list of users."""
    import pwd

    def none(_: int) -> None:
        raise KeyError

    write(tmp_path / "token", TEXT.encode())
    monkeypatch.setenv("HOME", str(tmp_path))
    assert token_in("~/token", "x") == token_in("$HOME/token", "x") == TOKEN
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", none)
    with pytest.raises(JoinError, match=r"cannot use x: the home that ~ stands for"):
        token_in("~/token", "x")


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such pipes")
@pytest.mark.parametrize("size", [0, 1, 5000])
def test_pipes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """Written in pieces, with a writer that comes later, and that writes too little or too much."""
    path = tmp_path / "pipe"
    os.mkfifo(path, 0o644)
    data = TEXT.encode() if size == 1 else b"x" * size

    def writer() -> None:
        with contextlib.suppress(BrokenPipeError), path.open("wb", buffering=0) as pipe:
            for at in range(0, len(data), 50):
                pipe.write(data[at : at + 50])

    thread = threading.Thread(target=writer, daemon=True)
    thread.start()
    if size == 1:
        assert token_in(str(path), "x") == TOKEN
    else:
        with pytest.raises(JoinError, match="which is the limit" if size else "it is empty"):
            token_in(str(path), "x")
    thread.join(20)
    assert not thread.is_alive()
    monkeypatch.setattr(reading, "_PATIENCE", 0.2)
    with pytest.raises(JoinError, match=r"nobody has written to it .* within 0\.2 s"):
        token_in(str(path), "x")


@pytest.mark.skipif(not os.path.exists("/dev/fd"), reason="descriptors have no paths")
def test_a_pipe_of_another_program(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a shell's ``<(…)``, closed or still open."""
    reader, writer = os.pipe()
    try:
        os.write(writer, f"{TEXT}\n".encode())
        monkeypatch.setattr(reading, "_PATIENCE", 0.2)
        with pytest.raises(JoinError, match="and closed it"):
            token_in(f"/dev/fd/{reader}", "x")
        os.write(writer, f"{TEXT}\n".encode())
        os.close(writer)
        writer = -1
        assert token_in(f"/dev/fd/{reader}", "x") == TOKEN
    finally:
        os.close(reader)
        if writer >= 0:
            os.close(writer)


@pytest.mark.skipif(os.name != "posix", reason="modes of files")
@pytest.mark.parametrize("mode", [0o600, 0o400, 0o640, 0o604, 0o644, 0o666])
def test_a_file_that_others_can_read_is_told(
    tmp_path: Path, mode: int, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(tmp_path / "a token", TEXT.encode(), mode)
    run("join", "127.0.0.1:1", "--wait", "0m", "--token-file", path, "--dir", str(tmp_path / "n"))
    lines = [each.getMessage() for each in caplog.records if "can be read by" in each.getMessage()]
    told = f"(mode {mode:04o}), who could join with it; run: chmod 600 '{path}'"
    assert [told in line for line in lines] == ([True] if mode & 0o044 else [])


NAMES = {
    "long": ("x" * 65, "1 to 64 characters, got 65"),
    "very long": ("ä" * 10_000, "1 to 64 characters, got 10000"),
    "a line": ("a\nb", "printable"),
    "null": ("a\0", "printable"),
    "surrogate": ("a\ud800", "printable"),
    "a pattern": ("*.lab", "stands for one"),
    "role": ("Worker", "is a role"),
    "authority": ("authority", "is a role"),
    "a token": (TEXT, "holds a token"),
}


@pytest.mark.parametrize("what", NAMES)
def test_names_that_are_none(tmp_path: Path, what: str) -> None:
    name, why = NAMES[what]
    key = "sealwire.join.name"
    with dask.config.set({key: name}), pytest.raises(JoinError, match=why) as caught:
        membership._name()
    assert str(caught.value).startswith(f"cannot use {key}: ")
    no_secret(str(caught.value))
    assert why in str(judged(key, name, usable=True))
    done = run("join", "127.0.0.1:1", "--name", name, "--dir", str(tmp_path / "n"),
               SEALWIRE_TOKEN=TEXT)  # fmt: skip
    assert done.exit_code == 1
    assert f"cannot use --name: {why}"[:17] in done.output
    no_secret(done.output)
    assert not (tmp_path / "n").exists()


@pytest.mark.parametrize("bad", [True, 1.5, ["a"], {"a": 1}])
def test_values_that_are_no_name_or_address(bad: object) -> None:
    with dask.config.set({"sealwire.join.name": bad}), pytest.raises(JoinError, match="a name"):
        membership._name()
    with dask.config.set({"sealwire.join.address": bad}), pytest.raises(JoinError, match="HOST"):
        membership._address()


def test_names() -> None:
    for name in ("a", "ü" * 64, "rack 7", "node7.lab.example", "工人", "worker2", "😀"):
        assert must_be_name(name, "x") == name
    for given, found in ((7, "7"), ("a", "a")):
        with dask.config.set({"sealwire.join.name": given}):
            assert membership._name() == found
    for none in (None, ""):
        with dask.config.set({"sealwire.join.name": none}):
            assert membership._name() == inputs.own_name()


@pytest.mark.parametrize("port", ["0", "00", "0000000"])
@pytest.mark.parametrize("host", ["lab", "tls://lab", "10.0.0.1", "[::1]", "tls://[::]"])
def test_port_0_is_no_address_of_a_service(host: str, port: str) -> None:
    with pytest.raises(JoinError, match="nobody listens on port 0"):
        address_of(f"{host}:{port}")
    assert address_of(host).port == 8788
    assert address_of(f"{host}:80").port == 80


@pytest.mark.parametrize("text", ["lab:1\n", " lab:1", "\tlab:1\r\n", "tls://lab:1 "])
def test_white_space_around_an_address_is_dropped(text: str) -> None:
    assert str(address_of(text)) == "tls://lab:1"


def test_a_token_is_no_address_and_no_name() -> None:
    """It would be asked of resolvers, or be in a certificate that everybody sees."""
    for text in (TEXT, f"tls://{TEXT}:8788", f"{TEXT}\n", f"x.{TEXT}"):
        with pytest.raises(JoinError, match="holds a token") as caught:
            address_of(text)
        no_secret(str(caught.value))
    for node, hosts in ((TEXT, []), ("", [TEXT]), ("", ["lab", f"{TEXT}.lab"])):
        with pytest.raises(JoinError, match="holds a token") as caught:
            signing_request(keys.generate(), node, hosts)
        no_secret(str(caught.value))


@pytest.mark.parametrize(
    ("data", "good"),
    [(f"\ufeff{TEXT}\r\n", True), ("", False), (f"{TEXT}\n{OTHER}\n", False), (TEXT[:-1], False)],
)
def test_standard_input(tmp_path: Path, data: str, good: bool) -> None:
    """What can be read, is: the service that is not there is asked next."""
    where = ("--wait", "0m", "--dir", str(tmp_path / "n"))
    done = CliRunner().invoke(
        main, ["certs", "join", "127.0.0.1:1", "--token-file", "-", *where], input=data.encode()
    )
    assert done.exit_code == 1
    assert ("cannot ask tls://127.0.0.1:1" in done.output) is good
    assert ("bad token on standard input" in done.output) is not good
    no_secret(done.output)
