"""Measure sealwire beside distributed's own backend.

    .venv/bin/python benchmarks/run.py --quick
    .venv/bin/python benchmarks/run.py --case round-trip --link tls
    .venv/bin/python benchmarks/run.py --case payload-1mib --impl ours --against earlier.json
    .venv/bin/python benchmarks/run.py --all --case 'payload-*' --json run.json --update

`cases.py` lists the cases; `--list` shows their names. Needs Linux.
"""

from __future__ import annotations

import argparse
import fnmatch
import sys
import time
from collections import defaultdict
from pathlib import Path

import machine
import report
from cases import CASES, LINKS, OURS, SOCKETS, STOCK, Case
from measure import Task, missing, possible, run
from process import Failed


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="Measure sealwire beside distributed's own backend.",
        epilog="A case may be a pattern, such as 'payload-*'.",
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--quick", action="store_true", help="the quick set (the default)")
    which.add_argument("--compare", nargs=2, type=Path, metavar="FILE", help="two earlier runs")
    which.add_argument("--list", action="store_true", help="show the names of the cases")
    parser.add_argument("--all", action="store_true", help="every case, long, in new processes")
    parser.add_argument("--case", action="append", metavar="NAME", help="these cases only")
    parser.add_argument("--link", choices=LINKS, action="append", help="this link only")
    parser.add_argument(
        "--impl",
        action="append",
        metavar="NAME",
        help="these implementations only: stock, ours, others, or one's name",
    )
    parser.add_argument(
        "--rounds",
        type=int,
        help="default 3, with --all 5; if not given, twice as many where it is close",
    )
    parser.add_argument(
        "--minutes",
        type=float,
        default=38,
        help="no round begins that would end later, but for three; default 38",
    )
    parser.add_argument("--seconds", type=float, help="per measurement; default 0.25, --all 1")
    parser.add_argument("--fresh", action="store_true", help="new processes in every round")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the run to a file")
    parser.add_argument(
        "--update", action="store_true", help="keep what else the file has: a run in parts"
    )
    parser.add_argument("--against", type=Path, metavar="FILE", help="compare with an earlier run")
    return parser.parse_args()


def chosen(options: argparse.Namespace) -> list[Case]:
    """The cases that were asked for."""
    if options.case:
        found = [c for c in CASES if any(fnmatch.fnmatch(c.name, p) for p in options.case)]
        if not found:
            sys.exit(f"no case is named {', '.join(options.case)}; see --list")
        return found
    return [case for case in CASES if options.all or case.quick]


def implementations(case: Case, link: str, options: argparse.Namespace) -> list[str]:
    """Who does a case.

    The others take part in the full set, where they are named, and where a bar needs them.
    """
    others = [name for name in case.others if options.all or options.impl]
    if SOCKETS in case.others and not others and any(bar.against == SOCKETS for bar in case.bars):
        others = [SOCKETS]
    wanted = [STOCK, *case.ours, *others]
    groups = {"stock": [STOCK], "ours": list(OURS), "others": list(case.others)}
    if options.impl:
        named = [name for given in options.impl for name in groups.get(given, [given])]
        wanted = [name for name in wanted if name in named]
    return [name for name in wanted if possible(name, link) and not missing(name)]


def credentials() -> dict[str, str]:
    """Certificates for every process, in memory only."""
    from sealwire.security import Security

    made = Security.temporary().fields()
    return {
        name: value for name, value in made.items() if name.endswith(("_cert", "_key", "_ca_file"))
    }


def main() -> None:
    """Run, report, write."""
    options = arguments()
    console = report.console()
    if options.list:
        for case in CASES:
            console.print(f"{case.name:24} {case.title}", highlight=False)
        return
    if options.compare:
        console.print(report.compare(*map(report.load, options.compare)))
        return
    tasks = [
        Task(case, link, names)
        for case in chosen(options)
        for link in options.link or LINKS
        if (names := implementations(case, link, options))
    ]
    if not tasks:
        sys.exit("nothing to do: no implementation of that name takes part in these cases")
    facts = machine.facts()
    absent = {name: m for case, *_ in tasks for name in case.others if (m := missing(name))}
    facts["left_out"] = sorted(absent)
    rounds = options.rounds or (5 if options.all else 3)
    facts["method"] = {
        "rounds": rounds,
        "seconds": options.seconds or (1.0 if options.all else 0.25),
        "fresh": options.fresh or options.all,
    }
    found: dict[tuple[str, str], dict[str, dict[str, list[float]]]] = {
        (task.case.name, task.link): defaultdict(lambda: defaultdict(list)) for task in tasks
    }

    def undecided(task: Task) -> bool:
        if options.rounds:  # as many as were asked for
            return False
        by = found[task.case.name, task.link]
        figures = {name: report.summary(rounds) for name, rounds in by.items()}
        result = {"case": task.case.name, "link": task.link, "figures": figures}
        return report.undecided(result)

    started = time.monotonic()
    before = machine.cpu_of_all() - machine.cpu_of_ours()
    with console.status("starting") as status:
        try:
            for task, implementation, figures in run(
                tasks,
                rounds=rounds,
                seconds=facts["method"]["seconds"],
                fresh=facts["method"]["fresh"],
                quick=not options.all and not options.case,
                credentials=credentials(),
                progress=status.update,
                most=60 * options.minutes,
                undecided=undecided,
                failed=lambda words: console.print(f"without {words}", highlight=False),
            ):
                for name, value in figures.items():
                    found[task.case.name, task.link][implementation][name].append(value)
        except Failed as error:
            sys.exit(f"broken off: {error}")
    facts["took"] = round(time.monotonic() - started, 1)
    others = machine.cpu_of_all() - machine.cpu_of_ours() - before
    facts["others"] = round(max(0.0, others) / (facts["took"] * facts["cpus"]), 3)
    results = [
        {
            "case": case,
            "link": link,
            "figures": {name: report.summary(figures) for name, figures in by.items()},
        }
        for (case, link), by in found.items()
    ]
    console.print(report.table(results))
    console.print(
        f"{rounds} rounds in {facts['took']:.0f} s; "
        f"others used {facts['others']:.0%} of the machine; "
        f"{facts['revision']}; medians; medians of the rounds' ratios, with 90 % intervals"
        + (f"; not installed: {', '.join(facts['left_out'])}" if absent else ""),
        highlight=False,
    )
    if options.json:
        report.save(options.json, facts, results, update=options.update)
    if options.against:
        console.print(report.compare(report.load(options.against), {"results": results}))


if __name__ == "__main__":
    main()
