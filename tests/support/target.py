"""A listener of ours in a process of its own, seen from outside: memory, descriptors, CPU, log."""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from support import certs, programs

HANG = 60.0  # seconds after which something is stuck
MiB = 1 << 20

#: ways to run the server; what must hold holds in each of them
MODES: dict[str, dict[str, Any]] = {
    "plain": {},
    "optimised": {
        "flags": ["-O"],
        "environment": {  # compiled once a run, not at each start
            "PYTHONDONTWRITEBYTECODE": "",
            "PYTHONPYCACHEPREFIX": str(Path(tempfile.gettempdir()) / "sealwire-optimised"),
        },
    },
    "uvloop": {"loop": "uvloop"},
    "debug": {"environment": {"PYTHONASYNCIODEBUG": "1"}},
}

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


def count(full: int, reduced: int) -> int:
    """How often: the promised figure in a full run, fewer in everyday ones."""
    return full if FULL else reduced


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
    """Remove what `identities` has made; at the end of a run, by whoever runs it."""
    while _folders:
        shutil.rmtree(_folders.pop(), ignore_errors=True)


@functools.cache
def identities() -> dict[str, str]:
    """Files of a CA, a server and a client, and of strangers, for all the tests of a run."""
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
        self._popen = subprocess.Popen(
            programs.command("target_server", json.dumps(configuration), flags=flags or ()),
            cwd=programs.HOME,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=programs.environment(**(environment or {})),
            text=True,
        )
        self.address = self._line()
        self.process = psutil.Process(self._popen.pid)

    def _line(self) -> str:
        assert self._popen.stdout is not None
        line = self._popen.stdout.readline().strip()
        check(line, "the server has died:", self.log())
        return line

    def ask(self, command: str) -> Any:
        """The server's answer to ``stats``, ``held``, ``sent``, ``alive`` or ``stop``."""
        assert self._popen.stdin is not None
        self._popen.stdin.write(command + "\n")
        self._popen.stdin.flush()
        return json.loads(self._line())

    def has_looked(self) -> None:
        """Return once its loop has come round to what was sent to it before."""
        for _ in range(4):  # it accepts, looks at the first byte, and goes on from there
            self.ask("held")

    def log(self) -> str:
        self._log.flush()
        with open(f"/proc/self/fd/{self._log.fileno()}") as copy:
            return copy.read()

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

    def __enter__(self) -> Target:
        return self

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        stdin, stdout = self._popen.stdin, self._popen.stdout
        assert stdin is not None
        assert stdout is not None
        try:
            stdin.close()
            code = self._popen.wait(HANG)
        except BaseException:
            self._popen.kill()
            self._popen.wait()
            raise
        finally:
            words = self.log()
            stdout.close()
            self._log.close()
        if error is None:
            check(code == 0, f"the server ended with {code}", words[-3000:])
