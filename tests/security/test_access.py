"""Files that others may change: the warning in the log, and who is not suspected."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import dask.config
import pytest

from sealwire.security import Security, config, permissions
from sealwire.security.permissions import weaknesses
from support import certs
from support.handshakes import client_context, server_context, shake

pytestmark = pytest.mark.usefixtures("nothing_told")
CA = certs.root()
NODE = certs.leaf(CA)
NAMES = ("ca.pem", "cert.pem", "key.pem", "crl.pem")


@pytest.fixture
def nothing_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(permissions, "_warned", set())


@pytest.fixture
def pki(tmp_path: Path) -> Path:
    """A folder with four files, each as private as it can be, below another."""
    folder = tmp_path / "above" / "pki"
    folder.mkdir(parents=True, mode=0o700)
    for name, text in zip(NAMES, (CA.pem, NODE.pem, NODE.key_pem, certs.crl(CA)), strict=True):
        (folder / name).touch(mode=0o600)
        (folder / name).write_text(text)
    return folder


def using(folder: Path, **fields: Any) -> Security:
    return Security(
        tls_ca_file=folder / "ca.pem",
        tls_worker_cert=folder / "cert.pem",
        tls_worker_key=folder / "key.pem",
        tls_crl_file=folder / "crl.pem",
        **fields,
    )


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if "can be changed by others" in r.getMessage()]


def warned(folder: Path, caplog: pytest.LogCaptureFixture) -> list[str]:
    """What is said when contexts of both sides are made, twice."""
    for _ in range(2):
        one = using(folder)
        server_context(one, "worker")
        client_context(one, "worker")
    return lines(caplog)


@pytest.mark.parametrize("mode", [0o400, 0o440, 0o444, 0o600, 0o640, 0o644, 0o755])
def test_permission_to_read_only_is_no_matter(
    mode: int, pki: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in NAMES:
        (pki / name).chmod(mode)
    assert warned(pki, caplog) == []


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("mode", "words"),
    [
        (0o666, "everybody may write it (mode 0666)"),
        (0o622, "everybody may write it (mode 0622)"),
        (0o602, "everybody may write it (mode 0602)"),
        (0o660, "its group may write it (mode 0660)"),
        (0o620, "its group may write it (mode 0620)"),
    ],
)
def test_a_file_that_others_may_write(
    name: str, mode: int, words: str, pki: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = pki / name
    path.chmod(mode)
    if os.name == "posix":  # elsewhere files have no such modes
        (said,) = warned(pki, caplog)
        assert f"({path}) can be changed by others: {words}; run: chmod go-w {path}" in said
        assert said.startswith("tls_")
    else:
        assert warned(pki, caplog) == []


@pytest.mark.parametrize("mode", [0o777, 0o707, 0o770, 0o722])
def test_a_folder_in_which_others_may_put_files(
    mode: int, pki: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pki.chmod(mode)
    (said,) = warned(pki, caplog)
    who = "everybody" if mode & 0o002 else "its group"
    assert f"of its folder {pki} {who} may put other files there (mode {mode:04o})" in said


def test_a_sticky_folder_is_none(pki: Path, caplog: pytest.LogCaptureFixture) -> None:
    pki.chmod(0o1777)
    pki.parent.chmod(0o1777)
    assert warned(pki, caplog) == []


@pytest.mark.parametrize(("mode", "said"), [(0o777, 1), (0o707, 1), (0o775, 0), (0o755, 0)])
def test_a_folder_further_up(
    mode: int, said: int, pki: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pki.parent.chmod(mode)
    assert len(warned(pki, caplog)) == said


def test_folders_behind_links_are_looked_at(
    pki: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Three links, one after the other, each in a folder of its own."""
    target = pki / "ca.pem"
    folders = []
    for number in range(3):
        folder = tmp_path / f"links{number}"
        folder.mkdir(mode=0o700)
        (folder / "link").symlink_to(os.path.relpath(target, folder))
        target = folder / "link"
        folders.append(folder)
    assert list(weaknesses(str(target))) == []
    for folder in (*folders, pki):
        folder.chmod(0o777)
        assert [weak.path for weak in weaknesses(str(target))] == [str(folder)]
        folder.chmod(0o700)


