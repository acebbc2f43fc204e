"""Contexts that follow their files, through real handshakes and every way to replace a file."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sealwire.security import KeyMismatch, PEMError, Security
from sealwire.security.contexts import reloading
from sealwire.security.contexts.policy import load
from support import certs
from support.following import CA, FOREIGN, NEW, OLD, OTHER_CA, PEER, Folder
from support.handshakes import client_context, security, server_context, shake


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]


def test_an_identity_replaced_by_renaming(folder: Folder, caplog: pytest.LogCaptureFixture) -> None:
    assert folder.shows() == OLD.der
    folder.install(NEW)
    assert folder.shows() == NEW.der
    assert not warnings(caplog)
    said = "TLS handshakes use the new tls_worker_cert, tls_worker_key from now on"
    assert [record.getMessage() for record in caplog.records] == [said]


def test_files_with_the_same_times_and_size(folder: Folder) -> None:
    """Contents count: a restored backup, or a copy that keeps the times."""
    assert folder.shows() == OLD.der
    before = os.stat(folder.path / "worker.pem")
    both = certs.leaf(CA, "bad", key=OLD.key)  # the same length as "old"
    text = both.pem
    while len(text) != len(OLD.pem):
        both = certs.leaf(CA, "bad", key=OLD.key)
        text = both.pem
    folder.write("worker.pem", text)
    os.utime(folder.path / "worker.pem", ns=(before.st_atime_ns, before.st_mtime_ns))
    after = os.stat(folder.path / "worker.pem")
    assert (after.st_mtime_ns, after.st_size, after.st_ino) == (
        before.st_mtime_ns, before.st_size, before.st_ino
    )  # fmt: skip
    assert folder.shows() == both.der


def test_symbolic_links_swapped_as_kubernetes_does(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def release(name: str, node: certs.Node) -> None:
        version = tmp_path / name
        version.mkdir()
        for file, text in (("ca.pem", CA.pem), ("tls.crt", node.pem), ("tls.key", node.key_pem)):
            (version / file).touch(mode=0o600)
            (version / file).write_text(text)
        (tmp_path / "..data_tmp").symlink_to(name)
        os.replace(tmp_path / "..data_tmp", tmp_path / "..data")

    release("..2026_01", OLD)
    for file in ("ca.pem", "tls.crt", "tls.key"):
        (tmp_path / file).symlink_to(f"..data/{file}")
    one = Security(
        tls_ca_file=tmp_path / "ca.pem",
        tls_scheduler_cert=tmp_path / "tls.crt",
        tls_scheduler_key=tmp_path / "tls.key",
        tls_reload_interval=0,
    )
    server = server_context(one)
    for name, node in (("..2026_02", NEW), ("..2026_03", OLD)):
        release(name, node)
        outcome = shake(server, client_context(PEER))
        assert outcome.client.tls.getpeercert(binary_form=True) == node.der
    assert not warnings(caplog)


BREAKAGES: dict[str, tuple[Callable[[Folder], object], str]] = {
    "certificate cut short": (
        lambda folder: folder.write("worker.pem", NEW.pem[:300]),
        r"tls_worker_cert .*/worker\.pem\): no certificate in it",
    ),
    "key cut short": (
        lambda folder: folder.write("worker.key", NEW.key_pem[:60]),
        r"tls_worker_key .*/worker\.key\): no private key in it",
    ),
    "half of a CA bundle": (
        lambda folder: folder.write("ca.pem", OTHER_CA.pem + CA.pem[:200]),
        r"tls_ca_file .*/ca\.pem\): a PEM block in it is cut short; write the file again",
    ),
    "half of a chain": (
        lambda folder: folder.write("worker.pem", OLD.pem + CA.pem[:200]),
        r"tls_worker_cert .*: a PEM block in it is cut short",
    ),
    "empty": (lambda folder: folder.write("worker.pem", ""), "the file is empty"),
    "gone": (
        lambda folder: (folder.path / "ca.pem").unlink(),
        r"cannot read tls_ca_file .*no such file",
    ),
    "certificate without its key": (
        lambda folder: folder.replace("worker.pem", NEW.pem),
        "the private key does not belong to the first certificate",
    ),
    "key without its certificate": (
        lambda folder: folder.replace("worker.key", NEW.key_pem),
        "the private key does not belong to the first certificate",
    ),
    "not PEM": (lambda folder: folder.write("ca.pem", "hello"), "no certificate in it"),
    "a damaged CA": (
        lambda folder: folder.write("ca.pem", CA.pem.replace("MII", "AII", 1)),
        "a certificate in it is damaged",
    ),
}


@pytest.mark.parametrize("name", BREAKAGES)
def test_what_cannot_be_used_changes_nothing_and_is_warned_of_once(
    name: str, folder: Folder, caplog: pytest.LogCaptureFixture
) -> None:
    do, words = BREAKAGES[name]
    do(folder)
    for _ in range(2):
        assert folder.shows() == OLD.der
        assert folder.trusts(NEW)
        assert not folder.trusts(FOREIGN)
    (said,) = warnings(caplog)
    assert said.endswith("; until then TLS goes on with what was read before")
    with pytest.raises(PEMError, match=words) as caught:
        folder.security.reload()
    assert said.startswith(str(caught.value))
    assert folder.shows() == OLD.der
    # Once it is whole, it counts at once.
    folder.replace("ca.pem", CA.pem)
    folder.install(NEW)
    assert folder.shows() == NEW.der
    assert len(warnings(caplog)) == 1


def test_every_change_that_cannot_be_used_is_warned_of(
    folder: Folder, caplog: pytest.LogCaptureFixture
) -> None:
    for number, text in enumerate(("first", "second", "third"), 1):
        folder.write("ca.pem", text)
        assert folder.shows() == OLD.der
        assert folder.shows() == OLD.der
        assert len(warnings(caplog)) == number


def test_files_that_are_being_replaced_are_no_reason_to_warn(
    folder: Folder, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The key comes a moment after its certificate, while we look."""

    def slow(*args: Any) -> None:
        try:
            load(*args)
        except KeyMismatch:
            folder.replace("worker.key", NEW.key_pem)
            raise

    monkeypatch.setattr(reloading, "load", slow)
    folder.replace("worker.pem", NEW.pem)
    assert folder.shows() == NEW.der
    assert not warnings(caplog)


