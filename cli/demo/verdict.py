"""The verdict on a demo run: promises compared with observations.

Pure functions of `Evidence`. A promise without an observation counts as broken.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product

from sealwire.cli.demo.computations import Array, Words
from sealwire.cli.demo.observations import Link, Owners, Process
from sealwire.cli.demo.unauthorized import FRIEND, VISITORS, Attempt

BACKENDS = frozenset({"sealwire.dask_backend.backend.TLS"})
PROTOCOLS = frozenset({"TLSv1.2", "TLSv1.3"})
# The role in a process's certificate: a nanny uses that of its worker.
CERTIFICATE_ROLE = {
    "client": "client",
    "scheduler": "scheduler",
    "nanny": "worker",
    "worker": "worker",
}


@dataclass(frozen=True)
class Evidence:
    """The observations of a demo run.

    `workers` is the requested number; `answers` tells whether the cluster computed again after the
    unauthorized attempts.
    """

    workers: int
    words: Words
    array: Array
    processes: tuple[Process, ...]
    attempts: tuple[Attempt, ...]
    answers: bool


@dataclass(frozen=True)
class Check:
    """One promise: whether it was kept, and the figures that show it, or what is wrong."""

    promise: str
    kept: bool
    detail: str


def judge(evidence: Evidence) -> tuple[Check, ...]:
    """Return every promise of the demo with its verdict."""
    return (
        words_are_right(evidence.words),
        array_is_right(evidence.array),
        every_process_answered(evidence),
        every_process_is_ours(evidence.processes),
        every_link_is_tls(evidence.processes),
        every_peer_is_verified(evidence.processes),
        blocks_moved(evidence),
        unauthenticated_refused(evidence),
        friend_let_in(evidence),
        Check(
            "the cluster still answers",
            evidence.answers,
            "computed once more afterwards" if evidence.answers else "no right answer afterwards",
        ),
    )


def in_a_line(checks: Sequence[Check]) -> str:
    """Return the verdict on all promises."""
    failed = [check.promise for check in checks if not check.kept]
    if failed:
        return f"{len(failed)} of {len(checks)} promises FAILED: {', '.join(failed)}"
    return f"all {len(checks)} promises kept"


def verdict(promise: str, wrong: Iterable[str], right: str) -> Check:
    """Return a check that passes if nothing is `wrong`; then `right` gives the figures."""
    wrong = list(wrong)
    more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
    return Check(promise, not wrong, "; ".join(wrong[:3]) + more if wrong else right)


def words_are_right(words: Words) -> Check:
    """Check that the cluster's sums equal those of the check, and something was counted."""
    wrong = []
    if words.total != words.total_again or not words.total:
        wrong.append(f"{words.total:,} words counted, {words.total_again:,} when counted again")
    word, count = words.top[0] if words.top else ("", 0)
    if count != words.top_again:
        wrong.append(f"{word!r} counted {count:,} times, {words.top_again:,} when counted again")
    return verdict(
        "the word counts are right",
        wrong,
        f"{words.total:,} words, of them {count:,} {word!r}, the same when counted again",
    )


def array_is_right(array: Array) -> Check:
    """Check that every row of the product agrees with the check."""
    wrong = []
    if array.wrong_rows or not array.side:
        wrong.append(f"{array.wrong_rows:,} of {array.side:,} rows differ")
    if array.total != array.total_again:
        wrong.append(f"the sum is {array.total:,}, {array.total_again:,} by the other route")
    return verdict(
        "the array product is right",
        wrong,
        f"{array.side:,} of {array.side:,} rows equal those computed without the cluster",
    )


def every_process_answered(evidence: Evidence) -> Check:
    """Check for one scheduler, one client, all nannies and workers; distinct; each with links."""
    wrong = []
    for role, wanted in (
        ("client", 1),
        ("scheduler", 1),
        ("nanny", evidence.workers),
        ("worker", evidence.workers),
    ):
        seen = sum(process.role == role for process in evidence.processes)
        if seen != wanted:
            wrong.append(f"{seen} of {wanted} answered as {role}")
    pids = {process.pid for process in evidence.processes}
    if len(pids) != len(evidence.processes):
        wrong.append(f"{len(evidence.processes)} answers came from {len(pids)} processes")
    wrong += [
        f"{process.name} shows no link" for process in evidence.processes if not process.links
    ]
    return verdict(
        "every process was observed",
        wrong,
        f"{len(pids)} processes: client, scheduler, {evidence.workers} workers with nannies",
    )


def every_process_is_ours(processes: tuple[Process, ...]) -> Check:
    """Check that our backend is installed in every process, and every open comm is of our class."""
    wrong = [f"{process.name} is without it" for process in processes if not process.installed]
    for process, link in all_links(processes):
        if link.backend not in BACKENDS:
            wrong.append(f"{process.name} has a {link.backend} to {link.peer}")
    if not processes:
        wrong.append("no process was observed")
    return verdict(
        "every process uses our backend",
        wrong,
        f"installed in {len(processes)} of {len(processes)}",
    )


