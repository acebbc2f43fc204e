"""The judgement: kept when all was observed, and each promise broken by each way to break it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from sealwire.cli.demo.unauthorized import EXPIRED, FOREIGN, FRIEND, PLAIN
from sealwire.cli.demo.verdict import Evidence, bytes_between_workers, common_name, judge

WORDS = "the word counts are right"
ARRAY = "the array product is right"
OBSERVED = "every process was observed"
OURS = "every process uses our backend"
TLS = "every link is TLS"
VERIFIED = "every peer is verified"
MOVED = "blocks moved between workers"
REFUSED = "unauthenticated peers are refused"
LET_IN = "a valid certificate is let in"
ANSWERS = "the cluster still answers"


def words(**changes: Any) -> Callable[[Evidence], Evidence]:
    return lambda good: replace(good, words=replace(good.words, **changes))


def array(**changes: Any) -> Callable[[Evidence], Evidence]:
    return lambda good: replace(good, array=replace(good.array, **changes))


def process(name: str, /, **changes: Any) -> Callable[[Evidence], Evidence]:
    def spoil(good: Evidence) -> Evidence:
        spoilt = [replace(p, **changes) if p.name == name else p for p in good.processes]
        return replace(good, processes=tuple(spoilt))

    return spoil


def without(name: str) -> Callable[[Evidence], Evidence]:
    return lambda good: replace(good, processes=tuple(p for p in good.processes if p.name != name))


def link(name: str, to: str, /, **changes: Any) -> Callable[[Evidence], Evidence]:
    """Change the link of process `name` to the address `to`, and no other."""

    def spoil(good: Evidence) -> Evidence:
        (owner,) = (p for p in good.processes if p.name == name)
        links = [replace(at, **changes) if at.peer == to else at for at in owner.links]
        assert links != list(owner.links)
        return process(name, links=tuple(links))(good)

    return spoil


def attempts(visitor: str, /, **changes: Any) -> Callable[[Evidence], Evidence]:
    """Change the first attempt of `visitor`."""

    def spoil(good: Evidence) -> Evidence:
        first = next(a for a in good.attempts if a.visitor == visitor)
        changed = [replace(a, **changes) if a is first else a for a in good.attempts]
        return replace(good, attempts=tuple(changed))

    return spoil


def no_attempts(visitor: str) -> Callable[[Evidence], Evidence]:
    return lambda good: replace(
        good, attempts=tuple(a for a in good.attempts if a.visitor != visitor)
    )


SCHEDULER = "tls://127.0.0.1:8786"
STOCK = "distributed.comm.tcp.TLS"

BROKEN = {
    "counted fewer": (words(total=699), {WORDS}),
    "counted the top word otherwise": (words(top_again=89), {WORDS}),
    "counted nothing": (words(total=0, total_again=0, top=(), top_again=0), {WORDS}),
    "one row differs": (array(wrong_rows=1), {ARRAY}),
    "the sum differs": (array(total_again=12_346), {ARRAY}),
    "no array": (array(side=0), {ARRAY}),
    # Nobody is left to own worker-1's listener and the other end of the comm of the two.
    "a worker did not answer": (without("worker-1"), {OBSERVED, MOVED}),
    "a nanny did not answer": (without("worker-0 nanny"), {OBSERVED}),
    "the scheduler did not answer": (without("scheduler"), {OBSERVED}),
    "the client was not observed": (without("client"), {OBSERVED}),
    "one process answers for two": (process("worker-1", pid=1003), {OBSERVED}),
    "a process shows no link": (process("client", links=()), {OBSERVED}),
    "the backend is missing": (process("worker-0", installed=False), {OURS}),
    "a stock comm": (link("worker-0", SCHEDULER, backend=STOCK), {OURS}),
    "our plain comm": (
        link("client", SCHEDULER, backend="sealwire.dask_backend.backend.TCP"),
        {OURS},
    ),
    "no protocol": (link("client", SCHEDULER, protocol=None), {TLS}),
    "an old protocol": (link("client", SCHEDULER, protocol="TLSv1.1"), {TLS}),
    "no cipher": (link("client", SCHEDULER, cipher=None), {TLS}),
    "a plain address": (link("client", SCHEDULER, local="tcp://127.0.0.1:40000"), {TLS}),
    "no certificate": (link("client", SCHEDULER, peer_certificate=None), {VERIFIED}),
    "an empty certificate": (link("client", SCHEDULER, peer_certificate=""), {VERIFIED}),
    "a certificate of the wrong role": (
        link("client", SCHEDULER, peer_certificate="CN=worker"),
        {VERIFIED},
    ),
    "a certificate of another worker": (
        link("worker-0", "tls://127.0.0.1:9003", peer_certificate="CN=worker, CN=worker-0"),
        {VERIFIED},
    ),
    "a certificate of no role, at an unknown address": (
        link("client", SCHEDULER, peer="tls://127.0.0.1:1", peer_certificate="CN=mallory"),
        {VERIFIED},
    ),
    "nothing moved": (
        lambda good: link("worker-1", "tls://127.0.0.1:40003", bytes_in=0)(
            link("worker-0", "tls://127.0.0.1:9003", bytes_in=0)(good)
        ),
        {MOVED},
    ),
    "less than a block moved": (
        link("worker-0", "tls://127.0.0.1:9003", bytes_in=2_097_152 - 5_001),
        {MOVED},
    ),
    "a stranger got in": (attempts(EXPIRED, outcome="let in"), {REFUSED}),
    "a stranger's fate is unclear": (attempts(FOREIGN, outcome="unclear"), {REFUSED}),
    "a stranger left a listener out": (
        attempts(PLAIN, address="tls://127.0.0.1:9001"),
        {REFUSED},
    ),
    "a stranger never came": (no_attempts(EXPIRED), {REFUSED}),
    "the friend was refused": (attempts(FRIEND, outcome="refused"), {LET_IN}),
    "the friend's fate is unclear": (attempts(FRIEND, outcome="unclear"), {LET_IN}),
    "no friend came": (no_attempts(FRIEND), {LET_IN}),
    "no answer afterwards": (lambda good: replace(good, answers=False), {ANSWERS}),
    "nothing observed": (
        lambda good: replace(good, processes=(), attempts=()),
        {OBSERVED, OURS, TLS, VERIFIED, MOVED, REFUSED, LET_IN},
    ),
}


def test_a_good_demo_keeps_every_promise(evidence: Evidence) -> None:
    checks = judge(evidence)
    assert [check.promise for check in checks if not check.kept] == []
    assert {check.promise for check in checks} == {
        *{promise for _, broken in BROKEN.values() for promise in broken}
    }, "the table below breaks every promise there is"
    assert all(check.detail for check in checks)


def test_a_port_may_be_dialled_from_by_two(evidence: Evidence) -> None:
    """The kernel gives the same one to both if they dial different addresses."""
    links = {p.name: p.links for p in evidence.processes}
    (dialled,) = (at for at in links["worker-1 nanny"])  # the scheduler's
    (near,) = (at for at in links["worker-0"] if at.peer == "tls://127.0.0.1:9003")
    (far,) = (at for at in links["worker-1"] if at.peer == near.local)
    for name, end in (
        ("worker-0", replace(near, local=dialled.peer)),
        ("worker-1", replace(far, peer=dialled.peer)),
    ):
        evidence = process(name, links=(*links[name], end))(evidence)
    assert [check for check in judge(evidence) if not check.kept] == []
    assert bytes_between_workers(evidence.processes) == 2 * 3_005_000


@pytest.mark.parametrize("case", BROKEN)
def test_what_is_not_observed_is_not_kept(case: str, evidence: Evidence) -> None:
    spoil, broken = BROKEN[case]
    checks = judge(spoil(evidence))
    assert {check.promise for check in checks if not check.kept} == broken
    assert all(check.detail for check in checks)


def test_bytes_between_workers_are_counted_once(evidence: Evidence) -> None:
    assert bytes_between_workers(evidence.processes) == 3_005_000


@pytest.mark.parametrize(
    ("subject", "name"),
    [
        ("CN=worker", "worker"),
        ("O=example, CN=worker", "worker"),
        ("CN=worker,O=example", "worker"),
        ("CN=worker, issued by CN=a CA, valid until 2030-01-01", "worker"),
        ("O=SCN=worker", None),
        ("", None),
        (None, None),
    ],
)
def test_common_name(subject: str | None, name: str | None) -> None:
    assert common_name(subject) == name
