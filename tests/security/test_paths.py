"""A path means what it meant when it was given; text and path are not taken for each other."""

from __future__ import annotations

import copy
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask.config
import distributed
import pytest

from sealwire.dask_backend import Security as DaskSecurity
from sealwire.dask_backend import install, uninstall
from sealwire.security import ConfigError, PEMError, Security
from sealwire.security.config import KEYS
from support import certs
from support.handshakes import client_context, security, server_context, shake

NAMES = ("tls_ca_file", "tls_scheduler_cert", "tls_crl_file")


class Place:
    """A folder with a cluster's files under `certs`, of a CA of its own."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.ca = certs.root(path.name)
        self.node = certs.leaf(self.ca, "scheduler")
        self.peer = security(certs.leaf(self.ca, "peer"), [self.ca])
        (path / "certs").mkdir(parents=True)
        self.write("ca.pem", self.ca.pem)
        self.write("scheduler.pem", self.node.pem + self.node.key_pem)
        self.write("crl.pem", certs.crl(self.ca))

    def write(self, name: str, text: str) -> None:
        path = self.path / "certs" / name
        path.touch(mode=0o600)
        path.write_text(text)

    def meets(self, context: Any) -> bool:
        return shake(context, client_context(self.peer)).accepted


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    place = Place(tmp_path / "home")
    monkeypatch.chdir(place.path)
    return place


@pytest.fixture
def elsewhere(tmp_path: Path) -> Place:
    return Place(tmp_path / "elsewhere")


FORMS: list[Callable[[str], Any]] = [
    lambda name: f"certs/{name}",
    lambda name: f"./certs//{name}",
    lambda name: f"certs/../certs/{name}",
    lambda name: Path("certs", name),
]


def given(form: Callable[[str], Any]) -> dict[str, Any]:
    files = ("ca.pem", "scheduler.pem", "crl.pem")
    return {name: form(file) for name, file in zip(NAMES, files, strict=True)}


def by_argument(values: dict[str, Any]) -> Any:
    return Security(**values, tls_reload_interval=0)


def by_assignment(values: dict[str, Any]) -> Any:
    one = Security(tls_reload_interval=0)
    for name, value in values.items():
        setattr(one, name, value)
    return one


def by_configuration(values: dict[str, Any]) -> Any:
    with dask.config.set({KEYS[name]: value for name, value in values.items()}):
        return Security(tls_reload_interval=0)


def for_dask(values: dict[str, Any]) -> Any:
    return DaskSecurity(**values, tls_reload_interval=0)


def by_pickle(values: dict[str, Any]) -> Any:
    return pickle.loads(pickle.dumps(by_argument(values)))


def by_copy(values: dict[str, Any]) -> Any:
    return copy.deepcopy(for_dask(values))


def by_fields(values: dict[str, Any]) -> Any:
    return Security(**by_argument(values).fields())


WAYS = [by_argument, by_assignment, by_configuration, for_dask, by_pickle, by_copy, by_fields]


FORM_NAMES = ["plain", "with dots", "up and down", "Path"]


@pytest.mark.parametrize(
    ("way", "form", "used"),
    [  # every two of them meet
        pytest.param(way, form, used, id=f"{way.__name__}-{name}-used {when}")
        for number, way in enumerate(WAYS)
        for place, (form, name) in enumerate(zip(FORMS, FORM_NAMES, strict=True))
        for used, when in [[(True, "before"), (False, "after")][(number + place) % 2]]
    ],
)
def test_another_working_folder_changes_nothing(
    way: Callable[[dict[str, Any]], Any],
    form: Callable[[str], Any],
    used: bool,
    home: Place,
    elsewhere: Place,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one = way(given(form))
    if used:
        assert home.meets(server_context(one))
    monkeypatch.chdir(elsewhere.path)
    if way is not by_configuration:
        one = pickle.loads(pickle.dumps(one))
    assert home.meets(server_context(one))
    assert not elsewhere.meets(server_context(one))
    one.reload()
    assert home.meets(server_context(one))
    assert not elsewhere.meets(server_context(one))
    # The files that are followed are those of the first folder.
    home.write("ca.pem", elsewhere.ca.pem)
    home.write("crl.pem", certs.crl(elsewhere.ca))
    one.reload()
    assert not home.meets(server_context(one))
    for name in NAMES:
        value = getattr(one, name)
        assert type(value) is str
        assert os.path.isabs(value)
        assert repr(value) in repr(one)


@pytest.fixture
def installed() -> Any:
    uninstall()
    install()
    yield
    uninstall()


def test_distributeds_own_security_keeps_its_paths(
    home: Place, elsewhere: Place, monkeypatch: pytest.MonkeyPatch, installed: None
) -> None:
    stock = distributed.Security(
        tls_ca_file="certs/ca.pem",
        tls_scheduler_cert="certs/scheduler.pem",
        require_encryption=True,
    )
    with dask.config.set({"sealwire.tls.crl-file": "certs/crl.pem"}):
        first = stock.get_listen_args("scheduler")["ssl_context"]
        assert home.meets(first)
        monkeypatch.chdir(elsewhere.path)
        second = stock.get_listen_args("scheduler")["ssl_context"]
        assert home.meets(second)
        assert not elsewhere.meets(second)
        assert not elsewhere.meets(pickle.loads(pickle.dumps(stock)).get_listen_args("scheduler")
                                   ["ssl_context"])  # fmt: skip


def test_a_link_is_followed_when_it_is_used(home: Place, elsewhere: Place) -> None:
    """`link/..` is the folder above the one that the link leads to."""
    os.symlink(elsewhere.path / "certs", home.path / "link")
    one = Security(
        tls_ca_file="link/../certs/ca.pem", tls_scheduler_cert="link/../certs/scheduler.pem"
    )
    assert elsewhere.meets(server_context(one))
    assert not home.meets(server_context(one))


@pytest.mark.parametrize("name", ["two\nlines", "-----BEGIN x-----", "carriage\rreturn", "ta\tb"])
def test_a_path_object_is_a_path_whatever_it_is_called(name: str, tmp_path: Path) -> None:
    place = Place(tmp_path / name)
    folder = place.path / "certs"
    one = Security(tls_ca_file=folder / "ca.pem", tls_scheduler_cert=folder / "scheduler.pem")
    for each in (one, pickle.loads(pickle.dumps(one)), Security(**one.fields())):
        assert place.meets(server_context(each))
        assert each.tls_ca_file == str(folder / "ca.pem")
    (folder / "ca.pem").unlink()
    with pytest.raises(PEMError) as caught:
        one.reload()
    assert "tls_ca_file (" in str(caught.value)
    assert str(caught.value).isprintable()
    assert repr(one).isprintable()


def test_an_empty_path_object_is_the_working_folder(home: Place) -> None:
    one = Security(tls_ca_file=Path(), tls_scheduler_cert=home.node.pem + home.node.key_pem)
    with pytest.raises(PEMError, match=r"tls_ca_file \(/.*/home\): it is a directory"):
        server_context(one)


def test_without_a_working_folder_a_path_must_be_absolute(
    tmp_path: Path, home: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    if os.name == "posix":  # elsewhere the folder that one is in cannot go
        gone.rmdir()
        with pytest.raises(ConfigError, match="tls_ca_file: it is a relative path, and there is"):
            Security(tls_ca_file="ca.pem")
    folder = home.path / "certs"
    one = Security(
        tls_ca_file=str(folder / "ca.pem"), tls_scheduler_cert=str(folder / "scheduler.pem")
    )
    assert home.meets(server_context(one))


@pytest.mark.parametrize("value", [b"ca.pem", 3, ["ca.pem"], object()])
def test_what_is_neither(value: Any) -> None:
    with pytest.raises(ConfigError, match="tls_ca_file: expected a path or PEM text as str, got"):
        Security(tls_ca_file=value)


class BytesPath:
    def __fspath__(self) -> bytes:
        return b"/etc/ca.pem"


def test_a_path_object_of_bytes_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="expected a path or PEM text as str, got bytes"):
        Security(tls_ca_file=BytesPath())