def every_link_is_tls(processes: tuple[Process, ...]) -> Check:
    """Check that every open comm speaks TLS 1.2 or 1.3 with a cipher, between tls:// addresses."""
    wrong = []
    count = 0
    for process, link in all_links(processes):
        count += 1
        plain = [end for end in (link.local, link.peer) if not end.startswith("tls://")]
        if plain or link.protocol not in PROTOCOLS or not link.cipher:
            wrong.append(
                f"{process.name} to {link.peer}: protocol {link.protocol}, cipher {link.cipher}"
            )
        wrong += [f"{process.name} to {link.peer}: {what}" for what in link.unprotected]
    if not count:
        wrong.append("no link was observed")
    return verdict("every link is TLS", wrong, f"{count} of {count} link ends")


def every_peer_is_verified(processes: tuple[Process, ...]) -> Check:
    """Check that every open comm has a verified peer certificate, for its role and its node."""
    owners = Owners(processes)
    wrong = []
    count = 0
    for process, link in all_links(processes):
        count += 1
        role, node = common_name(link.peer_certificate), node_name(link.peer_certificate)
        peer = owners.of_peer(link)
        if role is None:
            wrong.append(f"{process.name} to {link.peer}: no verified certificate")
        elif peer is not None and role != CERTIFICATE_ROLE[peer.role]:
            wrong.append(f"{process.name} to {peer.name}: the certificate is that of a {role}")
        elif peer is not None and node not in (None, peer.name.removesuffix(" nanny")):
            wrong.append(f"{process.name} to {peer.name}: the certificate is that of {node}")
        elif role not in CERTIFICATE_ROLE.values():
            wrong.append(f"{process.name} to {link.peer}: unknown role {role!r}")
    if not count:
        wrong.append("no link was observed")
    return verdict("every peer is verified", wrong, f"{count} of {count} link ends")


def blocks_moved(evidence: Evidence) -> Check:
    """Check that the comms between workers carried at least one block of the array."""
    moved = bytes_between_workers(evidence.processes)
    needed = evidence.array.block_bytes
    few = [f"{mib(moved)} went between workers, less than a block of {mib(needed)}"]
    return verdict(
        "blocks moved between workers",
        few if moved < needed or not moved else [],
        f"{mib(moved)} from worker to worker, a block has {mib(needed)}",
    )


def bytes_between_workers(processes: tuple[Process, ...]) -> int:
    """Bytes on comms between two different workers, counted once, on the receiving side."""
    owners = Owners(processes)
    return sum(
        link.bytes_in or 0
        for process, link in all_links(processes)
        if process.role == "worker"
        and (peer := owners.of_peer(link)) is not None
        and peer.role == "worker"
        and peer is not process
    )


def unauthenticated_refused(evidence: Evidence) -> Check:
    """Check that every unauthorized client tried every listener and was refused."""
    peers = [visitor for visitor in VISITORS if visitor != FRIEND]
    listeners, wrong = visits(evidence, peers, "refused")
    return verdict(
        "unauthenticated peers are refused",
        wrong,
        f"{len(peers)} kinds of them at each of {listeners} listeners",
    )


def friend_let_in(evidence: Evidence) -> Check:
    """Check that a valid certificate, tried in the same way, is accepted by every listener."""
    listeners, wrong = visits(evidence, [FRIEND], "let in")
    return verdict(
        "a valid certificate is let in", wrong, f"by {listeners} of {listeners} listeners"
    )


def visits(evidence: Evidence, visitors: Sequence[str], wanted: str) -> tuple[int, list[str]]:
    """Return the number of listeners, and the attempts whose outcome is not the one `wanted`."""
    listeners = [process.address for process in evidence.processes if process.address is not None]
    outcomes = {(attempt.visitor, attempt.address): attempt for attempt in evidence.attempts}
    wrong = []
    for visitor, address in product(visitors, listeners):
        attempt = outcomes.get((visitor, address))
        if attempt is None:
            wrong.append(f"{visitor} did not come to {address}")
        elif attempt.outcome != wanted:
            wrong.append(f"{visitor} at {address}: {attempt.outcome}, {attempt.words}")
    if not listeners:
        wrong.append("no listener was observed")
    return len(listeners), wrong


def all_links(processes: tuple[Process, ...]) -> list[tuple[Process, Link]]:
    """Every link end with the process that reported it."""
    return [(process, link) for process in processes for link in process.links]


def common_name(subject: str | None) -> str | None:
    """Return the common name in a subject such as `O=example, CN=worker`; None without one."""
    return next(iter(_common_names(subject)), None)


def node_name(subject: str | None) -> str | None:
    """Return the second common name, which is the node's (`CN=worker, CN=node7`); None without."""
    return next(iter(_common_names(subject)[1:]), None)


def _common_names(subject: str | None) -> list[str]:
    found = re.findall(r"(?:^|,\s*)CN=([^,]+)", subject or "")
    return [name.strip() for name in found]


def mib(size: int) -> str:
    """Return a size in MiB."""
    number = size / 2**20
    return f"{'<0.01' if 0 < number < 0.005 else f'{number:,.2f}'} MiB"
