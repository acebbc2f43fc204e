"""What the processes of a `Cluster` load: it tells how they are, and ends with who started them.

``SEALWIRE_TESTING_STATE`` names the file that the process writes once it is ready: a scheduler that
listens, a worker that has registered. Its standard input is a pipe whose other end is held by the
process that has started it. Once that is gone, however it ended, so are this process and the
folders in ``SEALWIRE_TESTING_FOLDERS``, with the keys.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from sealwire.security.contexts import background

__all__ = ["FOLDERS", "STATE", "dask_setup", "strangers"]

STATE, FOLDERS = "SEALWIRE_TESTING_STATE", "SEALWIRE_TESTING_FOLDERS"

_OURS = "sealwire.dask_backend."
_telling: set[asyncio.Task[None]] = set()


async def dask_setup(server: Any) -> None:
    """Tell of a scheduler or worker once it is ready."""
    if STATE in os.environ:
        task = asyncio.create_task(_tell(server, Path(os.environ[STATE])))
        _telling.add(task)
        task.add_done_callback(_telling.discard)


async def _tell(server: Any, path: Path) -> None:
    while server.status.name != "running":  # noqa: ASYNC110 (it has no event)
        await asyncio.sleep(0.02)
    told = {"address": server.address, "pid": os.getpid(), "strangers": strangers(server)}
    partly = path.with_suffix(".part")
    partly.write_text(json.dumps(told))
    partly.replace(path)


def strangers(server: Any) -> list[str]:
    """Return the classes by which a server listens and dials that are not this project's."""
    from distributed.comm.registry import backends

    scheme = server.address.partition("://")[0]
    used = [type(each) for each in (*server.listeners, backends[scheme])]
    names = [f"{each.__module__}.{each.__qualname__}" for each in used]
    return [name for name in names if not name.startswith(_OURS)]


def _end_with_starter(folders: list[str]) -> None:
    """Wait for the end of the standard input, which says nothing."""
    while os.read(0, 1024):
        pass
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
    if sys.platform == "win32":
        os._exit(1)
    else:
        os.killpg(os.getpgid(0), signal.SIGKILL)  # a group of its own, with what it has started


if STATE in os.environ:
    # Also on a busy machine, a handshake is to use what a test has written before.
    background.PATIENCE = 10.0
    threading.Thread(
        target=_end_with_starter,
        args=(os.environ[FOLDERS].split(os.pathsep),),
        name="sealwire.testing",
        daemon=True,
    ).start()
