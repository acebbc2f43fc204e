"""Escaping of untrusted text before it is shown: names in certificates, file names, answers.

Otherwise whoever fills in a certificate, names a file or answers a connection could write on our
user's terminal: move its cursor, set its title, forge a table row, reverse the text direction.

This is the full escape, for terminals. `comm.errors.quoted` and `contexts.allowlist.listed` put
untrusted text into error messages, where replacing unprintable characters is enough; `quoting`
hides secrets.
"""

from __future__ import annotations

import re

__all__ = ["visible"]

# Printable according to Python, but invisible: joiners, fillers, selectors.
_UNSEEN = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0"
                     "\U000e0100-\U000e01ef]")  # fmt: skip

# The most combining marks per character that writing needs; a pile of them covers other lines.
_MARKS = 4


def visible(text: str, *, longest: int | None = None, lines: bool = False) -> str:
    r"""Escape everything that is not plainly visible, as Python would: `\x1b`.

    That is all control characters (C0, C1, DEL), line ends, direction marks, unusual spaces,
    zero-width characters and halves of surrogate pairs. A text longer than `longest` is cut off,
    and the number of omitted characters appended. With `lines`, newlines are kept: for texts of our
    own.
    """
    shown = text if longest is None else text[:longest]
    if not shown.isascii() or not shown.isprintable():
        shown = "".join(_pieces(shown, lines))
    rest = len(text) - len(text if longest is None else text[:longest])
    return f"{shown}… ({rest} more characters)" if rest else shown


def _pieces(text: str, lines: bool) -> list[str]:
    import unicodedata

    pieces, marks = [], 0
    for character in text:
        marks = marks + 1 if unicodedata.category(character) in ("Mn", "Me") else 0
        plain = character.isprintable() and not _UNSEEN.match(character) and marks <= _MARKS
        keep = plain or (lines and character == "\n")
        pieces.append(character if keep else _written_out(character))
    return pieces


def _written_out(character: str) -> str:
    code = ord(character)
    if character in "\t\n\r":
        return repr(character)[1:-1]
    return (
        f"\\x{code:02x}"
        if code < 0x100
        else f"\\u{code:04x}"
        if code < 0x10000
        else f"\\U{code:08x}"
    )
