"""A listener of ours in a process of its own, seen from outside: memory, descriptors, CPU, log."""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import psutil

from support import HANG, certs, forking, programs

#: of the line that a process with our backend logs of itself at its start
START = "INFO:sealwire.dask_backend:sealwire "
MiB = 1 << 20
Number = TypeVar("Number", int, float)

#: ways to run the server; what must hold holds in each of them
MODES: dict[str, dict[str, Any]] = {
    "plain": {},
    "optimised": {"flags": ["-O"]},
    "uvloop": {"loop": "uvloop"},
    "debug": {"environment": {"PYTHONASYNCIODEBUG": "1"}},
}

#: what a listener says of a peer that takes nothing
SLOW_CONSUMER = re.compile(
    r"comm with (tcp|tls)://\S+ closed: (\d+) bytes are queued unsent, the limit is (\d+), and it "
    r"last took some (\d+\.\d) s ago; see whether that process is stopped or overloaded, or raise "
    r"Limits\.max_queued"
)

FULL = os.environ.get("SEALWIRE_HOSTILE") == "full"

#: kind, scheme and mode: each once in everyday runs, all with all in full ones
COMBINATIONS = (
    [(k, s, m) for k in ("standalone", "dask") for s in ("tcp", "tls") for m in MODES]
    if FULL
    else [
        ("standalone", "tcp", "plain"),
        ("standalone", "tls", "optimised"),
        ("dask", "tcp", "uvloop"),
        ("dask", "tls", "debug"),
    ]
)


def count(full: int, reduced: Number) -> int | Number:
    """How often, or how long: the promised figure in a full run, less in everyday ones."""
    return full if FULL else reduced


def within(promised: float) -> float:
    """A bound on time: the promised one in a full run, which has the machine to itself.

    An everyday one may share it: there it only tells what is slow from what is stuck.
    """
    return promised if FULL else 20 * promised


def check(holds: object, *words: object) -> None:
    """An assertion that python -O does not take away."""
    if not holds:
        raise AssertionError(*words)


def figure(words: str) -> None:
    """Print what was measured, for the table of docs/security.md: ``pytest -s`` shows it."""
    test = os.environ.get("PYTEST_CURRENT_TEST", "").partition("::")[2].partition(" (")[0]
    print(f"\nmeasured {test}: {words}", flush=True)


_folders: list[Path] = []


def clean_up() -> None:
    """Remove what `identities` has made; at the end of a run, by whatever runs it."""
    forking.clean_up()
    while _folders:
        shutil.rmtree(_folders.pop(), ignore_errors=True)


@functools.cache
def identities() -> dict[str, str]:
    """Files of a CA, a server, a client and peers that are refused, for all tests of a run."""
    if given := os.environ.get("HOSTILE_FILES"):  # a peer in a process of its own
        return dict(json.loads(given))
    folder = Path(tempfile.mkdtemp(prefix="hostile-"))
    _folders.append(folder)
    authority, other = certs.root(), certs.root("another root")
    nodes = {
        "server": certs.leaf(authority, "server"),
        "client": certs.leaf(authority, "client"),
        "foreign": certs.leaf(other, "foreign"),
        "expired": certs.leaf(authority, "expired", end=-certs.SECOND),
    }
    files = {}
    for name, text in [
        ("ca", authority.pem),
        *((name, node.pem + node.key_pem) for name, node in nodes.items()),
    ]:
        path = folder / f"{name}.pem"
        path.touch(mode=0o600)
        path.write_text(text)
        files[name] = str(path)
    return files


