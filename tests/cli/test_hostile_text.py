r"""What others write does not act on the terminal that shows it.

Certificates, requests, journals, file names, configuration and servers full of control sequences:
on a terminal, in a pipe and as JSON nothing comes out but printable text and what rich adds to it.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import ssl
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgpack
import pytest
from click.testing import CliRunner
from cryptography import x509

from sealwire.cli.console import cell, to_json
from sealwire.cli.main import main
from sealwire.security.text import visible
from support import evil, folders
from support.certs_cli import request
from support.checking import put
from support.forking import sealwire

pytestmark = pytest.mark.filterwarnings("ignore:Attribute's length")

# Rich's own: colours and weights, with digits and semicolons only, and the hyperlinks it may make.
STYLE = re.compile(rb"\x1b\[[0-9;]*m")
NAME = "n1\x1b]0;owned\x07\x1b[2J\nvalid 9999[red]x[/]\u202e:boom:"


Say = Callable[[list[str], Path, dict[str, str]], bytes]


def on_a_terminal(
    arguments: list[str], folder: Path, variables: dict[str, str], apart: bool = True
) -> bytes:
    """What a command writes to a terminal, errors among it; as a process, or in this one."""
    import pty

    ours, theirs = pty.openpty()
    pieces: list[bytes] = []

    def read() -> None:
        with contextlib.suppress(OSError):  # EIO: the other side has closed
            while piece := os.read(ours, 65536):
                pieces.append(piece)

    reader = threading.Thread(target=read)
    reader.start()
    environment = {"TERM": "xterm-256color", "COLUMNS": "120", **variables}
    try:
        if apart:
            sealwire(*arguments, folder=folder, terminal=theirs, **environment)
        else:
            _run_here(arguments, folder, theirs, environment)
    finally:
        os.close(theirs)
        reader.join()
        os.close(ours)
    return b"".join(pieces).replace(b"\r\n", b"\n")


def _run_here(
    arguments: list[str], folder: Path, terminal: int, environment: dict[str, str]
) -> None:
    with (
        pytest.MonkeyPatch.context() as patch,
        open(terminal, "w", 1, encoding="utf-8", closefd=False) as stream,
        contextlib.redirect_stdout(stream),
        contextlib.redirect_stderr(stream),
        contextlib.suppress(SystemExit),
    ):
        patch.chdir(folder)
        for name, value in environment.items():
            patch.setenv(name, value)
        main(arguments)


def on_a_terminal_here(arguments: list[str], folder: Path, variables: dict[str, str]) -> bytes:
    return on_a_terminal(arguments, folder, variables, apart=False)


def in_a_pipe(arguments: list[str], folder: Path, variables: dict[str, str]) -> bytes:
    _, output, errors = sealwire(*arguments, folder=folder, **variables)
    return output + errors


def in_this_process(arguments: list[str], folder: Path, variables: dict[str, str]) -> bytes:
    """The same without a process of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        done = CliRunner().invoke(main, arguments, env=variables)
    if not isinstance(done.exception, SystemExit | None):
        raise done.exception
    return done.stdout_bytes + done.stderr_bytes


