"""The demo itself: what it promises, and that it can fail and be interrupted.

As a process, but where it fails, which is as well seen in this one.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import dask
import psutil
import pytest
from click.testing import CliRunner

from sealwire.cli.main import main
from sealwire.dask_backend import uninstall
from support.once import once

HANG = 120  # seconds until a demo counts as hung
SMALL = ("--scale", "0.05")


@contextmanager
def demo(temporary: Path, *options: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """A running demo whose temporary files go below `temporary`. Ended in any case."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("DASK_")}
    with subprocess.Popen(
        [sys.executable, "-m", "sealwire.cli", "demo", *SMALL, *options],
        cwd=temporary,
        env={**kept, "TMPDIR": str(temporary), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
    ) as process:
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(HANG)
            finally:
                process.kill()


def lines_until(process: subprocess.Popen[str], start: str) -> list[str]:
    """What the process prints, up to the line that begins with `start`."""
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line.rstrip("\n"))
        if line.startswith(start):
            return lines
    raise AssertionError(f"no line {start!r} in:\n" + "\n".join(lines))


def rest(process: subprocess.Popen[str]) -> str:
    return process.communicate(timeout=HANG)[0]


def alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Those still running; one that is dead, but not buried by its parent, is not."""
    return [
        process
        for process in processes
        if process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    ]


@dataclass(frozen=True)
class Run:
    """A demo that came to its end, and what was seen while its cluster was up."""

    code: int
    text: str
    children: int
    alive: list[str]
    modes: dict[str, int]
    left: list[str]


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = once(tmp_path_factory, "demo", run_once)
    return Run(**json.loads((folder / "run.json").read_text()))


def run_once(folder: Path) -> None:
    temporary = folder / "temporary"
    temporary.mkdir()
    with demo(temporary) as process:
        lines = lines_until(process, "the cluster is up")
        children = psutil.Process(process.pid).children(recursive=True)
        (files,) = temporary.iterdir()
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in files.glob("*.pem")}
        modes["folder"] = stat.S_IMODE(files.stat().st_mode)
        text = "\n".join(lines) + "\n" + rest(process)
    left = [path.name for path in temporary.iterdir()]
    still = [str(each) for each in alive(children)]
    seen = Run(process.returncode, text, len(children), still, modes, left)
    (folder / "run.json").write_text(json.dumps(dataclasses.asdict(seen)))


def test_every_promise_is_kept(run: Run) -> None:
    assert run.code == 0, run.text
    promises = run.text.partition("\nPromises")[2]
    assert len(re.findall(r"^kept  ", promises, re.MULTILINE)) == 10, run.text
    assert run.text.splitlines()[-1] == "all 10 promises kept"


@pytest.mark.parametrize(
    "line",
    [
        r"^the cluster is up: scheduler pid \d+, worker-0 pid \d+, ",
        r"^counting words in \d+ Python files: \d+ of \d+ tasks$",
        r"^multiplying a matrix by its transpose, block by block: 32 of 32 tasks$",
        r"^all 10 promises kept *$",
        r"^Words  \d+ files, [\d,.]+ MiB, [\d,]+ words, [\d,]+ different *$",
        r"^  self [\d,]+  ",
        r"^Array  x @ x.T of [\d,]+ by [\d,]+ in 16 blocks; .* = ([\d,]+), by the other route \1$",
        r"^Links: \d+ ends, all TLSv1\.[23] with TLS_\w+, every peer verified *$",
        r"^client +scheduler +scheduler +\d+ +[\d.<]+ +[\d.<]+ *$",
        r"^scheduler +client +client +\d+ +[\d.<]+ +[\d.<]+ *$",
        r"^scheduler +worker-0 nanny +worker, worker-0 +\d+ ",
        r"^worker-0 nanny +scheduler +scheduler +\d+ ",
        r"^worker-0 +scheduler +scheduler +\d+ ",
        r"^worker-0 +worker-1 +worker, worker-1 +\d+ +[\d.]+ +[\d.<]+ *$",
        r"^Processes, all with sealwire's backend *$",
        r"^worker-1 +\d+ +tls://127\.0\.0\.1:\d+ +[\d,]+\.\d\d +[\d,]+\.\d\d *$",
        r"^from worker to worker: [\d,]+\.\d\d MiB *$",
        r"^plain tcp client +refused +5 +connection (closed|reset)",
        r"^certificate of another CA +refused +5 +its CA is not known \(alert unknown ca",
        r"^expired certificate +refused +5 +its certificate has expired \(alert certificate exp",
        r"^valid certificate +let in +5 ",
    ],
)
def test_the_report_shows(line: str, run: Run) -> None:
    assert re.search(line, run.text, re.MULTILINE), run.text


def test_its_files_are_private_while_it_runs(run: Run) -> None:
    names = ("client", "scheduler", "worker-0", "worker-1")
    files = ["ca", *names, *(f"{name}-key" for name in names)]
    assert run.modes == {"folder": 0o700, **{f"{file}.pem": 0o600 for file in files}}


def test_nothing_is_left_behind(run: Run) -> None:
    # Scheduler, two nannies, two workers, and what Python starts to track their resources.
    assert run.children >= 5
    assert run.alive == []
    assert run.left == []


@pytest.mark.parametrize(
    ("signum", "when"),
    [
        (signal.SIGINT, "scheduler and 2 workers ..."),
        (signal.SIGTERM, "the cluster is up"),
    ],
)
def test_interrupted_it_leaves_nothing_behind(
    signum: signal.Signals, when: str, tmp_path: Path
) -> None:
    with demo(tmp_path) as process:
        lines_until(process, when)
        children = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signum)
        text = rest(process)
    assert process.returncode == 128 + signum, text
    assert f"interrupted by {signum.name}" in text
    assert "Traceback" not in text
    assert alive(children) == []
    assert list(tmp_path.iterdir()) == []


Demo = Callable[[str], tuple[int, str]]


@pytest.fixture
def demo_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, registry: None) -> Demo:
    """Runs the demo in this process, its children after some lines of Python: code and output."""
    places = {name: tmp_path / name for name in ("temporary", "lines")}
    for place in places.values():
        place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(places["temporary"]))
    monkeypatch.setenv("PYTHONPATH", str(places["lines"]))
    for name in os.environ:
        if name.startswith("DASK_"):
            monkeypatch.delenv(name)
    uninstall()

    def run(lines: str) -> tuple[int, str]:
        (places["lines"] / "sitecustomize.py").write_text(lines)
        done = CliRunner().invoke(main, ["demo", *SMALL])
        assert isinstance(done.exception, SystemExit), done.output
        assert list(places["temporary"].iterdir()) == []
        return done.exit_code, done.output

    return run


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="there distributed's own loses connections")
def test_a_cluster_without_our_backend_is_noticed(demo_here: Demo) -> None:
    """Dask goes on when a preload fails, and then the cluster works, but over stock's backend.

    Unless a `dask` command has installed ours by then, which it does for such a preload.
    """
    missing = ("sealwire.dask_backend.preload", "sealwire.cli.dask_plugin")
    code, text = demo_here(f"import sys\nsys.modules.update(dict.fromkeys({missing}))\n")
    assert code == 1, text
    failed = dict(re.findall(r"^FAILED  (.*?)  +(.*?) *$", text, re.MULTILINE))
    assert "scheduler is without it" in failed.pop("every process uses our backend")
    # What stock's processes do not tell counts as missing.
    assert list(failed) == ["every process was observed", "blocks moved between workers"]
    assert text.splitlines()[-1].startswith("3 of 10 promises FAILED: every process was observed, ")


ENDS = """
import os, sys
if "scheduler" in sys.orig_argv:
    os.write(2, b"No such command 'scheduler'")
    os._exit(2)
"""


def test_a_scheduler_that_does_not_start_is_explained(demo_here: Demo) -> None:
    code, text = demo_here(ENDS)
    assert code == 1, text
    assert "\nError: scheduler ended with code 2; its last words:\n" in text
    assert "No such command 'scheduler'" in text
    assert "Traceback" not in text


def test_a_wrong_configuration_is_explained(demo_here: Demo) -> None:
    with dask.config.set({"distributed.comm.tls.min-version": "1.1"}):
        code, text = demo_here("")
    assert code == 1, text
    assert re.search(r"^Error: .*min.version.*1\.1", text, re.MULTILINE), text
    assert "scheduler and 2 workers ..." not in text, "no process is started for that"
    assert "Traceback" not in text
