"""A dashboard as an HTTP client sees it: pages, their tables, and how long to ask."""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any, TypeVar

from support import HANG

T = TypeVar("T")


def get(url: str) -> str:
    """The body of a page; raises for anything but 200."""
    with urllib.request.urlopen(url, timeout=HANG) as reply:
        text: str = reply.read().decode()
        return text


def until(read: Callable[[], T], good: Callable[[T], object]) -> T:
    """Read again until it is good."""
    deadline = time.monotonic() + HANG
    while True:
        found = read()
        if good(found):
            return found
        assert time.monotonic() < deadline, f"never came: {found}"
        time.sleep(0.1)


def get_json(url: str) -> Any:
    return json.loads(get(url))


class Page(HTMLParser):
    """Its tables as rows of texts, and the tags that it consists of."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.tables: dict[str, list[list[str]]] = {}
        self.text = ""
        self._table: list[list[str]] = []
        self._cell: str | None = None
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "table":
            self._table = self.tables.setdefault(str(dict(attrs).get("id")), [])
        elif tag == "tr":
            self._table.append([])
        elif tag in ("td", "th"):
            self._cell = ""

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th") and self._cell is not None:
            self._table[-1].append(self._cell.strip())
            self._cell = None

    def handle_data(self, data: str) -> None:
        self.text += data
        if self._cell is not None:
            self._cell += data

    def rows(self, table: str) -> list[dict[str, str]]:
        """The rows of a table, by the names of its columns."""
        head, *rows = self.tables[table]
        return [dict(zip(head, row, strict=True)) for row in rows]