def look(
    folder: Path, *arguments: str, apart: bool = True, json_too: bool = True, **variables: str
) -> str:
    """All a command says in each way; nothing in it may act.

    On a terminal it is a process, if `apart`. So it is in a pipe where there is no JSON; nothing
    depends on that but what is logged, which is the same in both.
    """
    whole = []
    ways: list[tuple[Say, list[str]]] = [
        (on_a_terminal if apart else on_a_terminal_here, []),
        (in_this_process if json_too else in_a_pipe, []),
    ]
    if json_too:
        ways.append((in_this_process, ["--json"]))
    for way, more in ways:
        raw = way([*arguments, *more], folder, variables)
        text = STYLE.sub(b"", raw).decode() if way is ways[0][0] else raw.decode()
        assert text.strip(), arguments
        assert "Traceback" not in text, text
        assert "Warning: " not in text, text
        bad = evil.UNSEEN.search(text)
        assert bad is None, (arguments, ascii(text[max(0, bad.start() - 60) : bad.end() + 60]))
        assert not re.search(r"^valid (2020|9999)", text, re.MULTILINE), "a forged row"
        if more and text[0] in "{[":  # wrong usage is told in words alone
            json.JSONDecoder().raw_decode(text)
        whole.append(text)
    return "\n".join(whole)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder that `init` has made."""
    return folders.found(tmp_path / "certs")


SANS: dict[str, Any] = {
    "no names": None,
    "by the rules": evil.ascii_only(),
    "UTF-8": list(evil.HOSTILE),
    "no UTF-8": b"\x30\x04\x82\x02\xff\xfe",
    "no DER": b"\x1b[2J\n\x07",
    "many": [f"n{number}.lab" for number in range(3000)],
}


@pytest.mark.parametrize("names", SANS)
def test_show(tmp_path: Path, names: str) -> None:
    pem, key, _ = evil.certificate(san=SANS[names])
    put(tmp_path / "theirs.pem", pem + key)
    said = look(tmp_path, "certs", "show", "theirs.pem")
    if isinstance(SANS[names], bytes):
        assert "certificate 1 in it is damaged" in said
        return
    assert "\\x1b[2J" in said
    assert "[red]x[/red]" in said, "shown, and not interpreted"
    assert ":pile_of_poo:" in said
    assert "\\u202e" in said


def test_show_a_list_of_an_evil_ca(tmp_path: Path) -> None:
    import datetime

    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.serialization import Encoding

    _, _, (key, subject) = evil.certificate(ca=True)
    now = datetime.datetime.now(datetime.timezone.utc)
    builder = x509.CertificateRevocationListBuilder().issuer_name(subject).last_update(now)
    made = builder.next_update(now + datetime.timedelta(days=1)).sign(key, hashes.SHA256())
    put(tmp_path / "crl.pem", made.public_bytes(Encoding.PEM).decode())
    assert "\\x1b[2J" in look(tmp_path, "certs", "show", "crl.pem")


@pytest.mark.parametrize("names", SANS)
def test_check(folder: Path, names: str) -> None:
    """A CA that is trusted and an identity, both of an enemy, with dates and chains to tell of."""
    ca, _, signer = evil.certificate(ca=True)
    pem, key, _ = evil.certificate(signer, san=SANS[names])
    with open(folder / "ca.pem", "a") as trust:
        trust.write(ca)
    put(folder / "guest.pem", pem + key)
    look(folder, "certs", "check", ".", apart=False)
    yaml = (folder / "dask.yaml").read_text().replace("worker.pem", "guest.pem")
    (folder / "dask.yaml").write_text(
        yaml + '    "\\e[2J\\u202e\\x9b[red]": 1\n    "a\\nvalid 9999": 2\n'
    )
    look(folder, "certs", "check", ".")
    look(folder, "certs", "check", "dask.yaml", apart=False)
    look(folder.parent, "certs", "show", "certs", apart=False)


def test_names_of_files(folder: Path) -> None:
    for role in ("worker", "client"):
        os.rename(folder / f"{role}.pem", folder / f"{role}{NAME.replace('/', '')}.pem")
    bad = NAME.replace("/", "") + ".pem"
    put(folder / bad, "nothing")
    (folder / f"link{bad}").symlink_to("/nowhere")
    (folder / f"worker{bad}").chmod(0o644)
    for words in (
        ["show", "."], ["show", bad], ["check", "."], ["renew", "--dir", "."],
        ["renew", "nobody", "--dir", "."], ["renew", f"link{bad}", "--dir", "."],
        ["revoke", f"worker{bad.removesuffix('.pem')}", "--dir", "."],
        ["revoke", f"worker{bad.removesuffix('.pem')}", "--dir", "."],
        ["rotate-ca", "--dir", "."], ["rotate-ca", "--complete", "--dir", "."],
        ["issue", "worker", "n.lab", "--out", f"new{bad}", "--dir", "."],
        ["sign", bad, "--role", "worker", "--dir", "."], ["show", f"no{bad}"],
        ["init", f"new{bad}"], ["init", f"new{bad}"], ["init", bad],
    ):  # fmt: skip
        look(folder, "certs", *words)


def test_columns_of_the_journal(folder: Path) -> None:
    (record,) = (r for r in folders_journal(folder) if r[5] == "CN=worker")
    line = [*record[:5], NAME.replace("\n", ""), NAME.replace("\n", "\r")]
    with open(folder / "journal.tsv", "a", newline="") as journal:
        journal.write("\t".join([*line[:2], "4e", *line[3:]]) + "\n")
        journal.write("\t".join([line[0], "\x1b[2J", "4f", *line[3:]]) + "\n")
    here = ("--dir", ".")
    assert "\\x1b[2J" in look(folder, "certs", "revoke", "4e", *here, "--dry-run", apart=False)
    look(folder, "certs", "rotate-ca", *here, apart=False)
    assert "\\x1b[2J" in look(folder, "certs", "rotate-ca", "--complete", *here, apart=False)


def folders_journal(folder: Path) -> list[list[str]]:
    lines = (folder / "journal.tsv").read_text().splitlines()
    return [line.split("\t") for line in lines if not line.startswith("#")]


@pytest.mark.parametrize("name", ["\x1b[2J", "a\nb", "[red]x[/red]", "\u202eabc"])
def test_a_request(folder: Path, name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        request(folder / "bad.csr", name, None, x509.DNSName("n\x1b[2J.lab"))
        request(folder / "odd.csr", name, None, x509.UniformResourceIdentifier("\x1b[2J"))
    for csr in ("bad.csr", "odd.csr"):
        look(folder, "certs", "sign", csr, "--role", "worker", "--dir", ".", apart=False)


# Servers

EVIL_HELLO = {
    "compression": evil.ALL,
    "python": [evil.ALL, "\x1b[2J", "\n" * 50],
    "pickle-protocol": 5,
    "sealwire": {"version": 1, "arrays": False, "\x1b]0;x\x07": evil.ALL},
    "\x9b[red]": "\u202e",
}


@contextlib.contextmanager
def served(pem: str, key: str, folder: Path, say: bytes) -> Iterator[str]:
    """A TLS server with a certificate that says something."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(put(folder / "served.pem", pem + key))
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    plain, _ = server.accept()
                    with contextlib.suppress(OSError), plain:
                        plain.settimeout(5)
                        with context.wrap_socket(plain, server_side=True) as tls:
                            tls.sendall(say)
                            while tls.recv(65536):
                                pass

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"tls://127.0.0.1:{server.getsockname()[1]}"
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()


