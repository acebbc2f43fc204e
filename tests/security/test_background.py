"""Looks at files while handshakes go on: what is slow, what hangs, threads."""

from __future__ import annotations

import datetime
import logging
import os
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from sealwire.security import Authority, Security
from sealwire.security.contexts import background, reloading
from sealwire.security.contexts.background import Background
from support import HANG
from support.following import CA, NEW, OLD, OTHER_CA, PEER, Folder
from support.handshakes import client_context, server_context, shake


def shown(folder: Folder) -> bytes | None:
    return shake(folder.server, client_context(PEER)).client.tls.getpeercert(binary_form=True)


def soon(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + HANG
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def nobody_looks() -> bool:
    return all(thread.name != "sealwire-look" for thread in threading.enumerate())


def shows_soon(folder: Folder, der: bytes) -> None:
    deadline = time.monotonic() + HANG
    while shown(folder) != der:
        assert time.monotonic() < deadline


@pytest.fixture(autouse=True)
def default_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every handshake has the files checked, but waits no longer for it than by default."""
    monkeypatch.setattr(reloading, "_RATHER", background.PATIENCE)


class Gate:
    """Something that hangs until it is opened."""

    def __init__(self) -> None:
        self.opened = threading.Event()
        self.calls = 0
        self.reached = threading.Event()

    def holding(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def held(*args: Any, **kwargs: Any) -> Any:
            if threading.current_thread().name == "sealwire-look":
                self.calls += 1
                self.reached.set()
                assert self.opened.wait(HANG)
            return original(*args, **kwargs)

        return held


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.opened.set()


@pytest.fixture
def own_folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


@pytest.mark.parametrize("where", ["look_at", "load", "deadlines"])
def test_a_file_system_that_hangs_holds_no_loop(
    where: str, own_folder: Folder, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The look, the reading, or the building: the old contexts serve, and one thread waits."""
    soon(nobody_looks)  # for another test any more
    threads = threading.active_count()
    monkeypatch.setattr(reloading, where, gate.holding(getattr(reloading, where)))
    own_folder.install(NEW)
    began = time.monotonic()
    first = shown(own_folder)
    waited = time.monotonic() - began
    assert first == OLD.der
    assert gate.reached.wait(HANG)
    began = time.monotonic()
    for _ in range(20):
        assert shown(own_folder) == OLD.der
    assert time.monotonic() - began < 20 * max(background.PATIENCE, waited) + HANG / 10
    assert gate.calls == 1
    assert threading.active_count() == threads + 1
    # What is handed out and set meanwhile waits for nobody, and counts afterwards.
    assert server_context(own_folder.security, "worker") is own_folder.server
    own_folder.server.set_alpn_protocols(["one"])
    gate.opened.set()
    shows_soon(own_folder, NEW.der)
    own_folder.client.set_alpn_protocols(["one"])
    both = shake(own_folder.server, own_folder.client)
    assert both.client.tls.selected_alpn_protocol() == "one"
    assert threading.active_count() <= threads + 1


def test_a_thread_stays_no_longer_than_its_look(own_folder: Folder) -> None:
    shown(own_folder)
    soon(nobody_looks)


def test_no_thread_where_nothing_is_to_be_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[str] = []
    original = threading.Thread.start

    def start(self: threading.Thread) -> None:
        started.append(self.name)
        original(self)

    monkeypatch.setattr(threading.Thread, "start", start)
    one = Security.temporary(tls_reload_interval=0)
    assert shake(server_context(one), client_context(one)).accepted
    assert not started


def test_where_no_thread_is_to_be_had_the_look_is_done_at_once(
    own_folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    own_folder.install(NEW)
    assert shown(own_folder) == NEW.der


def test_a_defect_of_ours_is_logged_and_following_goes_on(
    own_folder: Folder, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: Any) -> Any:
        raise MemoryError

    own_folder.install(NEW)
    with monkeypatch.context() as patch:
        patch.setattr(reloading, "load", broken)
        assert shown(own_folder) == OLD.der
        soon(lambda: "cannot look whether files" in caplog.text)
    shows_soon(own_folder, NEW.der)


def test_a_list_of_tens_of_thousands_holds_no_handshake(tmp_path: Path) -> None:
    """It is loaded while others shake hands; whoever is revoked in it is then refused."""
    authority = Authority.create()
    identity, other = authority.issue("scheduler"), authority.issue("worker")
    now = datetime.datetime.now(datetime.timezone.utc)

    def put(count: int) -> None:
        text = authority.revoke(
            [(number + 1, now, "unspecified") for number in range(count)],
            number=count,
            until=now + datetime.timedelta(days=30),
        )
        (tmp_path / "new").write_text(text)
        os.replace(tmp_path / "new", tmp_path / "crl.pem")

    put(1)
    one = Security(
        tls_ca_file=authority.certificate,
        tls_scheduler_cert=identity.certificate + identity.key,
        tls_crl_file=tmp_path / "crl.pem",
        tls_reload_interval=0,
    )
    peer = Security(
        tls_ca_file=authority.certificate,
        tls_worker_cert=other.certificate + other.key,
    )
    server = server_context(one)
    before = server.get_ca_certs()
    put(20_000)
    longest = 0.0
    deadline = time.monotonic() + HANG
    loaded = reloading.load
    calls: list[float] = []

    def timed(*args: Any) -> None:
        began = time.monotonic()
        loaded(*args)
        calls.append(time.monotonic() - began)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reloading, "load", timed)
        while len(calls) < 2:
            assert time.monotonic() < deadline
            began = time.monotonic()
            server.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_side=True)
            longest = max(longest, time.monotonic() - began)
    print(f"building took {sum(calls):.3f} s, a handshake waited {longest:.3f} s at most")
    assert server.get_ca_certs() == before
    assert shake(server, client_context(peer)).accepted


