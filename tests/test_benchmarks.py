"""The benchmarks measure: a tiny case of every kind runs, and verdicts follow from figures."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

FOLDER = Path(__file__).resolve().parent.parent / "benchmarks"
MODULES = (
    "cases", "process", "cluster", "measure", "machine", "report", "run", "plots", "document",
    "words", "summary", "local_links", "peers.watch",
)  # fmt: skip
PATIENCE = 120  # seconds until a run counts as hung
TINY = 0.02  # seconds of a measurement


@pytest.fixture(scope="module")
def bench() -> Any:
    """The modules of the benchmarks, which are no package."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        yield SimpleNamespace(
            **{name.rpartition(".")[2]: importlib.import_module(name) for name in MODULES}
        )
        for name in MODULES:
            sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def credentials(bench: Any) -> dict[str, str]:
    made: dict[str, str] = bench.run.credentials()
    return made


@pytest.fixture(scope="module")
def pair_of(bench: Any, credentials: dict[str, str]) -> Iterator[Callable[[str, str], Any]]:
    """As in a run: cases that do not ask for new processes share them.

    Five pairs, by which each implementation meets over one link; clusters and runs do over others.
    Ours by itself is on uvloop here, and on asyncio where memory is looked at, and in a run.
    """
    with ExitStack() as alive:

        @functools.cache
        def pair_of(implementation: str, link: str) -> Any:
            return alive.enter_context(bench.measure.Pair(implementation, link, credentials))

        yield pair_of


SMALLER: dict[str, dict[str, Any]] = {
    "payload-1mib": {"size": 4096},
    "receiver-busy": {"size": 65_536},
    "sender-busy": {"size": 65_536},
    "memory": {"size": 32 << 20, "most": 1},
    "hold": {"size": 32 << 20, "most": 1},
}


@pytest.mark.parametrize(
    ("name", "implementation", "link"),
    [
        ("round-trip", "stock", "tls"),
        ("round-trip", "standalone+uvloop", "tls"),
        ("round-trip", "sockets", "tls"),
        ("concurrent", "standalone+uvloop", "tls"),
        ("flood", "standalone+uvloop", "tls"),
        ("batch", "dask", "tcp"),
        ("batch-tasks", "stock", "tls"),
        ("values", "standalone+uvloop", "tls"),
        ("payload-1mib", "dask", "tcp"),
        ("payload-1mib", "sockets", "tls"),
        ("payload-1mib", "unix", "tcp"),
        ("receiver-busy", "standalone+uvloop", "tls"),
        ("sender-busy", "dask", "tcp"),
        ("connections", "standalone+uvloop", "tls"),
        ("memory", "standalone", "tls"),
        ("hold", "stock", "tls"),
        ("beside-trickle", "standalone+uvloop", "tls"),
    ],
)
def test_every_kind_of_case_runs(
    bench: Any,
    credentials: dict[str, str],
    pair_of: Callable[[str, str], Any],
    name: str,
    implementation: str,
    link: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bench.measure, "LONG", 0.2)
    case = bench.cases.BY_NAME[name]
    case = dataclasses.replace(case, options=SMALLER.get(name, case.options))
    if name == "memory":  # of which a process has the peak of all that it did
        with bench.measure.Pair(implementation, link, credentials) as pair:
            figures = pair.do(case, TINY)
    else:
        figures = pair_of(implementation, link).do(case, TINY)
    assert {case.value, *bench.report.figures_of(case)} <= set(figures)
    if name == "memory":
        assert abs(figures["receiver_rss"]) < 16
    else:
        assert figures[case.value] > 0


#: a program of a cluster's client: those of the cases, one after the other
BOTH = """
import workloads
from peers import computations

async def all_figures(client, seconds, *, cluster, workloads_):
    found = await computations.all_figures(client, seconds, **cluster)
    return {**found, **await workloads.all_figures(client, seconds, **workloads_)}
"""


