"""Putting our backends in distributed's place, and taking them out again."""

from __future__ import annotations

import os
import pickle
import sys
from collections.abc import Callable
from pathlib import Path

import distributed.comm
import pytest
from distributed.comm import tcp as stock
from distributed.comm.registry import backends, get_backend

import sealwire.dask_backend
from sealwire.dask_backend import (
    Security,
    TCPBackend,
    TLSBackend,
    TLSConnector,
    TLSListener,
    install,
    installed,
    uninstall,
)
from support import forking
from support.parties import CLASSES, Party, asynchronous, pair, select

OURS = {"tcp": TCPBackend, "tls": TLSBackend}
STOCK = {"tcp": stock.TCPBackend, "tls": stock.TLSBackend}
SCHEMES = ("tcp", "tls")


def in_use() -> dict[str, type]:
    return {scheme: type(get_backend(scheme)) for scheme in SCHEMES}


def test_install_replaces_both_and_uninstall_brings_stock_back() -> None:
    uninstall()
    assert not installed()
    assert in_use() == STOCK
    install()
    assert installed()
    assert in_use() == OURS
    uninstall()
    assert not installed()
    assert in_use() == STOCK


def test_twice_is_as_good_as_once() -> None:
    install()
    first = [backends[scheme] for scheme in SCHEMES]
    install()
    assert [backends[scheme] for scheme in SCHEMES] == first
    uninstall()
    uninstall()
    assert in_use() == STOCK


def test_uninstall_leaves_a_backend_that_came_after_us(monkeypatch: pytest.MonkeyPatch) -> None:
    install()
    later = stock.TLSBackend()
    monkeypatch.setitem(backends, "tls", later)
    assert not installed()
    uninstall()
    assert backends["tls"] is later
    assert type(backends["tcp"]) is stock.TCPBackend


def test_a_backend_that_stood_there_before_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    uninstall()
    before = stock.TCPBackend()
    monkeypatch.setitem(backends, "tcp", before)
    install()
    assert installed()
    uninstall()
    assert backends["tcp"] is before


@asynchronous
async def test_new_comms_and_listeners_follow(
    kind: str, scheme: str, make_party: Callable[..., Party]
) -> None:
    """And what is open already goes on with the backend it has."""
    party = make_party(kind, scheme)
    async with pair(party) as (near, far):
        select("ours" if kind == "stock" else "stock")
        assert type(near) is type(far) is CLASSES[kind, scheme]
        await near.write({"still": "here"})
        assert await far.read() == {"still": "here"}


def test_every_class_has_the_name_that_users_know() -> None:
    names = {f"{s}{part}" for s in ("TCP", "TLS") for part in ("", "Backend", "Connector")}
    names |= {"TCPListener", "TLSListener", "Security", "install", "installed", "uninstall"}
    assert set(sealwire.dask_backend.__all__) == names
    for name in names:
        assert getattr(sealwire.dask_backend, name).__name__ == name
    assert TLSBackend._connector_class is TLSConnector
    assert TLSBackend._listener_class is TLSListener


def python(code: str, folder: Path) -> None:
    """Run `code` in a process whose path does not hold the repository, nor has it loaded Dask."""
    strict = "import warnings; warnings.simplefilter('error', ResourceWarning)\n"
    done = forking.run([sys.executable, "-c", strict + code], folder, dict(os.environ))
    assert done.returncode == 0, done.stderr


BACKEND_OF = """
from distributed.comm.registry import get_backend
def modules(): return {type(get_backend(scheme)).__module__ for scheme in ("tcp", "tls")}
"""
FOUND = "assert modules() == {'sealwire.dask_backend.backend'}, modules()"
STOCK_FOUND = "assert modules() == {'distributed.comm.tcp'}, modules()"


@pytest.mark.parametrize(
    "recipe",
    [
        "import sealwire.dask_backend.preload",
        "import distributed, sealwire.dask_backend.preload",
        "from distributed.comm import connect; import sealwire.dask_backend.preload",
    ],
)
def test_what_installs(recipe: str, tmp_path: Path) -> None:
    python("\n".join([recipe, BACKEND_OF, FOUND]), tmp_path)


