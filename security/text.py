"""Text that somebody else wrote, made fit to be shown: certificates' names, file names, answers.

Whoever fills a certificate in, names a file or answers a connection would else write on our user's
terminal: move its cursor, set its title, forge a line of a table, turn the direction of writing.
"""

from __future__ import annotations

import re

__all__ = ["visible"]

# Printable by Python's word, and yet nothing that can be seen: joiners, fillers, selectors.
_UNSEEN = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0"
                     "\U000e0100-\U000e01ef]")  # fmt: skip

# As many marks upon one character as writing needs; a pile of them covers the lines around.
_MARKS = 4


def visible(text: str, *, longest: int | None = None, lines: bool = False) -> str:
    r"""The text with everything that is not plainly seen written out, as Python would: `\x1b`.

    That is all controls (C0, C1, DEL), ends of lines, marks that turn the direction of writing,
    spaces other than the common one, what has no width, and halves of surrogate pairs. What is cut
    off beyond `longest` characters is said. With `lines`, newlines stay: for a text of ours that
    has some.
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
