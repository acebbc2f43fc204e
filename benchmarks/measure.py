"""Pairs of processes, and rounds of cases over them.

A pair is a server and a client in interpreters of their own that run one implementation over one
link. In each round, every case is done by all implementations in turn, so that a machine that gets
slower or faster does so for all; who begins changes with the round.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import cluster
from cases import LIBRARIES, UNIX, UVLOOP, Case, MiB
from process import Failed, Process

PEER = Path(__file__).with_name("peer.py")
CALIBRATION = 0.2  # seconds in which busy threads show their undisturbed speed
FEWEST = 3  # rounds, however long they take
LONG = 1.0  # the same, and the time to look at them, where their speed is the question


class Pair:
    """A server and a client that have not met yet."""

    def __init__(self, implementation: str, link: str, credentials: dict[str, str]) -> None:
        name, _, loop = implementation.partition("+")
        who = {
            "implementation": name,
            "link": link,
            "uvloop": f"+{loop}" == UVLOOP,
            "credentials": credentials,
        }
        self.server = Process(PEER, f"server of {implementation} over {link}", who)
        try:
            self.client = Process(PEER, f"client of {implementation} over {link}", who)
        except BaseException:
            self.server.end()
            raise
        self.link = link
        self._loaded = False
        self._address = ""

    def __enter__(self) -> Pair:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.end()
        self.server.end()

    def load(self) -> None:
        """Wait until both processes have loaded everything."""
        if not self._loaded:
            self.server.answer()
            self.client.answer()
            self._loaded = True

    def meet(self, comms: int = 1) -> None:
        """Listen and connect, if that is not done."""
        self.load()
        if not self._address:
            self._address = self.server.tell("listen")["address"]
        self.client.tell("connect", address=self._address, comms=comms)

    def do(self, case: Case, seconds: float) -> dict[str, float]:
        """Do a case once and return its figures."""
        cpus = sorted(os.sched_getaffinity(0))
        busy = [(self.server, case.busy_server), (self.client, case.busy_client)]
        busy = [(process, threads) for process, threads in busy if threads]
        look = CALIBRATION
        if case.beside:
            seconds = look = max(LONG, seconds)
            self.load()
        else:
            self.meet(case.options.get("comms", 1))
        self.both("place", cpus=cpus if case.free else cpus[-1:])
        for process, threads in busy:
            process.tell("be_busy", threads=threads, seconds=look)
        if case.fresh:
            self.use(case, busy)
        if "size" in case.options:
            self.client.tell("prepare", size=case.options["size"])
        self.both("begin", hold=case.hold, keep=case.hold)
        work = {"kind": case.kind, "seconds": seconds, "options": case.options}
        done = self.beside(work) if case.beside else self.client.tell("measure", **work)
        seen = self.both("end")
        for process, _ in busy:
            process.tell("be_calm")
        return {**figures(case, done, *seen), **done.get("found", {})}

    def both(self, command: str, **arguments: Any) -> list[dict[str, Any]]:
        """Tell server and client."""
        return [process.tell(command, **arguments) for process in (self.server, self.client)]

    def use(self, case: Case, busy: list[tuple[Process, int]]) -> None:
        """What the first traffic of a process costs is not the case, nor that of busy threads."""
        for process, _ in busy:
            process.tell("be_calm")
        self.meet()
        # A large payload would leave memory behind that the next may take without being seen.
        largest = 8 * MiB if case.beside else MiB
        self.client.tell("measure", kind="use", seconds=0.1, options={"largest": largest})
        for process, threads in busy:
            process.tell("be_busy", threads=threads, seconds=0)

    def beside(self, work: dict[str, Any]) -> dict[str, Any]:
        """The server looks at its busy threads while the client works."""
        self.client.send("measure", **work)
        found = self.server.tell("look_at_busy", seconds=work["seconds"])
        return {**self.client.answer(), "found": found}


def figures(
    case: Case, done: dict[str, Any], server: dict[str, Any], client: dict[str, Any]
) -> dict[str, float]:
    """What a case says, in the units of `cases.FIGURES`."""
    rate = done["count"] / done["elapsed"]
    found: dict[str, float] = {}
    if "bytes" in done:
        size = done["bytes"]
        found["throughput"] = rate * size / 1e6
        found["cpu"] = (server["cpu"] + client["cpu"]) / (done["total"] * size / 1e9)
        found["sender_rss"] = client["rss"] / MiB
        found["receiver_rss"] = (server["rss"] - size) / MiB
    elif case.kind != "idle":
        found[case.value] = rate
    for name in ("p50", "p99"):
        if name in done:
            found[name] = done[name] * 1e3
    for side, seen in (("receiver", server), ("sender", client)):
        if "keep" in seen:
            found["keep"] = seen["keep"]
        if "hold" in seen:
            found[f"{side}_hold"] = seen["hold"] * 1e3
    return found


class Task(NamedTuple):
    """A case, to be done by these implementations over this link."""

    case: Case
    link: str
    implementations: list[str]


def missing(implementation: str) -> str | None:
    """What would have to be installed, if it is not."""
    name, _, loop = implementation.partition("+")
    module = LIBRARIES.get(name) or (loop if loop else None)
    return module if module and find_spec(module) is None else None


def possible(implementation: str, link: str) -> bool:
    """pyzmq has no TLS, and ours has none over local sockets."""
    return not (implementation in ("pyzmq", UNIX) and link == "tls")


def run(
    tasks: list[Task],
    *,
    rounds: int,
    seconds: float,
    fresh: bool,
    quick: bool,
    credentials: dict[str, str],
    progress: Callable[[str], None],
    most: float = float("inf"),
    undecided: Callable[[Task], bool] = lambda task: False,
    failed: Callable[[str], object] = print,
) -> Iterator[tuple[Task, str, dict[str, float]]]:
    """Yield the figures of every task, implementation and round.

    With `fresh`, every round has new pairs; else only cases that ask for them. With `quick`, costly
    cases are done in the first round only. Tasks that are `undecided` after `rounds` rounds get up
    to as many more. After the third, no round begins that would end after `most` seconds if it took
    as long as the earlier ones. What fails of others' implementations is told to `failed`, and has
    no figure in that round; a failure of ours or of stock is raised.
    """
    pairs: dict[tuple[str, str], Pair] = {}
    began = time.monotonic()
    with ExitStack() as alive:
        for number in range(2 * rounds):
            if number >= FEWEST and (time.monotonic() - began) * (number + 1) / number > most:
                break
            if number >= rounds:
                tasks = [task for task in tasks if undecided(task)]
            if not tasks:
                break
            if fresh or not pairs:
                alive.close()
                pairs = start(tasks, alive, credentials)
            for task in tasks:
                if quick and number and task.case.costly:
                    continue
                begins = number % len(task.implementations)
                in_turn = task.implementations[begins:] + task.implementations[:begins]
                for implementation in in_turn:
                    progress(
                        f"round {number + 1}/{rounds} {task.case.name} {task.link} {implementation}"
                    )
                    key = implementation, task.link
                    try:
                        if task.case.kind == "cluster":
                            options = task.case.options
                            found = cluster.do(*key, credentials, seconds, options)
                        elif task.case.fresh:
                            with Pair(*key, credentials) as pair:
                                found = pair.do(task.case, seconds)
                        elif key in pairs:
                            found = pairs[key].do(task.case, seconds)
                        else:
                            continue
                    except Failed as error:
                        if implementation == UNIX or implementation not in task.case.others:
                            raise
                        failed(f"{task.case.name}: {error}")
                        pairs.pop(key, None)  # until the next round
                        continue
                    yield task, implementation, found


def start(
    tasks: list[Task], alive: ExitStack, credentials: dict[str, str]
) -> dict[tuple[str, str], Pair]:
    """All pairs of a round, loading side by side."""
    wanted = {
        (implementation, task.link): None
        for task in tasks
        if not task.case.fresh and task.case.kind != "cluster"
        for implementation in task.implementations
    }
    pairs = {key: alive.enter_context(Pair(*key, credentials)) for key in wanted}
    for pair in pairs.values():
        pair.meet()
    return pairs