def test_what_installs_when_it_is_called(tmp_path: Path) -> None:
    """Each in a process that speaks stock."""
    code = ["import sealwire.dask_backend as package", BACKEND_OF]
    for call in ("install()", "Security()", "Security.temporary()"):
        code += [STOCK_FOUND, f"package.{call}", FOUND, "package.uninstall()"]
    python("\n".join(code), tmp_path)


def test_unpickling_a_security_installs(tmp_path: Path) -> None:
    pickled = pickle.dumps(Security())
    python("\n".join([f"import pickle; pickle.loads({pickled!r})", BACKEND_OF, FOUND]), tmp_path)


STATE = """
import logging
from distributed import Security
from distributed.comm import registry, tcp
def state():
    loggers = map(logging.getLogger, ("sealwire", "distributed"))
    return (
        dict(registry.backends), registry.get_backend, dict(vars(Security)),
        dict(vars(tcp)), dict(vars(tcp.TCP)), [sub for sub in Security.__subclasses__()],
        [(each.level, each.handlers[:], each.filters[:], each.propagate) for each in loggers],
    )
"""
IMPORT_ALL = """
import importlib, pkgutil
import sealwire.dask_backend as package
names = [each.name for each in pkgutil.iter_modules(package.__path__) if each.name != "preload"]
assert {"backend", "links", "patches", "security", "settings"} <= set(names), names
for name in names:
    importlib.import_module(f"sealwire.dask_backend.{name}")
"""


def test_importing_changes_nothing_and_uninstall_leaves_nothing_behind(tmp_path: Path) -> None:
    """Of the subclasses of distributed's Security ours is one more."""
    check = """
after = state()
assert after[:5] == before[:5] and after[6] == before[6]
assert [kind.__module__ for kind in after[5]] == ["sealwire.dask_backend.security"]
assert not issubclass(package.TCP, tcp.TCP)
"""
    undone = """
package.install()
assert issubclass(package.TCP, tcp.TCP)
changed = state()
for part in (0, 1, 2, 6):
    assert changed[part] != after[part], part
package.uninstall()
assert state() == after
"""
    code = [STATE, "before = state()", IMPORT_ALL, check, BACKEND_OF, STOCK_FOUND, undone]
    python("\n".join(code), tmp_path)


def test_stock_comes_back_where_nothing_used_it_before(tmp_path: Path) -> None:
    undo = "sealwire.dask_backend.uninstall()"
    python(
        "\n".join(["import sealwire.dask_backend.preload", BACKEND_OF, undo, STOCK_FOUND]), tmp_path
    )


def test_the_other_packages_leave_dask_alone(tmp_path: Path) -> None:
    """Only the Dask backend installs itself; a process without it speaks stock."""
    packages = "import sealwire.comm, sealwire.security"
    python("\n".join([packages, BACKEND_OF, STOCK_FOUND]), tmp_path)


def test_distributed_finds_no_trace_of_us_by_itself(tmp_path: Path) -> None:
    """But for the module that waits for a configuration."""
    code = "import sys, distributed"
    none = (
        "found = {name for name in sys.modules if name.startswith('sealwire')}\n"
        "assert found <= {'sealwire', 'sealwire.cli', 'sealwire.cli.dask_hook'}, found"
    )
    python("\n".join([code, none, BACKEND_OF, STOCK_FOUND]), tmp_path)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_connector_and_listener_come_from_the_backend(scheme: str) -> None:
    install()
    backend = get_backend(scheme)
    connector, listener = backend._connector_class, backend._listener_class
    assert type(backend.get_connector()) is connector
    assert issubclass(connector, distributed.comm.core.Connector)
    assert issubclass(listener, distributed.comm.core.BaseListener)
    assert connector.prefix == listener.prefix == f"{scheme}://"
    assert connector.comm_class is listener.comm_class is CLASSES["ours", scheme]
