"""PEM text that came through something: taken as it was meant, or named, with what to do."""

from __future__ import annotations

import base64
import html
import subprocess
import sys
import textwrap
import urllib.parse
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from sealwire.security import PEMError, Security
from support import certs

CA = certs.root("ca")
NODE = certs.leaf(CA, "worker")
BOTH = NODE.pem + NODE.key_pem


def use(certificate: str, ca: str = CA.pem, **fields: object) -> None:
    security = Security(tls_ca_file=ca, tls_worker_cert=certificate, **fields)
    assert security.get_connection_args("worker")["ssl_context"] is not None


def file(folder: Path, data: bytes) -> str:
    path = folder / "worker.pem"
    path.touch(mode=0o600)
    path.write_bytes(data)
    return str(path)


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
@pytest.mark.parametrize("before", ["", "中文证书\n", "x", "Schlüssel für „Knoten“\n"])
def test_wide_characters_without_a_mark(encoding: str, before: str, tmp_path: Path) -> None:
    use(file(tmp_path, (before + BOTH).encode(encoding)))


WRAPPED: dict[str, tuple[Callable[[str], str], str]] = {
    "mail": (lambda text: "".join(f"> {line}\n" for line in text.splitlines()), r"\(>\)"),
    "comment": (lambda text: "".join(f"# {line}\n" for line in text.splitlines()), r"\(#\)"),
    "strings": (lambda text: "".join(f'"{line}"\n' for line in text.splitlines()), r'\("\)'),
    "lines of HTML": (lambda text: text.replace("\n", "<br>\n"), r"\(< >\)"),
    "references": (lambda text: text.replace("=", "&#61;").replace("A", "&#65;"), r"\(# & ;\)"),
    "escaped": (lambda text: html.escape(text.replace("A", "<A")), r"\(& ;\)"),
}


@pytest.mark.parametrize("kind", WRAPPED)
@pytest.mark.parametrize("where", ["certificate", "ca"])
def test_what_stands_around_the_lines_is_named(kind: str, where: str) -> None:
    wrap, words = WRAPPED[kind]
    values = {"certificate": BOTH, "ca": CA.pem}
    values[where] = wrap(values[where].replace("CERTIFICATE", "c").replace("PRIVATE KEY", "k"))
    values[where] = values[where].replace(" c", " CERTIFICATE").replace(" k", " PRIVATE KEY")
    with pytest.raises(PEMError, match="characters that are not base64 " + words) as caught:
        use(**values)
    assert "take them out" in str(caught.value)


PREFIXED: dict[str, tuple[Callable[[list[str]], list[str]], str]] = {
    "list": (lambda rows: [f"- {row}" for row in rows], "each line in it begins with -, as in"),
    "list without blanks": (lambda rows: [f"-{row}" for row in rows], "begins with -, as in lists"),
    "patch": (lambda rows: [f"+{row}" for row in rows], "begins with +, as in lists and patches"),
    "mail": (
        lambda rows: [row.replace("=", "=3D") + "=" for row in rows],
        "its lines end with =, as in mail",
    ),
}


@pytest.mark.parametrize("kind", PREFIXED)
@pytest.mark.parametrize("in_memory", [True, False])
def test_what_each_line_has_is_named(kind: str, in_memory: bool, tmp_path: Path) -> None:
    change, words = PREFIXED[kind]
    first, *rows, last = NODE.pem.splitlines()
    text = "\n".join([first, *change(rows), last, NODE.key_pem])
    with pytest.raises(PEMError) as caught:
        use(text if in_memory else file(tmp_path, text.encode()))
    assert words in str(caught.value)


LOCKED = {
    "Ansible": ("$ANSIBLE_VAULT;1.1;AES256\n6162\n", "a file of Ansible Vault; decrypt it"),
    "SOPS": ("ENC[AES256_GCM,data:abc,type:str]\n", "a value that SOPS has encrypted"),
    "age": ("age-encryption.org/v1\n-> X25519 a\n", "a file that age has encrypted"),
    "age's key": ("AGE-SECRET-KEY-1ABC\n", "a key of age"),
    "URL": (urllib.parse.quote(BOTH), "PEM text in the form of URLs"),
    "PGP": (NODE.pem.replace("CERTIFICATE", "PGP PRIVATE KEY BLOCK"), "a key of PGP is none"),
}


@pytest.mark.parametrize("kind", LOCKED)
def test_what_other_tools_make_is_named(kind: str, tmp_path: Path) -> None:
    text, words = LOCKED[kind]
    with pytest.raises(PEMError) as caught:
        use(file(tmp_path, text.encode()))
    assert words in str(caught.value)


def test_a_folded_scalar_of_yaml_is_told_from_a_literal_one() -> None:
    use(yaml.safe_load("cert: |\n" + textwrap.indent(BOTH, "  "))["cert"])
    folded = yaml.safe_load("cert: >\n" + textwrap.indent(BOTH, "  "))["cert"]
    with pytest.raises(PEMError, match=r"without its line breaks; .*in YAML: \|, not >"):
        use(folded)


