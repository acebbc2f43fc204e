"""What the reports of processes become: tables of values, without a socket."""

from __future__ import annotations

import io
import math
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from sealwire.cli.top.display import fitted, whole
from sealwire.dask_backend.dashboard import page, words
from sealwire.dask_backend.dashboard.cluster import Member, Survey, as_dict, survey
from sealwire.dask_backend.dashboard.hour import LastHour
from sealwire.dask_backend.dashboard.page import render
from sealwire.dask_backend.dashboard.picture import MOST_EDGES, picture
from sealwire.dask_backend.dashboard.received import Report, received
from sealwire.dask_backend.dashboard.report import LINK, MOST_LINKS, VERSION
from support.web import Page

NOW = 1_800_000_000
DAY = 86400


def link(**parts: Any) -> list[Any]:
    sound = {
        "local": "tls://10.0.0.1:50001",
        "peer": "tls://10.0.0.9:8786",
        "protocol": "TLSv1.3",
        "cipher": "TLS_AES_256_GCM_SHA384",
        "identity": "CN=scheduler",
        "backend": "sealwire",
        "age": 60,
        "bytes_in": 1000,
        "bytes_out": 2000,
        "round_trip": 300,
        "since": NOW - 100 * DAY,
        "until": NOW + 200 * DAY,
        "lacks": [],
    }
    assert set(parts) <= set(sound) == set(LINK)
    return [{**sound, **parts}[name] for name in LINK]


def report(**parts: Any) -> dict[str, Any]:
    return {
        "version": VERSION,
        "process": "p1",
        "pid": 17,
        "sealwire": "1.2",
        "links": [link()],
        "open": 1,
        "certificates": [["own", "CN=worker", NOW - 100 * DAY, NOW + 200 * DAY]],
        "held": 1,
        "outdated": [],
        "pending": 0,
        "refused": {},
        "broken": {},
        "broken_dialled": {},
        "refused_ever": 0,
        **parts,
    }


def taken(value: Any) -> Report:
    made = received(value, MOST_LINKS)
    assert isinstance(made, Report), made
    return made


def of(*members: Member, **known: str) -> Survey:
    first = Member("scheduler", "tls://10.0.0.9:8786", "scheduler", None, Report(process="s"))
    return survey([first, *members], now=NOW, known=known)


def worker(sent: Any, name: str = "w", heard: float = 1.0) -> Member:
    made = None if sent is None else received(sent, MOST_LINKS)
    return Member("worker", f"tls://10.0.0.1:{len(name)}", f"worker {name}", heard, made)


# The last hour


def test_an_hour_ends() -> None:
    hour = LastHour()
    assert hour.grown({"a": 3}, 0.0) == {"a": 3}  # since the process began
    assert hour.grown({"a": 3}, 3000.0) == {"a": 3}
    assert hour.grown({"a": 5, "b": 1}, 3700.0) == {"a": 2, "b": 1}
    assert hour.grown({"a": 5, "b": 1}, 7400.0) == {}
    assert hour.grown({"a": 4}, 7500.0) == {}  # a listener was closed


def test_an_hour_keeps_few_snapshots() -> None:
    hour = LastHour()
    for second in range(0, 20_000, 5):
        grown = hour.grown({"a": second}, float(second))
        assert second < 3600 or 3600 - 60 <= grown["a"] <= 3600 + 65, second
    assert len(hour._kept) < 65


# What arrives


class Contrary:
    """An object that cannot be compared, counted, or asked whether it is true."""

    __hash__ = None  # type: ignore[assignment]

    def refuse(self, *_: object) -> Any:
        raise LookupError("of the test")

    __eq__ = __ne__ = __lt__ = __le__ = __bool__ = __len__ = __iter__ = refuse


ODD: list[Any] = [
    np.arange(3), np.zeros((2, 2)), np.zeros(0), np.float64(1), Contrary(),
    None, True, -1, 1 << 200, -(1 << 200), math.nan, math.inf, "", "x", "\x1b[2J", b"x", [], {},
    [[]], [None], {"a": 1}, {1: "a"}, object(), "9" * 100_000, ["x"] * 50_000, "\ud800", (1, 2),
]  # fmt: skip


@pytest.mark.parametrize("value", ODD, ids=lambda value: f"{type(value).__name__} {value!r:.20}")
def test_garbage_is_no_report(value: Any) -> None:
    words = received(value, MOST_LINKS)
    assert isinstance(words, str)
    assert len(words) < 100
    assert words.isprintable()


