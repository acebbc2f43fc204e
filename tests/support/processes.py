"""``dask scheduler`` and ``dask worker`` as processes, followed through what they print."""

from __future__ import annotations

import contextlib
import os
import queue
import re
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil

from support import HANG, forking, programs

PRELOAD = ("--preload", "sealwire.dask_backend.preload")


class Program:
    """A running program whose output is read as it comes; it finds `support` if asked to.

    With a `kind` of `forking.IMPORTS` it is forked, for one whose start is not the point.
    """

    def __init__(
        self,
        command: list[str],
        folder: Path,
        support: bool = False,
        kind: str | None = None,
        **variables: str,
    ) -> None:
        self.command = command
        self.output: list[str] = []
        self._lines: queue.Queue[str | None] = queue.Queue()
        how: dict[str, Any] = {
            "cwd": folder,  # not the repository: python -m puts the current folder on sys.path
            "env": {
                **(programs.environment() if support else os.environ),
                "DASK_TEMPORARY_DIRECTORY": str(folder),
                "PYTHONUNBUFFERED": "1",
                **variables,
            },
            "stdin": subprocess.DEVNULL,
            "stderr": subprocess.STDOUT,
            "text": True,
        }
        self.process = (
            forking.Popen(kind, command, **how)
            if kind
            else subprocess.Popen(command, stdout=subprocess.PIPE, **how)
        )
        self._pump = threading.Thread(target=self._read, daemon=True)
        self._pump.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            for line in lines:
                self.output.append(line)
                self._lines.put(line)
        self._lines.put(None)

    def wait_for(self, pattern: str) -> re.Match[str]:
        """The first match in a line that no earlier call has looked at."""
        deadline = time.monotonic() + HANG
        while True:
            try:
                line = self._lines.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                line = None
            if line is None:
                raise AssertionError(f"no {pattern!r} from {self.command}:\n{''.join(self.output)}")
            if found := re.search(pattern, line):
                return found

    def finish(self) -> None:
        """Read the rest of the output of a program that has ended."""
        self._pump.join(HANG)


class Programs:
    """Starts programs in `folder`, and ends them with everything they started.

    They are `forked` where that is not the point.
    """

    def __init__(self, folder: Path, forked: bool = False) -> None:
        self.folder = folder
        self.forked = forked
        self.started: list[Program] = []

    def __enter__(self) -> Programs:
        return self

    def start(self, *arguments: str) -> Program:
        """``python -m dask`` with these arguments."""
        return self.start_module("dask", *arguments)

    def start_module(self, name: str, *arguments: str) -> Program:
        """``python -m`` a module with these arguments."""
        return self._run("-m", name, *arguments)

    def run_code(self, code: str, *arguments: str) -> Program:
        """``python -c`` with these arguments."""
        return self._run("-c", code, *arguments)

    def _run(self, *arguments: str) -> Program:
        kind = "before Dask" if self.forked else None
        program = Program([sys.executable, *arguments], self.folder, kind=kind)
        self.started.append(program)
        return program

    def scheduler(self, scheme: str, *options: str) -> tuple[Program, str]:
        """A scheduler that listens, and its address."""
        program = self.start(
            "scheduler", "--host", f"{scheme}://127.0.0.1:0", "--no-dashboard",
            "--dashboard-address", "127.0.0.1:0", *options,
        )  # fmt: skip
        return program, program.wait_for(r"Scheduler at:\s+(\S+)")[1]

    def worker(self, address: str, *options: str) -> Program:
        """A worker that may not have joined yet."""
        host = () if "--host" in options else ("--host", "127.0.0.1")  # else all interfaces
        return self.start(
            "worker", address, "--nthreads", "1", "--no-dashboard", *host,
            "--dashboard-address", "127.0.0.1:0", "--local-directory", str(self.folder), *options,
        )  # fmt: skip

    def __exit__(self, *_: object) -> None:
        left = ended(self.started)
        words = "".join(line for program in self.started for line in program.output)
        assert not left, f"not ended by SIGTERM: {left}\n{words}"


def ended(programs: list[Program]) -> list[psutil.Process]:
    """End programs and what they have started; what had to be killed.

    All workers, then the others, the last first: a worker that is told to end by a signal and by
    its scheduler at once cancels its own end, and stays.
    """
    workers = [program for program in programs if "worker" in program.command]
    others = [[program] for program in reversed(programs) if program not in workers]
    return [process for group in (workers, *others) for process in _ended_at_once(group)]


def _ended_at_once(programs: list[Program]) -> list[psutil.Process]:
    family = [process for program in programs for process in _tree(program.process.pid)]
    for program in programs:
        program.process.terminate()
    for program in programs:  # it is a zombie until it is waited for
        with contextlib.suppress(subprocess.TimeoutExpired):
            program.process.wait(HANG / 4)
    left = left_after(HANG / 4, family)
    for process in left:
        process.kill()
    for program in programs:
        program.process.wait()
        program.finish()
    return left


def left_after(seconds: float, processes: list[psutil.Process]) -> list[psutil.Process]:
    """Those that have not ended after so many seconds, or none as soon as all have.

    Who is orphaned is a zombie until the first process of the machine looks: for seconds, or, in
    a container, for ever.
    """
    deadline = time.monotonic() + seconds
    while left := [process for process in processes if _runs(process)]:
        if time.monotonic() > deadline:
            break
        time.sleep(0.02)
    return left


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _tree(pid: int) -> list[psutil.Process]:
    try:
        parent = psutil.Process(pid)
        return [parent, *parent.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def tls_options(files: dict[str, str], role: str) -> list[str]:
    return [
        "--tls-ca-file", files["tls_ca_file"],
        "--tls-cert", files[f"tls_{role}_cert"],
        "--tls-key", files[f"tls_{role}_key"],
    ]  # fmt: skip
