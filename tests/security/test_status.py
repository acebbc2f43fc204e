"""What a process tells of its certificates: their ends, since when they are used, failures."""

from __future__ import annotations

import gc
import multiprocessing
import threading
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from sealwire.security import PEMError, Security
from sealwire.security.contexts import status
from sealwire.security.contexts.status import failures, statuses
from support import certs
from support.following import CA, NEW, OLD, Folder

LONG = timedelta(days=1000)


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the contexts of other tests."""
    monkeypatch.setattr(status, "_watches", {})


def of(role: str) -> status.Status:
    (found,) = [each for each in statuses() if each.role == role]
    return found


def end(node: certs.Node) -> float:
    return node.certificate.not_valid_after_utc.timestamp()


def test_each_kind_ends_with_the_first_of_it(tmp_path: Path) -> None:
    last = certs.root("last", end=LONG)
    between = certs.intermediate(CA, end=timedelta(days=40))
    node = certs.leaf(between, "a node", end=timedelta(days=50))
    folder = Folder(tmp_path)
    folder.replace("worker.pem", node.pem + between.pem)
    folder.replace("worker.key", node.key_pem)
    folder.replace("ca.pem", CA.pem + last.pem)
    assert of("worker").not_after == {"leaf": end(node), "ca": min(end(CA), end(between))}
    folder.replace("ca.pem", last.pem + CA.pem)
    assert of("worker").not_after["ca"] == min(end(CA), end(between))


def test_revocation_lists_and_memory() -> None:
    lists = [certs.crl(CA, end=end) for end in (LONG, timedelta(days=3))]
    one = Security(
        tls_ca_file=CA.pem,
        tls_crl_file="".join(lists),
        tls_scheduler_cert=OLD.pem,
        tls_scheduler_key=OLD.key_pem,
    )
    before = time.time()
    one.get_listen_args("scheduler")
    found = of("scheduler")
    assert {**found.not_after, "crl": 0} == {"leaf": end(OLD), "ca": end(CA), "crl": 0}
    assert 2 < (found.not_after["crl"] - time.time()) / 86400 < 3
    assert before <= found.loaded <= time.time()
    del one
    gc.collect()
    assert not statuses()


def test_a_renewed_certificate_is_seen_without_a_handshake(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    before = of("worker")
    assert before.not_after["leaf"] == end(OLD)
    renewed = certs.leaf(CA, "new", end=LONG)
    folder.install(renewed)
    after = of("worker")
    assert after.not_after["leaf"] == end(renewed)
    assert after.loaded > before.loaded
    assert of("worker") == after  # no change, no other time


@pytest.mark.parametrize("damage", ["", "nonsense", OLD.pem[:200], CA.pem])
def test_what_cannot_be_loaded_is_counted(tmp_path: Path, damage: str) -> None:
    folder = Folder(tmp_path)
    before, known = of("worker"), failures()
    folder.replace("worker.pem", damage)
    assert of("worker") == before._replace(outdated=True)
    assert failures() == known + 1
    with pytest.raises(PEMError):
        folder.security.reload()
    assert failures() == known + 2
    folder.install(NEW)
    assert of("worker").not_after["leaf"] == end(NEW)
    assert failures() == known + 2


def test_contexts_may_come_and_go_in_other_threads() -> None:
    stop = threading.Event()

    def make() -> None:
        while not stop.is_set():
            one = Security(tls_ca_file=CA.pem, tls_client_cert=OLD.pem, tls_client_key=OLD.key_pem)
            one.get_connection_args("client")

    threads = [threading.Thread(target=make) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(200):
            assert all(each.not_after["leaf"] > 0 for each in statuses())
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def _told(pipe: Any) -> None:
    pipe.send((failures(), [each.not_after for each in statuses()]))


def test_a_forked_child_has_failed_at_nothing(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    folder.replace("worker.pem", "nonsense")
    statuses()
    assert failures()
    folder.install(NEW)
    ours, theirs = multiprocessing.Pipe()
    child = multiprocessing.get_context("fork").Process(target=_told, args=(theirs,))
    child.start()
    try:
        assert ours.poll(30)
        failed, found = ours.recv()
    finally:
        child.join()
    assert failed == 0
    assert [each["leaf"] for each in found] == [end(NEW)]