@pytest.mark.parametrize("part", [*report(), "links of it", "certificates of it", "counts of it"])
@pytest.mark.parametrize("value", ODD, ids=lambda value: f"{type(value).__name__} {value!r:.20}")
def test_garbage_in_a_report_is_left_out(part: str, value: Any) -> None:
    if part == "links of it":
        sent = report(links=[value, link(), [value] * len(LINK), dict.fromkeys(LINK, value)])
    elif part == "certificates of it":
        sent = report(certificates=[value, [value] * 4, ["own", value, value, value]])
    elif part == "counts of it":
        sent = report(refused={"a": value, 1: value, None: 1}, broken={"b": value})
    else:
        sent = report(**{part: value})
    made = received(sent, MOST_LINKS)
    if part == "version":
        assert isinstance(made, str)
        return
    assert isinstance(made, Report)
    assert all(type(n) is int and n >= 0 for n in (made.open, made.held, made.pending))
    assert len(made.process) < 300
    assert part != "links of it" or link()[0] in [each.local for each in made.links]
    shown = of(worker(sent))
    text = render(as_dict(shown), picture(shown), [])
    assert "\x1b" not in text
    assert len(text) < 50_000
    text.encode()


def test_any_part_of_a_link_may_be_garbage() -> None:
    for name in LINK:
        for value in ODD:
            made = taken(report(links=[link(**{name: value})]))
            assert len(made.links) <= 1
            for each in made.links:
                assert type(each.local) is type(each.peer) is str
                for number in each[6:-1]:
                    assert number is None or (type(number) is int and number >= 0)
                assert type(each.lacks) is tuple
                assert all(type(words) is str for words in each.lacks)


def test_reports_at_random_raise_nothing() -> None:
    chance = random.Random(7)

    def value(depth: int = 0) -> Any:
        kind = chance.randrange(4) if depth < 4 else 0
        if kind == 1:
            return [value(depth + 1) for _ in range(chance.randrange(14))]
        if kind == 2:
            names = [*report(), *LINK, 7, None]
            return {chance.choice(names): value(depth + 1) for _ in range(chance.randrange(9))}
        return chance.choice(ODD[:19])

    read = 0
    for _ in range(500):
        sent = report(**{chance.choice([*report()][1:]): value()})
        made = survey([worker(sent)], now=NOW, known={})
        render(as_dict(made), picture(made), None).encode()
        read += isinstance(made.processes[0].member.report, Report)
    assert read == 500


def test_more_links_than_a_report_may_have_are_not_looked_at() -> None:
    made = taken(report(links=[link()] * 100_000, open=100_000))
    assert len(made.links) == MOST_LINKS
    assert made.open == 100_000


@pytest.mark.parametrize("value", [None, 1 << 200, math.nan, "\x1b[2J", b"x", [None], {1: "a"}])
def test_a_terminal_shows_garbage_as_text_or_says_that_it_cannot(value: Any) -> None:
    """A scheduler's answer, with any part of it replaced."""
    view = as_dict(of(worker(report())))

    def parts(tree: Any) -> Iterator[tuple[Any, Any]]:
        for key in tree if isinstance(tree, dict) else range(len(tree)):
            yield tree, key
            if isinstance(tree[key], (dict, list)):
                yield from parts(tree[key])

    for tree, key in [*parts(view)]:
        before, tree[key] = tree[key], value
        console = Console(file=io.StringIO(), width=160)
        console.print(whole(view) if tree is view else fitted(view, 24, ""))
        assert "\x1b" not in console.file.getvalue()
        tree[key] = before


# What is wrong