def test_loops_in_several_threads_share_one_look(
    own_folder: Folder, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reloading, "look_at", gate.holding(reloading.look_at))
    own_folder.install(NEW)
    with ThreadPoolExecutor(8) as pool:
        seen = set(pool.map(lambda _: shown(own_folder), range(64)))
        assert seen == {OLD.der}
        assert gate.calls == 1
        gate.opened.set()
        shows_soon(own_folder, NEW.der)
        assert set(pool.map(lambda _: shown(own_folder), range(64))) == {NEW.der}


def test_a_caller_that_waits_is_served_by_a_look_begun_after_its_call() -> None:
    """A look that was under way may have passed the file already that has changed since."""
    log: list[str] = []
    enter, leave = threading.Event(), threading.Event()

    def work() -> None:
        log.append("begun")
        enter.set()
        assert leave.wait(HANG)
        log.append("done")

    look = Background(work, lambda: True)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(look.look, HANG)
        assert enter.wait(HANG)
        second = pool.submit(look.look, HANG)
        leave.set()
        first.result(HANG)
        second.result(HANG)
    assert log in (["begun", "done"] * 2, ["begun", "done"] * 3)


def test_reload_waits_and_tells(own_folder: Folder, gate: Gate) -> None:
    """It is the caller's own look, however long it takes, and sees what is there then."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reloading, "look_at", gate.holding(reloading.look_at))
        own_folder.replace("ca.pem", OTHER_CA.pem + CA.pem)
        assert shown(own_folder) == OLD.der
        assert gate.reached.wait(HANG)
        with ThreadPoolExecutor(1) as pool:
            told = pool.submit(own_folder.security.reload)
            own_folder.install(NEW)
            gate.opened.set()
            told.result(HANG)
    assert shown(own_folder) == NEW.der


def test_what_hangs_is_no_matter_of_the_log(
    own_folder: Folder, gate: Gate, caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(reloading, "look_at", gate.holding(reloading.look_at))
    for _ in range(5):
        shown(own_folder)
    assert not [record for record in caplog.records if record.name == "sealwire.security"]


def test_beginning_waits_for_nothing() -> None:
    """While the work hangs, once at a time, and not where it is not due."""
    opened, runs = threading.Event(), []

    def work() -> None:
        runs.append(threading.current_thread().name)
        assert opened.wait(HANG)

    due = [True]
    looking = Background(work, lambda: due[0])
    for _ in range(3):
        looking.begin()
    run = looking._run
    assert run is not None
    assert not run.done.is_set()
    opened.set()
    assert run.done.wait(HANG)
    assert runs == ["sealwire-look"]
    due[0] = False
    looking.begin()
    assert looking._run is run
