"""How the command line shows what others wrote: as a cell of a table, as JSON, as a logged line.

All text that comes from outside passes `cell`, `to_json` or `security.text.visible`: names in
certificates, names of files, columns of a journal, answers of servers. Neither a terminal nor rich
ever finds an instruction in it: no control sequence, no markup, no `:emoji:`.
"""

from __future__ import annotations

import json
import logging
import sys
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rich.text import Text

__all__ = ["CELL", "cell", "log_visibly", "to_json", "visible"]

#: characters of one cell; --json has all of them
CELL = 1000


def visible(text: str, *, longest: int | None = None, lines: bool = False) -> str:
    """`security.text.visible`, loaded when there is something to be shown."""
    from sealwire.security import text as module

    return module.visible(text, longest=longest, lines=lines)


def cell(text: object, style: str = "") -> Text:
    """Text for rich that stands for itself."""
    from rich.text import Text

    return Text(visible(str(text), longest=CELL), style=style)


def to_json(value: Any, **how: Any) -> str:
    """JSON in printable ASCII; names of fields may be of any kind."""
    return json.dumps(value, indent=2, **how).replace("\x7f", "\\u007f")


class _Visible(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return visible(super().format(record), lines=bool(record.exc_info))


if TYPE_CHECKING:
    _Handler = logging.StreamHandler[TextIO]
else:  # not to be subscripted before Python 3.11
    _Handler = logging.StreamHandler


class _ToStderr(_Handler):
    """To what is standard error when something is logged."""

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
    """Let warnings of ours reach standard error in visible text, unless logs go elsewhere.

    Python would write them there as they are.
    """
    logger = logging.getLogger("sealwire")
    if not logger.hasHandlers():
        logger.addHandler(_ToStderr())
