"""A cluster comes up and does its work while others stall at its scheduler and flood it."""

from __future__ import annotations

import json
import os
import re
import time
from pathlib import Path

from support import attacker
from support.processes import PRELOAD, Program, Programs
from support.programs import command
from support.target import check, count, figure, identities

WORKERS, STALLED, FLOODS = count(50, 10), count(300, 100), count(20, 8)
#: what distributed logs of a worker that leaves while a batch is being written to it
LEAVING = re.compile(
    r"distributed\.batched - INFO - Batched Comm Closed .*\n"
    r"Traceback.*\n(?:  .*\n)*\S*CommClosedError: .*"
)


def test_fifty_workers_among_three_hundred_stalled_and_twenty_floods(tmp_path: Path) -> None:
    files = identities()
    with Programs(tmp_path) as programs:
        scheduler, address = programs.scheduler(
            "tls", *PRELOAD,
            "--tls-ca-file", files["ca"], "--tls-cert", files["server"],
            "--tls-key", files["server"],
        )  # fmt: skip
        stalled = [attacker.dial(address) for _ in range(STALLED)]
        for sock in stalled[::2]:
            sock.sendall(attacker.client_hello())
        os.environ["HOSTILE_FILES"] = json.dumps(files)
        flood = Program(command("flood", address, str(FLOODS)), tmp_path, support=True)
        try:
            flood.wait_for("flooding")
            start = time.monotonic()
            cluster = Program(
                command("fifty_workers", address, files["ca"], files["client"], str(WORKERS)),
                tmp_path,
                support=True,
            )
            cluster.wait_for(f"up {WORKERS}")
            up = time.monotonic() - start
            expected = sum(range(WORKERS)) * 10_000 * len(range(0, WORKERS, 5))
            result = cluster.wait_for(r"result (\d+)")
            check(int(result[1]) == expected, result[1])
            stats = json.loads(cluster.wait_for(r"stats (.*)")[1])
            worked = len(scheduler.output)
            check(cluster.process.wait(60) == 0, "".join(cluster.output))
            done = time.monotonic() - start
        finally:
            del os.environ["HOSTILE_FILES"]
            flood.process.kill()
            flood.process.wait()
            flood.finish()
            for sock in stalled:
                sock.close()
        check(stats["pending"] + stats["refused"].get("timeout", 0) >= STALLED, stats)
        for kind in ("other-ca", "not-tls", "probe"):  # the ways of flood.py
            check(stats["refused"][kind] >= FLOODS, stats)
        check(set(stats["refused"]) <= {"other-ca", "not-tls", "probe", "lost", "timeout"}, stats)
        words = "".join(scheduler.output)
        check("Traceback" not in "".join(scheduler.output[:worked]), words)
        check("Traceback" not in LEAVING.sub("", words), words)
        for sign in (r"sealwire\S* - (WARNING|ERROR|CRITICAL)", "never retrieved", "callback"):
            found = re.search(sign, words)
            check(not found, words[max(0, found.start() - 1000) :][:4000] if found else "")
        lines = len(re.findall("listener on tls://", words))
        check(0 < lines < 70 * (1 + done // 60), f"{lines} lines of log")
        figure(f"{WORKERS} workers up after {up:.1f} s, done after {done:.1f} s: {stats}")
