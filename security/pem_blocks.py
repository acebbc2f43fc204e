"""Splits PEM text into its blocks, in linear time."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import defaultdict
from dataclasses import dataclass, field

__all__ = ["Block", "blocks", "is_torn"]

_BEGIN = "-----BEGIN "
# The dashes after a label are not consumed: those of an END may also begin the next marker.
_MARKER = re.compile(r"-----(BEGIN|END) ([A-Z0-9 ]+)(?=-----)")
_DASHES = 5
_NOT_ASCII = re.compile(r"[^\x00-\x7f]")


@dataclass(frozen=True)
class Block:
    """One `-----BEGIN label-----` … `-----END label-----` block; `text` includes both lines."""

    label: str
    text: str
    #: where in the text it was found in
    at: int = field(default=-1, compare=False)

    @property
    def is_certificate(self) -> bool:
        """Whether it is an X.509 certificate."""
        return self.label == "CERTIFICATE"

    @property
    def is_revocation_list(self) -> bool:
        """Whether it is a CRL."""
        return self.label == "X509 CRL"

    @property
    def is_private_key(self) -> bool:
        """Whether it is a private key, of any format."""
        return self.label.endswith("PRIVATE KEY")

    @property
    def is_encrypted(self) -> bool:
        """Whether it is an encrypted private key."""
        return self.label.startswith("ENCRYPTED") or "Proc-Type: 4,ENCRYPTED" in self.text

    def __repr__(self) -> str:  # the text may be a key
        return f"Block({self.label!r})"


def blocks(text: str) -> list[Block]:
    """Return the PEM blocks of a text, in order; text between them is ignored.

    A block extends from a BEGIN to the next END of the same label, with only ASCII in between; a
    BEGIN without such an END is skipped. Each marker is visited once.
    """
    begins: list[tuple[int, int, str]] = []  # start of the marker, its end, label
    ends: dict[str, list[int]] = defaultdict(list)
    for mark in _MARKER.finditer(text):
        if mark[1] == "BEGIN":
            begins.append((mark.start(), mark.end() + _DASHES, mark[2]))
        else:
            ends[mark[2]].append(mark.start())
    found = []
    after = 0  # the end of the previous block
    foreign = -1  # the first non-ASCII character from `inner` on
    for start, inner, label in begins:
        if start < after:
            continue
        candidates = ends[label]
        at = bisect_left(candidates, inner)
        if at == len(candidates):
            continue
        end = candidates[at]
        if foreign < inner:
            strange = _NOT_ASCII.search(text, inner)
            foreign = strange.start() if strange else len(text)
        if foreign < end:
            continue
        after = end + len(f"-----END {label}-----")
        found.append(Block(label, text[start:after], start))
    return found


def is_torn(text: str, found: list[Block]) -> bool:
    """Whether a text has BEGIN markers besides its complete blocks."""
    return text.count(_BEGIN) != len(found)