class Target:
    """The running server. As a context manager it is ended, and must have ended well.

    Attributes
    ----------
    address : str
        Where it listens.
    process : psutil.Process
    """

    def __init__(
        self,
        kind: str = "standalone",
        scheme: str = "tls",
        *,
        loop: str = "asyncio",
        flags: list[str] | None = None,
        environment: dict[str, str] | None = None,
        descriptors: int = 0,
        **limits: float,
    ) -> None:
        configuration = {
            "kind": kind,
            "scheme": scheme,
            "loop": loop,
            "limits": limits,
            "files": identities(),
            "descriptors": descriptors,
        }
        self.scheme = scheme
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed in __exit__)
        theirs_in, ours_in = os.pipe()
        ours_out, theirs_out = os.pipe()
        self._stdin, self._stdout = os.fdopen(ours_in, "w"), os.fdopen(ours_out)
        self._forker = forking.forker(kind, flags or ())
        try:
            pid = self._forker.start(
                ["-m", f"{programs.__name__}.target_server", json.dumps(configuration)],
                (theirs_in, theirs_out, self._log.fileno()),
                {**os.environ, **(environment or {})},
            )
        finally:
            os.close(theirs_in)
            os.close(theirs_out)
        self.process = psutil.Process(pid)
        self.address = self._line()

    def _line(self) -> str:
        line = self._stdout.readline().strip()
        check(line, "the server has died:", self.log())
        return line

    def ask(self, command: str) -> Any:
        """The server's answer to ``stats``, ``held``, ``sent``, ``alive`` or ``stop``."""
        self._stdin.write(command + "\n")
        self._stdin.flush()
        return json.loads(self._line())

    def has_looked(self) -> None:
        """Return once its loop has come round to what was sent to it before."""
        for _ in range(4):  # it accepts, looks at the first byte, and goes on from there
            self.ask("held")

    def log(self) -> str:
        self._log.flush()
        with open(f"/proc/self/fd/{self._log.fileno()}") as copy:
            return "".join(line for line in copy if not line.startswith(START))

    def resident(self) -> int:
        return int(self.process.memory_info().rss)

    def reserved(self) -> int:
        """Address space."""
        return int(self.process.memory_info().vms)

    def peak_since(self, act: Callable[[], Any]) -> int:
        """How far the resident memory rose at most while `act` ran."""
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")
        before = self.resident()
        act()
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        (line,) = [line for line in status.splitlines() if line.startswith("VmHWM")]
        return int(line.split()[1]) * 1024 - before

    def descriptors(self) -> int:
        return int(self.process.num_fds())

    def cpu(self, act: Callable[[], Any]) -> float:
        """The part of one core it used while `act` ran."""
        before, start = sum(self.process.cpu_times()[:2]), time.monotonic()
        act()
        return float((sum(self.process.cpu_times()[:2]) - before) / (time.monotonic() - start))

    def until(self, condition: Callable[[], object], words: str) -> None:
        """Look again and again, until it holds."""
        deadline = time.monotonic() + HANG
        while not condition():
            check(time.monotonic() < deadline, words, self.ask("stats"), self.log()[-3000:])
            time.sleep(0.01)

    def until_stats(self, **expected: Any) -> dict[str, Any]:
        """Wait until these of its counters have these values; all its counters."""
        seen: dict[str, Any] = {}

        def there() -> bool:
            seen.update(self.ask("stats"))
            return all(seen[name] == value for name, value in expected.items())

        self.until(there, f"no {expected}")
        return seen

    def until_ended(self) -> None:
        """It ends when its standard input does; then it waits for us as a zombie."""
        deadline = time.monotonic() + HANG
        while self.process.status() != psutil.STATUS_ZOMBIE:
            check(time.monotonic() < deadline, "the server does not end", self.log()[-3000:])
            time.sleep(0.005)

    def __enter__(self) -> Target:
        return self

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        pid = self.process.pid
        try:
            self._stdin.close()
            self.until_ended()
        except BaseException:
            self.process.kill()
            raise
        finally:
            code = self._forker.wait(pid)
            words = self.log()
            self._stdout.close()
            self._log.close()
        if error is None:
            check(code == 0, f"the server ended with {code}", words[-3000:])