def test_a_cluster_runs(
    bench: Any, credentials: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "both.py").write_text(BOTH)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    small = {"large": 1 << 20, "many": 4, "rows": 0}
    cases = [bench.cases.BY_NAME[name] for name in ("cluster", "workloads")]
    smaller = {**cases[1].options, "scale": 0.02}
    assert smaller.pop("program") == "workloads"
    options = {"program": "both", "cluster": small, "workloads_": smaller}
    figures = bench.cluster.do("dask/untouched", "tls", credentials, TINY, options)
    wanted = {name for case in cases for name in bench.report.figures_of(case)}
    assert set(figures) >= wanted - {"shuffle", "exchange"}
    assert all(figure > 0 for figure in figures.values())


def test_a_run_of_the_command(
    bench: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Two rounds of both sides, a table with a verdict, a file that can be compared with."""
    path = tmp_path / "results" / "run.json"
    options = ("--case", "concurrent", "--link", "tcp", "--seconds", str(TINY))
    command = [sys.executable, str(FOLDER / "run.py"), *options, "--rounds", "2", "--json", path]
    shown = subprocess.check_output(command, cwd=tmp_path, text=True, timeout=PATIENCE)

    def run(*arguments: str) -> str:
        """The same in this process, which has loaded it all."""
        monkeypatch.setattr(sys, "argv", ["run.py", *arguments])
        bench.run.main()
        return capsys.readouterr().out

    written = json.loads(path.read_text())
    (result,) = written["results"]
    assert set(result["figures"]) == {"stock", "standalone"}
    assert [len(f["trips"]["rounds"]) for f in result["figures"].values()] == [2, 2]
    (verdict,) = result["verdicts"]
    assert verdict["must"] == 4
    assert verdict["verdict"] in shown
    assert set(written["machine"]) >= {"cpu", "python", "openssl", "packages", "load", "revision"}
    again = run(*options, "--impl", "ours", "--rounds", "1", "--against", str(path))
    run(*options, "--impl", "ours", "--rounds", "5", "--minutes", "0", "--json", str(path))
    (result,) = json.loads(path.read_text())["results"]
    assert [len(f["trips"]["rounds"]) for f in result["figures"].values()] == [3]
    assert "after/before" in again
    assert "1.00×" in run("--compare", str(path), str(path))


@pytest.mark.parametrize(
    ("ours", "verdict"), [(50, "missed"), (399, "missed"), (400, "met"), (600, "aim")]
)
def test_verdicts(bench: Any, ours: float, verdict: str) -> None:
    figures = {
        "stock": bench.report.summary({"trips": [100, 90, 130]}),
        "standalone": bench.report.summary({"trips": [ours, ours - 20, ours + 20]}),
    }
    result = {"case": "concurrent", "link": "tls", "figures": figures}
    (judged,) = bench.report.judge(result)
    assert (judged["value"], judged["verdict"]) == (ours / 100, verdict)
    assert judged["spread"] == pytest.approx(
        sorted([ours / 100, (ours - 20) / 90, (ours + 20) / 130])[::2]
    )


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1.0], [1.0, 1.0]),
        ([3.0, 1.0, 2.0], [1.0, 3.0]),
        ([5.0, 1.0, 2.0, 3.0, 4.0], [1.0, 5.0]),
        ([float(n) for n in range(8)], [1.0, 6.0]),  # but for one in 14
        ([float(n) for n in range(20)], [5.0, 14.0]),
    ],
)
def test_intervals_of_medians(bench: Any, values: list[float], expected: list[float]) -> None:
    assert bench.report.interval(values) == expected


@pytest.mark.parametrize(
    ("ours", "undecided"),
    [([700, 800, 900, 800, 900], False), ([390, 410, 800, 800, 900], True), ([10] * 5, False)],
)
def test_more_rounds_where_a_bar_is_within_the_interval(
    bench: Any, ours: list[float], undecided: bool
) -> None:
    figures = {
        "stock": bench.report.summary({"trips": [100.0] * 5}),
        "standalone": bench.report.summary({"trips": ours}),
    }
    result = {"case": "concurrent", "link": "tls", "figures": figures}
    assert bench.report.undecided(result) is undecided


def test_who_begins_changes_and_what_is_undecided_goes_on(
    bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench.measure, "start", lambda *_: dict.fromkeys(pairs, Done()))
    monkeypatch.setattr(bench.measure.ExitStack, "close", lambda _: None)

    class Done:
        def do(self, *_: Any) -> dict[str, float]:
            return {}

    tasks = [
        bench.measure.Task(bench.cases.BY_NAME[name], "tcp", ["stock", "standalone", "dask"])
        for name in ("round-trip", "connections")
    ]
    pairs = [(name, "tcp") for name in ("stock", "standalone", "dask")]
    done = [
        (task.case.name, name)
        for task, name, _ in bench.measure.run(
            tasks,
            rounds=2,
            seconds=0,
            fresh=True,
            quick=False,
            credentials={},
            progress=lambda _: None,
            undecided=lambda task: task.case.name == "connections",
        )
    ]
    turns = [
        [name for case, name in done if case == each] for each in ("round-trip", "connections")
    ]
    first, second = ["stock", "standalone", "dask"], ["standalone", "dask", "stock"]
    assert turns == [first + second, first + second + ["dask", "stock", "standalone"] + first]


def test_less_is_better_of_memory(bench: Any) -> None:
    summary = bench.report.summary({"sender_rss": [7.0], "receiver_rss": [17.0]})
    result = {"case": "memory", "link": "tcp", "figures": {"dask": summary}}
    found = {v["figure"]: v["verdict"] for v in bench.report.judge(result)}
    assert found == {"sender_rss": "met", "receiver_rss": "missed"}


def test_a_run_becomes_tables_and_pictures(
    bench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def figures(speeds: dict[str, float], figure: str) -> dict[str, Any]:
        return {name: bench.report.summary({figure: [speed]}) for name, speed in speeds.items()}

    busy = figures({"stock": 3, "standalone": 150, "sockets": 4}, "throughput")
    small = figures({"stock": 1000, "standalone": 3500}, "trips")
    results = [
        {"case": "receiver-busy", "link": "tls", "figures": busy},
        {"case": "round-trip", "link": "tls", "figures": small},
    ]
    facts = bench.machine.facts() | {
        "method": {"rounds": 1, "seconds": 1.0, "fresh": True},
        "others": 0.04,
    }
    path = tmp_path / "run.json"
    bench.report.save(path, facts, results[:1])
    bench.report.save(path, facts, results[1:], update=True)
    page = tmp_path / "performance.md"
    monkeypatch.setattr(bench.document, "PAGE", page)
    parts = (
        f"{begin}old\n{bench.document.END}\n"
        for begin in (bench.document.IN_SHORT, bench.document.BEGIN)
    )
    page.write_text(f"before\n{''.join(parts)}after\n")
    bench.document.main(path)
    written = page.read_text()
    assert written.startswith("before\n")
    assert written.endswith("after\n")
    assert "old" not in written
    assert "| 1,000 | 3,500 trips/s | 3.50× (3.50–3.50) | 4× | 6× | missed |" in written
    assert "| 3.0 | 150.0 MB/s | 50.00× (50.00–50.00) | 30× | 50× | aim |" in written
    assert "1 rounds, new processes in every round: [run.json]" in written
    assert "used up to 4% of the machine" in written
    assert (
        "- a short question and its answer, tls, sealwire without Dask: 3.50, the minimum is 4"
        in written
    )
    assert "| a short question and its answer |  | 3.50 (3.50 to 3.50) |" in written
    assert "unix" not in written
    assert "Nothing that was measured." in written
    pictures = {file.name: file.read_text() for file in (tmp_path / "performance").iterdir()}
    assert set(pictures) == {"in-dask.svg", "without-dask.svg", "by-size.svg", "beside-busy.svg"}
    assert "8 MiB to a process with 1 busy thread" in pictures["without-dask.svg"]
    assert "blocking sockets" in pictures["beside-busy.svg"]
    bench.document.main(path)  # the same run, the same page
    assert page.read_text() == written
    again = {file.name: file.read_text() for file in (tmp_path / "performance").iterdir()}
    assert again == pictures


def test_local_sockets_stand_beside_tcp(bench: Any) -> None:
    def result(case: str, link: str, figure: str, **speeds: float) -> dict[str, Any]:
        found = {name: {figure: {"median": speed}} for name, speed in speeds.items()}
        return {"case": case, "link": link, "figures": found}

    run = {
        "results": [
            result("round-trip", "tcp", "trips", stock=1.0, standalone=10_000.0, unix=12_345.6),
            result("round-trip", "tls", "trips", standalone=8_000.0),
            result("payload-64mib", "tcp", "throughput", standalone=1_500.0, unix=750.0),
            result("flood", "tcp", "messages", standalone=1_500.0),
        ]
    }
    assert bench.local_links.table(run)[4:] == [
        "| a short question and its answer | 10,000 trips/s | 12,346 trips/s | 1.23× |",
        "| an array of 64 MiB | 1,500 MB/s | 750.0 MB/s | 0.50× |",
        "",
    ]
    assert bench.local_links.table({"results": run["results"][1:2]}) == []
    cases = bench.cases.BY_NAME
    assert all("unix" in cases[name].others for name in ("round-trip", "payload-64mib"))


def test_what_is_lost_is_told(bench: Any) -> None:
    """Slower, more CPU time, and less left for busy threads; not what is as fast or faster."""

    def result(case: str, **figures: tuple[list[float], list[float]]) -> dict[str, Any]:
        of = {
            name: bench.report.summary({figure: both[place] for figure, both in figures.items()})
            for place, name in enumerate(("stock", "dask"))
        }
        made = {"case": case, "link": "tcp", "figures": of}
        return {**made, "verdicts": bench.report.judge(made)}

    run = {
        "results": [
            result(
                "payload-1gib", throughput=([100.0] * 3, [80.0, 70.0, 90.0]), cpu=([1.0], [2.0])
            ),
            result(
                "payload-16mib", throughput=([100.0] * 3, [80.0, 70.0, 110.0]), cpu=([1.0], [1.0])
            ),
            result("receiver-busy", throughput=([1.0], [9.0]), keep=([0.9], [0.5])),
            result("connections", connections=([50.0], [51.0])),
        ]
    }
    lines = bench.summary.lost(run)
    sure, perhaps = "\n".join(lines).split("Perhaps")
    assert "an array of 1 GiB | tcp | sealwire in Dask | 0.80 times as fast as dist" in sure
    assert "2.00 times as much as distributed's own backend (2.00 to 2.00)" in sure
    assert "50% of their speed, 90% beside" in sure
    assert "an array of 16 MiB | tcp | sealwire in Dask | 0.80 times" in perhaps
    assert "connection" not in sure + perhaps
    assert len([line for line in lines if line.startswith("| ")]) == 4 + 2


def test_every_case_has_words(bench: Any) -> None:
    assert {case.name for case in bench.cases.CASES} == bench.words.CASES.keys()
    assert set(bench.plots.COLORS) <= bench.words.IMPLEMENTATIONS.keys()


def test_the_peak_of_memory_is_seen(bench: Any) -> None:
    memory = bench.watch.Memory()
    memory.reset()
    block = bytearray(b"x") * (64 << 20)
    del block
    assert 60 << 20 < memory.extra() < 80 << 20


def test_a_failure_of_a_process_is_told(bench: Any, pair_of: Callable[[str, str], Any]) -> None:
    """And the process goes on."""
    pair = pair_of("sockets", "tls")
    pair.meet()
    with pytest.raises(bench.process.Failed, match="sockets over tls: AttributeError"):
        pair.client.tell("nonsense")
    assert pair.both("begin") == [{}, {}]


def test_every_row_of_the_bar_has_a_case(bench: Any) -> None:
    """Names are unique, and bars only ask for figures that exist."""
    names = [case.name for case in bench.cases.CASES]
    assert len(set(names)) == len(names)
    for case in bench.cases.CASES:
        assert set(bench.report.figures_of(case)) <= set(bench.cases.FIGURES)
