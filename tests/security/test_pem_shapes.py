r"""PEM as people have it: taken where it leaves no doubt, else named for what it is.

A CA file, an identity and a list go through the same changes, as files and as text in memory, and
then a real handshake says whether they were understood.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
    pkcs12,
)

from sealwire.security import PEMError, Security
from sealwire.security.ca.store import Store
from sealwire.security.pem_blocks import blocks
from sealwire.security.pem_shapes import decoded, normalised
from support import certs, folders
from support.handshakes import client_context, security, server_context, shake

CA = certs.root()
NODES = {"P-256": certs.leaf(CA), "RSA": certs.leaf(CA, key=certs.rsa_key(2048))}
PEER = security(certs.leaf(CA, "peer"), [CA])
PASSWORD = "grün"

# What becomes of a text on its way.
SHAPES: dict[str, Callable[[str], str]] = {
    "CR alone": lambda text: text.replace("\n", "\r"),
    "CRLF": lambda text: text.replace("\n", "\r\n"),
    "CRCRLF": lambda text: text.replace("\n", "\r\r\n"),
    r"\n written out": lambda text: text.replace("\n", "\\n"),
    r"\n written out twice": lambda text: text.replace("\n", "\\\\n"),
    r"\r\n written out": lambda text: text.replace("\n", "\\r\\n"),
    r"\n and line ends": lambda text: text.replace("\n", "\\n\n"),
    "as in JSON": lambda text: json.dumps({"pem": text}),
    "indented": lambda text: textwrap.indent(text, "    "),
    "indented by tabs": lambda text: textwrap.indent(text, "\t"),
    "indented but for the first line": lambda text: text.replace("\n", "\n      "),
    "indented, CRLF": lambda text: textwrap.indent(text, "  ").replace("\n", "\r\n"),
    "blanks at line ends": lambda text: text.replace("\n", "  \n"),
    "empty lines between": lambda text: text.replace("\n", "\n\n"),
    "no line end behind": lambda text: text.rstrip(),
    "no line end between": lambda text: text.replace("-----\n-----", "----------").rstrip(),
    "a mark": lambda text: "\ufeff" + text,
    "a mark before each": lambda text: text.replace("-----BEGIN", "\ufeff-----BEGIN"),
}
ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"]


def accepted(ca: object, identity: object, crl: object, **fields: object) -> bool:
    one = Security(tls_ca_file=ca, tls_scheduler_cert=identity, tls_crl_file=crl, **fields)
    return shake(server_context(one), client_context(PEER)).accepted


@pytest.fixture
def files(tmp_path: Path) -> Callable[[str, bytes], Path]:
    def write(name: str, data: bytes) -> Path:
        path = tmp_path / name
        path.touch(mode=0o600)
        path.write_bytes(data)
        return path

    return write


@pytest.mark.parametrize("node", NODES)
@pytest.mark.parametrize("as_file", [True, False], ids=["file", "text"])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_shape(shape: str, as_file: bool, node: str, files: Callable[[str, bytes], Path]) -> None:
    change = SHAPES[shape]
    texts = {
        "ca": change(CA.pem + certs.root("other").pem),
        "identity": change(NODES[node].pem + NODES[node].key_pem),
        "crl": change(certs.crl(CA)),
    }
    if as_file:
        paths = [files(f"{name}.pem", text.encode()) for name, text in texts.items()]
        assert accepted(*paths)
    else:
        assert accepted(*texts.values())


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("comment", ["", "# Zoë\n"], ids=["bare", "comment"])
def test_an_encoding(encoding: str, comment: str, files: Callable[[str, bytes], Path]) -> None:
    node = NODES["P-256"]
    texts = (CA.pem, node.pem + node.key_pem, certs.crl(CA))
    paths = [
        files(str(number), (text + comment).replace("\n", "\r\n").encode(encoding))
        for number, text in enumerate(texts)
    ]
    assert accepted(*paths)


@pytest.mark.parametrize("shape", ["CR alone", r"\n written out", "indented", "CRLF"])
def test_an_encrypted_key_with_headers(shape: str, files: Callable[[str, bytes], Path]) -> None:
    """Its lines before the empty one mean something."""
    key = load_pem_private_key(NODES["RSA"].key_pem.encode(), None)
    secret = BestAvailableEncryption(b"secret")
    old = key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, secret).decode()
    assert "Proc-Type: 4,ENCRYPTED" in old
    text = SHAPES[shape](NODES["RSA"].pem + old)
    path = files("identity.pem", text.encode())
    for value in (path, text):
        assert accepted(CA.pem, value, None, tls_key_password="secret")


@pytest.mark.parametrize(
    "given",
    [PASSWORD, "\ufeff" + PASSWORD, PASSWORD.encode(), b"\xef\xbb\xbf" + PASSWORD.encode()],
    ids=["text", "text with mark", "bytes", "bytes with mark"],
)
@pytest.mark.parametrize("by_role", [True, False])
def test_a_mark_before_a_password(given: str | bytes, by_role: bool) -> None:
    node = NODES["P-256"]
    identity = node.pem + node.encrypted_key_pem(PASSWORD.encode())
    password = {"scheduler": given} if by_role else given
    assert accepted(CA.pem, identity, None, tls_key_password=password)


def pkcs12_of(node: certs.Node) -> bytes:
    return pkcs12.serialize_key_and_certificates(
        b"worker", node.key, node.certificate, [CA.certificate], BestAvailableEncryption(b"x")
    )


def by_openssl(*arguments: str) -> bytes:
    return subprocess.run(
        ["openssl", *arguments],
        input=CA.pem.encode(),
        check=True,
        capture_output=True,
        timeout=60,
    ).stdout


NODE = NODES["P-256"]
DER_KEY = NODE.key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
SSH_KEY = NODE.key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
STRANGE: dict[str, tuple[Callable[[], bytes], str]] = {
    "PKCS#12": (lambda: pkcs12_of(NODE), "PKCS#12 container.*openssl pkcs12 -in"),
    "PKCS#12 of RSA": (lambda: pkcs12_of(NODES["RSA"]), "PKCS#12 container"),
    "DER certificate": (lambda: NODE.der, "DER file of a certificate.*openssl x509 -inform DER"),
    "DER key": (lambda: DER_KEY, "DER file of a key.*openssl pkey -inform DER"),
    "DER key of RSA": (
        lambda: NODES["RSA"].key.private_bytes(
            Encoding.DER, PrivateFormat.TraditionalOpenSSL, NoEncryption()
        ),
        "DER file of a key",
    ),
    "DER list": (
        lambda: base64.b64decode("".join(certs.crl(CA).splitlines()[1:-1])),
        "DER file of a CRL.*openssl crl -inform DER",
    ),
    "PKCS#7": (
        lambda: by_openssl("crl2pkcs7", "-nocrl", "-certfile", "/dev/stdin", "-outform", "DER"),
        "DER file of PKCS#7.*openssl pkcs7",
    ),
    "PKCS#7 in PEM": (
        lambda: by_openssl("crl2pkcs7", "-nocrl", "-certfile", "/dev/stdin"),
        "only PKCS7; take the certificates out: openssl pkcs7 -print_certs",
    ),
    "with trust settings": (
        lambda: by_openssl("x509", "-addtrust", "serverAuth", "-trustout"),
        "only TRUSTED CERTIFICATE; convert it: openssl x509",
    ),
    "base64 twice": (lambda: base64.b64encode(NODE.pem.encode()), "in base64 once more.*base64 -d"),
    "a page": (lambda: b"<!DOCTYPE html><title>Sign in</title>", "a page of HTML"),
    "JSON without PEM": (lambda: b'{"pem": null}', "it looks like JSON"),
    "a zip": (lambda: b"PK\x03\x04\x14\0\0\0", "zip archive"),
    "SSH, public": (lambda: b"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5 me@here", "public key of SSH"),
    "Java": (lambda: bytes.fromhex("feedfeed00000002"), "Java keystore"),
}


@pytest.mark.parametrize("name", STRANGE)
@pytest.mark.parametrize("field", ["tls_ca_file", "tls_scheduler_cert", "tls_crl_file"])
def test_what_is_no_pem_is_named(
    name: str, field: str, files: Callable[[str, bytes], Path]
) -> None:
    make, words = STRANGE[name]
    values = {
        "tls_ca_file": CA.pem,
        "tls_scheduler_cert": NODE.pem + NODE.key_pem,
        "tls_crl_file": certs.crl(CA),
    }
    path = files("strange.pem", make())
    one = Security(**{**values, field: path})
    with pytest.raises(PEMError, match=words) as caught:
        server_context(one)
    assert f"{field} ({path})" in str(caught.value)
    assert "None" not in str(caught.value)


@pytest.mark.parametrize("as_file", [True, False], ids=["file", "text"])
def test_a_key_of_ssh_is_named(as_file: bool, files: Callable[[str, bytes], Path]) -> None:
    text = NODE.pem + SSH_KEY.decode()
    value = files("identity.pem", text.encode()) if as_file else text
    with pytest.raises(PEMError, match=r"no private key in it, .*ssh-keygen -p -m PEM"):
        accepted(CA.pem, value, None)


FLAWS: dict[str, Callable[[str], str]] = {
    "first letter": lambda text: text.replace("-----\nM", "-----\nA", 1),
    "a letter of no alphabet": lambda text: text.replace("-----\nM", "-----\n*", 1),
    "a line lost": lambda text: "\n".join(text.splitlines()[:3] + text.splitlines()[4:]),
    "half": lambda text: text[: len(text) // 2],
    "no line ends": lambda text: text.replace("\n", ""),
    "nothing inside": lambda text: "\n".join([text.splitlines()[0], text.splitlines()[-1]]),
    "words inside": lambda text: text.replace("-----\nM", "-----\nplease insert\nM", 1),
}


@pytest.mark.parametrize("as_file", [True, False], ids=["file", "text"])
@pytest.mark.parametrize("flaw", FLAWS)
@pytest.mark.parametrize("field", ["tls_ca_file", "tls_scheduler_cert", "tls_scheduler_key",
                                   "tls_crl_file"])  # fmt: skip
def test_what_is_said_of_damage(
    field: str, flaw: str, as_file: bool, files: Callable[[str, bytes], Path]
) -> None:
    values: dict[str, object] = {
        "tls_ca_file": CA.pem,
        "tls_scheduler_cert": NODE.pem,
        "tls_scheduler_key": NODE.key_pem,
        "tls_crl_file": certs.crl(CA),
    }
    text = FLAWS[flaw](str(values[field]))
    value = files("damaged.pem", text.encode()) if as_file else text
    one = Security(**{**values, field: value})
    with pytest.raises(PEMError) as caught:
        server_context(one)
    said = str(caught.value)
    assert field in said
    assert "None" not in said
    assert "_ssl.c" not in said
    if not as_file:
        assert "write the file" not in said
        assert "(PEM text in memory)" in said


def test_in_a_folder_too(tmp_path: Path) -> None:
    """What an editor on another system has made of the CA's folder."""
    folder = folders.found(tmp_path / "certs")
    for name in ("ca.pem", "worker.pem", "crl.pem"):
        text = (folder / name).read_text()
        (folder / name).write_bytes(text.replace("\n", "\r\n").encode("utf-16"))
    store = Store(folder)
    assert len(store.trusted) == 1
    assert {held.path.stem for held in store.identities()} == {"client", "scheduler", "worker"}
    assert not store.crl(), "its list was read"


