"""A Dask cluster over TLS in processes of this machine, as a deployed one: `dask` and a dask.yaml.

Each process leads a session of its own and holds the end of a pipe to the one that has started it:
so all end with it, also if it is killed (`preload`).
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from sealwire.cli.demo.cluster import Child
from sealwire.comm.arguments import expect_bool
from sealwire.security.parameters import ROLES, Role
from sealwire.security.quoting import shown

from .identities import Certificates, Roles, temporary_certificates, temporary_folder
from .preload import FOLDERS, STATE

if TYPE_CHECKING:
    from distributed import Client

    from sealwire.dask_backend import Security

__all__ = ["Cluster", "ClusterError", "installed_as_before", "tls_cluster"]

_PRELOAD = "sealwire.testing.preload"
_LOGS = ("distributed.scheduler", "distributed.worker", "distributed.core", "sealwire")
_OTHERS = (  # variables that would configure the cluster's TLS, or displace what is preloaded
    "DASK_CONFIG",
    "DASK_INTERNAL_INHERIT_CONFIG",
    "DASK_DISTRIBUTED__COMM",
    "DASK_DISTRIBUTED__SCHEDULER__PRELOAD",
    "DASK_DISTRIBUTED__WORKER__PRELOAD",
    "DASK_LOGGING",
    "DASK_SEALWIRE__TLS",
    "DASK_SEALWIRE__JOIN",
    "SEALWIRE_JOIN",
    "SEALWIRE_TOKEN",
)
_UNSET: dict[str, Any] = {  # what files of this machine may set for other certificates
    "distributed": {"comm": {"tls": {role: {"key": None} for role in ROLES}}},
    "sealwire": {
        "tls": dict.fromkeys(("key-password", "server-hostname")),
        "join": {"address": None},
    },
}
#: what the cluster's own configuration has mappings for
_SECTIONS = ("distributed.comm.tls", "distributed.scheduler", "distributed.worker", "sealwire.tls")
_START_TIMEOUT = 60.0  # seconds
_STOP_TIMEOUT = 5.0  # seconds for a process to end on request, before it is killed


_T = TypeVar("_T")


class ClusterError(Exception):
    """A cluster could not be started, or did not do what was waited for; with its last words."""


class Cluster:
    """A scheduler and workers, each a process. Made by `tls_cluster`.

    Attributes
    ----------
    address : str
        The scheduler's.
    certificates : Certificates
        Those of its processes; they follow changes.
    folder : Path
        For logs and scratch files, private; gone with the cluster.
    """

    def __init__(
        self, folder: Path, certificates: Certificates, config: Mapping[str, Any] | None
    ) -> None:
        self.address = ""
        self.certificates = certificates
        self.folder = folder
        self._config = _plain(config)
        self._children: dict[str, Child] = {}
        self._count = 0

    @property
    def security(self) -> Security:
        """A new `sealwire.dask_backend.Security` of the client, for a `distributed.Client`."""
        return self.certificates.dask_security("client")

    @property
    def pids(self) -> dict[str, int]:
        """The process IDs of the scheduler and the workers, by their names."""
        return {name: child.process.pid for name, child in self._children.items()}

    def client(self, **arguments: Any) -> Client:
        """Connect a `distributed.Client`, with further `arguments` of it; the caller closes it."""
        from distributed import Client

        return Client(self.address, **{"security": self.security, **arguments})

    def start_worker(self, name: str | None = None, *, wait: bool = True) -> str:
        """Start another worker, and wait until it has registered, unless told not to.

        Returns its name, ``worker-0`` and so on without one.
        """
        expect_bool("start_worker()", "wait", wait)
        if name is None:
            name = f"worker-{self._count}"
            self._count += 1
        options = ["--nthreads", "1", "--no-nanny", "--host", "127.0.0.1", "--name", name]
        options += ["--local-directory", str(self.folder)]
        options += ["--scheduler-file", str(self.folder / "scheduler.json")]
        self._start(name, "worker", options)
        if wait:
            self.wait_for_start(name)
        return name

    def wait_for_start(self, name: str, timeout: float = _START_TIMEOUT) -> None:
        """Wait until a process is ready: the scheduler listens, a worker has registered.

        Raises `ClusterError` if it ends before, or does not use this project's backend.
        """
        state = self._state(name)

        def told() -> dict[str, Any] | None:
            with contextlib.suppress(FileNotFoundError):
                found: dict[str, Any] = json.loads(state.read_text())
                return found
            return None

        found = self._until(told, name, "has not started", timeout)
        if found["strangers"]:
            raise ClusterError(
                f"cannot use {name}: {', '.join(found['strangers'])} came in place of sealwire's; "
                f"leave preloads and distributed.comm out of the configuration"
            )
        if name == "scheduler":
            self.address = found["address"]

    def wait_for_log(self, name: str, pattern: str, timeout: float = 30.0) -> re.Match[str]:
        """Return the first match of a regular expression in what a process has logged.

        Waits for it, and raises `ClusterError` after `timeout` seconds or if the process ends.
        """
        wanted = re.compile(pattern)
        words = f"has not logged {pattern!r}"
        return self._until(lambda: wanted.search(self.log(name)), name, words, timeout)

    def log(self, name: str) -> str:
        """Return what a process has written so far."""
        return self._child(name).output.read_text(errors="replace")

    def kill(self, name: str) -> None:
        """Kill a process, as the system does when memory runs out."""
        child = self._child(name)
        child.process.kill()
        child.reap(_STOP_TIMEOUT)

    def stop(self) -> None:
        """End all processes: workers, then the scheduler; what is left is killed."""
        children = list(self._children.values())
        for group in (children[1:], children[:1]):
            deadline = time.monotonic() + _STOP_TIMEOUT
            for child in group:
                child.terminate()
            for child in group:
                child.reap(max(0.0, deadline - time.monotonic()))
                assert child.process.stdin is not None
                child.process.stdin.close()

    def start(self, workers: int) -> None:
        """Start the scheduler and workers, and wait for those that are not refused."""
        options = ["--host", "tls://127.0.0.1:0"]
        options += ["--scheduler-file", str(self.folder / "scheduler.json")]
        self._start("scheduler", "scheduler", options)
        names = [self.start_worker(wait=False) for _ in range(workers)]
        self.wait_for_start("scheduler")
        if not {"scheduler", "worker"} & self.certificates.faulty:
            for name in names:
                self.wait_for_start(name)

    def _start(self, name: str, role: Role, options: list[str]) -> None:
        good = isinstance(name, str) and re.fullmatch(r"[\w.-]{1,60}", name)  # files have it, too
        if not good or name in self._children:
            raise ValueError(
                f"bad name {shown(name)}: need a new text of at most 60 letters, digits, '.-_'"
            )
        path = self.folder / f"{role}.yaml"
        if not path.exists():
            path.write_text(json.dumps(self._configuration(role)))
        kept = {k: v for k, v in os.environ.items() if not k.upper().startswith(_OTHERS)}
        before = [kept["PYTHONPATH"]] if kept.get("PYTHONPATH") else []
        environment = {
            **kept,
            "DASK_CONFIG": str(path),
            "DASK_TEMPORARY_DIRECTORY": str(self.folder),
            "PYTHONPATH": os.pathsep.join([*_own_paths(), *before]),
            "PYTHONUNBUFFERED": "1",
            STATE: str(self._state(name)),
            FOLDERS: os.pathsep.join(map(str, (self.certificates.folder.parent, self.folder))),
        }
        command = [sys.executable, "-m", "dask", role, *options]
        command += ["--no-dashboard", "--dashboard-address", "127.0.0.1:0"]
        self._children[name] = Child(
            name, command, self.folder, environment=environment, stdin=subprocess.PIPE
        )

    def _configuration(self, role: Role) -> dict[str, Any]:
        """Return the dask.yaml of a role: that of its CA's folder, and more."""
        import dask.config
        import yaml

        text = (self.certificates.home(role) / "dask.yaml").read_text()
        made: dict[str, Any] = dask.config.merge(_UNSET, yaml.safe_load(text), self._config)
        fields = self.certificates.fields(role)
        made["distributed"]["comm"]["tls"]["ca-file"] = fields["tls_ca_file"]
        made["sealwire"]["tls"].update({"crl-file": fields["tls_crl_file"], "reload-interval": 0})
        for process in ("scheduler", "worker"):
            preload = made["distributed"][process]["preload"] or ()  # as in Dask, also a text
            named = [preload] if isinstance(preload, str) else preload
            made["distributed"][process]["preload"] = [*named, _PRELOAD]
        return dask.config.merge({"logging": dict.fromkeys(_LOGS, "info")}, made)

    def _state(self, name: str) -> Path:
        return self.folder / f"{name}.state"

    def _child(self, name: str) -> Child:
        if name not in self._children:
            raise ValueError(f"no process {name!r}; there are {', '.join(self._children)}")
        return self._children[name]

    def _until(self, look: Callable[[], _T | None], name: str, words: str, timeout: float) -> _T:
        """Return what `look` finds; wait for it as long as the process lives."""
        child = self._child(name)
        deadline = time.monotonic() + timeout
        while True:
            ended = child.process.poll()  # before the look, which finds its last words
            if found := look():
                return found
            late = time.monotonic() > deadline
            if late or ended is not None:
                why = f"within {timeout:g} s" if late else f"and has ended with code {ended}"
                raise ClusterError(f"{name} {words} {why}; its last words:\n{child.tail()}")
            time.sleep(0.02)


