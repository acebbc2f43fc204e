"""Fixtures for the Dask backend's tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cloudpickle
import pytest

from sealwire.dask_backend import install, installed, uninstall
from sealwire.security.ca.authority import Authority
from support import certs_cli, observing
from support.parties import ROLES, Party

# Its functions run in processes that cannot import it.
cloudpickle.register_pickle_by_value(observing)


@pytest.fixture(autouse=True)
def registry() -> Iterator[None]:
    """Begin with ours, and leave distributed's registry as it was."""
    before = installed()
    install()
    yield
    (install if before else uninstall)()


@pytest.fixture(scope="session")
def authority() -> Authority:
    return Authority.create("cluster")


@pytest.fixture(scope="session")
def material(authority: Authority) -> dict[str, str]:
    """The TLS fields of a Security: one identity for each role, as PEM text."""
    return issue(authority)


def issue(authority: Authority) -> dict[str, str]:
    fields = {"tls_ca_file": authority.certificate}
    for role in ROLES:
        identity = authority.issue(role)
        fields[f"tls_{role}_cert"] = identity.certificate
        fields[f"tls_{role}_key"] = identity.key
    return fields


@pytest.fixture(scope="session")
def files(material: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """`material` as paths of files."""
    folder = tmp_path_factory.mktemp("identities")
    paths = {}
    for field, pem in material.items():
        path = folder / f"{field}.pem"
        path.touch(mode=0o600)
        path.write_text(pem)
        paths[field] = str(path)
    return paths


@pytest.fixture(scope="session")
def make_party(material: dict[str, str]) -> Callable[..., Party]:
    """``make_party(kind, scheme, **fields)``: a party with good certificates, or with `fields`."""

    def make(kind: str, scheme: str, **fields: Any) -> Party:
        return Party.of(kind, scheme, {**material, **fields})

    return make


@pytest.fixture(scope="session")
def foreign_material() -> dict[str, str]:
    """As `material`, of another CA with the same name."""
    return issue(Authority.create("cluster"))


@pytest.fixture(params=["tcp", "tls"])
def scheme(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=["stock", "ours"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def party(kind: str, scheme: str, make_party: Callable[..., Party]) -> Party:
    """Stock's backend and ours, over tcp and tls, in turn."""
    return make_party(kind, scheme)


@pytest.fixture
def ours(scheme: str, make_party: Callable[..., Party]) -> Party:
    return make_party("ours", scheme)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that ``sealwire certs init`` has made, for the tests of a file."""
    folder = tmp_path_factory.mktemp("cluster") / "certs"
    certs_cli.good("init", str(folder))
    return folder