def message(value: Any) -> bytes:
    frame = msgpack.packb(value)
    return b"".join(n.to_bytes(8, "little") for n in (16 + len(frame), 1, len(frame))) + frame


SAYS = {
    "a hello": message(EVIL_HELLO),
    "a refusal": message({**EVIL_HELLO, "refused": evil.ALL}),
    "something else": evil.ALL.encode(),
    "nothing of ours": message([evil.ALL]),
    "HTTP": b"HTTP/1.0 200 \x1b[2J\r\n\r\n",
}


@pytest.mark.parametrize("says", SAYS)
@pytest.mark.parametrize("trusted", [True, False])
def test_probe(folder: Path, says: str, trusted: bool) -> None:
    ca, _, signer = evil.certificate(ca=True, days=5)
    pem, key, _ = evil.certificate(signer, san=evil.ascii_only(), days=5)
    anchors = folder / "ca.pem"
    if trusted:
        anchors = put(folder / f"{NAME.replace('/', '').splitlines()[0]}.pem", ca)
    with served(pem, key, folder, SAYS[says]) as address:
        options = ["--ca", str(anchors), "--cert", str(folder / "client.pem"), "--timeout", "2"]
        said = look(folder, "probe", address, *options, apart=trusted)
    assert "\\x1b" in said
    assert "\\u001b" in said


@pytest.mark.parametrize(
    "arguments",
    [
        ["certs", "show", f"/nowhere{NAME}"],
        ["certs", NAME],
        ["certs", "renew", f"--{NAME}"],
        ["certs", "issue", NAME],
        ["probe", f"tls://{NAME}:1"],
        ["probe", NAME],
        ["bench", f"tls://{NAME}:1"],
        [NAME],
    ],
    ids=range(8),
)
def test_usage(tmp_path: Path, arguments: list[str]) -> None:
    """Globs fill a command line with what others have called their files."""
    look(tmp_path, *arguments, json_too=False)


@pytest.mark.parametrize("text", evil.HOSTILE)
def test_one_function_makes_text_visible(text: str) -> None:
    for shown in (visible(text), str(cell(text)), json.loads(to_json(visible(text)))):
        assert evil.UNSEEN.search(shown) is None, ascii(shown)
        assert "\n" not in shown
    assert json.loads(to_json({"x": text}))["x"] == text
    assert to_json({text: text}).isascii()
    assert all(c == "\n" or " " <= c <= "~" for c in to_json([text]))
    kept = visible(text, lines=True)
    assert kept.count("\n") == text.count("\n")


def test_what_is_plain_stays_as_it_is() -> None:
    for text in ("worker-7.lab", "Zoë Müller, 株式会社", "[x] C:\\temp\\", "e\u0301", "a  b"):
        assert visible(text) == str(cell(text)) == text
    assert visible("\ud800\udfff") == "\\ud800\\udfff"
    assert visible("x" * 50, longest=10) == "x" * 10 + "… (40 more characters)"


def test_every_character() -> None:
    shown = visible("".join(map(chr, range(0x110000))))
    assert evil.UNSEEN.search(re.sub("[\u0301\u0e34]", "", shown)) is None
    assert shown.encode() == shown.encode("utf-8", "strict"), "surrogates are written out"
