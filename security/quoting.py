"""What may be shown of a value: nothing that could be part of a private key.

A key may come in any form: PEM text that lost its dashes or line breaks on the way through an
environment variable or a YAML file, its base64 alone, DER. So a value quoted in an error, a log or
a repr is judged here by its appearance, and described instead of shown if it could be part of a
key. A path is shown as far as it exists on this machine, since the name of a folder is no secret.

This is for values of our own user, which may be secret. Text of others, which may be malicious but
is no secret of ours, is escaped by `text.visible`, or made one line by `allowlist.listed`.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Mapping

__all__ = [
    "HIDDEN",
    "damage",
    "hides_key",
    "is_large",
    "key_damage",
    "printable",
    "redacted",
    "shown",
]

#: Shown instead of a path that could be part of a key.
HIDDEN = "not shown, it could be part of a key"

_LONGEST_PATH = 4096 if os.name == "posix" else 32767  # bytes; PATH_MAX of Linux, Windows' own
_LONGEST_NAME = 255  # bytes of one component, on every file system in use
_LONGEST_QUOTE = 200  # characters; more is no help to a reader

# Traces of PEM's armour: BEGIN after dashes of any kind, as word processors and chats make them, or
# before a label. Repetitions are bounded, so that matching takes linear time.
_DASH = r"[-_=*~\u2010-\u2015\u2212\ufe58\ufe63\uff0d]"
_ARMOUR = re.compile(
    rf"{_DASH}{{3,5}}\s{{0,3}}(?i:BEGIN|END)\b"
    rf"|{_DASH}\s{{0,3}}BEGIN[ _+%]"
    r"|\bBEGIN[ _+][A-Z0-9 _+]{0,40}?(?:CERTIFICATE|KEY|CRL|PARAMETERS|REQUEST)\b"
    r"|PRIVATE(?: |%20|\+)KEY"
)
# The base64 of the first bytes of keys and certificates in DER, which are the same for all.
_DER = re.compile(
    r"(?<![A-Za-z0-9])(?:MI[IGH]|MHcC|MC4C|MFEC|MEEC|MHEC)(?=[A-Z0-9+/]*[a-z])[A-Za-z0-9+/]{8}"
)
_WRITTEN_OUT = re.compile(r"\\{1,4}[nr]")  # escaped line breaks, as in JSON and C
_LAYOUT = re.compile(r"\\{1,4}[nrt]|[\s'\",]")
_BASE64 = re.compile(r"[A-Za-z0-9+/=]+")
_ALPHABET = re.compile(r"[A-Za-z0-9+/=_-]{64,}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")

# Random base64 changes between capitals, small letters and digits at two of three steps, a path at
# one of ten. So this many changes in so many consecutive characters are taken for a key: 97 % of
# random texts of 24 characters have such a stretch, 99 % of those of 32, and 1 % of a machine's
# paths, which are then hidden, and only where they do not exist.
_STRETCH, _CHANGES = 14, 7
# The same for rejecting a text as a path: 99.5 % of random texts of 64 characters, 0.05 % of paths,
# and only if there is no such file.
_LONG_STRETCH, _MANY_CHANGES = 24, 13
_SHORTEST_RUN = 12  # characters of base64 that are removed from a text of others
_UNBROKEN = 65  # consecutive letters and digits; hexadecimal digests, as paths have them, have 64


def damage(text: str) -> str | None:
    """Return what is wrong with a text given as a path, and what to do; None if it may be a path.

    It shows nothing of the text. Whatever exists under that name is a path.
    """
    if _exists(text):
        return None
    found = key_damage(text)
    if found is None and any(
        len(part.encode("utf-8", "surrogatepass")) > most
        for part, most in (
            (text, _LONGEST_PATH),
            *((name, _LONGEST_NAME) for name in re.split(r"[/\\]", text)),
        )
    ):
        return (
            f"it is too long for a path ({len(text)} characters) and no PEM text; "
            "give the path of a PEM file or PEM text"
        )
    return found


def key_damage(text: str) -> str | None:
    """As `damage`, only for a text that looks like a damaged key or certificate."""
    if _CONTROL.search(text):
        return "it looks like binary data, such as DER; convert it to PEM, or give a file's path"
    if _ARMOUR.search(text):
        if _WRITTEN_OUT.search(text):
            return (
                "it looks like PEM text with \\n written out in place of its line breaks; "
                "give it with line breaks, or the path of its file"
            )
        return (
            "it looks like PEM text whose BEGIN line is damaged; "
            "give it with five dashes on both sides of BEGIN and END, or the path of its file"
        )
    bare = _LAYOUT.sub("", text)
    if _ALPHABET.fullmatch(bare) and (
        len(bare) > _LONGEST_PATH or _is_wild(bare, _LONG_STRETCH, _MANY_CHANGES)
    ):
        return (
            f"it looks like base64 without its BEGIN and END lines ({len(text)} characters); "
            "give the whole PEM text, or the path of its file"
        )
    return None


def hides_key(text: str) -> bool:
    """Whether a text could be part of a key, so that it must not be shown."""
    if len(text) > _LONGEST_PATH:
        return True
    return _is_key_like(text) and _is_key_like(_unknown_part(text))


def shown(value: object) -> str:
    """Return a value's repr for an error, or a description if long or possibly part of a key."""
    if isinstance(value, bytes | bytearray | memoryview):
        return f"{len(value)} bytes"
    if is_large(value):
        return f"a value of type {type(value).__name__}"
    try:
        text = repr(value)
    except BaseException:  # its own code, which may raise anything, and an int of many digits
        return f"a value of type {type(value).__name__}"
    if "-----BEGIN " in text:
        return "PEM text"
    if isinstance(value, str):
        kind = f"a text of {len(value)} characters"
        hidden = bool(_CONTROL.search(value)) or hides_key(value)
    else:
        kind = f"a value of type {type(value).__name__}"
        hidden = "\\x" in text or hides_key(text)  # bytes within a list
    if hidden:
        return f"{kind}, {HIDDEN}"
    return kind if len(text) > _LONGEST_QUOTE else text


