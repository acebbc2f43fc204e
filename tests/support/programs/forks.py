"""Starts programs without their imports: it has made them before, and forks.

    python -m support.programs.forks DESCRIPTOR MODULE ...

imports the MODULEs and then answers each line of JSON that comes through the socket DESCRIPTOR. An
object is a program to start: its command, as `python` has it after ``-m`` or ``-c``, its
environment and working folder; with it come its standard streams. The answer is its pid, and to a
pid its exit code. See `support.forking`.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import runpy
import socket
import sys
import threading
import types
import warnings
from collections.abc import Mapping
from typing import Any, NoReturn


def requested(control: socket.socket) -> dict[str, Any] | None:
    """Answer requests; in a new process, what it is to run, and None at the end."""
    while True:
        line, streams = b"", []
        while not line.endswith(b"\n"):
            data, more, *_ = socket.recv_fds(control, 1 << 16, 3)
            if not data:
                return None
            line += data
            streams += more
        request = json.loads(line)
        if isinstance(request, int):
            answer = os.waitstatus_to_exitcode(os.waitpid(request, 0)[1])
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # numpy's threads know of forks
                answer = os.fork()
            for number, stream in enumerate(streams):
                if not answer:
                    os.dup2(stream, number)
                os.close(stream)
            if not answer:
                control.close()
                return dict(request)
        control.sendall(b"%d\n" % answer)


def run(program: dict[str, Any], paths: list[str]) -> NoReturn:
    """As ``python`` would; `paths` are where it looks for modules in any case."""
    environment, cwd = program["environment"], program["cwd"]
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    option, what, *arguments = program["command"]
    first = cwd if option == "-m" else ""
    sys.path[:] = [first, *_paths(environment), *paths]
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    lines = 1 if environment.get("PYTHONUNBUFFERED") else -1
    sys.stdout = open(1, "w", lines, closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", 1, errors="backslashreplace", closefd=False)  # noqa: SIM115
    sys.argv = [what if option == "-m" else option, *arguments]
    code = None
    try:
        if option == "-m":
            runpy.run_module(what, run_name="__main__", alter_sys=True)
        else:
            main = sys.modules["__main__"] = types.ModuleType("__main__")
            exec(compile(what, "<string>", "exec"), vars(main))
    except SystemExit as ending:
        code = ending.code
        if not isinstance(code, (int, type(None))):
            raise
    leave(code or 0)


def leave(code: int) -> NoReturn:
    """End as the interpreter does, but for what was imported before: to free that takes longest.

    What the program itself has made is freed, and heard if it complains.
    """
    threading._shutdown()
    atexit._run_exitfuncs()
    gc.collect()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)


def _paths(environment: Mapping[str, str]) -> list[str]:
    given = environment.get("PYTHONPATH")
    return given.split(os.pathsep) if given else []


def main() -> None:
    control = socket.socket(fileno=int(sys.argv[1]))
    mine = {os.getcwd(), *_paths(os.environ)}
    paths = [path for path in sys.path if path not in mine]
    for module in sys.argv[2:]:
        importlib.import_module(module)
    gc.collect()
    gc.freeze()  # or the first collection in each process would copy all of it
    if (program := requested(control)) is not None:
        run(program, paths)


if __name__ == "__main__":
    main()
