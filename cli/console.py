"""How the command line shows untrusted text: as a table cell, as JSON, as a log line.

All text from outside passes `cell`, `to_json` or `security.text.visible`: names in certificates,
file names, columns of a journal, answers of servers. So neither a terminal nor rich interprets
anything in it: no control sequence, no markup, no `:emoji:`.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rich.text import Text

__all__ = ["CELL", "cell", "columns", "log_visibly", "to_json", "visible"]

#: most characters of one cell; --json prints all of them
CELL = 1000


def visible(text: str, *, longest: int | None = None, lines: bool = False) -> str:
    """`security.text.visible`, imported when first needed."""
    from sealwire.security import text as module

    return module.visible(text, longest=longest, lines=lines)


def cell(text: object, style: str = "") -> Text:
    """Text for rich, without markup."""
    from rich.text import Text

    return Text(visible(str(text), longest=CELL), style=style)


def columns(rows: Iterable[Iterable[object]]) -> Iterator[str]:
    """Return rows as lines with aligned columns, for `grep`; rich's tables take ms for each row."""
    shown = [[visible(str(text), longest=CELL) for text in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    for row in shown:
        padded = (text.ljust(width) for text, width in zip(row, widths, strict=True))
        yield "  ".join(padded).rstrip()


def to_json(value: Any, **how: Any) -> str:
    """JSON in printable ASCII; keys may be of any type that `json` takes."""
    return json.dumps(value, indent=2, **how).replace("\x7f", "\\u007f")


class _Visible(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return visible(super().format(record), lines=bool(record.exc_info))


if TYPE_CHECKING:
    _Handler = logging.StreamHandler[TextIO]
else:  # not subscriptable before Python 3.11
    _Handler = logging.StreamHandler


class _ToStderr(_Handler):
    """Logs to the standard error of the time of logging."""

    def __init__(self) -> None:
        logging.Handler.__init__(self, logging.WARNING)
        self.setFormatter(_Visible())

    @property
    def stream(self) -> TextIO:
        return sys.stderr

    @stream.setter
    def stream(self, stream: TextIO) -> None:
        pass


def log_visibly() -> None:
    """Print our warnings on standard error, escaped, unless logging is configured.

    Python's last-resort handler would print them unescaped.
    """
    logger = logging.getLogger("sealwire")
    if not logger.hasHandlers():
        logger.addHandler(_ToStderr())
