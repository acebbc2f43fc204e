"""Our defaults in Dask's configuration: below everything that is set, and installing nothing."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import dask
import pytest

from sealwire.cli import dask_hook
from sealwire.comm import Limits
from sealwire.dask_backend import defaults, settings
from sealwire.dask_backend.settings import apply_gil_policy, encryption_required, limits
from sealwire.security import ConfigError, Security, config, schema
from support import forking

PROGRAM = """
import json, os, sys
import dask
from distributed.security import Security
Security().get_connection_args("client")
loaded = [name for name in sys.modules if name.startswith("sealwire.dask")]
import sealwire.dask_backend
from sealwire.dask_backend import installed
from sealwire.dask_backend.settings import limits
Security().get_connection_args("client")
try:
    made = limits().backlog, limits().max_pending
except ValueError as error:
    made = str(error)
print(json.dumps([loaded, installed(), dask.config.get("sealwire"), made]))
"""


def run(tmp_path: Path, yaml: str, **variables: str) -> list[Any]:
    """What a process sees of a configuration file `sealwire.yaml` in its user's folder."""
    folder = tmp_path / "home/.config/dask"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sealwire.yaml").write_text(yaml)
    kept = {name: text for name, text in os.environ.items() if not name.startswith("DASK_")}
    environment = {**kept, "HOME": str(tmp_path / "home"), **variables}
    done = forking.run([sys.executable, "-c", PROGRAM], tmp_path, environment)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert isinstance(answer, list)
    return answer


def test_they_are_there_and_install_nothing(tmp_path: Path) -> None:
    """Nor do they in a child that is handed the whole configuration, as Dask does."""
    loaded, installed, there, made = run(tmp_path, "")
    assert (loaded, installed, there) == ([], False, schema.defaults()["sealwire"])
    assert made == [2048, Limits().max_pending]
    handed = dask.config.serialize({"sealwire": there})
    again = run(tmp_path, "", DASK_INTERNAL_INHERIT_CONFIG=handed)
    assert again == [[], False, there, made]


def test_what_is_set_counts(tmp_path: Path) -> None:
    yaml = "sealwire: {limits: {max_pending: 9, backlog: 8}, tls: {hold-gil: true}, gil: null}\n"
    loaded, installed, there, made = run(tmp_path, yaml, DASK_SEALWIRE__LIMITS__BACKLOG="7")
    assert loaded
    assert installed  # what equals the code's default is set nevertheless
    assert there["limits"]["backlog"] == 7
    assert "max-pending" not in there["limits"]
    assert there["limits"]["max-frames"] == Limits().max_frames
    assert there["gil"] == {"interval": None, "linger": None}
    assert made == [7, 9]


@pytest.mark.parametrize(
    ("there", "installs"),
    [
        (None, False),
        ({}, False),
        ({"crl-file": None, "allowed-peers": {"worker": None}, "key-password": {}}, False),
        ({"crl-file": ""}, True),
        ({"hold-gil": False}, True),
        ({"reload-interval": 0}, True),
        ({"allowed-peers": []}, True),
        ({"allowed-peers": {"worker": []}}, True),
        ({"crl_flie": "x"}, True),
        ("crl.pem", True),
        ([], True),
        (False, True),
    ],
)
def test_what_counts_as_set(there: Any, installs: bool) -> None:
    assert dask_hook.is_set(there) is schema.is_set(there) is installs


def test_they_are_added_once() -> None:
    before = len(dask.config.defaults)
    defaults.add()
    assert len(dask.config.defaults) == before
    assert [each for each in dask.config.defaults if each is schema.defaults()]


def test_they_require_no_encryption() -> None:
    assert dask.config.get("sealwire.tls") == schema.defaults()["sealwire"]["tls"]
    assert encryption_required({}) is False
    assert Security().fields()["tls_reload_interval"] is None


@pytest.mark.parametrize("wrong", [5, "crl.pem", ["crl-file"], True, ""])
@pytest.mark.parametrize("name", ["sealwire", "sealwire.tls", "sealwire.limits", "sealwire.gil"])
def test_what_is_no_mapping_is_kept_and_told(name: str, wrong: Any) -> None:
    """Dask's `update_defaults` would replace it in silence."""
    there = [each is schema.defaults() for each in dask.config.defaults].index(True)
    del dask.config.defaults[there]
    settings.forget()
    with dask.config.set({name: wrong}):
        defaults.add()
        assert dask.config.get(name) == wrong
        with pytest.raises(ConfigError, match=f"cannot use {name}: expected a mapping, got"):
            Security()
        with pytest.raises(ValueError, match=f"{name}: expected a mapping"):  # noqa: PT012
            limits()
            apply_gil_policy()
    assert limits() == Limits(backlog=limits().backlog)


def test_misspelt_limits_are_told_by_the_first_connection(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no certificate is configured, nothing else reads the configuration."""
    monkeypatch.setattr(config, "_reported", set())
    settings.forget()
    with dask.config.set({"sealwire.limits.max-quued": "1 MiB"}):
        limits()
        limits()
    told = [each for each in caplog.messages if "quued" in each]
    assert told == [
        "unknown configuration key sealwire.limits.max-quued is ignored; did you mean "
        "sealwire.limits.max-queued?"
    ]


@pytest.mark.parametrize("value", [None, "max_pending"])
def test_null_is_the_default(value: str | None) -> None:
    name = f"sealwire.limits.{value or 'max-pending'}"
    with dask.config.set({name: None}):
        assert limits().max_pending == Limits().max_pending
    with dask.config.set({name: 3}):
        assert limits().max_pending == 3
