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
import sealwire.security
environments = json.load(sys.stdin)
sys.stdout.flush()
for environment in environments:
    if not os.fork():
        try:
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


def run(tmp_path: Path, with_dask: bool, yaml: str, **variables: str) -> tuple[list[Any], str]:
    """What a new process makes of a configuration file and variables: its output and its log."""
    folder = tmp_path / "configuration"
    folder.mkdir(exist_ok=True)
    (folder / "cluster.yaml").write_text(yaml)
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("DASK_")
    }
    done = subprocess.run(
        [sys.executable, "-c", ("" if with_dask else WITHOUT_DASK) + PROGRAM],
        env={**environment, "DASK_CONFIG": str(folder), "HOME": str(tmp_path), **variables},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert isinstance(answer, list)
    return answer, done.stderr


Start = tuple[dict[str, str], dict[str, str]]
"""Files by their names, and variables."""


def run_each(tmp_path: Path, with_dask: bool, starts: Sequence[Start]) -> list[list[Any]]:
    """What processes make of a configuration each, as `run`; one that fails has no answer."""
    environments = []
    for number, (files, variables) in enumerate(starts):
        folder = tmp_path / f"configuration-{number}"
        folder.mkdir()
        for name, text in files.items():
            (folder / name).write_text(text)
        environments.append({"DASK_CONFIG": str(folder), **variables})
    program = f"{'' if with_dask else WITHOUT_DASK}PROGRAM = {PROGRAM!r}\n{FORKS}"
    clean = {name: value for name, value in os.environ.items() if not name.startswith("DASK_")}
    done = subprocess.run(
        [sys.executable, "-c", program],
        input=json.dumps(environments),
        env={**clean, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(answers) == len(starts), done.stderr
    return answers


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