@contextlib.contextmanager
def tls_cluster(
    workers: int = 1,
    *,
    expired: Roles = (),
    revoked: Roles = (),
    other_ca: Roles = (),
    trust_both: bool = False,
    config: Mapping[str, Any] | None = None,
) -> Iterator[Cluster]:
    """Start a scheduler and workers on 127.0.0.1; end them at the end of the ``with`` block.

    They are what ``dask scheduler`` and ``dask worker`` start with the dask.yaml of ``sealwire
    certs init``, without nannies. It is asserted that each listens and dials by this project's
    backend. Workers find the modules that this process finds.

    Parameters
    ----------
    workers : int, default 1
        They are waited for, unless a fault keeps them from the scheduler.
    expired, revoked, other_ca, trust_both : optional
        Faults, as for `temporary_certificates`.
    config : mapping, optional
        Further configuration of the processes, nested as in a dask.yaml, of what such a file can
        hold: mappings, lists, texts, numbers, booleans and None.

    Raises
    ------
    ClusterError
        If a process does not start, with its last words.
    ValueError
        For impossible faults, and a `config` that no dask.yaml can have.

    Notes
    -----
    The backend is installed in this process by `Cluster.security`, and uninstalled at the end if
    it was not before.
    """
    if type(workers) is not int or workers < 0:
        raise ValueError(f"bad workers {workers!r}: need a number, 0 or more")
    faults: dict[str, Any] = {"expired": expired, "revoked": revoked, "other_ca": other_ca}
    with (
        temporary_certificates(**faults, trust_both=trust_both) as certificates,
        temporary_folder() as folder,
        installed_as_before(),
    ):
        cluster = Cluster(folder, certificates, config)
        try:
            cluster.start(workers)
            yield cluster
        finally:
            cluster.stop()


