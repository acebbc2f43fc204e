"""The table of what is changed in a process: applied, undone, and left to others."""

from __future__ import annotations

import gc
import threading
from types import SimpleNamespace
from typing import Any

import pytest
from distributed.comm import registry
from distributed.comm.registry import backends
from distributed.security import Security as Stock

from sealwire.dask_backend import adoption, connectors, install, installed, settings, uninstall
from sealwire.dask_backend.patches import _TABLE, Patch
from sealwire.security import Security as OwnSecurity
from support import certs

METHODS = ("get_connection_args", "get_listen_args")


class Base:
    inherited = "inherited"
    own = "own"


def made_of(there: Any) -> tuple[str, Any]:
    return ("ours", there)


@pytest.mark.parametrize("target", [{"own": "own"}, SimpleNamespace(own="own"), Base], ids=str)
def test_a_patch_is_applied_once_and_undone(target: Any) -> None:
    def value() -> Any:
        return target["own"] if isinstance(target, dict) else target.own

    patch = Patch(target, "own", made_of, "to see")
    for _ in range(2):
        patch.apply()
        assert value() == ("ours", "own")
    for _ in range(2):
        patch.undo()
        assert value() == "own"


def test_what_was_inherited_is_so_again() -> None:
    class Below(Base):
        pass

    patch = Patch(Below, "inherited", lambda _: "ours", "to see")
    patch.apply()
    assert Below.inherited == "ours"
    patch.undo()
    assert "inherited" not in vars(Below)
    assert Below.inherited == "inherited"


def test_what_other_code_has_put_there_since_stays() -> None:
    retired: list[Any] = []
    target = SimpleNamespace(own="own")
    patch = Patch(target, "own", made_of, "to see", retire=retired.append)
    patch.apply()
    ours = target.own
    target.own = theirs = ("theirs", ours)
    patch.apply()
    assert target.own is theirs
    patch.undo()
    assert target.own is theirs
    assert retired == [ours]
    patch.apply()
    assert target.own == ("ours", theirs)


def test_ours_comes_out_also_where_it_was_put_back_later() -> None:
    target = {"own": "own"}
    patch = Patch(target, "own", made_of, "to see")
    patch.apply()
    ours = target["own"]
    target["own"] = "theirs"
    patch.undo()
    assert target["own"] == "theirs"
    target["own"] = ours
    patch.undo()
    assert target["own"] == "own"


def test_every_line_says_why() -> None:
    for change in _TABLE:
        assert len(change.why.split()) > 3


@pytest.mark.parametrize("name", METHODS)
def test_a_method_wrapped_by_others_stays_theirs_and_gives_stocks(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ca = certs.root()
    node = certs.leaf(ca, "worker")
    pem = {"tls_ca_file": ca.pem, "tls_worker_cert": node.pem + node.key_pem}
    ours = getattr(Stock, name)
    uninstall()
    stock = getattr(Stock, name)
    install()
    ours = getattr(Stock, name)
    assert ours is not stock
    monkeypatch.setattr(Stock, name, lambda self, role: ours(self, role))
    theirs = getattr(Stock, name)
    assert "sealwire" in type(theirs(Stock(**pem), "worker")["ssl_context"]).__module__
    uninstall()
    assert getattr(Stock, name) is theirs
    assert type(theirs(Stock(**pem), "worker")["ssl_context"]).__module__ == "ssl"
    monkeypatch.setattr(Stock, name, stock)


def test_one_line_that_fails_leaves_none_applied(monkeypatch: pytest.MonkeyPatch) -> None:
    uninstall()
    before = dict(backends), registry.get_backend, dict(vars(Stock))

    def fail() -> None:
        raise OSError("no")

    monkeypatch.setattr(_TABLE[-1], "apply", fail)
    with pytest.raises(OSError, match="no"):
        install()
    assert (dict(backends), registry.get_backend, dict(vars(Stock))) == before
    assert not installed()


def test_from_several_threads_at_once() -> None:
    uninstall()
    before = dict(backends), registry.get_backend, dict(vars(Stock))
    start = threading.Barrier(4)

    def both() -> None:
        start.wait()
        for _ in range(20):
            install()
            uninstall()

    threads = [threading.Thread(target=both) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (dict(backends), registry.get_backend, dict(vars(Stock))) == before


def of_password(password: str) -> list[OwnSecurity]:
    gc.collect()
    return [
        each
        for each in gc.get_objects()
        if type(each) is OwnSecurity and each.tls_key_password == password
    ]


def test_uninstall_keeps_no_password(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor anything else that was kept to be quick."""
    ca = certs.root()
    node = certs.leaf(ca, "worker")
    encrypted = node.pem + node.encrypted_key_pem(b"open sesame")
    monkeypatch.setenv("DASK_SEALWIRE__TLS__KEY_PASSWORD", "open sesame")
    import dask

    with dask.config.set({"sealwire.tls.key-password": "open sesame"}):
        args = Stock(tls_ca_file=ca.pem, tls_worker_cert=encrypted).get_connection_args("worker")
    assert args.pop("ssl_context") is not None
    settings.limits()
    connectors.expect_spelled("connect()", ["xxx"])
    assert of_password("open sesame")
    uninstall()
    assert of_password("open sesame") == []
    assert not adoption._known
    assert not adoption._reported
    assert not adoption._home
    assert settings._made is None
    assert not connectors._ignored
