"""`~` and `$NAME` in paths of configuration, environment and `str` arguments; not in a Path."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask.config
import pytest

from sealwire.dask_backend import Security as DaskSecurity
from sealwire.security import ConfigError, PEMError, Security, config
from sealwire.security.config import KEYS
from support import certs
from support.handshakes import client_context, security, server_context, shake

CA = certs.root()
NODE = certs.leaf(CA, "scheduler")
PEER = security(certs.leaf(CA, "peer"), [CA])
NAMES = ("tls_ca_file", "tls_scheduler_cert", "tls_scheduler_key", "tls_crl_file")
FILES = ("ca.pem", "scheduler.pem", "scheduler.key", "crl.pem")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "somebody" / "certs"
    folder.mkdir(parents=True)
    texts = (CA.pem, NODE.pem, NODE.key_pem, certs.crl(CA))
    for name, text in zip(FILES, texts, strict=True):
        (folder / name).touch(mode=0o600)
        (folder / name).write_text(text)
    monkeypatch.setenv("HOME", str(folder.parent))
    monkeypatch.setenv("PART", "certs")
    monkeypatch.setenv("CERTS_1", str(folder))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return folder


FORMS = ["~/certs", "$HOME/certs", "${HOME}/certs", "$CERTS_1", "${CERTS_1}", "~/$PART",
         "~/x/../${PART}", "$HOME/./$PART/"]  # fmt: skip


def by_argument(values: dict[str, Any]) -> Any:
    return Security(**values)


def by_assignment(values: dict[str, Any]) -> Any:
    one = Security()
    for name, value in values.items():
        setattr(one, name, value)
    return one


def by_configuration(values: dict[str, Any]) -> Any:
    with dask.config.set({KEYS[name]: value for name, value in values.items()}):
        return Security()


def for_dask(values: dict[str, Any]) -> Any:
    return DaskSecurity(**values)


WAYS = [by_argument, by_assignment, by_configuration, for_dask]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
@pytest.mark.parametrize("form", FORMS)
def test_a_form(way: Callable[[dict[str, Any]], Any], form: str, home: Path) -> None:
    if "/x/" in form:
        (home.parent / "x").mkdir()
    one = way({name: f"{form}/{file}" for name, file in zip(NAMES, FILES, strict=True)})
    assert os.path.samefile(one.tls_ca_file, home / "ca.pem")
    for same in (one, pickle.loads(pickle.dumps(one))):
        assert shake(server_context(same), client_context(PEER)).accepted


def test_a_process_with_a_file_and_with_variables(home: Path) -> None:
    """With a file also distributed's own class, while our backends are installed.

    Each form names one file.
    """
    in_dask = (
        "import sealwire.dask_backend as b, distributed\n"
        "b.install()\n"
        "kinds = b.Security, distributed.Security\n"
    )
    without = "from sealwire.security import Security\nkinds = [Security]\n"
    code = (
        "for kind in kinds:\n"
        "    context = kind().get_listen_args('scheduler')['ssl_context']\n"
        "    print(type(context).__name__, len(context.get_ca_certs()))\n"
    )
    clean = {name: value for name, value in os.environ.items() if not name.startswith("DASK_")}
    file = home.parent / "dask.yaml"
    paths = [f"{form}/{name}" for form, name in zip(FORMS[:4], FILES, strict=True)]
    ca, cert, key, crl = paths
    file.write_text(
        "distributed:\n  comm:\n    tls:\n"
        f"      ca-file: {ca}\n"
        f"      scheduler: {{cert: '{cert}', key: '{key}'}}\n"
        f"sealwire: {{tls: {{crl-file: '{crl}'}}}}\n"
    )
    variables = {
        "DASK_" + KEYS[name].replace(".", "__").replace("-", "_").upper(): path
        for name, path in zip(NAMES, paths, strict=True)
    }
    starts = ((in_dask, {"DASK_CONFIG": str(file)}, 2), (without, variables, 1))
    for imports, settings, kinds in starts:
        done = subprocess.run(
            [sys.executable, "-c", imports + code],
            env={**clean, **settings},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.stdout.split() == ["FollowingContext", "1"] * kinds, done.stderr


@pytest.mark.parametrize("name", ["~", "$HOME", "${HOME}", "$NOBODY", "a$HOME", "~root"])
def test_what_exists_as_it_stands_is_meant(name: str, home: Path) -> None:
    folder = Path.cwd() / name
    folder.mkdir()
    (folder / "ca.pem").write_text(CA.pem)
    one = Security(tls_ca_file=f"{name}/ca.pem")
    assert one.tls_ca_file == str(folder / "ca.pem")
    assert pickle.loads(pickle.dumps(one)).tls_ca_file == one.tls_ca_file
    assert Security(**one.fields()).tls_ca_file == one.tls_ca_file


@pytest.mark.parametrize("name", ["~/certs", "$HOME", "${HOME}"])
def test_a_path_object_is_taken_as_it_is(name: str, home: Path) -> None:
    one = Security(tls_ca_file=Path(name, "ca.pem"))
    assert one.tls_ca_file == str(Path.cwd() / name / "ca.pem")
    assert pickle.loads(pickle.dumps(one)).tls_ca_file == one.tls_ca_file


@pytest.mark.parametrize(
    "form", ["$NOT_SET/ca.pem", "${NOT_SET}/ca.pem", "~/$NOT_SET", "a$NOT_SET"]
)
def test_a_variable_that_is_not_set(form: str, home: Path) -> None:
    words = "the variable NOT_SET in it is not set; set it, or write it out"
    with pytest.raises(ConfigError, match=f"cannot use tls_ca_file: {words}"):
        Security(tls_ca_file=form)
    with (
        dask.config.set({KEYS["tls_ca_file"]: form}),
        pytest.raises(ConfigError, match=f"cannot use {KEYS['tls_ca_file']}: {words}"),
    ):
        config.read()


@pytest.mark.parametrize("form", ["~/ca.pem", "~", "~nobody-of-this-name/ca.pem"])
def test_a_home_that_nobody_knows(form: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container whose user is a number."""
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(os, "getuid", lambda: 2**31 - 7)
    with pytest.raises(ConfigError, match="the home that ~ stands for in it is not known; set HO"):
        Security(tls_ca_file=form)


@pytest.mark.parametrize("form", ["cost$/ca.pem", "$/ca.pem", "ca.pem$", "a~b/ca.pem", "$$"])
def test_other_dollars_and_tildes_are_letters(form: str, home: Path) -> None:
    one = Security(tls_ca_file=form)
    assert one.tls_ca_file == str(Path.cwd() / form)
    assert "ca_file" in repr(one)


def test_pem_text_is_not_expanded(home: Path) -> None:
    one = Security(tls_ca_file="# $HOME and ~\n" + CA.pem, tls_scheduler_cert=NODE.pem,
                   tls_scheduler_key=NODE.key_pem)  # fmt: skip
    assert "$HOME" in str(one.tls_ca_file)
    assert shake(server_context(one), client_context(PEER)).accepted
    with pytest.raises(PEMError, match=r"no such file"):
        server_context(Security(tls_ca_file="~/gone.pem", tls_scheduler_cert=NODE.pem,
                                tls_scheduler_key=NODE.key_pem))  # fmt: skip
