"""A CA with `certs serve` in a process of its own, and Dask's programs with tokens and no files."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any

from support.certs_cli import good, told
from support.processes import Program, ended

__all__ = ["SECRET", "Cluster", "bare"]

QUIET = ("--no-dashboard", "--dashboard-address", "127.0.0.1:0")  # it serves HTTP even so
SECRET = re.compile(r"sealwire_join_[a-z2-7]+")


def bare() -> dict[str, str]:
    """The environment without what configures Dask or sealwire."""
    return {k: v for k, v in os.environ.items() if not k.startswith(("DASK_", "SEALWIRE_"))}


class Cluster:
    """A CA with its service, and processes that have no files at all.

    With another one, only the processes: its CA and service are shared.
    """

    def __init__(self, path: Path, other: Cluster | None = None) -> None:
        self.path = path
        self.started: list[Program] = []
        self.made: list[str] = []  # tokens, by their ids
        if other is not None:
            self.ca, self.service = other.ca, other.service
            return
        self.ca = path / "ca"
        good("init", str(self.ca))
        serve = ("certs", "serve", "--host", "127.0.0.1", "--port", "0", "--dir", str(self.ca))
        service = self.start("service", "sealwire.cli", *serve)
        self.service = service.wait_for(r"serving the CA at tls://(\S+)")[1]

    def start(self, home: str, *module: str, **variables: str) -> Program:
        """``python -m`` a module, in an empty home."""
        place = self.path / f"home-{home}"
        place.mkdir()
        kept = bare()
        before = dict(os.environ)
        os.environ.clear()
        os.environ.update({**kept, "HOME": str(place), **variables})
        try:
            program = Program([sys.executable, "-m", *module], place)
        finally:
            os.environ.clear()
            os.environ.update(before)
        self.started.append(program)
        return program

    def token(self, role: str, *options: str) -> str:
        done = told("token", "--role", role, "--dir", str(self.ca), *options)
        self.made.append(done["id"])
        return str(done["token"])

    def listed(self) -> list[Any]:
        """What ``certs token --list`` says of the tokens made here."""
        listed = {
            each["id"]: each for each in told("token", "--list", "--dir", str(self.ca))["tokens"]
        }
        return [listed[each] for each in self.made]

    def joining(self, role: str, *options: str) -> dict[str, str]:
        """The two variables."""
        return {"SEALWIRE_JOIN": self.service, "SEALWIRE_TOKEN": self.token(role, *options)}

    def scheduler(self) -> str:
        options = ("--host", "127.0.0.1", "--port", "0", *QUIET)
        started = self.start(
            "scheduler", "dask", "scheduler", *options, **self.joining("scheduler")
        )
        return started.wait_for(r"Scheduler at:\s+(\S+)")[1]

    def worker(self, scheduler: str, name: str, *options: str, **variables: str) -> Program:
        return self.start(
            name, "dask", "worker", scheduler, "--host", "127.0.0.1", "--nthreads", "1",
            *QUIET, *options, **(variables or self.joining("worker")),
        )  # fmt: skip

    @property
    def output(self) -> str:
        return "".join(line for each in self.started for line in each.output)

    def end(self) -> None:
        ended(self.started)