FAULTS = [
    ({}, "ok", ""),
    ({"links": [link(lacks=["no CRL is checked"])]}, "bad", "1 of its links with a fault"),
    ({"links": [link(until=NOW - 1)]}, "bad", "1 of its links with a fault"),
    ({"links": [link(until=NOW + 5 * DAY)] * 2}, "warn", "2 of its links with a fault"),
    ({"links": [link(since=NOW - DAY, until=NOW + 5 * DAY)]}, "ok", ""),  # short-lived
    ({"certificates": [["own", "CN=w", 0, NOW - 3600]]}, "bad", "its own certificate CN=w has exp"),
    ({"certificates": [["CA", "CN=c", 0, NOW + 4 * DAY]]}, "warn", "the CA CN=c expires on 2027-0"),
    ({"certificates": [["CRL", "", NOW - 6 * DAY, NOW + 2 * DAY]]}, "ok", ""),
    ({"certificates": [["CRL", "", NOW - 6 * DAY, NOW + DAY // 2]]}, "warn", "its CRL expires on "),
    ({"certificates": [["own", "", 0, 1 << 61]]}, "ok", ""),
    ({"refused": {"probe": 900}}, "ok", ""),
    ({"refused": {"probe": 900, "expired": 2}}, "warn", "refused within the hour: expired 2"),
    ({"outdated": ["worker"]}, "warn", "changed certificate files cannot be used (worker); its lo"),
    ({"broken": {"lost": 1}}, "warn", "links broken within the hour: lost 1"),
    ({"broken_dialled": {"lost": 1}}, "warn", "links broken within the hour: lost 1"),
    (
        {"broken": {"lost": 1}, "broken_dialled": {"framing": 1, "lost": 2}},
        "warn",
        "links broken within the hour: framing 1, lost 3",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("parts", "state", "start"), FAULTS)
def test_faults(parts: dict[str, Any], state: str, start: str) -> None:
    made = of(worker(report(**parts)))
    (row,) = [row for row in made.processes if row.member.role == "worker"]
    assert row.state == state
    found = [fault.words for fault in row.faults]
    assert (found == []) == (start == "")
    assert not start or found[0].startswith(start)
    assert made.edges == {("scheduler", "worker w"): made.links[0].state}


@pytest.mark.parametrize(
    ("left", "words"),
    [
        *[(-n, "expired") for n in (1, 60, 3600, 4300, DAY)],
        (0, "0 seconds"), (90, "90 seconds"), (1800, "30 minutes"), (3600, "60 minutes"),
    ],
)  # fmt: skip
def test_the_hour_of_an_end(left: int, words: str) -> None:
    """What is over is said to be, and before that the time left, alike at every place."""
    certificates = [["own", "CN=w", NOW - 100 * DAY, NOW + left]]
    sent = report(links=[link(until=NOW + left)], certificates=certificates)
    made = of(worker(sent))
    view = as_dict(made)
    shown = Page(render(view, picture(made), []))
    console = Console(file=io.StringIO(), width=400)
    console.print(whole(view))
    assert f"first to expire: own CN=w, {words}" in console.file.getvalue()
    assert f"own CN=w, {'in ' * (left >= 0)}{words}." in shown.text
    assert [row["expires in"] for row in shown.rows("links")] == [words]
    for kind in ("processes", "links"):
        (fault, *_) = next(row["faults"] for row in view[kind] if row["faults"])
        assert ("has expired on" if left < 0 else f", in {words}") in fault


def test_a_terminal_counts_no_links_of_who_reports_none() -> None:
    view = as_dict(of(worker(None), worker(report(open=30), "some")))
    rows = {row["name"]: words.links(row) for row in view["processes"]}
    assert rows == {"scheduler": "–", "worker w": "–", "worker some": "30 (1 listed)"}
    console = Console(file=io.StringIO(), width=200)
    console.print(whole(view))
    (line,) = [each for each in console.file.getvalue().splitlines() if "worker w " in each]
    assert re.search(r"distributed +– +– ", line), line


def test_what_is_of_all_a_process_is_told_once() -> None:
    sent = report(broken={"lost": 1}, broken_dialled={"lost": 2}, outdated=["client"])
    made = of(worker(sent, "a"), worker(sent, "bc"))
    rows = {row["name"]: row for row in as_dict(made)["processes"]}
    assert rows["worker bc"]["in_the_process_of"] == "worker a"
    assert rows["worker a"]["broken"] == {"lost": 3}
    assert rows["worker bc"]["broken"] == {"lost": 1}
    assert len(rows["worker a"]["faults"]) == 2
    assert rows["worker bc"]["faults"] == ["links broken within the hour: lost 1"]


@pytest.mark.parametrize(
    ("sent", "state", "backend"),
    [(None, "stock", "distributed"), ("x", "warn", "unknown"), (report(), "ok", "sealwire 1.2")],
)
def test_who_sends_what(sent: Any, state: str, backend: str) -> None:
    row = as_dict(of(worker(sent)))["processes"][0 if state != "ok" else 1]
    assert (row["state"], row["backend"]) == (state, backend)


@pytest.mark.parametrize(("workers", "heard", "silent"), [(1, 29, 0), (1, 31, 1), (9000, 100, 0)])
def test_a_worker_that_is_not_heard_of(workers: int, heard: float, silent: int) -> None:
    members = [worker(report(process="q"), "z", heard)] + [worker(report())] * (workers - 1)
    made = survey(members, now=NOW, known={})
    assert sum("no heartbeat" in str(row.faults) for row in made.processes) == silent


def test_members_of_one_process_tell_its_links_once() -> None:
    made = of(worker(report(), "one"), worker(report(), "other"))
    rows = {row["name"]: row for row in as_dict(made)["processes"]}
    assert rows["worker one"]["links"] == 1
    assert rows["worker other"]["links"] == 0
    assert rows["worker other"]["in_the_process_of"] == "worker one"
    assert len(made.links) == 1


def test_both_ends_know_each_other() -> None:
    here = report(links=[link()])
    there = report(process="p2", links=[link(local="tls://x:1", peer="tls://10.0.0.1:50001")])
    made = of(worker(here, "a"), worker(there, "bb"), **{"tls://c:5": "client C"})
    others = {(row.process, row.other) for row in made.links}
    assert others == {("worker a", "scheduler"), ("worker bb", "worker a")}
    assert made.others == ["client C"]


# A thousand workers


@pytest.fixture(scope="module")
def thousand() -> Survey:
    members = []
    for number in range(1000):
        links = [
            link(local=f"tls://n{number}:{n}", peer=f"tls://w{(number * 7 + n) % 1000}:1")
            for n in range(MOST_LINKS)
        ]
        sent = report(process=str(number), links=links, open=40)
        made = received(sent, MOST_LINKS)
        members.append(Member("worker", f"tls://w{number}:1", f"worker {number}", 1.0, made))
    members[500] = worker(report(process="f", refused={"revoked": 3}), "500")
    return of(*members)


def test_a_page_of_a_thousand_workers_is_bounded(thousand: Survey) -> None:
    view = as_dict(thousand)
    assert view["processes"][0]["name"] == "worker 500"  # what is wrong comes first
    assert (view["processes_left_out"], view["links_left_out"]) == (701, 23_677)
    assert view["summary"]["links_told"] == 999 * MOST_LINKS + 1
    drawing = picture(thousand)
    text = render(view, drawing, [])
    assert len(text) < 500_000
    shown = Page(text)
    assert len(shown.rows("links")) == 300
    assert f"{999 * 16} of which are counted only" in shown.text
    assert "23677 more are left out" in shown.text
    assert sum(tag == "g" for tag, _ in shown.tags) == 1001
    assert len(thousand.edges) > MOST_EDGES
    assert f"of which {MOST_EDGES} are shown" in drawing
    assert drawing.count("M") <= MOST_EDGES


def test_one_of_a_thousand_is_found(thousand: Survey) -> None:
    view = as_dict(thousand, find="tls://w77:1")
    assert [row["name"] for row in view["processes"]] == ["worker 77"]
    assert {row["other"] for row in view["links"]} == {"worker 77"}


def test_figures_are_said() -> None:
    assert words.size(None) == words.seconds(None) == words.round_trip(None) == words.days(None)
    assert [words.seconds(n) for n in (0, 119, 120, 7200, 3 * DAY)] == [
        "0 s", "119 s", "2 min", "2 h", "3 d",
    ]  # fmt: skip
    assert [words.days(n) for n in (-0.0001, 0, 0.02, 0.5, 2, 3.4)] == [
        "expired", "0 seconds", "29 minutes", "12 hours", "2 days", "3 days",
    ]  # fmt: skip
    assert words.round_trip(1234) == "1.23 ms"


def test_the_documents_explain_every_column_and_state() -> None:
    text = (Path(__file__).parents[2] / "docs" / "dashboard.md").read_text(encoding="utf-8")
    plain = {"state", "process", "address", "peer"}
    for column in {*page._PROCESSES, *page._LINKS} - plain:
        assert re.search(rf"^\|[^|]*\b{re.escape(column)}\b", text, re.MULTILINE), column
    for sign, word in words.STATES.values():
        assert re.search(rf"^\| {sign} \w+ \| {re.escape(word)} \|", text, re.MULTILINE), word
    for part in as_dict(of()):
        assert f"`{part}`" in text, part
    for part in as_dict(of())["summary"]:
        assert f"`{part}`" in text, part
