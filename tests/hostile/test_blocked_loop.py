"""Real work is no attack: a loop that stands still for long costs nobody a comm or a result."""

from __future__ import annotations

import json
import re
from pathlib import Path

from support.processes import PRELOAD, Program, Programs
from support.programs import command
from support.programs.blocked_loop import BLOCK, CALLERS
from support.target import check, count, figure, identities

TROUBLE = re.compile(r"sealwire\S* - (WARNING|ERROR|CRITICAL)|Traceback|CommClosedError|dropped")


def test_a_blocked_loop_loses_nothing(tmp_path: Path) -> None:
    """A worker's, held by a task that keeps the GIL, and then the scheduler's."""
    seconds = count(20, 0.5)
    names = ("held", "one", "two")[: count(3, 2)]
    files = identities()
    tls = [
        *PRELOAD, "--tls-ca-file", files["ca"], "--tls-cert", files["server"],
        "--tls-key", files["server"],
    ]  # fmt: skip
    with Programs(tmp_path) as programs:
        scheduler, address = programs.scheduler("tls", *tls)
        workers = [programs.worker(address, *tls, "--name", name, "--no-nanny") for name in names]
        arguments = [address, files["ca"], files["client"], str(seconds), str(len(names))]
        client = Program(command("blocked_loop", *arguments), tmp_path, support=True)
        try:
            told = json.loads(client.wait_for("told (.*)")[1])
            check(client.process.wait(60) == 0, "".join(client.output))
        finally:
            client.process.kill()
            client.process.wait()
            client.finish()
        words = "".join(line for each in (scheduler, *workers, client) for line in each.output)
    for place, name in (("worker", "held"), ("scheduler", "scheduler")):
        phase = told[place]
        check(phase["held"] > 0.95 * seconds, f"the GIL of the {place} was let go", phase)
        check(told[name]["longest"] > 0.95 * seconds, f"the loop of the {place} went on", told)
        check(phase["sums"] == [BLOCK * (1 + 2 + 3 + 4)] * len(names), phase["sums"])
        check(phase["answers"] == [place.title()] * CALLERS, phase["answers"])
    check(told["again"] == [BLOCK * sum(range(len(names) + 1))] * len(names), told["again"])
    for name in (*names, "scheduler"):
        stats = told[name]["stats"]
        # distributed hangs up after a fifth of the time for connect, and dials once more: each
        # caller, the late worker and the late client; who got no answer may ask why (`probe`).
        again = (
            {"lost": CALLERS + 2, "probe": CALLERS + 2}
            if seconds > 6 and name in ("held", "scheduler")
            else {}
        )
        check(all(n <= again.get(kind, 0) for kind, n in stats["refused"].items()), name, stats)
        check(stats["accepted"] == stats["greeted"] + sum(stats["refused"].values()), name, stats)
        check(not stats["broken"] and not stats["starved"] and not stats["pending"], name, stats)
        check(told[name]["links"] > 1 and not told[name]["lost"], name, told[name])
    check(told["held"]["stats"]["accepted"] > CALLERS, told["held"])
    check(not TROUBLE.search(words), words[-4000:])
    longest = f"{told['held']['longest']:.1f} and {told['scheduler']['longest']:.1f} s"
    figure(f"held for {longest}, {CALLERS} callers each, no comm lost")
