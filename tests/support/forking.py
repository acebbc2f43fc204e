"""Processes that need not import what they use: they are forked by one that has.

To import Dask takes a second, the command line half of one, and the tests start hundreds of
processes whose start is not what they are about.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from support import HANG, programs

#: what Dask imports; but not Dask, which reads the environment when it is imported
BEFORE_DASK = [
    *("cloudpickle", "concurrent.futures.process", "donfig", "jinja2"),
    *(name for name in ("importlib_metadata",) if find_spec(name)),  # before Python 3.12
    *("multiprocessing.pool", "psutil", "tblib.pickling_support", "tlz", "toolz.curried", "yaml"),
]

#: what a program of a kind imports
IMPORTS = {
    "standalone": ["sealwire.comm", "sealwire.security", *BEFORE_DASK],
    "dask": ["sealwire.comm", "sealwire.dask_backend", "distributed.comm"],
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
        module: str,
        arguments: Iterable[str],
        streams: tuple[int, int, int],
        environment: dict[str, str],
        cwd: Path = programs.HOME,
    ) -> int:
        """The pid of a new process that runs a module; `streams` are its standard ones."""
        program = {
            "module": module,
            "arguments": list(arguments),
            "environment": environment,
            "cwd": str(cwd),
        }
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
    one = forker("command line")
    with (
        open(os.devnull) as nothing,
        tempfile.TemporaryFile() as output,
        tempfile.TemporaryFile() as errors,
    ):
        streams = (nothing.fileno(), output.fileno() if out is None else out, errors.fileno())
        if terminal is not None:
            streams = (nothing.fileno(), terminal, terminal)
        pid = one.start("sealwire.cli", arguments, streams, {**os.environ, **variables}, folder)
        with _stuck_is_killed(pid):
            code = one.wait(pid)
        output.seek(0)
        errors.seek(0)
        return code, output.read(), errors.read()
