"""Pictures of a run for the documentation.

.venv/bin/python benchmarks/plots.py benchmarks/results/RUN.json docs/performance
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import report
from cases import BY_NAME, CASES, LINKS
from matplotlib.figure import Figure

COLORS = {
    "stock": "tab:gray",
    "standalone": "tab:blue",
    "standalone+uvloop": "tab:cyan",
    "dask": "tab:orange",
    "sockets": "tab:green",
    "unix": "tab:olive",
    "grpcio": "tab:red",
    "pyzmq": "tab:purple",
}
TICKS = (0.1, 0.5, 1, 2, 5, 10, 20, 50)
BUSY = ("receiver-busy", "receiver-busy-4", "sender-busy")


def color(implementation: str) -> str | None:
    """The same everywhere."""
    return COLORS.get(implementation)


def ratios(run: dict[str, Any]) -> Figure:
    """How many times as fast as stock, case by case, with what it must be."""
    canvas = Figure(figsize=(11, 8), layout="constrained")
    for axes, link in zip(canvas.subplots(1, 2), LINKS, strict=True):
        verdicts = [
            (f"{result['case']}, {verdict['ours']}", verdict)
            for result in run["results"]
            if result["link"] == link
            for verdict in result["verdicts"]
            if verdict["against"] == "stock" and verdict["figure"] == BY_NAME[result["case"]].value
        ]
        places = range(len(verdicts))
        axes.barh(
            places,
            [verdict["value"] - 1 for _, verdict in verdicts],
            left=1,
            color=[color(verdict["ours"]) for _, verdict in verdicts],
            height=0.6,
        )
        musts = [(v["must"], place) for place, (_, v) in enumerate(verdicts) if v["must"]]
        wanted, where = zip(*musts, strict=True) if musts else ((), ())
        axes.plot(wanted, where, "|", color="black", markersize=11, label="must")
        axes.axvline(1, color="tab:gray", linewidth=1, label="distributed's own backend")
        axes.set_yticks(places, [label for label, _ in verdicts], fontsize=8)
        axes.invert_yaxis()
        axes.set_xscale("log")
        axes.set_xticks(TICKS, [f"{tick:g}×" for tick in TICKS])
        axes.minorticks_off()
        axes.set_xlabel("times as fast as distributed's own backend (log)")
        axes.grid(axis="x", alpha=0.3)
        axes.set_title(link)
    canvas.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return canvas


def by_size(run: dict[str, Any]) -> Figure:
    """Throughput of payloads by their size."""
    canvas = Figure(figsize=(10, 4.5), layout="constrained")
    done = {result["case"] for result in run["results"]}
    sizes = [c for c in CASES if c.name.startswith("payload-") and c.name in done]
    for axes, link in zip(canvas.subplots(1, 2), LINKS, strict=True):
        lines: dict[str, list[tuple[int, float]]] = {}
        for place, case in enumerate(sizes):
            for implementation, figures in figures_of(run, case.name, link).items():
                point = (place, figures["throughput"]["median"])
                lines.setdefault(implementation, []).append(point)
        for implementation, points in lines.items():
            axes.plot(
                *zip(*points, strict=True), "o-", color=color(implementation), label=implementation
            )
        labels = [case.title.partition(" payloads")[0] for case in sizes]
        axes.set_xticks(range(len(sizes)), labels)
        axes.set_ylabel("MB/s")
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
        axes.set_title(f"{link}, both processes on one CPU")
        if lines:
            axes.legend(fontsize=8)
    return canvas


def beside_busy(run: dict[str, Any]) -> Figure:
    """Throughput beside threads that compute."""
    canvas = Figure(figsize=(10, 4.5), layout="constrained")
    for axes, link in zip(canvas.subplots(1, 2), LINKS, strict=True):
        by_case = [figures_of(run, name, link) for name in BUSY]
        implementations = list(dict.fromkeys(name for found in by_case for name in found))
        width = 0.8 / max(1, len(implementations))
        for index, implementation in enumerate(implementations):
            points = [
                (place + (index - (len(implementations) - 1) / 2) * width, found[implementation])
                for place, found in enumerate(by_case)
                if implementation in found
            ]
            bars = axes.bar(
                [where for where, _ in points],
                [figures["throughput"]["median"] for _, figures in points],
                width,
                color=color(implementation),
                label=implementation,
            )
            axes.bar_label(bars, fmt="%.3g", fontsize=7)
        titles = [BY_NAME[name].title.partition(", ")[2].replace(" has ", "\n") for name in BUSY]
        axes.set_xticks(range(len(BUSY)), titles)
        axes.set_ylabel("MB/s (log)")
        axes.set_yscale("log")
        axes.set_ylim(bottom=0.5)
        axes.set_title(f"{link}, payloads of 8 MiB")
        if implementations:
            axes.legend(fontsize=8)
    return canvas


def figures_of(run: dict[str, Any], case: str, link: str) -> dict[str, Any]:
    """The summaries of a case by implementation; nothing if it was not run."""
    for result in run["results"]:
        if (result["case"], result["link"]) == (case, link):
            found: dict[str, Any] = result["figures"]
            return found
    return {}


PICTURES: dict[str, Callable[[dict[str, Any]], Figure]] = {
    "ratios": ratios,
    "by-size": by_size,
    "beside-busy": beside_busy,
}


def draw(run: dict[str, Any], folder: Path) -> list[Path]:
    """Write every picture; the same run gives the same bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    with matplotlib.rc_context({"svg.hashsalt": "sealwire", "svg.fonttype": "none"}):
        for name, picture in PICTURES.items():
            path = folder / f"{name}.svg"
            picture(run).savefig(path, metadata={"Date": None})
            written.append(path)
    return written


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    for drawn in draw(report.load(Path(sys.argv[1])), Path(sys.argv[2])):
        print(drawn)
