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
import summary
import words
from cases import BY_NAME, FIGURES

PAGE = Path(__file__).resolve().parent.parent / "docs" / "performance.md"
IN_SHORT = "<!-- summary: made by benchmarks/document.py -->\n"
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
    fresh = all(part["method"]["fresh"] for part in parts)
    lines = [
        f"Measured {machine['when'][:10]} at {_revisions(run['results'])}, "
        f"{report.rounds(run)} rounds, "
        f"{'new' if fresh else 'the same'} processes in every round: {name}.",
        f"{machine['cpus']} CPUs ({machine['cpu']}), {machine['system']}, {machine['python']}, "
        f"{machine['openssl']}; {packages}. Other programs used up to "
        f"{max(part['others'] for part in parts):.0%} of the machine meanwhile.",
        "",
        *table(run),
        "",
        "Minimums that were missed:",
        "",
        *summary.missed(run),
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
        case = BY_NAME[result["case"]]
        for verdict in result["verdicts"]:
            figure = FIGURES[verdict["figure"]]
            of = {
                name: f"{report.number(found[verdict['figure']]['median'], figure.digits)}"
                for name, found in result["figures"].items()
                if verdict["figure"] in found
            }
            other = verdict["against"] or "stock"
            beside = of.get(other, "") + (f" ({other})" if other != "stock" else "")
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
                words.figure(case.name, verdict["figure"], case.value),
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


def replaced(page: str, begin: str, text: str, path: Path) -> str:
    """`page` with `text` after the line `begin`, up to the next line that ends such a part."""
    before, found, rest = page.partition(begin)
    _, end, after = rest.partition(END)
    if not found or not end:
        sys.exit(f"cannot document {path}: {PAGE} lacks the marker lines")
    return before + begin + text + end + after


def main(path: Path) -> None:
    """Rewrite the page and draw the pictures."""
    run = report.load(path)
    name = f"[{path.name}](../benchmarks/results/{path.name})"
    page = PAGE.read_text(encoding="utf-8")
    page = replaced(page, IN_SHORT, "\n".join(summary.text(run)), path)
    PAGE.write_text(replaced(page, BEGIN, figures(run, name), path), encoding="utf-8")
    plots.draw(run, PAGE.with_suffix(""))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
