"""A Dask scheduler and workers as processes of this machine, started by `dask`'s own commands.

Each child leads a session of its own, so that Ctrl-C in a terminal reaches the demo alone, and the
demo ends the children in order: workers, scheduler. A child that does not end on request is killed,
together with whatever it started. Their output goes to files in the cluster's folder.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from sealwire.cli.demo.identities import IdentityFiles

PRELOAD = "sealwire.dask_backend.preload"
START_TIMEOUT = 60.0  # seconds for the scheduler to listen, and again for the workers to join
STOP_TIMEOUT = 8.0  # seconds for a child to end on request, before it is killed
# If the demo itself is killed, nobody ends the children: they end by themselves, the scheduler
# after this time without work, the workers after this time without a scheduler.
ORPHANED = "120 s"


class ClusterError(Exception):
    """The cluster could not be started. Names the process that failed, with its last output."""


class Child:
    """A process with a session of its own, started with `command` in `folder`.

    `name` is for people, `output` the file for its output.
    """

    def __init__(
        self,
        name: str,
        command: list[str],
        folder: Path,
        *,
        environment: Mapping[str, str] | None = None,
        stdin: int = subprocess.DEVNULL,
    ) -> None:
        self.name = name
        self.output = folder / f"{name}.log"
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                command,
                cwd=folder,
                # Dask creates a scratch folder there, and does not remove it.
                env={**(environment or os.environ), "DASK_TEMPORARY_DIRECTORY": str(folder)},
                stdin=stdin,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # its own session and process group, except on Windows:
                creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
            )

    def check(self) -> None:
        """Raise ClusterError if the process has ended."""
        code = self.process.poll()
        if code is not None:
            raise ClusterError(
                f"{self.name} ended with code {code}; its last words:\n{self.tail()}"
            )

    def tail(self, lines: int = 12) -> str:
        """Return the last lines of the process's output."""
        return "\n".join(self.output.read_text(errors="replace").splitlines()[-lines:])

    def terminate(self) -> None:
        """Ask the process to end; does nothing if it has ended."""
        self.process.terminate()

    def reap(self, timeout: float) -> None:
        """Wait for the process to end, at most `timeout` seconds; then kill it.

        What is left of its group is killed in any case, such as the worker of a dead nanny.
        """
        try:
            self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
        if sys.platform != "win32":
            try:
                os.killpg(self.process.pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):  # nobody left, or zombies on macOS
                pass
        self.process.wait()


class Cluster:
    """A scheduler and `workers` workers, with nannies, on 127.0.0.1 and TLS.

    `folder` is a private folder for logs and scratch files. `hold` returns a context manager in
    which a start cannot be interrupted half-way.
    """

    def __init__(
        self, folder: Path, workers: int, hold: Callable[[], AbstractContextManager[None]]
    ) -> None:
        self.folder = folder
        self.workers = workers
        self.names = [f"worker-{number}" for number in range(workers)]
        self.children: list[Child] = []
        self._hold = hold
        self._scheduler_file = folder / "scheduler.json"

    def start(self, identities: Mapping[str, IdentityFiles]) -> None:
        """Start all processes with their `identities`, without waiting for them.

        `stop` ends whatever was started, also after a failure.
        """
        # The scheduler writes its address to this file, for which the workers and we wait.
        common = ["--scheduler-file", str(self._scheduler_file), "--preload", PRELOAD]
        common += ["--no-dashboard", "--dashboard-address", "127.0.0.1:0"]
        tls = {name: files.dask_options() for name, files in identities.items()}
        options = ["--host", "tls://127.0.0.1:0", "--idle-timeout", ORPHANED]
        self._spawn("scheduler", ["scheduler", *tls["scheduler"], *options, *common])
        options = ["--nthreads", "1", "--host", "127.0.0.1", "--death-timeout", ORPHANED]
        options += ["--local-directory", str(self.folder)]
        for name in self.names:
            self._spawn(name, ["worker", *tls[name], "--name", name, *options, *common])

    def _spawn(self, name: str, arguments: list[str]) -> None:
        # The child runs in our own folder: python -m adds the current one to the path.
        command = [sys.executable, "-m", "dask", *arguments]
        with self._hold():
            self.children.append(Child(name, command, self.folder))

    def wait_for_scheduler(self) -> str:
        """Wait until the scheduler listens, and return its address. Raises ClusterError."""
        deadline = time.monotonic() + START_TIMEOUT
        while time.monotonic() < deadline:
            self.check()
            try:
                return str(json.loads(self._scheduler_file.read_text())["address"])
            except (FileNotFoundError, json.JSONDecodeError):  # not written yet, or partly
                time.sleep(0.05)
        raise ClusterError(
            f"cannot start scheduler: no address after {START_TIMEOUT:.0f} s\n{self.last_words()}"
        )

    def wait_for_workers(self, client: Any) -> None:
        """Wait until every worker has joined. Raises ClusterError if one ended, or on timeout."""
        deadline = time.monotonic() + START_TIMEOUT
        while True:
            self.check()
            joined = len(client.sync(client.scheduler.identity, n_workers=-1)["workers"])
            if joined >= self.workers:
                return
            if time.monotonic() > deadline:
                raise ClusterError(
                    f"cannot start workers: {joined} of {self.workers} joined "
                    f"in {START_TIMEOUT:.0f} s\n{self.last_words()}"
                )
            time.sleep(0.05)

    def describe(self) -> str:
        """Return the processes started here, with their process IDs."""
        return ", ".join(f"{child.name} pid {child.process.pid}" for child in self.children)

    def last_words(self) -> str:
        """Return the last output of each process."""
        return "\n".join(f"{child.name}:\n{child.tail()}" for child in self.children)

    def check(self) -> None:
        """Raise ClusterError if a process has ended."""
        for child in self.children:
            child.check()

    def stop(self) -> None:
        """End all processes and wait until they are gone: the workers, then the scheduler.

        Takes at most two STOP_TIMEOUTs. May be called at any time, and repeatedly.
        """
        scheduler, workers = self.children[:1], self.children[1:]
        for group in (workers, scheduler):
            deadline = time.monotonic() + STOP_TIMEOUT
            for child in group:
                child.terminate()
            for child in group:
                child.reap(max(0.0, deadline - time.monotonic()))
        self.children = []
