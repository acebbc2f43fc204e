r"""PEM text as people have it: made what OpenSSL reads where no doubt is left, else named.

On its way through editors, shells, variables and mail a PEM file gets other line ends (CR alone, or
`\n` written out), indentation, a byte order mark, two bytes a character. None of these leaves a
doubt about the base64 within, and so they are undone. What is no PEM text at all is told by its
looks, with the command that makes PEM of it. No part of what was read is in any of the words.
"""

from __future__ import annotations

import base64
import re

from . import der
from .pem_blocks import Block, blocks

__all__ = [
    "contents_of",
    "decoded",
    "first_line",
    "in_utf8",
    "looks_of",
    "normalised",
    "password_hint",
    "reason_of",
    "without_mark",
]

_LINE = 64
_BASE64 = re.compile(r"[A-Za-z0-9+/]+={0,2}")
_HEADER = re.compile(r"[A-Za-z0-9-]+: ")
_LINE_END = re.compile(r"\\{1,4}r\\{1,4}n|\\{1,4}[nr]|\r\n?")
# What OpenSSL does not read, and cannot be part of base64.
_UNFIT = re.compile(r"\\|\r(?!\n)|\n[ \t\f\v]|[ \t]\r?\n|\n\r?\n")

_MARKS = (
    (b"\xef\xbb\xbf", "utf-8"),
    (b"\xff\xfe\0\0", "utf-32-le"),
    (b"\0\0\xfe\xff", "utf-32-be"),
    (b"\xff\xfe", "utf-16-le"),
    (b"\xfe\xff", "utf-16-be"),
)
_STRAY = re.compile(r"[^A-Za-z0-9+/=\s]")
_MOST_STRAYS = 8
_ARMOUR = re.compile(rb"(?i)\bbegin.{0,40}?(?:certificate|private|crl)", re.DOTALL)
_LONGEST_BASE64 = 2**20
# Encoded now: a process that has given up its rights may not be able to load a codec later.
_WIDE = tuple(
    (encoding, "-----BEGIN ".encode(encoding))
    for encoding in ("utf-32-le", "utf-32-be", "utf-16-le", "utf-16-be")
)
_SAMPLE = 64  # bytes in which UTF-16 without a mark shows


