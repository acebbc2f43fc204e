"""Processes that need not import what they use: they are forked by one that has.

To import Dask takes a second, the command line half of one, and the tests start hundreds of
processes whose start is not what they are about. In those of the kind "before Dask", Dask and all
of ours are imported as ever, by whatever imports them: only what both are made of is there before.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any

from support import HANG, programs

#: what Dask reads the packages' metadata with, before Python 3.12
METADATA = [name for name in ("importlib_metadata",) if find_spec(name)]

#: what Dask imports; but not Dask, which reads the environment when it is imported
BEFORE_DASK = [
    *("cloudpickle", "concurrent.futures.process", "donfig", "jinja2"),
    *METADATA,
    *("multiprocessing.pool", "psutil", "tblib.pickling_support", "tlz", "toolz.curried", "yaml"),
]

#: what a program of a kind imports
IMPORTS = {
    # Dask, too: what reads the configuration imports it.
    "standalone": ["sealwire.comm.tcp", "sealwire.security.security", "dask", "_strptime"],
    "dask": [
        *("sealwire.comm", "sealwire.dask_backend", "distributed.comm", "_strptime"),
        *("email.policy", *(f"{name}._adapters" for name in METADATA)),
    ],
    "program": [
        *("sealwire.comm.tcp", "sealwire.comm.calls", "sealwire.security.security"),
        *BEFORE_DASK,
    ],
    "before Dask": [
        *("click", "http.cookies", "logging.config", "msgpack", "numpy", "numpy.fft"),
        *("packaging.requirements", "sortedcontainers", "tornado.httpclient", "tornado.web"),
        *("tornado.websocket", "urllib.request", "xml.etree.ElementTree", "zict"),
        *BEFORE_DASK,
    ],
    "command line": [
        *(f"sealwire.cli.certs.{n}" for n in ("check", "init", "issue", "next_steps", "renew")),
        *(f"sealwire.cli.certs.{n}" for n in ("revoke", "rotate", "show", "sign")),
        *(f"sealwire.cli.{n}.command" for n in ("bench", "demo", "probe")),
        *(f"sealwire.security.ca.{n}" for n in ("bootstrap", "renewal", "rotation", "store")),
        *("sealwire.cli.probe.connections", "sealwire.cli.probe.diagnosis", "sealwire.comm"),
        *("sealwire.security.checks.runner", "sealwire.cli.demo.report", "rich.table"),
        *("cryptography.hazmat.backends.openssl.backend", "rich._emoji_codes", "_strptime"),
        *BEFORE_DASK,
    ],
}


class Forker:
    """The process that has imported what programs of a kind need."""

    def __init__(self, kind: str, flags: Iterable[str] = ()) -> None:
        self._control, theirs = socket.socketpair()
        self._asking = threading.Lock()
        arguments = (str(theirs.fileno()), *IMPORTS[kind])
        with theirs:
            self._popen = subprocess.Popen(
                programs.command("forks", *arguments, flags=flags),
                cwd=programs.HOME,
                stdin=subprocess.DEVNULL,
                env=programs.environment(),
                pass_fds=[theirs.fileno()],
            )

    def start(
        self,
        command: Iterable[str],
        streams: tuple[int, int, int],
        environment: dict[str, str],
        cwd: Path = programs.HOME,
    ) -> int:
        """The pid of a new process with a command of Python; `streams` are its standard ones."""
        program = {"command": list(command), "environment": environment, "cwd": str(cwd)}
        return self._ask(program, streams)

    def wait(self, pid: int) -> int:
        """Wait for the end of one that `start` has started: its exit code."""
        return self._ask(pid)

    def _ask(self, request: Any, streams: Iterable[int] = ()) -> int:
        with self._asking:
            self._control.settimeout(HANG)
            socket.send_fds(self._control, [json.dumps(request).encode() + b"\n"], list(streams))
            answer = b""
            while not answer.endswith(b"\n"):
                data = self._control.recv(100)
                if not data:
                    raise AssertionError("the process that forks has died")
                answer += data
            return int(answer)

    def close(self) -> None:
        self._control.close()
        self._popen.wait(HANG)


_forkers: dict[tuple[str, ...], Forker] = {}


def forker(kind: str, flags: Iterable[str] = ()) -> Forker:
    """One for each kind and flags, for all tests of a run."""
    key = kind, *flags
    if key not in _forkers:
        _forkers[key] = Forker(kind, flags)
    return _forkers[key]


def clean_up() -> None:
    """End all of them; at the end of a run, by whatever runs the tests."""
    while _forkers:
        _forkers.popitem()[1].close()


class Popen:
    """As `subprocess.Popen` of this Python, but forked; its standard output is piped."""

    def __init__(
        self,
        kind: str,
        command: list[str],
        *,
        cwd: Path,
        env: dict[str, str],
        stdin: int = subprocess.DEVNULL,
        stderr: int | None = None,
        text: bool = False,
    ) -> None:
        at = next(at for at, part in enumerate(command) if part in ("-m", "-c"))
        self._forker = forker(kind, command[1:at])
        mode = "" if text else "b"
        self.stdin: IO[Any] | None = None
        self.returncode: int | None = None
        with contextlib.ExitStack() as given:
            readable, writable = os.pipe()
            self.stdout: IO[Any] = open(readable, f"r{mode}")  # noqa: SIM115
            given.callback(os.close, writable)
            nothing = os.open(os.devnull, os.O_RDWR)
            given.callback(os.close, nothing)
            read_by_it = nothing
            if stdin == subprocess.PIPE:
                read_by_it, ours = os.pipe()
                self.stdin = open(ours, f"w{mode}")  # noqa: SIM115
                given.callback(os.close, read_by_it)
            errors = {subprocess.STDOUT: writable, subprocess.DEVNULL: nothing, None: 2}[stderr]
            streams = (read_by_it, writable, errors)
            self.pid = self._forker.start(command[at:], streams, env, cwd)

    def send_signal(self, number: int) -> None:
        if self.returncode is None:  # until then, nobody else has its pid
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def poll(self) -> int | None:
        if self.returncode is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.wait(0)
        return self.returncode

    def wait(self, timeout: float = HANG) -> int:
        if self.returncode is None:
            descriptor = os.pidfd_open(self.pid)
            try:
                end = select.poll()  # unlike select(), of any descriptor
                end.register(descriptor, select.POLLIN)
                if not end.poll(1000 * timeout):
                    raise subprocess.TimeoutExpired(f"process {self.pid}", timeout)
            finally:
                os.close(descriptor)
            self.returncode = self._forker.wait(self.pid)
        return self.returncode

    def __enter__(self) -> Popen:
        return self

    def __exit__(self, *_: object) -> None:
        for stream in (self.stdout, self.stdin):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()
        self.wait()


@contextlib.contextmanager
def _stuck_is_killed(pid: int) -> Iterator[None]:
    timer = threading.Timer(HANG - 5, os.kill, (pid, 9))
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def sealwire(
    *arguments: str,
    folder: Path,
    terminal: int | None = None,
    out: int | None = None,
    **variables: str,
) -> tuple[int, bytes, bytes]:
    """Run ``sealwire``: its exit code, and what it has written to standard output and error.

    With `terminal`, a descriptor, it writes there; with `out`, only its standard output goes there.
    """
    command = ["-m", "sealwire.cli", *arguments]
    environment = {**os.environ, **variables}
    return _run(forker("command line"), command, folder, environment, (terminal or out, terminal))


def run(
    command: list[str], folder: Path, environment: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    """Run a command of this Python "before Dask"."""
    code, output, errors = _run(forker("before Dask"), command[1:], folder, environment)
    return subprocess.CompletedProcess(command, code, output.decode(), errors.decode())


def _run(
    one: Forker,
    command: list[str],
    folder: Path,
    environment: dict[str, str],
    instead: tuple[int | None, int | None] = (None, None),
) -> tuple[int, bytes, bytes]:
    """Exit code and what was written, but for what went to the descriptors given `instead`."""
    with (
        open(os.devnull) as nothing,
        tempfile.TemporaryFile() as output,
        tempfile.TemporaryFile() as errors,
    ):
        streams = (nothing.fileno(), instead[0] or output.fileno(), instead[1] or errors.fileno())
        pid = one.start(command, streams, environment, folder)
        with _stuck_is_killed(pid):
            code = one.wait(pid)
        output.seek(0)
        errors.seek(0)
        return code, output.read(), errors.read()