def test_sound_text_is_left_as_it_is() -> None:
    text = f"words\n{CA.pem}\nmore, and \\n\n{NODE.key_pem}\n\tend"
    assert normalised(text) == text
    assert decoded(text.encode()) == text
    assert normalised("C:\\new\\root.pem") == "C:\\new\\root.pem"


@pytest.mark.parametrize(
    "piece",
    [
        "-----BEGIN A-----\\n\\n-----END A-----",
        "-----BEGIN A-----\r",
        "-----BEGIN A-----\\\\\\\\-----END A-----",
        "-----BEGIN A-----\n \n a: b\n-----END A-----\n",
        "\\n",
        "\\\\\\\\r",
        "\r",
        " \n",
    ],
)
@pytest.mark.parametrize("inside", [True, False])
def test_a_mebibyte_of_anything_takes_a_moment(piece: str, inside: bool) -> None:
    text = piece * (2**20 // len(piece))
    if inside:
        text = f"-----BEGIN X-----\n{text}\n-----END X-----\n"
    began = time.process_time()
    changed = normalised(text)
    assert time.process_time() - began < 5  # of the quadratic kind: minutes
    assert len(changed) <= 2 * len(text) + 200
    assert [block.label for block in blocks(changed)] == [block.label for block in blocks(text)]


@pytest.mark.skipif(os.name != "posix", reason="files have no modes there")
@pytest.mark.parametrize(
    ("owner", "group", "mode", "us", "ours", "warned"),
    [
        (0, 1000, 0o440, 1000, [1000], False),  # as Kubernetes mounts a secret with fsGroup
        (0, 1000, 0o640, 1000, [1000], False),
        (0, 1000, 0o440, 0, [0], False),
        (0, 1000, 0o640, 0, [0, 1000], False),
        (0, 0, 0o400, 0, [0], False),
        (0, 1000, 0o444, 1000, [1000], True),
        (0, 1000, 0o644, 1000, [1000], True),
        (0, 1000, 0o460, 1000, [1000], True),
        (0, 2000, 0o440, 1000, [1000], True),
        (1000, 1000, 0o440, 1000, [1000], True),
        (1000, 1000, 0o640, 1000, [1000], True),
        (0, 0, 0o640, 0, [0], True),
        (0, 0, 0o644, 0, [0], True),
        (0, 1000, 0o404, 0, [0], True),
    ],
)
def test_who_may_read_a_key(
    owner: int,
    group: int,
    mode: int,
    us: int,
    ours: list[int],
    warned: bool,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from sealwire.security.checks.findings import exposed

    path = tmp_path / "identity.pem"
    path.touch(mode=0o600)
    path.write_text(NODE.pem + NODE.key_pem)
    real = os.stat(path)
    times = {name: getattr(real, name) for name in ("st_atime_ns", "st_mtime_ns", "st_ctime_ns")}
    seen = os.stat_result((0o100000 | mode, *real[1:4], owner, group, *real[6:10]), times)
    monkeypatch.setattr(os, "geteuid", lambda: us)
    monkeypatch.setattr(os, "getegid", lambda: ours[0])
    monkeypatch.setattr(os, "getgroups", lambda: ours)
    with monkeypatch.context() as patch:
        found, here = os.stat, os.fstat
        patch.setattr(os, "fstat", lambda fd: seen if here(fd).st_ino == real.st_ino else here(fd))
        patch.setattr(os, "stat", lambda p, **k: seen if str(p) == str(path) else found(p, **k))
        server_context(Security(tls_ca_file=CA.pem, tls_scheduler_cert=path))
        told = list(exposed(str(path)))
    of_key = [line for line in caplog.messages if "can be read by group or others" in line]
    assert len(of_key) == warned
    assert bool(told) is warned
