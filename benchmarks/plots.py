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
import summary
import words
from cases import BY_NAME, CASES, DASK, LINKS, STANDALONE
from matplotlib.axes import Axes
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
FASTER, SLOWER = "tab:blue", "tab:red"
TICKS = (0.5, 1, 2, 5, 10, 20, 50)
BUSY = ("receiver-busy", "receiver-busy-4", "sender-busy")
ROW = 0.32  # inches


def color(implementation: str) -> str | None:
    """The same everywhere."""
    return COLORS.get(implementation)


def ratios(run: dict[str, Any], ours: str) -> Figure:
    """How many times as fast as stock, a row for each thing that is done, with its spread."""
    rows = summary.compared(run, ours)
    canvas = Figure(figsize=(11, 1.5 + ROW * max(4, len(rows))), layout="constrained")
    panels = canvas.subplots(1, 2, sharey=True)
    for axes, link in zip(panels, LINKS, strict=True):
        for place, by_link in enumerate(rows.values()):
            if link in by_link:
                _ratio(axes, place, by_link[link])
        axes.axvline(1, color="black", linewidth=1)
        axes.set_xscale("log")
        axes.set_xlim(0.3, 130)
        axes.set_xticks(TICKS, [f"{tick:g}×" for tick in TICKS])
        axes.minorticks_off()
        axes.grid(axis="x", alpha=0.3)
        axes.set_title(f"over {link}")
    panels[0].set_yticks(range(len(rows)), list(rows))
    panels[0].set_ylim(max(1, len(rows)) - 0.5, -0.5)
    canvas.suptitle(f"{words.implementation(ours)}: how many times as fast as distributed's own")
    canvas.supxlabel(
        "1× is the same speed; a point is the median of the rounds, its line their spread",
        fontsize=9,
    )
    return canvas


def _ratio(axes: Axes, place: int, verdict: dict[str, Any]) -> None:
    value, (low, high) = verdict["value"], verdict["spread"]
    shade = FASTER if value >= 1 else SLOWER
    axes.plot([low, high], [place, place], color=shade, linewidth=2, alpha=0.5)
    axes.plot([value], [place], "o", color=shade, markersize=6)
    axes.annotate(
        f"{value:.2f}×" if value < 1 else f"{value:.1f}×" if value < 10 else f"{value:.0f}×",
        (max(high, 1), place),
        xytext=(7, 0),
        textcoords="offset points",
        va="center",
        fontsize=9,
        color=shade,
    )


def by_size(run: dict[str, Any]) -> Figure:
    """Throughput of payloads by their size, from the least of the rounds to the most."""
    canvas = Figure(figsize=(11, 5), layout="constrained")
    done = {result["case"] for result in run["results"]}
    sizes = [c for c in CASES if c.name.startswith("payload-") and c.name in done]
    panels = canvas.subplots(1, 2)
    for axes, link in zip(panels, LINKS, strict=True):
        lines: dict[str, list[tuple[float, dict[str, float]]]] = {}
        for place, case in enumerate(sizes):
            found = figures_of(run, case.name, link)
            for index, (implementation, figures) in enumerate(found.items()):
                aside = place + (index - (len(found) - 1) / 2) * 0.06
                lines.setdefault(implementation, []).append((aside, figures["throughput"]))
        for implementation, points in lines.items():
            _spread(axes, implementation, points)
        axes.set_xticks(range(len(sizes)), [each.title.partition(" payloads")[0] for each in sizes])
        axes.set_ylabel("MB/s")
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
        axes.set_title(f"over {link}")
    canvas.suptitle("Throughput by the size of an array, both processes on one CPU")
    _legend(canvas, panels)
    return canvas


def _spread(
    axes: Axes,
    implementation: str,
    points: list[tuple[float, dict[str, float]]],
    joined: bool = True,
) -> None:
    """Medians, with lines from the least to the most."""
    medians = [found["median"] for _, found in points]
    axes.errorbar(
        [where for where, _ in points],
        medians,
        yerr=[
            [found["median"] - found["min"] for _, found in points],
            [found["max"] - found["median"] for _, found in points],
        ],
        fmt="o-" if joined else "o",
        color=color(implementation),
        label=words.implementation(implementation),
        elinewidth=1,
        capsize=2,
        markersize=5,
    )


def _legend(canvas: Figure, panels: Any) -> None:
    """Below the pictures, over nothing: everybody of either panel once."""
    found = {}
    for axes in panels:
        handles, labels = axes.get_legend_handles_labels()
        found |= dict(zip(labels, handles, strict=True))
    if found:
        canvas.legend(found.values(), found.keys(), loc="outside lower center", ncols=4, fontsize=9)


def beside_busy(run: dict[str, Any]) -> Figure:
    """Throughput beside threads that compute, from the least of the rounds to the most."""
    canvas = Figure(figsize=(11, 5), layout="constrained")
    panels = canvas.subplots(1, 2, sharey=True)
    for axes, link in zip(panels, LINKS, strict=True):
        by_case = [figures_of(run, name, link) for name in BUSY]
        implementations = list(dict.fromkeys(name for found in by_case for name in found))
        for index, implementation in enumerate(implementations):
            points = [
                (place + (index - (len(implementations) - 1) / 2) * 0.15, found[implementation])
                for place, found in enumerate(by_case)
                if implementation in found
            ]
            shown = [(where, figures["throughput"]) for where, figures in points]
            _spread(axes, implementation, shown, joined=False)
            for where, figures in shown:
                axes.annotate(
                    report.number(figures["median"], 0 if figures["median"] > 10 else 1),
                    (where, figures["max"]),
                    xytext=(0, 4),
                    textcoords="offset points",
                    ha="center",
                    fontsize=7,
                )
        titles = [
            BY_NAME[name].title.partition(", ")[2].replace(" has ", " has\n") for name in BUSY
        ]
        axes.set_xticks(range(len(BUSY)), titles)
        axes.set_yscale("log")
        axes.set_yticks((1, 10, 100, 1000), ("1", "10", "100", "1,000"))
        axes.grid(axis="y", alpha=0.3)
        axes.set_title(f"over {link}")
    panels[0].set_ylabel("MB/s")
    canvas.suptitle("Throughput of arrays of 8 MiB beside threads that compute in Python")
    _legend(canvas, panels)
    return canvas


def figures_of(run: dict[str, Any], case: str, link: str) -> dict[str, Any]:
    """The summaries of a case by implementation; nothing if it was not run."""
    for result in run["results"]:
        if (result["case"], result["link"]) == (case, link):
            found: dict[str, Any] = result["figures"]
            return found
    return {}


PICTURES: dict[str, Callable[[dict[str, Any]], Figure]] = {
    "in-dask": lambda run: ratios(run, DASK),
    "without-dask": lambda run: ratios(run, STANDALONE),
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
