"""What a process says at its start: what protects it, or that nothing does."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask
import pytest
import yaml
from distributed import Client, Scheduler

from sealwire.comm import configure_gil
from sealwire.comm.transport import openssl
from sealwire.dask_backend import Security, install, preload, startup
from sealwire.dask_backend.guard import EncryptionRequired
from sealwire.security.config_files import named_in_vain
from support.parties import Party, asynchronous, echo
from support.processes import HANG, PRELOAD, Programs

MakeParty = Callable[..., Party]


@pytest.fixture(autouse=True)
def _nothing_said() -> None:
    install()
    startup.forget()


@pytest.fixture
def folder(made: Path) -> Path:
    return made


def written(path: Path, tree: dict[str, Any]) -> Path:
    path.write_text(yaml.safe_dump(tree))
    return path


# A DASK_CONFIG that names nothing


def relative(home: Path) -> tuple[str, str]:
    return "certs/dask.yaml", f"looked for as '{home}/certs/dask.yaml'), which does not exist"


def unexpanded(home: Path) -> tuple[str, str]:
    return "~/dask.yaml", f"looked for as '{home}/~/dask.yaml'), which does not exist"


@pytest.mark.parametrize(("make", "options"), [(unexpanded, PRELOAD), (relative, ())])
def test_a_process_names_a_configuration_that_is_not_there(
    make: Callable[[Path], tuple[str, str]],
    options: tuple[str, ...],
    forked: Programs,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    value, words = make(tmp_path)
    monkeypatch.setenv("DASK_CONFIG", value)
    program, address = forked.scheduler("tcp", *options)
    said = "".join(program.output)
    assert f"DASK_CONFIG names '{value}'" in said
    assert words in said
    if options:
        program.wait_for(f"Scheduler on {address} is plain: no TLS is configured")


def test_what_is_there_is_no_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = written(tmp_path / "any.name", {})
    (tmp_path / "folder").mkdir()
    written(tmp_path / "folder" / "x.yml", {})
    monkeypatch.chdir(tmp_path)
    for value in (str(file), "any.name", "folder", ""):
        monkeypatch.setenv("DASK_CONFIG", value)
        assert named_in_vain() is None
    monkeypatch.delenv("DASK_CONFIG")
    assert named_in_vain() is None


# Plain


PROTECTIONS: list[tuple[str, Any]] = [
    ("sealwire.tls.crl-file", "/nowhere/crl.pem"),
    ("sealwire.tls.allowed-peers", {"scheduler": ["worker"]}),
    ("distributed.comm.tls.worker.cert", "/nowhere/worker.pem"),
    ("distributed.comm.tls.ca-file", "/nowhere/ca.pem"),
]


def expect_refused(told: str) -> None:
    assert re.search("refusing tcp://.*--protocol tls", told), told
    assert "distributed.comm.require-encryption: true" in told
    assert "tls://127.0.0.1:0" not in told


@pytest.mark.parametrize(("key", "value"), PROTECTIONS)
@asynchronous
async def test_a_scheduler_does_not_start_plain_where_protection_is_configured(
    key: str, value: Any
) -> None:
    where = {"host": "127.0.0.1", "port": 0, "dashboard_address": "127.0.0.1:0"}
    with dask.config.set({key: value}):
        scheduler = Scheduler(preload=[PRELOAD[1]], **where)
        with pytest.raises(RuntimeError, match="failed to start") as failed:
            await scheduler
    assert isinstance(failed.value.__cause__, EncryptionRequired)
    expect_refused(str(failed.value.__cause__))


def test_nor_does_its_command(
    forked: Programs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree: dict[str, Any] = {}
    dask.config.set(dict(PROTECTIONS[2:3]), config=tree)
    monkeypatch.setenv("DASK_CONFIG", str(written(tmp_path / "dask.yaml", tree)))
    program = forked.start(
        "scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard",
        "--dashboard-address", "127.0.0.1:0", *PRELOAD,
    )  # fmt: skip
    expect_refused(program.wait_for("refusing tcp://.*")[0])
    assert program.process.wait(HANG) != 0


@asynchronous
async def test_plain_is_warned_of_once_unless_somebody_has_decided(
    caplog: pytest.LogCaptureFixture,
) -> None:
    where = {"host": "127.0.0.1", "port": 0, "dashboard_address": "127.0.0.1:0"}
    said: list[str] = []
    for decided, expected in ((False, 0), (None, 1), (None, 1)):
        with dask.config.set({"distributed.comm.require-encryption": decided}):
            async with Scheduler(preload=[PRELOAD[1]], **where):
                told = [each.getMessage() for each in caplog.records]
        said = [each for each in told if "is plain: no TLS" in each]
        assert len(said) == expected, told
    assert said[0].startswith("Scheduler on tcp://127.0.0.1:")
    async with (
        Scheduler(**where) as scheduler,
        Client(scheduler.address, asynchronous=True) as client,
    ):
        preload.dask_setup(client)
    assert any("Client on tcp://" in each.getMessage() for each in caplog.records)


# Protected


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"tls_min_version": 1.3}, "TLS 1.3, certificate CN=scheduler until "),
        ({"tls_max_version": 1.2}, "TLS 1.2, certificate CN=scheduler until "),
        ({}, "CRL off, allow-list off"),
        ({"tls_allowed_peers": ["worker"]}, "CRL off, allow-list on"),
    ],
)
@asynchronous
async def test_what_is_said(
    fields: dict[str, Any],
    words: str,
    material: dict[str, str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "sealwire.dask_backend")
    party = Party("ours", "tls", Security(**material, **fields))
    for _ in range(2):
        async with party.listen(echo) as listener:
            assert listener.contact_address
    (said,) = [
        each.getMessage() for each in caplog.records if "its own backend" in each.getMessage()
    ]
    assert words in said


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere it cannot be held")
@pytest.mark.parametrize("state", ["on", "off", "cannot"])
@asynchronous
async def test_whether_the_gil_is_held_is_said(
    state: str,
    material: dict[str, str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    caplog.set_level(logging.INFO, "sealwire.dask_backend")
    if state == "cannot":
        monkeypatch.setattr(openssl, "why_not", lambda: "no such Python")
    try:
        with dask.config.set({"sealwire.tls.hold-gil": state != "off"}):
            async with Party("ours", "tls", Security(**material)).listen(echo):
                pass
    finally:
        configure_gil()
    said = [words for each in caplog.records if "own backend" in (words := each.getMessage())]
    assert said[0].endswith("hold-gil on" if state == "on" else "hold-gil off")
