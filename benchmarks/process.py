"""A child that takes lines of JSON on stdin and answers with lines of JSON."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

PATIENCE = 180  # seconds for one answer


class Failed(Exception):
    """A child could not do what it was told."""


class Process:
    """`program` in an interpreter of its own, told `who` it is, called `name` in errors.

    `more` is added to its environment.
    """

    def __init__(
        self, program: Path, name: str, who: dict[str, Any], more: dict[str, str] | None = None
    ) -> None:
        self._name = name
        environment = {**os.environ, **(more or {})}
        # Compiled modules are kept, as an installed package's are: the start of a process counts.
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        self._process = subprocess.Popen(
            [sys.executable, str(program)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
        )
        self._rest = b""
        self._write(who)

    def _write(self, line: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(line).encode() + b"\n")
        self._process.stdin.flush()

    def send(self, command: str, **arguments: Any) -> None:
        """Give a command whose answer is asked for later."""
        self._write({"do": command, **arguments})

    def answer(self) -> dict[str, Any]:
        """The answer to the command that was sent. Raises Failed if there is none in time."""
        assert self._process.stdout is not None
        deadline = time.monotonic() + PATIENCE
        descriptor = self._process.stdout.fileno()
        while b"\n" not in self._rest:
            ready, _, _ = select.select([descriptor], [], [], max(0, deadline - time.monotonic()))
            data = os.read(descriptor, 1 << 16) if ready else b""
            if not data:
                raise Failed(f"{self._name}: " + ("it ended" if ready else "no answer in time"))
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise Failed(f"{self._name}: {answer['error']}")
        return answer

    def tell(self, command: str, **arguments: Any) -> dict[str, Any]:
        """Have a command done; see `peers/worker.py`."""
        self.send(command, **arguments)
        return self.answer()

    def end(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()
