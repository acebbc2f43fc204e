"""Configuration as a new process reads it, with Dask and without it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

WITHOUT_DASK = "import sys; sys.modules['dask'] = sys.modules['distributed'] = None\n"
PROGRAM = """
import json, logging, sys
logging.basicConfig(format="%(levelname)s %(name)s: %(message)s")
from sealwire.security import Security, SecurityError, unknown_keys
try:
    security = Security()
    Security()
    print(json.dumps([security.fields(), unknown_keys()], default=str))
except SecurityError as error:
    print(json.dumps([type(error).__name__, str(error)]))
"""

#: forks of one process with an environment each; what is the same for all of them is loaded once
FORKS = """
import json, logging, os, sys, traceback, yaml
from sealwire.security import Security, SecurityError, unknown_keys
if 'dask' not in sys.modules:
    import dask.config  # with all that it stands on; it is itself imported anew, with what it reads
    for name in [name for name in sys.modules if name.partition(".")[0] == "dask"]:
        del sys.modules[name]
for environment in json.load(sys.stdin):
    if not os.fork():
        try:
            for number, name in ((1, "said"), (2, "log")):
                path = environment["DASK_CONFIG"] + "." + name
                os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), number)
            os.environ.update(environment)
            exec(PROGRAM)
            sys.stdout.flush()
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(0)
    os.wait()
"""

each_reader = pytest.mark.parametrize("with_dask", [True, False], ids=["dask", "donfig"])


Start = tuple[dict[str, str], dict[str, str]]
"""Files by their names, and variables."""

Told = tuple[Any, str]
"""What a process says, which is None where it failed, and its log."""


def run(tmp_path: Path, with_dask: bool, yaml: str, **variables: str) -> Told:
    """What a new process makes of a configuration file and variables."""
    (told,) = run_each(tmp_path, with_dask, [({"cluster.yaml": yaml}, variables)])
    return told


def run_each(tmp_path: Path, with_dask: bool, starts: Sequence[Start]) -> list[Told]:
    """What processes make of a configuration each."""
    environments = []
    for number, (files, variables) in enumerate(starts):
        folder = tmp_path / f"configuration-{number}"
        folder.mkdir()
        for name, text in files.items():
            (folder / name).write_text(text)
        environments.append({"DASK_CONFIG": str(folder), **variables})
    program = f"{'' if with_dask else WITHOUT_DASK}PROGRAM = {PROGRAM!r}\n{FORKS}"
    clean = {name: value for name, value in os.environ.items() if not name.startswith("DASK_")}
    subprocess.run(
        [sys.executable, "-c", program],
        input=json.dumps(environments),
        env={**clean, "HOME": str(tmp_path)},
        text=True,
        timeout=60,
        check=True,
    )
    places = [Path(environment["DASK_CONFIG"]) for environment in environments]
    return [
        (json.loads(said) if said else None, place.with_suffix(".log").read_text())
        for place in places
        for said in [place.with_suffix(".said").read_text()]
    ]


YAML = """
distributed:
  comm:
    require-encryption: null
    tls:
      ca-file: /etc/ca.pem
      ciphers: ECDHE+AESGCM
      min_version: 1.3
      worker:
        cert: /etc/worker.pem
      scheduler:
        cert: /etc/scheduler.pem
        key: /etc/scheduler.key
sealwire:
  tls:
    reload_interval: 10 s
    expiry-warning: 14
    server-hostname: sched.lab
    allowed-peers:
      worker: [scheduler*, worker*]
      scheduler: sha256:0123456789abcdef0123456789abcdef0123456789ABCDEF0123456789ABCDEF
"""
