"""From figures to words: medians, ratios, verdicts, a table, JSON, and two runs compared."""

from __future__ import annotations

import json
import math
import statistics
from pathlib import Path
from typing import Any

from cases import BY_NAME, FIGURES, Bar, Case
from rich.console import Console
from rich.table import Table

SCHEMA = 1
MISSED, MET, AIMED = "missed", "met", "aim"
STYLES = {MISSED: "bold red", MET: "green", AIMED: "bold green"}


def summary(rounds: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    """Median, least and most of every figure."""
    return {
        name: {
            "median": statistics.median(values),
            "min": min(values),
            "max": max(values),
            "rounds": [round(value, 6) for value in values],  # type: ignore[dict-item]
        }
        for name, values in rounds.items()
    }


def judge(result: dict[str, Any]) -> list[dict[str, Any]]:
    """Every bar of a result that can be judged, with its verdict.

    A result is a case over a link: ``{"case", "link", "figures": {implementation: summary}}``.
    """
    case = BY_NAME[result["case"]]
    verdicts = []
    for ours in case.ours:
        for bar in case.bars:
            if bar.ours and ours not in bar.ours:
                continue
            verdict = _verdict(
                bar, bar.figure if bar.figure != "value" else case.value, ours, result
            )
            if verdict:
                verdicts.append(verdict)
    return verdicts


def _verdict(bar: Bar, figure: str, ours: str, result: dict[str, Any]) -> dict[str, Any] | None:
    found = result["figures"].get(ours, {}).get(figure)
    must, aim = bar.of(result["link"])
    if found is None or (must is None and aim is None):
        return None
    shown: dict[str, Any] = {"ours": ours, "figure": figure, "against": bar.against}
    more = FIGURES[figure].more
    if bar.against:
        other = result["figures"].get(bar.against, {}).get(figure)
        if other is None:
            return None
        values = [
            mine / theirs if more else theirs / mine
            for mine, theirs in zip(found["rounds"], other["rounds"], strict=True)
        ]
        more = True
    else:
        values = found["rounds"]
    value, spread = statistics.median(values), interval(values)
    reached = [
        bound is not None and (value >= bound if more else value <= bound) for bound in (must, aim)
    ]
    if must is not None and not reached[0]:
        verdict = MISSED
    elif reached[1]:
        verdict = AIMED
    else:
        verdict = MET if must is not None else "below aim"
    return {**shown, "value": value, "spread": spread, "must": must, "aim": aim, "verdict": verdict}


def interval(values: list[float]) -> list[float]:
    """Return between which of the values the median lies, with a probability of 0.9 or more.

    By the binomial distribution of how many values are below it; of fewer than five values, the
    least and the greatest.
    """
    ordered = sorted(values)
    count = len(ordered)
    outside, left_out = 0.0, 0
    for below in range(count // 2):
        outside += 2 * math.comb(count, below) / 2**count
        if outside > 0.1:
            break
        left_out = below
    return [ordered[left_out], ordered[-1 - left_out]]


def undecided(result: dict[str, Any]) -> bool:
    """Whether a bar lies within the interval of what it judges."""
    return any(
        verdict["must"] is not None
        and verdict["spread"][0] < verdict["must"] < verdict["spread"][1]
        for verdict in judge(result)
    )


def figures_of(case: Case) -> list[str]:
    """The figures that bars look at."""
    return [case.value if bar.figure == "value" else bar.figure for bar in case.bars]


def rounds(run: dict[str, Any]) -> str:
    """How many rounds a run had, or from how few to how many."""
    counts = sorted({result["part"]["method"]["rounds"] for result in run["results"]})
    return " to ".join(map(str, counts[:: len(counts) - 1 or 1]))


def number(value: float, digits: int) -> str:
    """With as many digits as say something."""
    return f"{value:,.{digits}f}" if value < 1000 else f"{value:,.0f}"


def table(results: list[dict[str, Any]]) -> Table:
    """A line for every implementation of every case, with its verdicts."""
    shown = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("case", "link", "implementation"):
        shown.add_column(name)
    for name in ("median", "spread", "unit", "ratio", "interval", "must", "aim", "verdict"):
        shown.add_column(name, justify="left" if name in ("unit", "verdict") else "right")
    for result in results:
        case = BY_NAME[result["case"]]
        verdicts = judge(result)
        for implementation, figures in result["figures"].items():
            own = [v for v in verdicts if v["ours"] == implementation]
            for name in dict.fromkeys((case.value, *figures_of(case))):
                if name not in figures:
                    continue
                figure, found = FIGURES[name], figures[name]
                lines = [v for v in own if v["figure"] == name] or [None]
                for index, verdict in enumerate(lines):
                    unit = figure.unit if name == case.value else f"{figure.unit}, {name}"
                    spread = "–".join(number(found[end], figure.digits) for end in ("min", "max"))
                    measured = (number(found["median"], figure.digits), spread, unit)
                    shown.add_row(
                        result["case"],
                        result["link"],
                        implementation,
                        *(measured if not index else ("", "", "")),
                        *_judged(verdict),
                    )
    return shown


def _judged(verdict: dict[str, Any] | None) -> tuple[str, ...]:
    if verdict is None:
        return ("",) * 5
    sign = "×" if verdict["against"] else ""
    bounds = ["" if verdict[b] is None else f"{verdict[b]:g}{sign}" for b in ("must", "aim")]
    style = STYLES.get(verdict["verdict"])
    word = verdict["verdict"]
    if verdict["against"] not in (None, "stock"):
        word += f" (to {verdict['against']})"
    ratio = f"{verdict['value']:.2f}{sign}" if sign else ""
    spread = "–".join(f"{end:.2f}" for end in verdict["spread"]) if sign else ""
    return ratio, spread, *bounds, f"[{style}]{word}[/]" if style else word


def compare(before: dict[str, Any], after: dict[str, Any]) -> Table:
    """What changed between two runs: the figures of ours and their ratio to stock."""
    shown = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("case", "link", "implementation", "before", "after", "unit", "after/before"):
        shown.add_column(name, justify="left" if name in ("case", "link", "unit") else "right")
    earlier = {(r["case"], r["link"]): r["figures"] for r in before["results"]}
    for result in after["results"]:
        known = earlier.get((result["case"], result["link"]), {})
        name = BY_NAME[result["case"]].value
        figure = FIGURES[name]
        for implementation, figures in result["figures"].items():
            if implementation in known and name in known[implementation]:
                was, now = known[implementation][name]["median"], figures[name]["median"]
                shown.add_row(
                    result["case"],
                    result["link"],
                    implementation,
                    number(was, figure.digits),
                    number(now, figure.digits),
                    figure.unit,
                    f"{now / was:.2f}×",
                )
    return shown


def save(
    path: Path, machine: dict[str, Any], results: list[dict[str, Any]], *, update: bool = False
) -> None:
    """Write a run as JSON; with `update`, keep the other results of the file, if there is one."""
    part = {name: machine[name] for name in ("when", "revision", "method", "others")}
    judged = {(r["case"], r["link"]): {**r, "part": part, "verdicts": judge(r)} for r in results}
    if update and path.exists():
        judged = {(r["case"], r["link"]): r for r in load(path)["results"]} | judged
    order = list(BY_NAME)
    ordered = [judged[key] for key in sorted(judged, key=lambda key: (order.index(key[0]), key[1]))]
    text = json.dumps({"schema": SCHEMA, "machine": machine, "results": ordered}, indent=1)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n")


def load(path: Path) -> dict[str, Any]:
    """Read a run. Raises ValueError for another schema."""
    run: dict[str, Any] = json.loads(path.read_text())
    if run.get("schema") != SCHEMA:
        raise ValueError(f"cannot read {path}: schema {run.get('schema')}, this reads {SCHEMA}")
    return run


def console() -> Console:
    """Wide enough for the table where the output is not a terminal."""
    made = Console()
    return made if made.is_terminal else Console(width=160)