def test_a_link_round_in_circles_ends(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    assert list(weaknesses(str(tmp_path / "a"))) == []
    assert list(weaknesses(str(tmp_path / "not there"))) == []
    assert list(weaknesses("\x00")) == []


def kubernetes(path: Path) -> Path:
    """A secret as the kubelet mounts it with an fsGroup and `defaultMode: 0440`."""
    mount = path / "mount"
    data = mount / "..2026_11_28_12_00_00.123"
    data.mkdir(parents=True)
    for name, text in zip(NAMES, (CA.pem, NODE.pem, NODE.key_pem, certs.crl(CA)), strict=True):
        (data / name).write_text(text)
        (data / name).chmod(0o440)
        (mount / name).symlink_to(f"..data/{name}")
    (mount / "..data").symlink_to(data.name)
    data.chmod(0o2755)
    mount.chmod(0o3777)
    return mount


def test_a_secret_of_kubernetes_is_sound(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    mount = kubernetes(tmp_path)
    assert warned(mount, caplog) == []
    # The files are root's and the process is not; here root is who made them.
    if os.name == "posix":
        owner = os.geteuid()
        monkeypatch.setattr(os, "geteuid", lambda: 1000)
        if owner == 0:
            assert list(weaknesses(str(mount / "ca.pem"))) == []
        assert {weak.detail for weak in weaknesses(str(mount / "ca.pem"))} <= {str(owner)}


def test_what_belongs_to_another_user(
    pki: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root is trusted, and we are; nobody else."""

    def owned_by(number: int) -> list[str]:
        original = os.stat

        def stat_of(path: Any, **kwargs: Any) -> os.stat_result:
            status = original(path, **kwargs)
            if str(path) != str(pki / "ca.pem"):
                return status
            values = list(status)
            values[stat.ST_UID] = number
            return os.stat_result(values)

        with monkeypatch.context() as patch:
            patch.setattr(permissions.os, "stat", stat_of)
            return [weak.words for weak in weaknesses(str(pki / "ca.pem"))]

    if os.name == "posix":
        us = os.geteuid()
        assert owned_by(0) == owned_by(us) == []
        assert owned_by(us + 1234) == [f"it belongs to another user (number {us + 1234})"]
        assert list(weaknesses(str(pki / "ca.pem"), owners=frozenset({us}))) == []


def test_it_is_told_of_what_a_file_is_replaced_by(
    pki: Path, caplog: pytest.LogCaptureFixture
) -> None:
    one = using(pki, tls_reload_interval=0)
    server = server_context(one, "worker")
    assert lines(caplog) == []
    new = pki / "new"
    new.write_text(CA.pem + certs.root("another").pem)
    new.chmod(0o666)
    os.replace(new, pki / "ca.pem")
    one.reload()
    (said,) = lines(caplog)
    assert "tls_ca_file" in said
    assert shake(server, client_context(one, "worker")).accepted


def test_the_configuration(
    pki: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever writes it decides which files are trusted."""
    folder = tmp_path / "configuration"
    folder.mkdir(mode=0o755)
    for name, mode in (("a.yaml", 0o644), ("b.yml", 0o666), ("c.txt", 0o666), ("d.yaml", 0o664)):
        (folder / name).write_text("distributed: {}\n")
        (folder / name).chmod(mode)
    monkeypatch.setattr(dask.config, "paths", [str(folder), str(tmp_path / "not there")])
    assert [Path(each).name for each in config.files()] == ["a.yaml", "b.yml", "d.yaml"]
    (said,) = warned(pki, caplog)
    assert said.startswith(f"configuration ({folder / 'b.yml'}) can be changed by others: every")
