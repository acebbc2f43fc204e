"""Local sockets beside tcp on loopback: a table for docs/performance.md."""

from __future__ import annotations

from typing import Any

import report
import words
from cases import BY_NAME, FIGURES, STANDALONE, UNIX


def table(run: dict[str, Any]) -> list[str]:
    """A line for each case that was measured over both, as Markdown; empty if none was."""
    lines = []
    for result in run["results"]:
        found, case = result["figures"], BY_NAME[result["case"]]
        if result["link"] != "tcp" or not {UNIX, STANDALONE} <= found.keys():
            continue
        figure = FIGURES[case.value]
        tcp, unix = (found[name][case.value]["median"] for name in (STANDALONE, UNIX))
        shown = [f"{report.number(each, figure.digits)} {figure.unit}" for each in (tcp, unix)]
        lines.append(f"| {words.case(case.name)} | {' | '.join(shown)} | {unix / tcp:.2f}× |")
    if not lines:
        return []
    return [
        "Between processes of one machine, over `unix://` beside `tcp://` on loopback:",
        "",
        "| | tcp | unix | unix to tcp |",
        "|---|--:|--:|--:|",
        *lines,
        "",
    ]