def test_back_to_what_was_there_is_no_change_but_a_new_break_is(
    folder: Folder, caplog: pytest.LogCaptureFixture
) -> None:
    for number in (1, 2):
        folder.write("ca.pem", "broken")
        assert folder.shows() == OLD.der
        folder.write("ca.pem", CA.pem)
        assert folder.shows() == OLD.der
        assert len(warnings(caplog)) == number
    assert folder.security.reload() == []


def test_a_ca_comes_and_goes(folder: Folder) -> None:
    """A rolling rotation: the old alone, both, the new alone."""
    assert folder.trusts(NEW)
    assert not folder.trusts(FOREIGN)
    folder.replace("ca.pem", CA.pem + OTHER_CA.pem)
    assert folder.trusts(NEW)
    assert folder.trusts(FOREIGN)
    assert folder.server.cert_store_stats()["x509_ca"] == 2
    folder.replace("ca.pem", OTHER_CA.pem)
    assert not folder.trusts(NEW)
    assert folder.trusts(FOREIGN)
    for context in (folder.server, folder.client):
        assert context.get_ca_certs(binary_form=True) == [OTHER_CA.der]


def test_files_are_looked_at_once_an_interval(tmp_path: Path) -> None:
    """Within it nothing is read: what has changed is seen only after it."""
    folder = Folder(tmp_path, tls_reload_interval=3600)
    folder.install(NEW)
    assert folder.shows() == OLD.der
    assert folder.security.reload() == ["tls_worker_cert", "tls_worker_key"]
    assert folder.shows() == NEW.der
    assert folder.security.reload() == []


def test_a_short_interval_passes(tmp_path: Path) -> None:
    folder = Folder(tmp_path, tls_reload_interval="50 ms")
    folder.install(NEW)
    began = time.monotonic()
    while server_certificate(folder) != NEW.der:
        assert time.monotonic() < began + 30


def server_certificate(folder: Folder) -> bytes | None:
    return shake(folder.server, client_context(PEER)).client.tls.getpeercert(binary_form=True)


def test_never_means_never(tmp_path: Path) -> None:
    folder = Folder(tmp_path, tls_reload_interval="never")
    folder.install(NEW)
    assert folder.shows() == OLD.der
    assert folder.security.reload() == ["tls_worker_cert", "tls_worker_key"]
    assert folder.shows() == NEW.der


def test_reload_by_hand_tells_what_is_wrong(folder: Folder) -> None:
    folder.replace("worker.key", NEW.key_pem)
    with pytest.raises(KeyMismatch, match="tls_worker_key"):
        folder.security.reload()
    folder.replace("worker.pem", NEW.pem)
    assert folder.security.reload() == ["tls_worker_cert", "tls_worker_key"]
    assert Security().reload() == []


def test_reload_goes_on_to_the_other_roles(tmp_path: Path) -> None:
    folder = Folder(tmp_path, tls_client_cert=tmp_path / "client.pem", tls_reload_interval=3600)
    folder.write("client.pem", OLD.pem + OLD.key_pem)
    client = client_context(folder.security, "client")
    folder.replace("worker.key", NEW.key_pem)
    folder.replace("client.pem", NEW.pem + NEW.key_pem)
    with pytest.raises(KeyMismatch):
        folder.security.reload()
    seen = shake(server_context(PEER), client).server.tls.getpeercert(binary_form=True)
    assert seen == NEW.der


def test_material_in_memory_is_never_looked_at_again() -> None:
    one = security(OLD, [CA], tls_reload_interval=0)
    context = server_context(one)
    assert shake(context, client_context(PEER)).accepted
    assert one.reload() == []