def test_the_first_of_two_keys_is_anothers() -> None:
    with pytest.raises(PEMError, match="give the key of that certificate alone"):
        use(NODE.pem + CA.key_pem + NODE.key_pem)


def test_base64url_is_named() -> None:
    body = "".join(NODE.pem.splitlines()[1:-1])
    changed = body[:60] + "-_" + body[62:]
    text = f"-----BEGIN CERTIFICATE-----\n{changed}\n-----END CERTIFICATE-----\n{NODE.key_pem}"
    with pytest.raises(PEMError, match=r"write \+ and / in place of - and _"):
        use(text)


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("-----", "----"),
        lambda text: text.replace("-----", "—–"),
        lambda text: text.replace("-----BEGIN", "- BEGIN"),
        lambda text: text.replace("BEGIN CERTIFICATE", "BEGIN\u00a0CERTIFICATE"),
        lambda text: text.replace("BEGIN CERTIFICATE", "Begin Certificate"),
    ],
)
@pytest.mark.parametrize("in_memory", [True, False])
def test_a_damaged_begin_line_is_named(
    change: Callable[[str], str], in_memory: bool, tmp_path: Path
) -> None:
    text = change(NODE.pem)
    with pytest.raises(PEMError, match=r"BEGIN line (is damaged|has no END line)"):
        use(text if in_memory else file(tmp_path, text.encode()), tls_worker_key=NODE.key_pem)


@pytest.mark.parametrize("text", [NODE.pem[:-40], NODE.pem.replace("\n", "\u00a0\n")])
def test_a_block_without_its_end_is_named(text: str, tmp_path: Path) -> None:
    with pytest.raises(PEMError, match="its BEGIN line has no END line of the same label"):
        use(file(tmp_path, text.encode()), tls_worker_key=NODE.key_pem)


def der(folder: Path) -> bytes:
    return base64.b64decode("".join(NODE.pem.splitlines()[1:-1]))


def pkcs12(folder: Path) -> bytes:
    return subprocess.run(
        ["openssl", "pkcs12", "-export", "-in", file(folder, BOTH.encode()), "-passout", "pass:x"],
        capture_output=True,
        check=True,
    ).stdout


def secret(folder: Path) -> bytes:
    return base64.b64encode(BOTH.encode())


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (der, "a DER file of a certificate"),
        (pkcs12, r"a PKCS#12 container"),
        (secret, "PEM text in base64 once more"),
    ],
)
@pytest.mark.parametrize("encode", [base64.b64encode, base64.encodebytes])
def test_base64_of_something_else_is_looked_into(
    make: Callable[[Path], bytes],
    words: str,
    encode: Callable[[bytes], bytes],
    tmp_path: Path,
) -> None:
    data = encode(make(tmp_path))
    with pytest.raises(PEMError, match=rf"decode it: base64 -d; then it looks like {words}"):
        use(file(tmp_path, data))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("secret\n", "begins or ends with white space or a line end$"),
        (" secret", "begins or ends with white space or a line end$"),
        (b"secret\r\n", "begins or ends with white space or a line end$"),
        ("'secret'", "is in quotes$"),
        ('"secret"', "is in quotes$"),
        ("other", "check tls_key_password$"),
    ],
)
def test_a_password_with_more_around_it(given: str | bytes, words: str) -> None:
    with pytest.raises(PEMError, match=words):
        use(NODE.pem + NODE.encrypted_key_pem(b"secret"), tls_key_password=given)


def test_a_password_that_ends_with_a_line_end_is_taken_as_it_is() -> None:
    use(NODE.pem + NODE.encrypted_key_pem(b"secret\n"), tls_key_password="secret\n")


@pytest.mark.parametrize(
    ("label", "words"),
    [("X509 CERTIFICATE", "write CERTIFICATE in place"), ("PUBLIC KEY", "give the certificate")],
)
def test_other_labels_are_told_what_to_do(label: str, words: str) -> None:
    with pytest.raises(PEMError, match=words):
        use(NODE.pem.replace("CERTIFICATE", label))


LATE = """
import codecs, encodings, sys
from sealwire.security import Security
ca, node, wide = open(sys.argv[1]).read(), sys.argv[2], sys.argv[3]
encodings.__path__ = []  # as for a process that can no longer read its interpreter's files
for name in (node, wide):
    security = Security(tls_ca_file=ca, tls_worker_cert=name)
    assert security.get_connection_args("worker")["ssl_context"]
"""


def test_files_are_read_where_no_codec_can_be_loaded_any_more(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text(CA.pem)
    node = file(tmp_path, BOTH.encode())
    (tmp_path / "wide.pem").touch(mode=0o600)
    (tmp_path / "wide.pem").write_bytes(BOTH.encode("utf-16-le"))
    subprocess.run(
        [sys.executable, "-c", LATE, str(tmp_path / "ca.pem"), node, str(tmp_path / "wide.pem")],
        cwd=tmp_path,
        timeout=60,
        check=True,
    )