def is_large(value: object) -> bool:
    """Whether a repr would be too long to be shown: aliases in YAML make billions of values."""
    waiting, count = [value], 0
    while waiting and count <= _LONGEST_QUOTE:
        each = waiting.pop()
        count += 1
        if isinstance(each, Mapping):
            waiting += each.values()
        elif isinstance(each, (list, tuple, set, frozenset)):
            waiting += each
    return count > _LONGEST_QUOTE


def redacted(text: str) -> str:
    """Return a text such as a parser's error, without the words that could be part of a key."""
    return re.sub(r"\S+", lambda word: "…" if _is_secret_word(word[0]) else word[0], text)


def printable(path: str) -> str:
    """Return a path for people, with unprintable characters escaped."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in path)


def _is_secret_word(word: str) -> bool:
    bare = word.strip("'\"()[]{}<>,:;*&!%")
    plain = _BASE64.fullmatch(bare) and not (bare.islower() or bare.isupper())
    return hides_key(bare) or (len(bare) >= _SHORTEST_RUN and bool(plain) and not _exists(bare))


def _is_key_like(text: str) -> bool:
    if (
        _ARMOUR.search(text)
        or _DER.search(text)
        or _is_wild(_LAYOUT.sub("", text), _STRETCH, _CHANGES)
    ):
        return True
    return any(len(run) >= _UNBROKEN for run in re.split(r"[^A-Za-z0-9+=]", _LAYOUT.sub("", text)))


def _is_wild(text: str, stretch: int, changes: int) -> bool:
    """Whether some stretch of letters and digits changes class as often as random base64."""
    for found in _BASE64.finditer(text):
        letters = re.sub("[+/=]", "", found[0])
        steps = [0, *(_kind(a) != _kind(b) for a, b in itertools.pairwise(letters))]
        many = sum(steps[:stretch])
        for end in range(stretch, len(letters) + 1):
            part = letters[end - stretch : end]
            if many >= changes and not (part.islower() or part.isupper()):  # digests are one case
                return True
            many += sum(steps[end : end + 1]) - steps[end - stretch + 1]
    return False


def _kind(character: str) -> int:
    return 0 if character.isupper() else 1 if character.islower() else 2


def _unknown_part(path: str) -> str:
    """Return the part of a path that does not exist, from the first missing component on."""
    head, tail = path, ""
    while head and not _exists(head):
        parent, name = os.path.split(head)
        if parent == head:
            break
        head, tail = parent, f"{name}/{tail}"
    return tail if head else path


def _exists(path: str) -> bool:
    try:
        return os.path.lexists(path)
    except (OSError, ValueError):  # ValueError: a null byte
        return False
