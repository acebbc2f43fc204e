"""A cluster comes up and does its work while strangers are at its scheduler's door."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from pathlib import Path

import attacker
from processes import PRELOAD, Program, Programs
from target import check, identities

SUPPORT = Path(attacker.__file__).parent
WORKERS, STALLED, FLOODS = 50, 300, 20


def test_fifty_workers_among_three_hundred_stalled_and_twenty_floods(tmp_path: Path) -> None:
    files = identities()
    os.environ["DASK_LOGGING__SEALWIRE"] = "info"
    with Programs(tmp_path) as programs:
        scheduler, address = programs.scheduler(
            "tls", *PRELOAD,
            "--tls-ca-file", files["ca"], "--tls-cert", files["server"],
            "--tls-key", files["server"],
        )  # fmt: skip
        strangers = [attacker.dial(address) for _ in range(STALLED)]
        for sock in strangers[::2]:
            sock.sendall(attacker.client_hello())
        os.environ["HOSTILE_FILES"] = json.dumps(files)
        flood = Program([sys.executable, str(SUPPORT / "flood.py"), address, str(FLOODS)], tmp_path)
        try:
            flood.wait_for("flooding")
            start = time.monotonic()
            cluster = Program(
                [
                    sys.executable, str(SUPPORT / "fifty_workers.py"), address, files["ca"],
                    files["client"], str(WORKERS),
                ],
                tmp_path,
            )  # fmt: skip
            cluster.wait_for(f"up {WORKERS}")
            up = time.monotonic() - start
            expected = sum(range(WORKERS)) * 10_000 * len(range(0, WORKERS, 5))
            result = cluster.wait_for(r"result (\d+)")
            check(int(result[1]) == expected, result[1])
            check(cluster.process.wait(60) == 0, "".join(cluster.output))
            done = time.monotonic() - start
        finally:
            del os.environ["HOSTILE_FILES"]
            flood.process.kill()
            flood.process.wait()
            flood.finish()
        for sock in strangers:
            sock.close()
        words = "".join(scheduler.output)
        for sign in (r"sealwire\S* - (ERROR|CRITICAL)", "never retrieved", "Exception in callback"):
            found = re.search(sign, words)
            check(not found, words[max(0, found.start() - 1000) :][:4000] if found else "")
        check("listener on tls://" in words, "the strangers were never there")
        print(f"{WORKERS} workers up after {up:.1f} s, done after {done:.1f} s")
