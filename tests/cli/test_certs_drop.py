"""`sealwire certs snippet drop`: the printed program ends what a revoked worker still holds.

In processes that do not follow their list, as those with distributed's own backend do not.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from distributed import Client

from sealwire.dask_backend import Security
from support.certs_cli import good, told
from support.processes import HANG, PRELOAD, Programs


def workers_of(client: Client) -> set[str]:
    return set(client.sync(client.scheduler.identity, n_workers=-1)["workers"])


def test_the_program_drops_a_revoked_worker_and_no_other(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good("issue", "worker", "--each", "a.lab", "b.lab")
    config = home / "certs/dask.yaml"
    config.write_text(config.read_text() + "    reload-interval: never\n")
    monkeypatch.setenv("DASK_CONFIG", str(config))
    security = Security(
        tls_ca_file=home / "certs/ca.pem", tls_client_cert=home / "certs/client.pem"
    )
    with Programs(home) as programs:
        _, address = programs.scheduler("tls", *PRELOAD)
        listening = {}
        for name in ("worker-a.lab", "worker-b.lab"):
            worker = programs.worker(
                address, *PRELOAD, "--no-nanny", "--host", "127.0.0.1",
                "--tls-cert", str(home / f"certs/{name}.pem"),
            )  # fmt: skip
            listening[name] = worker.wait_for(r"Listening to:\s+(tls://\S+)")[1]
        with Client(address, security=security, timeout=HANG, set_as_default=False) as client:
            client.wait_for_workers(2, timeout=HANG)
            moved = client.submit(len, "abc", workers=[listening["worker-b.lab"]])
            assert client.submit(abs, moved, workers=[listening["worker-a.lab"]]).result(HANG) == 3
            (revoked,) = told("revoke", "worker-b.lab")["revoked"]
            assert workers_of(client) == set(listening.values()), "they do not know"
            program = good("snippet", "drop", revoked["serial"])
            assert "tls://SCHEDULER:8786" in program
            done = subprocess.run(
                [sys.executable, "-c", program.replace("tls://SCHEDULER:8786", address)],
                cwd=home,
                capture_output=True,
                text=True,
                timeout=HANG,
                check=False,
            )
            assert done.returncode == 0, done.stderr
            held = dict(re.findall(r"^(\w+) (.*)$", done.stdout, re.MULTILINE))
            assert "tls://" in held["scheduler"]
            assert "tls://" in held["workers"], "worker a had fetched from it"
            client.wait_for_workers(1, timeout=HANG)
            assert workers_of(client) == {listening["worker-a.lab"]}