@contextlib.contextmanager
def installed_as_before() -> Iterator[None]:
    """Uninstall the backend at the end, unless it was installed at the beginning."""
    from sealwire.dask_backend import installed, uninstall

    before = installed()
    try:
        yield
    finally:
        if not before:
            uninstall()


def _plain(config: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return a copy of the configuration as a dask.yaml would have it. Raises ValueError."""
    need = "need mappings, lists, texts, numbers, booleans and None, nested as in a dask.yaml"
    if config is not None and not isinstance(config, Mapping):
        raise ValueError(f"bad config: {shown(config)}; {need}")
    try:
        made: dict[str, Any] = json.loads(json.dumps(dict(config or {})))
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"bad config: {error}; {need}") from error
    for section in _SECTIONS:
        part: Any = made
        names = section.split(".")
        for number, name in enumerate(names, 1):
            part = part.get(name, {})
            if not isinstance(part, dict):
                where = ".".join(names[:number])
                raise ValueError(
                    f"bad config: {where} is {shown(part)}; leave it out, or give a mapping"
                )
    return made


def _own_paths() -> list[str]:
    """Return what is on the path of this process, but not of every one of this Python."""
    known = tuple({sys.prefix, sys.base_prefix, sys.exec_prefix})
    paths = [os.path.abspath(path) for path in sys.path]
    return [path for path in paths if not path.startswith(known) and os.path.isdir(path)]
