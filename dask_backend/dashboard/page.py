"""The page, made on the server from what `cluster.as_dict` returns. A pure function.

Every value passes `_text`, since names of workers and certificates are other people's.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from . import words
from .assets import SCRIPT, STYLE

__all__ = ["render"]

_PROCESSES = (
    "state", "process", "address", "backend", "links", "in", "out", "certificates",
    "refused, last hour", "last heard", "what is wrong",
)  # fmt: skip
_LINKS = (
    "state", "process", "peer", "its certificate", "TLS", "cipher", "backend", "age", "in", "out",
    "round trip", "expires in", "what is wrong",
)  # fmt: skip
_NAMES = {"processes": ("process", "processes"), "links": ("link", "links")}
_FIGURES = frozenset(("links", "in", "out", "last heard", "age", "round trip", "expires in"))


def render(view: Mapping[str, Any], drawing: str, pages: Sequence[str] | None) -> str:
    """Return the whole document.

    Parameters
    ----------
    view : mapping
        As of `cluster.as_dict`.
    drawing : str
        An ``<svg>`` element.
    pages : sequence of str or None
        The dashboard's menu; None for a page that is embedded.
    """
    return (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>sealwire</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<link rel="icon" href="data:,"><style>{STYLE}</style></head><body>'
        f"{_menu(pages)}{_bar(view)}{_main(view, drawing)}<script>{SCRIPT}</script></body></html>"
    )


def _text(value: object) -> str:
    return escape(str(value), quote=True)


def _menu(pages: Sequence[str] | None) -> str:
    if pages is None:
        return ""
    links = []
    for page in pages:
        here = ' aria-current="page"' if page == "sealwire" else ""
        links.append(f'<a href="{_text(page)}"{here}>{_text(page.title())}</a>')
    return f'<nav aria-label="Dashboard">{"".join(links)}</nav>'


def _bar(view: Mapping[str, Any]) -> str:
    return (
        '<div class="bar"><form role="search"><label>Rows with <input name="find" type="search" '
        f'maxlength="100" value="{_text(view["find"])}"></label> <button>Find</button></form>'
        '<label><input type="checkbox" id="live" checked> refresh every 5 s</label>'
        '<a href="sealwire.json">as JSON</a><span id="told" class="old" role="status"></span></div>'
    )


def _main(view: Mapping[str, Any], drawing: str) -> str:
    when = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(view["time"]))
    parts = [
        f"<main><h1>Links of the cluster</h1><p>{_text(words.headline(view))} {when}.</p>",
        f"<p>Refused within the last hour: {_text(_refused(view))}.{_first_to_end(view)}</p>",
        drawing,
        f"<p>{_legend()}</p>",
        "<h2>Processes</h2>",
        _table(view, "processes", _PROCESSES, (_process(row) for row in view["processes"])),
        "<h2>Links</h2>",
        _table(view, "links", _LINKS, (_link(row) for row in view["links"])),
        "</main>",
    ]
    return "".join(parts)


def _refused(view: Mapping[str, Any]) -> str:
    counts = view["summary"]["refused_within_the_hour"]
    return words.counts(counts) if counts else "nobody"


def _first_to_end(view: Mapping[str, Any]) -> str:
    first = view["summary"]["first_to_end"]
    if first is None:
        return ""
    named = f"{first['kind']} {first['name']}".rstrip()
    left = words.days(first["days"])
    left = f"in {left}" if first["days"] >= 0 else left
    return f" The first certificate to expire: {_text(named)}, {left}."


def _mark(state: str) -> str:
    sign, word = words.STATES[state]
    return f'<span class="mark {state}"><span aria-hidden="true">{sign}</span> {_text(word)}</span>'


def _legend() -> str:
    return " &nbsp; ".join([*map(_mark, words.STATES), "○ client"])


def _table(
    view: Mapping[str, Any], what: str, columns: Sequence[str], rows: Iterable[Sequence[str]]
) -> str:
    shown, left_out = len(view[what]), view[f"{what}_left_out"]
    caption = words.number(shown, *_NAMES[what])
    if left_out:
        are = "is" if left_out == 1 else "are"
        caption += f"; {left_out} more {are} left out: find some, or add ?rows=1000 to the address"
    if view["find"]:
        caption += f", with {view['find']}"
    head = "".join(f'<th scope="col">{_text(column)}</th>' for column in columns)
    body = "".join(
        "<tr>"
        + "".join(
            f'<td class="n">{cell}</td>' if column in _FIGURES else f"<td>{cell}</td>"
            for column, cell in zip(columns, row, strict=True)
        )
        + "</tr>"
        for row in rows
    )
    return (
        f'<div class="scroll"><table id="{what}"><caption>{_text(caption)}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _process(row: Mapping[str, Any]) -> list[str]:
    untold = words.is_untold(row)
    shares = f", in the process of {row['in_the_process_of']}" if row["in_the_process_of"] else ""
    texts = [
        row["name"],
        row["address"],
        f"{row['backend']}{shares}",
        words.links(row),
        words.size(None if untold else row["bytes_in"]),
        words.size(None if untold else row["bytes_out"]),
        words.certificates(row),
        words.counts(row["refused"]),
        words.seconds(row["heard"]),
        "; ".join(row["faults"]),
    ]
    return [_mark(row["state"]), *map(_text, texts)]


def _link(row: Mapping[str, Any]) -> list[str]:
    peer = f"{row['other']} ({row['peer']})" if row["other"] else row["peer"]
    texts = [
        row["process"],
        peer,
        row["identity"] or "–",
        row["protocol"] or "plain",
        row["cipher"] or "–",
        row["backend"] or "–",
        words.seconds(row["age"]),
        words.size(row["bytes_in"]),
        words.size(row["bytes_out"]),
        words.round_trip(row["round_trip_us"]),
        words.days(row["days"]),
        "; ".join(row["faults"]),
    ]
    return [_mark(row["state"]), *map(_text, texts)]
