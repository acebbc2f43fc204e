"""Put a run into docs/performance.md: its table, its machine, its pictures.

.venv/bin/python benchmarks/document.py benchmarks/results/RUN.json

The page keeps its words; what stands between the markers is replaced.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import plots
import report
from cases import BY_NAME, FIGURES

PAGE = Path(__file__).resolve().parent.parent / "docs" / "performance.md"
BEGIN, END = "<!-- figures: made by benchmarks/document.py -->\n", "<!-- end of figures -->"


def _revisions(results: list[dict[str, Any]]) -> str:
    """Where all was measured, or what was measured where, of a run in parts."""
    cases: dict[str, dict[str, None]] = {}
    for result in results:
        cases.setdefault(result["part"]["revision"], {})[result["case"]] = None
    most, *others = sorted(cases, key=lambda revision: -len(cases[revision]))
    return f"revision {most}" + "".join(
        f" ({', '.join(cases[other])} at {other})" for other in others
    )


def figures(run: dict[str, Any], name: str) -> str:
    """What stands between the markers. `name` is that of the run's file."""
    machine, parts = run["machine"], [result["part"] for result in run["results"]]
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    rounds = sorted({part["method"]["rounds"] for part in parts})
    fresh = all(part["method"]["fresh"] for part in parts)
    lines = [
        f"Measured {machine['when'][:10]} at {_revisions(run['results'])}, "
        f"{' to '.join(map(str, rounds[:: len(rounds) - 1 or 1]))} rounds, "
        f"{'new' if fresh else 'the same'} processes in every round: {name}.",
        f"{machine['cpus']} CPUs ({machine['cpu']}), {machine['system']}, {machine['python']}, "
        f"{machine['openssl']}; {packages}. Other programs used up to "
        f"{max(part['others'] for part in parts):.0%} of the machine meanwhile.",
        "",
        *table(run),
        "",
        f"Missed: {missed(run)}",
        "",
    ]
    return "\n".join(lines)


def table(run: dict[str, Any]) -> list[str]:
    """A line for each case, link and implementation of ours, as Markdown."""
    lines = [
        "| case | link | implementation | stock | ours | ratio (rounds) | must | aim | verdict |",
        "|---|---|---|--:|--:|--:|--:|--:|---|",
    ]
    for result in run["results"]:
        title = BY_NAME[result["case"]].title
        for verdict in result["verdicts"]:
            figure = FIGURES[verdict["figure"]]
            of = {
                name: f"{report.number(found[verdict['figure']]['median'], figure.digits)}"
                for name, found in result["figures"].items()
                if verdict["figure"] in found
            }
            other = verdict["against"] or "stock"
            beside = of.get(other, "") + (f" ({other})" if other != "stock" else "")
            what = title if verdict["figure"] == BY_NAME[result["case"]].value else ""
            sign = "×" if verdict["against"] else ""
            ratio = ""
            if sign:
                low, high = verdict["spread"]
                ratio = f"{verdict['value']:.2f}× ({low:.2f}–{high:.2f})"
            bounds = [
                "" if verdict[bound] is None else f"{verdict[bound]:g}{sign}"
                for bound in ("must", "aim")
            ]
            cells = [
                what or f"– {verdict['figure'].replace('_', ' ')}",
                result["link"],
                verdict["ours"],
                beside,
                f"{of[verdict['ours']]} {figure.unit}",
                ratio,
                *bounds,
                verdict["verdict"],
            ]
            lines.append(f"| {' | '.join(cells)} |")
    return lines


def missed(run: dict[str, Any]) -> str:
    """Every bar that was missed, the farthest first."""
    found = []
    for result in run["results"]:
        for verdict in result["verdicts"]:
            if verdict["verdict"] == report.MISSED:
                value, must = verdict["value"], verdict["must"]
                more = verdict["against"] or FIGURES[verdict["figure"]].more
                short = value / must if more else must / value
                figure = (
                    verdict["figure"] if verdict["figure"] != BY_NAME[result["case"]].value else ""
                )
                where = f"{result['case']} {figure} ({result['link']}, {verdict['ours']})"
                found.append((short, f"{where.replace('  ', ' ')} {value:.2f} of {must:g}"))
    return "; ".join(words for _, words in sorted(found)) + "." if found else "nothing."


def main(path: Path) -> None:
    """Rewrite the page and draw the pictures."""
    run = report.load(path)
    before, begin, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        sys.exit(f"cannot document {path}: {PAGE} lacks the marker lines")
    name = f"[{path.name}](../benchmarks/results/{path.name})"
    PAGE.write_text(before + begin + figures(run, name) + end + after, encoding="utf-8")
    plots.draw(run, PAGE.with_suffix(""))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
