"""The first screen of docs/performance.md: what is gained, and as plainly what is lost."""

from __future__ import annotations

from typing import Any

import report
import words
from cases import BY_NAME, DASK, FIGURES, LINKS, STANDALONE, STOCK

NOTICEABLE = 0.02  # what threads that compute must lose, of their speed, to be told of


def compared(run: dict[str, Any], ours: str) -> dict[str, dict[str, dict[str, Any]]]:
    """Of each thing that is done, by link: the verdict beside distributed's own backend."""
    rows: dict[str, dict[str, dict[str, Any]]] = {}
    for result in run["results"]:
        case = BY_NAME[result["case"]]
        for verdict in result["verdicts"]:
            if (verdict["ours"], verdict["against"]) == (ours, STOCK) and verdict[
                "figure"
            ] != "cpu":
                what = words.figure(case.name, verdict["figure"], case.value)
                rows.setdefault(what, {})[result["link"]] = verdict
    return rows


def times(verdict: dict[str, Any] | None) -> str:
    """A cell: the factor and its spread; what is slower stands out."""
    if verdict is None:
        return ""
    low, high = verdict["spread"]
    value = f"{verdict['value']:.2f}"
    value = f"**{value}**" if verdict["value"] < 1 else value
    return f"{value} ({low:.2f} to {high:.2f})"


def table(run: dict[str, Any], ours: str) -> list[str]:
    """How many times as fast, as Markdown."""
    lines = [f"| {words.implementation(ours)} | over tcp | over tls |", "|---|--:|--:|"]
    for what, by_link in compared(run, ours).items():
        cells = [times(by_link.get(link)) for link in LINKS]
        lines.append(f"| {what} | {' | '.join(cells)} |")
    return lines


def lost(run: dict[str, Any]) -> list[str]:
    """Where it is slower, or costs others more, as Markdown: what is sure first, then the rest."""
    sure: list[tuple[float, str]] = []
    perhaps: list[tuple[float, str]] = []
    for result in run["results"]:
        case = BY_NAME[result["case"]]
        for verdict in result["verdicts"]:
            told = _loss(result, verdict)
            if told:
                what = words.figure(case.name, verdict["figure"], case.value)
                who = words.implementation(verdict["ours"])
                spread = verdict["spread"][1]
                (perhaps if spread >= 1 else sure).append(
                    (told[0], f"| {what} | {result['link']} | {who} | {told[1]} |")
                )
    lines = []
    for found, title in ((sure, "It loses here:"), (perhaps, "Perhaps here; the rounds differ:")):
        if found:
            rows = [line for _, line in sorted(found)]
            lines += [title, "", "| what | link | who | how much |", "|---|---|---|---|", *rows, ""]
    return lines or ["Nothing that was measured.", ""]


def _loss(result: dict[str, Any], verdict: dict[str, Any]) -> tuple[float, str] | None:
    """How much is lost, as a factor and in words; None if nothing is."""
    if verdict["figure"] == "keep":
        mine, theirs = (
            result["figures"][name]["keep"]["median"] for name in (verdict["ours"], STOCK)
        )
        if mine > min(1, theirs) - NOTICEABLE:
            return None
        return mine / theirs, f"{mine:.0%} of their speed, {theirs:.0%} beside distributed's own"
    if not verdict["against"] or verdict["value"] >= 1:
        return None
    low, high = verdict["spread"]
    other = words.implementation(verdict["against"])
    if verdict["figure"] == "cpu":
        told = f"{1 / verdict['value']:.2f} times as much as {other}"
        low, high = 1 / high, 1 / low
    else:
        told = f"{verdict['value']:.2f} times as fast as {other}"
    return verdict["value"], f"{told} ({low:.2f} to {high:.2f})"


def text(run: dict[str, Any]) -> list[str]:
    """All of it, as lines of Markdown."""
    return [
        "How many times as fast as distributed's own backend: the median of "
        f"{report.rounds(run)} rounds, and in brackets between which ratios of single rounds it "
        "lies, with a probability of at least 0.9. Below 1 is slower.",
        "",
        *table(run, DASK),
        "",
        *table(run, STANDALONE),
        "",
        "## What is lost",
        "",
        "Every figure of the run that is better without sealwire.",
        "",
        *lost(run),
    ]


def missed(run: dict[str, Any]) -> list[str]:
    """Every minimum that was missed, the farthest first, as lines of Markdown."""
    found = []
    for result in run["results"]:
        case = BY_NAME[result["case"]]
        for verdict in result["verdicts"]:
            if verdict["verdict"] == report.MISSED:
                value, must = verdict["value"], verdict["must"]
                more = verdict["against"] or FIGURES[verdict["figure"]].more
                short = value / must if more else must / value
                what = words.figure(case.name, verdict["figure"], case.value)
                who = words.implementation(verdict["ours"])
                line = f"- {what}, {result['link']}, {who}: {value:.2f}, the minimum is {must:g}"
                found.append((short, line))
    return [line for _, line in sorted(found)] or ["- none"]
