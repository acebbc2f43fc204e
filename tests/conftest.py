"""Settings for every test, and a temporary folder for all that must be empty in the end.

With ``SEALWIRE_HOLD_GIL=off`` comms receive large frames as `ssl` does, unless a test says which.
Processes that the tests start are told by Dask's configuration, where they use Dask.
"""

from __future__ import annotations

import gc
import importlib.util
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from support.processes import Programs

# Time is no verdict on a shared machine.
settings.register_profile("shared", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared")

SCRATCH = "dask-scratch-space"
FOLDER = pytest.StashKey[str]()
LEFT = pytest.StashKey[list[str]]()


def pytest_configure(config: pytest.Config) -> None:
    """Give the tests, and every process they start, a temporary folder of their own.

    The processes of xdist inherit it. What `tmp_path` gives is elsewhere, and kept as usual.
    """
    choose_hold()
    # Thousands of small files wait for the disk; none is to outlive a loss of power. A descriptor
    # that is none is an error as before, and the processes of the tests sync what they write.
    os.fsync = os.fstat
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell's `&` does, for children too
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if hasattr(config, "workerinput"):
        return
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", tempfile.gettempdir())
    folder = tempfile.mkdtemp(prefix="sealwire-tests-")
    config.stash[FOLDER] = tempfile.tempdir = os.environ["TMPDIR"] = folder


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what needs Chromium or Bokeh where it is missing, unless it is required."""
    from support.browser import chromium

    required = os.environ.get("REQUIRED_BY_TESTS", "").split()
    there = {"browser": chromium(), "bokeh": importlib.util.find_spec("bokeh")}
    missing = [name for name, found in there.items() if not found and name not in required]
    left = {item for item in items for name in missing if item.get_closest_marker(name)}
    if left:
        config.hook.pytest_deselected(items=list(left))
        items[:] = [item for item in items if item not in left]


def pytest_collection() -> None:
    """Look for no garbage in what is only being made."""
    gc.disable()


def pytest_collection_finish() -> None:
    """Let later collections of garbage pass over all that thousands of tests are made of.

    With the little garbage in it: each process would look for that a quarter of a second.
    """
    gc.freeze()
    gc.enable()


@pytest.fixture
def programs(tmp_path: Path) -> Iterator[Programs]:
    """Starts ``dask scheduler`` and ``dask worker``; ends all of them."""
    from support.processes import Programs

    with Programs(tmp_path) as started:
        yield started


@pytest.fixture
def forked(tmp_path: Path) -> Iterator[Programs]:
    """As `programs`, at a third less, where it is not the point how they are started."""
    from support.processes import Programs

    with Programs(tmp_path, forked=True) as started:
        yield started


def choose_hold() -> None:
    """Hold the GIL or not, as the environment says."""
    choice = os.environ.get("SEALWIRE_HOLD_GIL", "on")
    if choice == "off":
        from sealwire.comm.transport import switch_interval

        for made in (switch_interval.Policy.__new__, switch_interval.configure):
            made.__defaults__ = (*made.__defaults__[:-1], False)
        switch_interval.configure()
        os.environ["DASK_SEALWIRE__TLS__HOLD_GIL"] = "false"
    elif choice != "on":
        raise pytest.UsageError(f"bad SEALWIRE_HOLD_GIL {choice!r}: need on or off")


def left_in(folder: Path) -> list[str]:
    """What is there, but for what distributed keeps: a folder for all servers, and its locks.

    A worker that was killed, as nannies kill slow ones, leaves its own to the next worker.
    """
    left = {path.name for path in folder.iterdir()}
    if SCRATCH in left:
        from distributed.diskutils import WorkSpace

        WorkSpace(str(folder / SCRATCH)).new_work_dir(prefix="next-").release()
        left.remove(SCRATCH)
        left |= {f"{SCRATCH}/{p.name}" for p in (folder / SCRATCH).iterdir() if p.suffix != ".lock"}
    return sorted(left)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Fail if a test has left something in the temporary folder."""
    for name in ("support.target", "support.forking"):
        if (module := sys.modules.get(name)) is not None:
            module.clean_up()
    if (folder := session.config.stash.get(FOLDER, None)) is None:
        return
    left = left_in(Path(folder))
    shutil.rmtree(folder, ignore_errors=True)
    # An interrupted run may leave anything.
    if left and exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        session.config.stash[LEFT] = left
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Name what was left."""
    if left := config.stash.get(LEFT, None):
        names = ", ".join(left[:20])
        terminalreporter.write_sep("=", "left in the temporary folder", red=True)
        terminalreporter.write_line(f"{len(left)} entries: {names}; remove them in their tests")
