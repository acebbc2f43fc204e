"""Configuration as a new process reads it, with Dask and without it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
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
