"""What a scheduler tells of its cluster, as tables of a terminal; whatever it tells is escaped."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from sealwire.cli.console import cell
from sealwire.dask_backend.dashboard import words

__all__ = ["fitted", "whole"]

_STYLES = {"bad": "bold red", "warn": "yellow", "stock": "cyan", "ok": "green"}
_NAMES = {"processes": ("process", "processes"), "links": ("link", "links")}
_ABOVE = 9  # lines of a screen that are no rows
_ODD = "its answer cannot be shown: install the same version of sealwire on both sides"

View = Mapping[str, Any]


def whole(view: View) -> RenderableType:
    """Return everything there is."""
    return _shown(view, None, "")


def fitted(view: View, height: int, trouble: str) -> RenderableType:
    """Return what fits a screen of that many lines: a third of it for processes."""
    return _shown(view, max(height - _ABOVE, 2), trouble)


def _shown(view: View, room: int | None, trouble: str) -> RenderableType:
    try:
        processes, links = len(view["processes"]), len(view["links"])
        if room is not None:
            processes = min(processes, max(room // 3, 1))
            links = max(room - processes, 1)
        parts: list[RenderableType] = [cell(words.headline(view), "bold")]
        parts.append(cell(_state(view)))
        parts.append(_processes(view, processes))
        parts.append(_links(view, links))
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        return cell(_ODD, "bold red")
    if trouble:
        parts.insert(0, cell(trouble, "bold red"))
    return Group(*parts)


def _state(view: View) -> str:
    summary = view["summary"]
    refused = words.counts(summary["refused_within_the_hour"])
    parts = [time.strftime("%H:%M:%S", time.localtime(view["time"]))]
    parts.append(f"refused within the last hour: {'nobody' if refused == '–' else refused}")
    if first := summary["first_to_end"]:
        named = f"{first['kind']} {first['name']}".rstrip()
        parts.append(f"first to expire: {named}, {words.days(first['days'])}")
    return "; ".join(parts)


def _mark(state: str) -> Text:
    sign, word = words.STATES[state]
    return Text(f"{sign} {word}", _STYLES[state])


def _table(title: str, *columns: str, right: Sequence[str] = ()) -> Table:
    made = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for column in columns:
        figure = column in right
        made.add_column(column, justify="right" if figure else "left", no_wrap=figure)
    return made


def _title(view: View, what: str, shown: int) -> str:
    total = len(view[what]) + view[f"{what}_left_out"]
    more = f", {shown} of them here" if shown < total else ""
    return f"\n{words.number(total, *_NAMES[what])}{more}"


def _processes(view: View, most: int) -> Table:
    rows = view["processes"][:most]
    made = _table(
        _title(view, "processes", len(rows)),
        "state", "process", "backend", "links", "certificate", "refused", "what is wrong",
        right=("links", "certificate"),
    )  # fmt: skip
    for row in rows:
        own = next((each for each in row["certificates"] if each["kind"] == "own"), None)
        texts = [
            row["name"],
            row["backend"],
            words.links(row),
            words.days(own["days"] if own else None),
            words.counts(row["refused"]),
            "; ".join(row["faults"]),
        ]
        made.add_row(_mark(row["state"]), *map(cell, texts))
    return made


def _links(view: View, most: int) -> Table:
    rows = view["links"][:most]
    made = _table(
        _title(view, "links", len(rows)),
        "state", "process", "peer", "its certificate", "TLS", "age", "in", "out", "round trip",
        "what is wrong", right=("age", "in", "out", "round trip"),
    )  # fmt: skip
    for row in rows:
        texts = [
            row["process"],
            row["other"] or row["peer"],
            row["identity"] or "–",
            (row["protocol"] or "plain").replace("TLSv", ""),
            words.seconds(row["age"]),
            words.size(row["bytes_in"]),
            words.size(row["bytes_out"]),
            words.round_trip(row["round_trip_us"]),
            "; ".join(row["faults"]),
        ]
        made.add_row(_mark(row["state"]), *map(cell, texts))
    return made
