"""The report: every fact of the evidence is in it, as text that no markup eats."""

from __future__ import annotations

import io
import re
from dataclasses import replace

import pytest
from rich.console import Console

from sealwire.cli.demo.observations import Owners
from sealwire.cli.demo.report import Story, print_report
from sealwire.cli.demo.verdict import Evidence, judge


def printed(evidence: Evidence, width: int = 150) -> str:
    console = Console(file=io.StringIO(), width=width)
    print_report(console, evidence, judge(evidence))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def row(text: str, first: str, *cells: str) -> str:
    """The first line that begins with the cell `first` and has the other `cells` too."""
    for line in text.splitlines():
        if line.split("  ")[0] == first and all(cell in line for cell in cells):
            return line
    raise AssertionError(f"no row with {first}, {cells} in:\n{text}")


def test_the_verdict_comes_first(evidence: Evidence) -> None:
    assert printed(evidence).split("\n", 2)[1].rstrip() == "all 10 promises kept"
    failed = printed(replace(evidence, answers=False)).split("\n", 2)[1]
    assert failed.startswith("1 of 10 promises FAILED: the cluster still answers")


def test_results_are_shown(evidence: Evidence) -> None:
    text = printed(evidence)
    assert "3 files, 0.01 MiB, 700 words, 40 different" in text
    assert "self 90  [b] 50" in text
    assert "2,048 by 2,048 in 16 blocks" in text
    assert "= 12,345, by the other route 12,345" in text


def test_every_link_end_is_shown(evidence: Evidence) -> None:
    text = printed(evidence)
    owners = Owners(evidence.processes)
    for process in evidence.processes:
        for link in process.links:
            peer = owners.of_peer(link)
            assert peer is not None
            names = str(link.peer_certificate).replace("CN=", "")
            row(text, process.name, peer.name, names, "2.86", "<0.01")
    cells = row(text, "worker-0", "worker-1").split()
    assert cells == ["worker-0", "worker-1", "worker,", "worker-1", "1", "2.86", "<0.01"]
    assert "from worker to worker: 2.87 MiB" in text


def test_what_is_the_same_for_all_links_is_said_once(evidence: Evidence) -> None:
    text = printed(evidence)
    assert text.count("TLSv1.3") == text.count("TLS_AES_256_GCM_SHA384") == 1
    assert "Links: 12 ends, all TLSv1.3 with TLS_AES_256_GCM_SHA384, every peer verified" in text
    assert text.count("sealwire's backend") == 1
    client = evidence.processes[-1]
    old = replace(client.links[0], protocol="TLSv1.2", peer_certificate=None)
    odd = replace(client, links=(old,), installed=False)
    text = printed(replace(evidence, processes=(*evidence.processes[:-1], odd)))
    row(text, "client", "scheduler", "none", "TLSv1.2", "TLS_AES_256_GCM_SHA384")
    row(text, "worker-0", "scheduler", "TLSv1.3", "TLS_AES_256_GCM_SHA384")
    row(text, "client", str(client.pid), "not ours")
    assert "verified" not in text.partition("Links:")[2]


def test_links_alike_share_a_row(evidence: Evidence) -> None:
    client = evidence.processes[-1]
    assert client.role == "client"
    twice = replace(client, links=client.links * 2)
    text = printed(replace(evidence, processes=(*evidence.processes[:-1], twice)))
    cells = row(text, "client", "scheduler").split()
    assert cells[-3:] == ["2", "5.72", "0.01"]


def test_every_process_is_shown(evidence: Evidence) -> None:
    text = printed(evidence)
    for process in evidence.processes:
        row(text, process.name, str(process.pid), process.address or "-", "5.72")


def test_unauthorized_peers_and_promises_are_shown(evidence: Evidence) -> None:
    text = printed(evidence)
    for attempt in evidence.attempts:
        row(text, attempt.visitor, attempt.outcome, "5", attempt.words)
    for check in judge(evidence):
        row(text, "kept", check.promise, check.detail)
    assert "FAILED" not in text


def test_what_failed_stands_out(evidence: Evidence) -> None:
    text = printed(replace(evidence, answers=False))
    row(text, "FAILED", "the cluster still answers")


def large(evidence: Evidence) -> Evidence:
    """As with many workers, long names and much traffic, and what really is said at the door."""
    names = {"worker-0": "worker-62", "worker-1": "worker-63"}

    def renamed(text: str | None) -> str:
        for old, new in names.items():
            text = (text or "").replace(old, new)
        return text or ""

    processes = [
        replace(
            each,
            name=renamed(each.name),
            pid=4_000_000 + each.pid,
            address=each.address and each.address.replace(":9", ":4999"),
            links=tuple(
                replace(
                    link,
                    peer_certificate=renamed(link.peer_certificate),
                    local=link.local.replace(":9", ":4999"),
                    peer=link.peer.replace(":9", ":4999"),
                    bytes_in=link.bytes_in and link.bytes_in * 10_000,
                )
                for link in each.links
            ),
        )
        for each in evidence.processes
    ]
    said = ("its certificate has expired (alert certificate expired)", "connection reset by peer")
    attempts = [
        replace(each, words=said[number % 2]) for number, each in enumerate(evidence.attempts)
    ]
    return replace(evidence, processes=tuple(processes), attempts=tuple(attempts))


@pytest.mark.parametrize("width", [80, 100])
@pytest.mark.parametrize("change", [None, large, "failed"])
def test_a_narrow_terminal_breaks_no_word_and_loses_none(
    evidence: Evidence, width: int, change: object
) -> None:
    if callable(change):
        evidence = change(evidence)
    elif change:
        evidence = replace(evidence, answers=False, processes=(), attempts=())
    text = printed(evidence, width)
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= width
    assert set(text.split()) == set(printed(evidence, 300).split())


def test_progress_without_a_terminal_is_lines() -> None:
    file = io.StringIO()
    story = Story(Console(file=file, width=80))
    with story.step("counting [x]") as advance:
        for done in range(1, 9):
            advance(done, 8)
    lines = file.getvalue().splitlines()
    assert lines[:-1] == [
        "counting [x] ...",
        "counting [x]: 2 of 8 tasks",
        "counting [x]: 4 of 8 tasks",
        "counting [x]: 6 of 8 tasks",
        "counting [x]: 8 of 8 tasks",
    ]
    assert lines[-1].startswith("counting [x]: done in ")


def test_progress_on_a_terminal_is_a_bar() -> None:
    file = io.StringIO()
    story = Story(Console(file=file, width=80, force_terminal=True, highlight=False))
    with story.step("counting [x]") as advance:
        advance(1, 2)
    drawn = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", file.getvalue())
    assert drawn != file.getvalue()
    assert " counting [x] ━" in drawn
    assert drawn.splitlines()[-1].startswith("counting [x]: done in ")