def decoded(data: bytes) -> str:
    """Return the text of a file: blocks are ASCII, comments around them may be in any encoding.

    A byte order mark is left out, and says how the rest is to be read.
    """
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            encoding = "ascii" if encoding == "utf-8" else encoding
            return data[len(mark) :].decode(encoding, "replace")
    for encoding, begin in _WIDE:
        at = data.find(begin)
        if at >= 0:
            return data[at % (int(encoding[4:6]) // 8) :].decode(encoding, "replace")
    head = data[: _SAMPLE - _SAMPLE % 2]
    for encoding, zeros, others in (
        ("utf-16-le", head[1::2], head[::2]),
        ("utf-16-be", head[::2], head[1::2]),
    ):
        if len(head) >= 4 and not any(zeros) and all(others):
            return data.decode(encoding, "replace")
    return data.decode("ascii", "replace")


def without_mark(value: str | bytes) -> str | bytes:
    """Return a password as it was meant: editors put a byte order mark before a text."""
    if isinstance(value, bytes):
        return value.removeprefix(b"\xef\xbb\xbf")
    return value.removeprefix("\ufeff").removeprefix("\xef\xbb\xbf")  # the same, read as Latin-1


def in_utf8(data: bytes) -> bytes:
    """Return a text as UTF-8, without its mark, where a mark says what it is."""
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return data[len(mark) :].decode(encoding, "replace").encode()
    return data


def first_line(data: bytes) -> bytes:
    """Return the first line of a password file, as UTF-8 where a mark says what it was."""
    return next(iter(in_utf8(data).splitlines()), b"")


def normalised(text: str) -> str:
    """Make the blocks of a text what OpenSSL reads, where their form alone is wrong."""
    pieces = []
    at = 0
    for block in blocks(text):
        if _UNFIT.search(block.text):
            pieces += [text[at : block.at], _mended(block)]
            at = block.at + len(block.text)
    return "".join([*pieces, text[at:]]) if pieces else text


def _mended(block: Block) -> str:
    begin, end = f"-----BEGIN {block.label}-----", f"-----END {block.label}-----"
    inner = _LINE_END.sub("\n", block.text[len(begin) : -len(end)])
    lines = [line.strip() for line in inner.lstrip().split("\n")]
    headers = 0
    if lines and _HEADER.match(lines[0]) and "" in lines:  # of an encrypted key, as in RFC 1421
        headers = lines.index("") + 1
    body = "".join(lines[headers:])
    if not _BASE64.fullmatch(body):
        return block.text
    rows = [body[start : start + _LINE] for start in range(0, len(body), _LINE)]
    return "\n".join([begin, *lines[:headers], *rows, end])


_PKCS12 = bytes.fromhex("06092a864886f70d0107")  # PKCS#7 data, of which the container consists
_PKCS7 = bytes.fromhex("06092a864886f70d010702")
# Within the outer sequence: one with version 0 and a name, and one that names a cipher (PKCS#5).
_REQUEST = re.compile(rb"\x30(?:[\0-\x7f]|\x81.|\x82..)\x02\x01\x00\x30", re.DOTALL)
_LOCKED = re.compile(rb"\x30.\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x05", re.DOTALL)
_OPENSSL = "a DER file must be converted: openssl"
_PKCS12_WORDS = (
    "it looks like a PKCS#12 container (.p12, .pfx); take certificate and key out of it: "
    "openssl pkcs12 -in FILE -nodes -out NEW.pem"
)
_BEGINNINGS = (
    (b"\xfe\xed\xfe\xed", "it looks like a Java keystore; export it as PKCS#12, and that as PEM"),
    (b"\xce\xce\xce\xce", "it looks like a Java keystore; export it as PKCS#12, and that as PEM"),
    (b"LS0tLS1CRUdJTi", "it looks like PEM text in base64 once more; decode it: base64 -d"),
    (b"PuTTY-User-Key-File", "it looks like PuTTY's key; export it as PEM, with openssl's format"),
    (b"ssh-", "it looks like a public key of SSH; give a key and a certificate for TLS"),
    (b"AGE-SECRET-KEY-", "it looks like a key of age; give a key and a certificate for TLS"),
    (b"age-encryption.org/", "it looks like a file that age has encrypted; decrypt it"),
    (b"$ANSIBLE_VAULT", "it looks like a file of Ansible Vault; decrypt it: ansible-vault view"),
    (b"ENC[", "it looks like a value that SOPS has encrypted; decrypt it: sops -d"),
    (b"-----BEGIN%20", "it looks like PEM text in the form of URLs (%20, %0A); decode it"),
    (b"PK\x03\x04", "it looks like a zip archive; unpack it"),
    (b"\x1f\x8b", "it looks like a gzip archive; unpack it"),
    (b"<", "it looks like a page of HTML or XML; fetch the file itself"),
    (b"{", "it looks like JSON; give the PEM text in it alone"),
)


def reason_of(error: Exception, text: str = "") -> str:
    """Return what OpenSSL does not take: its word in brackets, and what is not base64."""
    reason = getattr(error, "reason", None)
    return (f" ({reason})" if reason else "") + _strays(text)


def _strays(text: str) -> str:
    """Name the characters in blocks that cannot be part of them, of which no key consists."""
    found: dict[str, None] = {}
    for block in blocks(text):
        lines = block.text.splitlines()[1:-1]
        for mark in "-+":
            if len(lines) > 1 and all(line.startswith(mark) for line in lines):
                return f": each line in it begins with {mark}, as in lists and patches; take it out"
        if any(line.endswith("=") for line in lines[:-1]):
            return ": its lines end with =, as in mail (quoted-printable); decode it"
        found.update(dict.fromkeys(_STRAY.findall("\n".join(x for x in lines if ":" not in x))))
    if not found:
        return ""
    if found.keys() <= {"-", "_"}:
        return ": it is base64url; write + and / in place of - and _"
    shown = " ".join(sorted(found)[:_MOST_STRAYS])
    return (
        f": between its BEGIN and END lines are characters that are not base64 ({shown}), as mail, "
        "HTML and program text have them around the lines; take them out"
    )


def password_hint(password: str | bytes) -> str:
    """Say what a password has that may not be part of it; "" if nothing."""
    text = password.decode("latin-1") if isinstance(password, bytes) else password
    if text != text.strip():
        return ", which begins or ends with white space or a line end"
    return ", which is in quotes" if len(text) > 1 and text[0] == text[-1] in "'\"" else ""


_REMEDIES = {
    "X509 CERTIFICATE": "write CERTIFICATE in place of X509 CERTIFICATE",
    "PUBLIC KEY": "give the certificate that was issued for it",
    "CERTIFICATE REQUEST": "a CA has yet to make a certificate of it",
    "OPENSSH PRIVATE KEY": "convert it: ssh-keygen -p -m PEM -f FILE",
    "PGP PRIVATE KEY BLOCK": "a key of PGP is none for TLS",
    "PGP PUBLIC KEY BLOCK": "a key of PGP is none for TLS",
    "PKCS7": "take the certificates out: openssl pkcs7 -print_certs -in FILE",
    "TRUSTED CERTIFICATE": "convert it: openssl x509 -in FILE -out NEW.pem",
}


def contents_of(found: list[Block], looks: str) -> str:
    """Return what was found instead of what was looked for, and how to convert it."""
    if not found:
        return "nor any other complete PEM block" + (
            f": {looks}" if looks else "; it must have a line with -----BEGIN"
        )
    labels = dict.fromkeys(block.label for block in found)
    remedies = [_REMEDIES[label] for label in labels if label in _REMEDIES]
    return "; ".join(["only " + ", ".join(labels), *remedies])


def looks_of(data: bytes, again: bool = True) -> str:
    """Return what data without a PEM block looks like, and what to do; "" if unknown.

    `again` says whether to look into base64.
    """
    bare = data[:4096].lstrip(b"\xef\xbb\xbf\t\r\n ")
    for beginning, words in _BEGINNINGS:
        if bare.startswith(beginning):
            return words
    if data[:1] == b"\x30" and len(data) > 4:
        return _looks_of_der(data)
    if b"-----BEGIN " in data:
        return (
            "its BEGIN line has no END line of the same label, or there is more than ASCII between "
            "them; it is cut short, or was pasted from a document"
        )
    if _ARMOUR.search(bare):
        return (
            "it looks like PEM text whose BEGIN line is damaged; write it in capitals, with five "
            "plain dashes on both sides and plain spaces: -----BEGIN CERTIFICATE-----"
        )
    inner = _within_base64(data) if again else b""
    words = looks_of(inner, again=False) if inner else ""
    return words and f"it is base64 without BEGIN and END lines; decode it: base64 -d; then {words}"


def _within_base64(data: bytes) -> bytes:
    bare = b"".join(data[:_LONGEST_BASE64].split())
    try:
        return base64.b64decode(bare, validate=True) if len(data) <= _LONGEST_BASE64 else b""
    except ValueError:
        return b""


def _looks_of_der(data: bytes) -> str:
    size = 2 + (data[1] & 0x7F if data[1] & 0x80 else 0)
    inside = data[size : size + 40]
    if inside.startswith(b"\x02\x01\x03") and _PKCS12 in inside:
        return _PKCS12_WORDS
    if inside.startswith(_PKCS7):
        return f"it looks like a DER file of PKCS#7; {_OPENSSL} pkcs7 -inform DER -print_certs"
    if inside.startswith((b"\x02\x01\x00", b"\x02\x01\x01")):
        return f"it looks like a DER file of a key; {_OPENSSL} pkey -inform DER"
    if _REQUEST.match(inside):
        return f"it looks like a DER file of a certificate request; {_OPENSSL} req -inform DER"
    if _LOCKED.match(inside):
        return f"it looks like a DER file of an encrypted key; {_OPENSSL} pkey -inform DER"
    if der.facts_of(data) is not None:
        return f"it looks like a DER file of a certificate; {_OPENSSL} x509 -inform DER"
    if der.lifetime_of(data) is not None:
        return f"it looks like a DER file of a CRL; {_OPENSSL} crl -inform DER"
    return "it looks like a DER file; a DER file must be converted to PEM"
