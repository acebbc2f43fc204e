"""Files, signals and child processes: what the demo leaves behind is nothing."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from sealwire.cli.demo.cluster import Child, Cluster, ClusterError
from sealwire.cli.demo.identities import ROLES, write_roles
from sealwire.cli.signals import Interrupted, Signals
from sealwire.security import AuthorityError
from sealwire.security.ca.authority import Authority

posix = os.name == "posix"


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def test_private_files_are_private_whatever_the_umask(tmp_path: Path) -> None:
    with umask(0):
        files = write_roles(tmp_path, Authority.create())
    assert set(files) == set(ROLES)
    for path in tmp_path.iterdir():
        if posix:
            assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    for role, paths in files.items():
        assert "BEGIN PRIVATE KEY" in Path(paths.key).read_text()
        assert "PRIVATE KEY" not in Path(paths.certificate).read_text()
        assert role in paths.certificate


def test_a_file_of_another_owner_is_not_written_into(tmp_path: Path) -> None:
    (tmp_path / "worker-key.pem").touch()
    with pytest.raises(AuthorityError, match=r"worker-key\.pem: it exists already"):
        write_roles(tmp_path, Authority.create())
    assert (tmp_path / "worker-key.pem").read_text() == ""


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_only_the_first_signal_interrupts(signum: int) -> None:
    before = signal.getsignal(signum)

    def cleaned_up() -> None:
        with Signals():
            try:
                signal.raise_signal(signum)
            finally:
                signal.raise_signal(signum)
                steps.append("clean-up")

    steps: list[str] = []
    with pytest.raises(Interrupted, match=signal.Signals(signum).name) as caught:
        cleaned_up()
    assert caught.value.exit_code == 128 + signum
    assert steps == ["clean-up"]
    assert signal.getsignal(signum) == before


def test_a_signal_waits_for_the_end_of_what_is_held() -> None:
    def held() -> None:
        with Signals() as signals:
            try:
                with signals.held():
                    signal.raise_signal(signal.SIGINT)
                    steps.append("started")
                steps.append("never")
            finally:
                with signals.held():
                    signal.raise_signal(signal.SIGINT)
                    steps.append("stopped")
                steps.append("cleaned up")

    steps: list[str] = []
    with pytest.raises(Interrupted):
        held()
    assert steps == ["started", "stopped", "cleaned up"]


def test_a_swallowed_interrupt_comes_back() -> None:
    def swallow() -> None:
        with Signals():
            try:
                signal.raise_signal(signal.SIGINT)
            except KeyboardInterrupt:
                pass

    with pytest.raises(Interrupted):
        swallow()


STUBBORN = """
import signal, socket, subprocess, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
told = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
told.set_inheritable(True)
child = subprocess.Popen(
    [sys.executable, "-c", "import threading; threading.Event().wait()"], close_fds=False
)
told.sendall(str(child.pid).encode())
child.wait()
"""


@pytest.mark.parametrize("orphaned", [False, True])
def test_a_child_that_does_not_listen_is_killed_with_its_own(
    tmp_path: Path, orphaned: bool
) -> None:
    """The connection is held by child and grandchild: it ends when both have."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(60)
        port = str(server.getsockname()[1])
        child = Child("stubborn", [sys.executable, "-c", STUBBORN, port], tmp_path)
        try:
            connection, _ = server.accept()
            connection.settimeout(60)
            grandchild = int(connection.recv(64))
            assert psutil.Process(grandchild).ppid() == child.process.pid
        finally:
            if orphaned:
                child.process.kill()
            child.terminate()
            child.reap(0.1)
    with connection:
        assert connection.recv(64) == b""
    assert child.process.returncode == -signal.SIGKILL
    with pytest.raises(ClusterError, match="stubborn ended with code -9"):
        child.check()


def test_a_child_that_ends_is_named_with_its_last_words(tmp_path: Path) -> None:
    script = "import sys; print('one'); print('two', file=sys.stderr); sys.exit(3)"
    child = Child("worker-7", [sys.executable, "-c", script], tmp_path)
    child.reap(60)
    with pytest.raises(ClusterError, match="worker-7 ended with code 3") as caught:
        child.check()
    assert {"one", "two"} <= set(str(caught.value).splitlines())


def test_a_child_leads_a_session_of_its_own(tmp_path: Path) -> None:
    """Or Ctrl-C in a terminal would reach it as well."""
    child = Child("child", [sys.executable, "-c", "import os; print(os.getsid(0))"], tmp_path)
    child.reap(60)
    assert child.tail() == str(child.process.pid) != str(os.getsid(0))


def test_a_cluster_that_was_never_started_stops(tmp_path: Path) -> None:
    Cluster(tmp_path, 2, Signals().held).stop()


def test_observing_a_process_does_not_change_it(tmp_path: Path) -> None:
    """A process without our backend says so; being asked does not install it."""
    script = (
        "import sys, distributed.comm.registry as r; before = r.backends['tls']\n"
        "from sealwire.cli.demo.observations import observe; told = observe()\n"
        "print(told['installed'], told['links'], 'sealwire.dask_backend' in sys.modules,\n"
        "      r.backends['tls'] is before)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout == "False [] False True\n"
