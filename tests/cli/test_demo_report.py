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


def test_results_are_shown(evidence: Evidence) -> None:
    text = printed(evidence)
    assert "3 files, 9,000 bytes, 700 words, 40 different" in text
    assert "self 90  [b] 50" in text
    assert "2,048 by 2,048 in 16 blocks" in text
    assert "= 12,345, by the other route 12,345" in text


def test_every_link_end_is_shown(evidence: Evidence) -> None:
    text = printed(evidence)
    owners = Owners(evidence.processes)
    for process in evidence.processes:
        for link in process.links:
            figures = (f"{link.bytes_in:,}", f"{link.bytes_out:,}")
            peer = owners.of_peer(link)
            assert peer is not None
            row(text, process.name, peer.name, str(link.peer_certificate), *figures)
    cells = row(text, "worker-0", "worker-1").split()
    assert cells[:5] == ["worker-0", "worker-1", "1", "TLSv1.3", "TLS_AES_256_GCM_SHA384"]
    assert cells[-2:] == ["3,000,000", "5,000"]
    assert "from worker to worker: 3,005,000 bytes" in text


def test_links_alike_share_a_row(evidence: Evidence) -> None:
    client = evidence.processes[-1]
    assert client.role == "client"
    twice = replace(client, links=client.links * 2)
    text = printed(replace(evidence, processes=(*evidence.processes[:-1], twice)))
    cells = row(text, "client", "CN=scheduler").split()
    assert cells[2] == "2"
    assert cells[-2:] == ["6,000,000", "10,000"]


def test_every_process_is_shown(evidence: Evidence) -> None:
    text = printed(evidence)
    for process in evidence.processes:
        row(text, process.name, str(process.pid), "sealwire", process.address or "-")


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


@pytest.mark.parametrize("width", [80, 100])
def test_a_narrow_terminal_folds_but_loses_nothing(evidence: Evidence, width: int) -> None:
    text = printed(evidence, width)
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= width
    for figure in ("3,000,000", "12,345", "9,000", "TLSv1.3"):
        assert figure in text


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
